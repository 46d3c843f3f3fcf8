"""A policy for tests, behind the entry point `fake`: lifts the tool by a millimetre a step and writes down what it saw.

Its name says how it behaves: `fake:FOLDER`, where FOLDER/spec.json is its spec and FOLDER/seen.jsonl what it saw.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import UnknownInstruction, UnknownName
from vla.spec import Spec
from vla.types import Floats, Observation, Verdict

STEP_M = 0.001


class FakePolicy:
    """Knows any instruction but "sing"; breaks on "break"."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UnknownName(f"no policy at {str(folder)!r}")
        self.spec = Spec.load(folder / "spec.json")
        self._seen = folder / "seen.jsonl"

    def encode(self, observations: Sequence[Observation]) -> None:
        (observation,) = observations
        if observation.instruction == "sing":
            raise UnknownInstruction("instruction 'sing': never trained on it")
        if len(observation.instruction) > 2000:
            raise UnknownInstruction(f"instruction has {len(observation.instruction)} characters")
        if observation.instruction == "break":
            raise RuntimeError("the engine broke")
        shapes = {name: image.shape for name, image in observation.images.items()}
        row = {"stamp_ns": observation.stamp_ns, "state": observation.state.tolist(), "images": shapes}
        with self._seen.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def propose(self, memory: None, noise: Floats) -> tuple[Floats, Floats | None]:
        actions = np.zeros_like(noise)
        actions[..., 2] = STEP_M
        return actions, None

    def verifier(self, name: str) -> Any:
        return RefuseAll()


class RefuseAll:
    """A verifier that likes nothing."""

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        return [Verdict(np.zeros(actions.shape[1], np.float32), None, "none is good enough") for _ in observations]


def load(folder: str) -> FakePolicy:
    """The entry point."""
    return FakePolicy(Path(folder))
