"""The tabletop on a robot that is out of calibration: joints that are off, a camera that was moved.

The arm believes its encoders and its nominal kinematics; the physics has the true ones. Nothing else differs from the
tabletop, so a seed gives the same episode with and without the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla.types import Image, Observation
from vla_sim.panda import ASSETS, N_JOINTS, Doubles
from vla_sim.rendering import mujoco
from vla_sim.suites.tabletop import TabletopEnv, TabletopSuite
from vla_sim.tabletop.tasks import View

CAMERA = "agent"


@dataclass(frozen=True, eq=False)
class Faults:
    """What is wrong with the robot."""

    offsets_rad: Doubles
    """(7,) true minus believed joint angles; what calibration has not taken away."""
    base_from_camera: Doubles | None = None
    """(4, 4) where the agent camera really is, OpenCV's frame; None where it belongs."""
    correct: Callable[[Image], Image] | None = None
    """What is done to the agent camera's image before the policy sees it."""


class FaultySuite(TabletopSuite):
    """The tabletop's tasks on that robot."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults
        self._faulty_model = _compile(faults)

    def make(self) -> TabletopEnv:
        """A new environment with the faults."""
        return FaultyTabletop(self._faulty_model, self.spec, self._faults)


class FaultyTabletop(TabletopEnv):
    """One tabletop whose arm and camera are not where they seem."""

    def __init__(self, model: Any, spec: Any, faults: Faults) -> None:
        self._faults = faults
        self._nominal = mujoco.MjModel.from_xml_path(str(ASSETS / "panda.xml"))
        self._believed = mujoco.MjData(self._nominal)
        super().__init__(model, spec)

    def observe(self) -> Observation:
        """As the robot reports it, the agent's image corrected."""
        observation = super().observe()
        if self._faults.correct is None:
            return observation
        images = {**observation.images, CAMERA: self._faults.correct(observation.images[CAMERA])}
        return replace(observation, images=images)

    def _look(self) -> View:
        """The tool is where the nominal kinematics puts it; cubes are where they are."""
        view = super()._look()
        self._believed.qpos[:N_JOINTS] = self._data.qpos[:N_JOINTS]
        mujoco.mj_kinematics(self._nominal, self._believed)
        return replace(view, tool=self._believed.site("tool").xpos.copy())


def nominal_camera() -> tuple[Doubles, float]:
    """base_from_camera (4, 4) of the agent camera as it belongs, OpenCV's frame; its vertical field of view [rad]."""
    model = mujoco.MjModel.from_xml_path(str(ASSETS / "tabletop.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    T = np.eye(4)
    T[:3, :3] = data.cam(CAMERA).xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    T[:3, 3] = data.cam(CAMERA).xpos
    return T, float(np.deg2rad(model.cam(CAMERA).fovy[0]))


def _compile(faults: Faults) -> Any:
    """Each joint's frame turned by its offset, so that encoders read what the arm believes; the camera moved."""
    scene = mujoco.MjSpec.from_file(str(ASSETS / "tabletop.xml"))
    for i, offset in enumerate(faults.offsets_rad, 1):
        body = scene.body(f"link{i}")
        w, x, y, z = body.quat / np.linalg.norm(body.quat)
        turned = (Rotation.from_quat([x, y, z, w]) * Rotation.from_rotvec([0, 0, offset])).as_quat()
        body.quat = turned[[3, 0, 1, 2]]
    if faults.base_from_camera is not None:
        camera = scene.camera(CAMERA)
        turn = Rotation.from_matrix(faults.base_from_camera[:3, :3] @ np.diag([1.0, -1.0, -1.0])).as_quat()
        camera.pos, camera.quat = faults.base_from_camera[:3, 3], turn[[3, 0, 1, 2]]
        camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    return scene.compile()
