"""What a compiled scene wears in one episode: its light, its surface, where the camera stands, how objects look.

Environments of a process share one model of a scene, so an episode that looks different puts its dress on before
anything is drawn or moved, and the next one takes it off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_sim.arm.things import Things
from vla_sim.panda import Doubles
from vla_sim.rendering import Solid, mujoco

_FIELDS = (
    "light_ambient",
    "light_diffuse",
    "light_specular",
    "geom_matid",
    "geom_rgba",
    "geom_size",
    "geom_rbound",
    "geom_aabb",
    "cam_pos",
    "cam_quat",
)
"""What a dress may change of a model."""
_HEADLIGHT = ("ambient", "diffuse", "specular")
_CAMERA = "agentview"
_VISIBLE_GROUP = 1
_ARENA = ("floorplane", "walls_mat", "table")
"""Parts of the names of materials."""
_STANDS = ("table", "bin", "desk")
"""Parts of the names of bodies that things stand on; where there is none of them, they stand on the floor."""


@dataclass(frozen=True, eq=False)
class Dress:
    """How an episode differs from the scene as it was compiled; what is not named stays."""

    light: Doubles | None = None
    """(3,) factor on each colour of all lights."""
    surface: int | None = None
    """Number of the material that the surface under the objects wears."""
    camera_shift: Doubles | None = None
    """(3,) [m] in the world: where the outer camera stands."""
    camera_turn: Doubles | None = None
    """(3,) rotation vector [rad] in the camera's frame."""
    tint: Doubles | None = None
    """(3,) factor on each colour of what can be moved."""
    size: float = 1.0
    """Factor on the edges of what can be moved, which must be boxes."""
    solids: tuple[Solid, ...] = ()
    """What is drawn beside the scene."""


PLAIN = Dress()
"""As it was compiled."""


class Wardrobe:
    """A model, and what it was before anything was put on."""

    def __init__(self, model: Any, things: Things) -> None:
        self._model, self._things = model, things
        self.surface = _surface(model)
        """Numbers of the geoms that the objects stand on."""
        worn = set(model.geom_matid[self.surface].tolist())
        arena = [i for i in range(model.nmat) if any(word in model.material(i).name for word in _ARENA)]
        self.materials = [i for i in arena if i not in worn]
        """Numbers of those of floor, walls and tables that the surface does not wear as it was compiled."""
        self._plain = {name: getattr(model, name).copy() for name in _FIELDS}
        first, count = model.body_bvhadr[things.bodies], model.body_bvhnum[things.bodies]
        boxes = [np.arange(a, a + n) for a, n in zip(first, count, strict=True)]
        self._boxes = np.concatenate([np.zeros(0, int), *boxes])  # a scene may have nothing that moves
        self._plain_boxes = model.bvh_aabb[self._boxes].copy()  # of meshes there are millions more
        self._headlight = {name: np.array(getattr(model.vis.headlight, name)) for name in _HEADLIGHT}

    def wear(self, dress: Dress) -> None:
        """Take off what is worn, and put this on."""
        model = self._model
        for name, plain in self._plain.items():
            getattr(model, name)[:] = plain
        model.bvh_aabb[self._boxes] = self._plain_boxes * dress.size
        light = np.ones(3) if dress.light is None else dress.light
        for name in ("light_ambient", "light_diffuse", "light_specular"):
            getattr(model, name)[:] *= light
        for name, colour in self._headlight.items():
            getattr(model.vis.headlight, name)[:] = colour * light
        if dress.surface is not None:
            model.geom_matid[self.surface] = dress.surface
        if dress.camera_shift is not None and dress.camera_turn is not None:
            self._move_camera(dress.camera_shift, dress.camera_turn)
        if dress.tint is not None:
            self._tint(dress.tint)
        if dress.size != 1.0:
            self._resize(dress.size)

    def _move_camera(self, shift: Doubles, turn: Doubles) -> None:
        model, camera = self._model, self._model.camera(_CAMERA).id
        model.cam_pos[camera] += shift
        quaternion, angle = np.empty(4), float(np.linalg.norm(turn))
        mujoco.mju_axisAngle2Quat(quaternion, turn / angle, angle)
        mujoco.mju_mulQuat(model.cam_quat[camera], self._plain["cam_quat"][camera], quaternion)

    def _tint(self, tint: Doubles) -> None:
        """A geom's own colour replaces its material's and multiplies its texture."""
        model, geoms = self._model, self._things.geoms
        material = model.geom_matid[geoms]
        worn = np.where(material[:, None] >= 0, model.mat_rgba[material], model.geom_rgba[geoms])
        worn[:, :3] *= tint
        model.geom_rgba[geoms] = worn

    def _resize(self, size: float) -> None:
        model, geoms = self._model, self._things.geoms
        model.geom_size[geoms] *= size
        model.geom_rbound[geoms] *= size
        model.geom_aabb[geoms] *= size


def _surface(model: Any) -> list[int]:
    """The visible geoms that the objects of a scene stand on."""
    visible = [g for g in np.flatnonzero(model.geom_group == _VISIBLE_GROUP) if model.geom_matid[g] >= 0]
    stands = [
        int(g)
        for g in visible
        if any(word in model.body(int(model.geom_bodyid[g])).name for word in _STANDS)
        and "leg" not in model.geom(int(g)).name
    ]
    return stands or [int(model.geom("floor").id)]
