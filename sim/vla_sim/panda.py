"""The Panda arm: where its files are, how a tool position becomes joint angles, and what it wears in videos."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.errors import Missing
from vla_sim.rendering import mujoco

Doubles = npt.NDArray[np.float64]

ASSETS = Path(__file__).parent / "assets"
N_JOINTS = 7
HOME = np.array([0.0, -0.2, 0.0, -2.2, 0.0, 2.0, 0.785])
"""(7,) joint angles [rad]: tool above the table, pointing down, far from every limit."""

_DOWN = np.diag([1.0, -1.0, -1.0])
_DAMPING = 1e-4
_MAX_STEP_RAD = 0.3
_PRIMITIVES = 1
_HIDDEN = 4


class ToolIK:
    """Damped-least-squares inverse kinematics that keeps the tool pointing down."""

    def __init__(self) -> None:
        self._model = _arm()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tool").id
        self._low, self._high = self._model.jnt_range[:N_JOINTS].T
        self._jacobian = np.zeros((6, self._model.nv))

    def solve(self, joints: Doubles, position: Doubles, iterations: int) -> Doubles:
        """Move joint angles (7,) [rad] towards a tool position (3,) [m] in the base frame, within the joint limits."""
        model, data, jacobian = self._model, self._data, self._jacobian
        error = np.empty(6)
        for _ in range(iterations):
            data.qpos[:N_JOINTS] = joints
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
            error[:3] = position - data.site_xpos[self._site]
            turn = _DOWN @ data.site_xmat[self._site].reshape(3, 3).T
            error[3:] = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
            error[3:] *= 0.5
            J = jacobian[:, :N_JOINTS]
            change = J.T @ np.linalg.solve(J @ J.T + _DAMPING * np.eye(6), error)
            joints = np.clip(joints + np.clip(change, -_MAX_STEP_RAD, _MAX_STEP_RAD), self._low, self._high)
        return joints


def with_meshes(scene: Any) -> None:
    """Dress the Panda of an `MjSpec` in robosuite's meshes and hide its primitives; the physics stays the same.

    Raises:
        Missing: robosuite is not installed.
    """
    found = importlib.util.find_spec("robosuite")  # not imported: that takes seconds and prints
    if found is None or not found.submodule_search_locations:
        raise Missing("visual='mesh' draws robosuite's Panda; install it: pip install robosuite==1.4.0")
    assets = Path(found.submodule_search_locations[0]) / "models" / "assets"
    for geom in scene.geoms:
        if geom.group == _PRIMITIVES:
            geom.group = _HIDDEN
    robot = mujoco.MjSpec.from_file(str(assets / "robots" / "panda" / "robot.xml"))
    material_rgba = {material.name: material.rgba for material in robot.materials}
    mesh_file = {mesh.name: mesh.file for mesh in robot.meshes}
    for i in range(N_JOINTS + 1):
        for geom in robot.body(f"link{i}").geoms:
            if geom.group == 1:
                path = assets / "robots" / "panda" / mesh_file[geom.meshname]
                _add_mesh(scene, f"link{i}", path, material_rgba[geom.material])
    gripper = assets / "grippers" / "meshes" / "panda_gripper"
    _add_mesh(scene, "hand", gripper / "hand_vis.stl", (1, 1, 1, 1))
    _add_mesh(scene, "finger1", gripper / "finger_vis.stl", (0.5, 0.5, 0.5, 1))
    _add_mesh(scene, "finger2", gripper / "finger_vis.stl", (0.5, 0.5, 0.5, 1), quat=(0, 0, 0, 1))


def with_sky(scene: Any) -> None:
    """Give an `MjSpec` a pale background instead of black."""
    scene.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.85, 0.89, 0.94),
        rgb2=(0.62, 0.67, 0.74),
        width=64,
        height=384,
    )


def _add_mesh(scene: Any, body: str, path: Path, rgba: Any, quat: Any = (1, 0, 0, 0)) -> None:
    name = path.stem
    if name not in {mesh.name for mesh in scene.meshes}:
        scene.add_mesh(name=name, file=str(path), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
    scene.body(body).add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, rgba=rgba, quat=quat, contype=0, conaffinity=0, mass=0, group=2
    )


@functools.cache
def _arm() -> Any:
    """The robot alone: inverse kinematics need not carry the objects along."""
    return mujoco.MjModel.from_xml_path(str(ASSETS / "panda.xml"))
