"""Operational-space control of robosuite's Panda: where the tool should be becomes joint torques, 500 times a second.

The law, the gains and the quirks are those of robosuite 1.4's OSC_POSE (after Khatib 1987), so that a policy acts on
LIBERO as it does in the official environment; a test compares the two. What differs: everything it remembers is in
`Goal`, so a snapshot can hold it, any number of environments share one compiled scene, and a step costs a third.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla.types import Floats
from vla_sim.panda import N_JOINTS, Doubles
from vla_sim.rendering import mujoco

MOVE_M = 0.05
"""Longest offset of the goal from the tool, along each axis."""
TURN_RAD = 0.5
"""Largest rotation of the goal from the tool, about each axis."""

_KP, _KD = 150.0, 2 * np.sqrt(150.0)
_POSTURE_KP, _POSTURE_KD = 10.0, 2 * np.sqrt(10.0)
_GRIP_PER_STEP = 0.01
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Orientation of the tool when it points down and the fingers close along y."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What the controller remembers between control periods; frame: the scene's world."""

    position: Doubles
    """(3,) [m]."""
    orientation: Doubles
    """(3, 3)."""
    grip: float = 0.0
    """Commanded closing of the gripper: -1 open, 1 closed. It moves by 1/4 of a unit in a period of 50 ms."""
    closing: bool = False
    """The gripper was last told to close."""


class OSC:
    """The controller of the one arm in a robosuite scene."""

    def __init__(self, model: Any, posture: Doubles) -> None:
        """`posture` (7,) [rad] is where the elbow is drawn to."""
        self._model = model
        self.site = model.site("gripper0_grip_site").id
        joints = [model.joint(f"robot0_joint{i + 1}") for i in range(N_JOINTS)]
        fingers = [model.joint(f"gripper0_finger_joint{i}") for i in (1, 2)]
        self._q = np.array([j.qposadr[0] for j in joints])
        self._v = np.array([j.dofadr[0] for j in joints])
        self._fingers = np.array([j.qposadr[0] for j in fingers])
        self._finger_speeds = np.array([j.dofadr[0] for j in fingers])
        driven = {int(model.actuator_trnid[i, 0]): i for i in range(model.nu)}
        self._motors = np.array([driven[j.id] for j in joints])
        self._finger_motors = np.array([driven[j.id] for j in fingers])
        self._low, self._high = model.actuator_ctrlrange[self._motors].T
        finger_low, finger_high = model.actuator_ctrlrange[self._finger_motors].T
        self._finger_middle, self._finger_half = (finger_high + finger_low) / 2, (finger_high - finger_low) / 2
        self._posture = posture
        self._jacobian = np.zeros((6, model.nv))
        self._mass = np.zeros((model.nv, model.nv))

    def tool(self, data: Any) -> tuple[Doubles, Doubles]:
        """Position (3,) [m] and orientation (3, 3) of the point between the fingertips, in the world."""
        return data.site_xpos[self.site].copy(), data.site_xmat[self.site].reshape(3, 3).copy()

    def width(self, data: Any) -> float:
        """Opening of the fingers [m]."""
        one, other = data.qpos[self._fingers]
        return float(one - other)

    def width_speed(self, data: Any) -> float:
        """How fast the fingers open [m/s]."""
        one, other = data.qvel[self._finger_speeds]
        return float(one - other)

    def towards(self, data: Any, goal: Goal, action: Floats) -> Goal:
        """A new goal: the tool's *measured* pose, moved by an action (7,).

        A rotation of exactly zero keeps the orientation that was the goal before: robosuite's rule.
        """
        position, orientation = self.tool(data)
        turn = action[3:6].astype(np.float64)
        if np.abs(turn).max() > 1e-9:
            orientation = _rotation(np.clip(turn, -TURN_RAD, TURN_RAD)) @ orientation
        else:
            orientation = goal.orientation
        move = np.clip(action[:3].astype(np.float64), -MOVE_M, MOVE_M)
        return replace(goal, position=position + move, orientation=orientation)

    def run(self, data: Any, goal: Goal, close: float, substeps: int) -> Goal:
        """Advance the physics; `close` > 0 closes the gripper, < 0 opens it, 0 keeps it. Returns the goal after."""
        grip, model = goal.grip, self._model
        for _ in range(substeps):
            mujoco.mj_step1(model, data)
            torque = self._torque(data, goal)
            grip = float(np.clip(grip + _GRIP_PER_STEP * np.sign(close), -1.0, 1.0))
            data.ctrl[self._motors] = np.clip(torque, self._low, self._high)
            data.ctrl[self._finger_motors] = self._finger_middle + self._finger_half * np.array([-grip, grip])
            mujoco.mj_step2(model, data)
        return replace(goal, grip=grip, closing=close > 0 if close else goal.closing)

    def _torque(self, data: Any, goal: Goal) -> Doubles:
        """(7,) [Nm]."""
        jacobian, v = self._jacobian, self._v
        mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], self.site)
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        J, M, qvel = jacobian[:, v], self._mass[np.ix_(v, v)], data.qvel[v]
        is_ = data.site_xmat[self.site].reshape(3, 3)
        wanted = np.empty(6)
        wanted[:3] = goal.position - data.site_xpos[self.site]
        wanted[3:] = 0.5 * sum(_cross(is_[:, i], goal.orientation[:, i]) for i in range(3))
        acceleration = _KP * wanted - _KD * (J @ qvel)
        mobility = J @ np.linalg.solve(M, J.T)
        wrench = np.empty(6)
        wrench[:3] = np.linalg.solve(mobility[:3, :3], acceleration[:3])
        wrench[3:] = np.linalg.solve(mobility[3:, 3:], acceleration[3:])
        # What draws the elbow home may not move the tool: its share in the task space is taken out.
        home = _POSTURE_KP * (self._posture - data.qpos[self._q]) - _POSTURE_KD * qvel
        torque: Doubles = J.T @ (wrench - np.linalg.solve(mobility, J @ home)) + M @ home + data.qfrc_bias[v]
        return torque


def turn_between(start: Doubles, end: Doubles) -> Doubles:
    """(3,) [rad] rotation vector, in the frame both are given in, that takes one orientation (3, 3) to another."""
    quaternion, turn = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, (end @ start.T).ravel())
    mujoco.mju_quat2Vel(turn, quaternion, 1.0)
    return turn


def _rotation(turn: Doubles) -> Doubles:
    quaternion, matrix = np.zeros(4), np.zeros(9)
    angle = float(np.linalg.norm(turn))
    mujoco.mju_axisAngle2Quat(quaternion, turn / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _cross(a: Doubles, b: Doubles) -> Doubles:
    """np.cross, without its 20 microseconds of generality."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
