"""A verifier whose scores were calibrated: it also says how likely success is. Not a verifier by itself."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from vla.errors import BadCheckpoint
from vla.modules import Batch, Memory, Scores, Verifier


class Scaled(Verifier):
    """p_success = sigmoid(slope · score + offset); monotone, so the choice stays the same."""

    def __init__(self, verifier: Verifier, scale: Any, where: str) -> None:
        """`scale` is JSON from beside the weights. Raises BadCheckpoint when it is no scale."""
        super().__init__()
        self.verifier = verifier
        self.config = getattr(verifier, "config", None)
        try:
            self.slope, self.offset = float(scale["slope"]), float(scale["offset"])
        except (TypeError, KeyError, ValueError) as error:
            raise BadCheckpoint(
                f"{where}: its scale lacks or misshapes {error}; run `vla calibrate verifier`"
            ) from error
        if not (math.isfinite(self.slope) and math.isfinite(self.offset) and self.slope > 0):
            raise BadCheckpoint(f"{where}: a scale of slope {self.slope} and offset {self.offset} is none")

    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """The verifier's scores, and the probabilities that they stand for."""
        scores = self.verifier.score(batch, memory, actions).scores
        return Scores(scores, (self.slope * scores + self.offset).sigmoid())
