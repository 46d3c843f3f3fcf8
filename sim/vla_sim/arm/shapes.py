"""Where things are and what touches what, from a compiled scene: the geometry that scripted experts reason with."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco

_MOST_VERTICES = 200
"""Of each mesh that are looked at."""
_SPACING_M = 0.015
"""Of the points that stand for the surface of a box."""
_MOST_POINTS = 24
"""Along an edge."""


class Shapes:
    """Points on the collision geometry of a scene; all results are in the world frame [m]."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._clouds: dict[int, list[tuple[int, Doubles]]] = {}
        self._parts: dict[int, list[tuple[int, Doubles]]] = {}
        self._surfaces: list[tuple[int, Doubles]] | None = None
        self._others: dict[int | None, list[tuple[int, Doubles]]] = {}
        self._fingers = tuple(
            {i for i in range(model.nbody) if any(part in model.body(i).name for part in parts)}
            for parts in (("gripper0_leftfinger", "gripper0_finger_joint1"), ("rightfinger", "gripper0_finger_joint2"))
        )

    def cloud(self, data: Any, body: int) -> Doubles:
        """(n, 3) corners and vertices of a body and all that hangs on it."""
        if body not in self._clouds:
            geoms = [g for g in self._solid() if self._belongs(g, body)]
            self._clouds[body] = [(g, self._vertices(g)) for g in geoms]
        return _placed(data, self._clouds[body])

    def parts(self, data: Any, body: int) -> list[Doubles]:
        """Of each solid part of a body and of what hangs on it (n, 3) points on its surface."""
        if body not in self._parts:
            self._parts[body] = [(g, self._surface(g)) for g in self._solid() if self._belongs(g, body)]
        return [_placed(data, [part]) for part in self._parts[body]]

    def obstacles(self, data: Any, body: int | None = None) -> Doubles:
        """(n, 3) points on everything the hand could hit: not the robot, the table, the floor, or `body`."""
        if self._surfaces is None:
            self._surfaces = [(g, self._surface(g)) for g in self._solid() if self._is_obstacle(g)]
        if body not in self._others:
            others = [(g, points) for g, points in self._surfaces if body is None or not self._belongs(g, body)]
            self._others[body] = others
        return _placed(data, self._others[body])

    def fingers_on(self, data: Any, body: int) -> int:
        """How many of the two fingers touch a body, or what hangs on it."""
        pairs = self._model.geom_bodyid[data.contact.geom]
        touched: set[int] = set()
        for one, other in [*pairs, *pairs[:, ::-1]]:
            if self._is_part(int(other), body):
                touched |= {i for i, finger in enumerate(self._fingers) if int(one) in finger}
        return len(touched)

    def _solid(self) -> list[int]:
        model = self._model
        collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        return [int(g) for g in np.flatnonzero(collides & (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE))]

    def _is_obstacle(self, geom: int) -> bool:
        model = self._model
        body = model.geom_bodyid[geom]
        name = model.body(body).name + " " + model.geom(geom).name
        is_robot = any(part in name for part in ("robot0", "gripper0", "mount"))
        return not is_robot and body != 0 and not any(part in name for part in ("table", "floor", "wall"))

    def _belongs(self, geom: int, body: int) -> bool:
        return self._is_part(int(self._model.geom_bodyid[geom]), body)

    def _is_part(self, part: int, body: int) -> bool:
        while part > body:
            part = int(self._model.body_parentid[part])
        return part == body

    def _vertices(self, geom: int) -> Doubles:
        model = self._model
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            return self._mesh(geom)
        middle, half = model.geom_aabb[geom][:3], model.geom_aabb[geom][3:]
        signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
        corners: Doubles = signs * half + middle
        return corners

    def _surface(self, geom: int) -> Doubles:
        model = self._model
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            return self._mesh(geom)
        middle, half = model.geom_aabb[geom][:3], model.geom_aabb[geom][3:]
        counts = np.clip(2 * half / _SPACING_M, 2, _MOST_POINTS).astype(int)
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
        on_it: Doubles = grid[(np.abs(grid) > 0.99).any(1)] * half + middle
        return on_it

    def _mesh(self, geom: int) -> Doubles:
        model, mesh = self._model, self._model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices: Doubles = model.mesh_vert[first : first + count : max(1, count // _MOST_VERTICES)].astype(np.float64)
        return vertices


def _placed(data: Any, shapes: list[tuple[int, Doubles]]) -> Doubles:
    if not shapes:
        return np.zeros((0, 3))
    return np.concatenate([v @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g] for g, v in shapes])
