"""The values of the spine are frozen: what was decided is what is logged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import vla
from vla.types import ActionChunk, Candidates, Command, Decision, Mode, Observation, Verdict

OBSERVATION = Observation({"agent": np.zeros((2, 2, 3), np.uint8)}, np.zeros(1, np.float32), "go")
CHUNK = ActionChunk(np.zeros((4, 2), np.float32), t0_ns=5, dt_ns=10)
VERDICT = Verdict(np.zeros(1, np.float32), None, "unsure")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (OBSERVATION, "instruction"),
        (CHUNK, "t0_ns"),
        (VERDICT, "best"),
        (Candidates(np.zeros((1, 4, 2), np.float32)), "actions"),
        (Command(np.zeros(2, np.float32), 0, 1, Mode.HOLD), "mode"),
        (Decision(OBSERVATION, Candidates(np.zeros((1, 4, 2), np.float32)), VERDICT, None), "chunk"),
    ],
)
def test_values_cannot_be_changed(value: object, field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)


def test_values_holding_arrays_compare_by_identity() -> None:
    """`==` on arrays is elementwise; a generated __eq__ would raise on the first comparison."""
    assert OBSERVATION == OBSERVATION
    assert dataclasses.replace(CHUNK) != CHUNK


def test_what_the_library_promises_at_the_top_is_there() -> None:
    assert all(hasattr(vla, name) for name in vla.__all__)
