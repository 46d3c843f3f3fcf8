"""Doors, with a latch and without, for scripted experts. Like `waypoints`, from the present alone."""

from __future__ import annotations

import numpy as np

from vla.types import Floats
from vla_sim.arm.env import View
from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco
from vla_sim.scripted.articulated import Drawer, facing, foremost, opens, reach_of, take_handle
from vla_sim.scripted.grasps import HAND_M, Grasp
from vla_sim.scripted.waypoints import CLOSE, fetch, go, holds

_FREE_RAD = 1.35
"""Turn of a lever at which the latch passes the frame; at 1.2 it catches on the way."""
_TURN_RAD, _SWING_RAD = 0.15, 0.06
"""Ahead of the hand that a lever and a door are led."""
_DEPTH_M = 0.015
"""Below a handle's top that it is taken."""
_UP = np.array([0.0, 0.0, 1.0])


def along(view: View, hinge: str, point: Doubles, angle: float) -> Doubles:
    """(3,) where a point would be if what hangs on a hinge were turned by an angle [rad]."""
    joint = view.world.model.joint(hinge).id
    anchor, off = view.data.xanchor[joint], np.empty(3)
    mujoco.mju_rotVecQuat(off, point - anchor, _quaternion(view, hinge, angle))
    there: Doubles = anchor + off
    return there


def open_door(view: View, hinge: str, latch: str) -> Floats:
    """Take the lever from in front, turn it down until the latch is free, and lead the door along its way."""
    model, data = view.world.model, view.data
    joint = model.joint(latch).id
    parts = np.flatnonzero(model.geom_bodyid == model.jnt_bodyid[joint])
    arms = data.geom_xpos[parts] - data.xanchor[joint]
    arms -= np.outer(arms @ data.xaxis[joint], data.xaxis[joint])
    lever = int(np.linalg.norm(arms, axis=1).argmax())
    middle = np.array(data.geom_xpos[parts[lever]])
    way = along(view, hinge, middle, 1e-3) - middle
    holding, action = take_handle(view, Drawer(int(model.jnt_bodyid[joint]), middle, way / np.linalg.norm(way), 0.0))
    if not holding:
        return action
    if abs(_angle(view, latch)) > _FREE_RAD:
        return _lead(view, hinge, _SWING_RAD)
    down = -np.sign(np.cross(data.xaxis[joint], arms[lever])[2])
    return _lead(view, latch, down * _TURN_RAD)


def swing(view: View, hinge: str, opening: bool) -> Floats:
    """Take the handle from above and lead the door along its way, open or shut."""
    model, data = view.world.model, view.data
    joint = model.joint(hinge).id
    body = int(model.jnt_bodyid[joint])
    way = opens(view, joint)
    if holds(view, body):
        return _lead(view, hinge, (way if opening else -way) * _SWING_RAD)
    middle = np.array(data.xipos[body])
    out = along(view, hinge, middle, way * 1e-3) - middle
    handle = foremost(view, body, out / np.linalg.norm(out))
    position = np.array(data.geom_xpos[handle])
    radius = position - data.xanchor[joint]
    radius[2] = 0.0
    top = float(view.world.shapes.cloud(data, body)[:, 2].max())
    position[2] = max(position[2] + reach_of(view, handle)[2] - _DEPTH_M, top - HAND_M)
    return fetch(view, Grasp(position, facing(view, -_UP, radius / np.linalg.norm(radius)), top))


def _lead(view: View, hinge: str, angle: float) -> Floats:
    """Move the closed hand as if it hung on a hinge itself."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, _quaternion(view, hinge, angle))
    return go(view, along(view, hinge, view.tool, angle), CLOSE, matrix.reshape(3, 3) @ view.orientation)


def _quaternion(view: View, hinge: str, angle: float) -> Doubles:
    """(4,) w x y z: a turn about a hinge, in the world."""
    quaternion = np.empty(4)
    mujoco.mju_axisAngle2Quat(quaternion, view.data.xaxis[view.world.model.joint(hinge).id], angle)
    return quaternion


def _angle(view: View, joint: str) -> float:
    """[rad]."""
    return float(view.data.qpos[view.world.model.joint(joint).qposadr[0]])
