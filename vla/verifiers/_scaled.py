"""A verifier whose scores were calibrated: it also says how likely success is. Not a verifier by itself."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from vla.errors import BadCheckpoint
from vla.modules import Batch, Memory, Scores, Verifier


class Scaled(Verifier):
    """p_success = sigmoid(slope · score + offset), the score bent to its logarithm where the scale says so.

    Monotone, so the choice stays the same.
    """

    def __init__(self, verifier: Verifier, scale: Any, where: str) -> None:
        """`scale` is JSON from beside the weights. Raises BadCheckpoint when it is no scale."""
        super().__init__()
        self.verifier, self.n_action_steps = verifier, verifier.n_action_steps
        try:
            self.slope, self.offset = float(scale["slope"]), float(scale["offset"])
            self.bend = None if scale.get("bend") is None else float(scale["bend"])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BadCheckpoint(
                f"{where}: its scale lacks or misshapes {error}; run `vla calibrate verifier`"
            ) from error
        positive = (self.slope, 1.0 if self.bend is None else self.bend)
        if not (math.isfinite(self.offset) and all(math.isfinite(v) and v > 0 for v in positive)):
            raise BadCheckpoint(
                f"{where}: a scale of slope {self.slope}, offset {self.offset}, bend {self.bend} is none"
            )

    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """The verifier's scores, and the probabilities that they stand for."""
        scores = self.verifier.score(batch, memory, actions).scores
        bent = scores
        if self.bend is not None:  # asinh, in operations that every engine has
            x = scores / self.bend
            bent = x.sign() * (x.abs() + (x.square() + 1).sqrt()).log()
        return Scores(scores, (self.slope * bent + self.offset).sigmoid())
