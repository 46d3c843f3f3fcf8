"""What can be moved in a robosuite scene, and which of it is nearest to the hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco

_REACH_M = 1.2
"""From the base: what is farther off was put away."""


class Things:
    """The bodies of a compiled scene that hang on nothing, by their names: "milk_1", "cubeA"."""

    def __init__(self, model: Any) -> None:
        free = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE]
        self.bodies = [int(model.jnt_bodyid[j]) for j in free]
        self.names = [model.body(body).name.removesuffix("_main") for body in self.bodies]
        self.qpos = np.array([model.jnt_qposadr[j] for j in free], int)
        """(n,) where the position of each begins in qpos; its orientation follows."""
        root = model.body_rootid[model.geom_bodyid]
        self.geoms = np.flatnonzero(np.isin(root, self.bodies))
        """Of all of them."""
        solid = self.geoms[(model.geom_contype[self.geoms] != 0) | (model.geom_conaffinity[self.geoms] != 0)]
        self._solid, self._owner = solid, [self.bodies.index(int(root[g])) for g in solid]
        self._middle, self._half = model.geom_aabb[solid, :3].copy(), model.geom_aabb[solid, 3:].copy()

    def body(self, name: str) -> int:
        """MuJoCo's number of a thing's body."""
        return self.bodies[self.names.index(name)]

    def within_reach(self, qpos: Doubles, base: Doubles) -> dict[str, Doubles]:
        """Name -> (3,) place [m] of what is near the robot's base: robosuite puts far away what a task does not use."""
        places = {name: qpos[i : i + 3].copy() for name, i in zip(self.names, self.qpos, strict=True)}
        return {name: place for name, place in places.items() if np.hypot(*(place - base)[:2]) < _REACH_M}

    def nearest(self, data: Any, point: Doubles) -> tuple[str, float]:
        """The thing nearest to a point in the world, and how far its solid parts' boxes are from it [m]."""
        if not len(self._solid):
            return "", np.inf
        turn = data.geom_xmat[self._solid].reshape(-1, 3, 3)
        local = np.einsum("nji,nj->ni", turn, point - data.geom_xpos[self._solid]) - self._middle
        away = np.linalg.norm(np.maximum(np.abs(local) - self._half, 0.0), axis=1)
        closest = int(away.argmin())
        return self.names[self._owner[closest]], float(away[closest])
