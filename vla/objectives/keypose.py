"""Predict, from the memory alone, where the tool will be when the gripper next changes.

Claims: on the tabletop, a prototype went from 25% to 85% success at 60 core-seconds of training.
Paper: keyposes as targets, C2F-ARM (arXiv 2106.12534), PerAct (arXiv 2209.05451).
Implemented: L1 on the displacement from the tool's position now to its position at the next gripper change (or the
    episode's end), for the dimensions given.
Differs: an auxiliary loss on the encoder; the head that acts does not see it.
Cost: one linear layer while training, nothing at run time.
Measured: `vla bench demo`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vla.data.cache import Cache
from vla.errors import BadConfig
from vla.layers import Pool
from vla.modules import Memory
from vla.modules import Objective as ObjectiveProtocol
from vla.spec import Spec
from vla.types import Floats


@dataclass(frozen=True)
class Config:
    """Settings of the keypose objective."""

    position: tuple[str, ...] = ("tool_x", "tool_y")
    """State dimensions whose value at the keypose is predicted."""
    scale: float = 0.1
    """Displacement [units of the state] that counts as 1 in the loss."""


class Objective(ObjectiveProtocol):
    """A linear read-out of the memory."""

    def __init__(self, config: Config, spec: Spec, width: int) -> None:
        super().__init__()
        states = [d.name for d in spec.state]
        if missing := [n for n in config.position if n not in states]:
            raise BadConfig(
                f"objective keypose: the state has no {missing}, it has {states}; train with --objective None"
            )
        if (count := len(spec.gripper_actions)) != 1:
            raise BadConfig(
                f"objective keypose: needs one gripper action, the spec has {count}; train with --objective None"
            )
        self.config = config
        self.columns = [states.index(n) for n in config.position]
        self.gripper = spec.gripper_actions[0]
        self.pool = Pool(width)
        self.out = nn.Linear(width, len(config.position))

    def targets(self, cache: Cache) -> Floats:
        """(T, len(position)) displacement to the next keypose, in units of `scale`."""
        position = cache.state[:, self.columns]
        last = cache.last_of_episode()
        grip = cache.action[:, self.gripper]
        middle = (grip.min() + grip.max()) / 2
        opens = grip > middle
        keypose = last.copy()
        for i in range(len(cache) - 2, -1, -1):
            if i < last[i]:
                keypose[i] = i + 1 if opens[i + 1] != opens[i] else keypose[i + 1]
        return ((position[keypose] - position) / self.config.scale).astype(np.float32)

    def loss(self, memory: Memory, targets: Tensor) -> Tensor:
        """Mean absolute error."""
        return torch.nn.functional.l1_loss(self.out(self.pool(memory)), targets)
