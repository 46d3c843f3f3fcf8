"""B observations -> the arrays a model takes, and a model's scores -> B verdicts. Shared by torch and every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.spec import Spec
from vla.tokenizers.words import WordTokenizer
from vla.types import Floats, Observation, Verdict


def stack(spec: Spec, tokenizer: WordTokenizer, observations: Sequence[Observation]) -> dict[str, npt.NDArray[Any]]:
    """`image_<camera>` (B, h, w, 3) uint8, `state` (B, S) float32, `tokens` (B, L) int64.

    These names are the inputs of the exported graphs.

    Raises:
        UnknownInstruction: an instruction has words the policy never saw.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        f"image_{c.name}": np.stack([o.images[c.name] for o in observations]) for c in spec.cameras
    }
    arrays["state"] = np.stack([o.state for o in observations])
    arrays["tokens"] = np.stack([tokenizer.encode(o.instruction) for o in observations])
    return arrays


def verdicts(scores: Floats, p_success: Floats | None = None) -> list[Verdict]:
    """(B, N) scores -> the best candidate of each row. A row that is not finite refuses."""
    found = []
    for i, row in enumerate(scores):
        p = None if p_success is None else p_success[i]
        if np.isfinite(row).all():
            found.append(Verdict(row, int(row.argmax()), "highest score", p))
        else:
            found.append(Verdict(row, None, "the verifier's scores are not finite", p))
    return found
