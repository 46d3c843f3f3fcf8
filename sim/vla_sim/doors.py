"""Hinged things, for scripted experts: a door with a latch. Like `waypoints`, from the present alone."""

from __future__ import annotations

import numpy as np

from vla.types import Floats
from vla_sim.arm_env import View
from vla_sim.articulated import facing
from vla_sim.grasps import FINGERTIP_M
from vla_sim.panda import Doubles
from vla_sim.waypoints import CLOSE, go

_FROM_END_M = 0.02
"""Where on a lever the fingers press."""
_PRESS_M, _ABOVE_M = 0.04, 0.06
"""Beyond the lever's face that the tool is sent; over it where the tool lines up."""
_ON_M, _WITH_M = 0.03, 0.16
"""Beside that place where the tool may press; from it where the hand still moves the lever."""
_DRAG_M = 0.04
"""Towards the lever, while the door goes with it."""
_FREE_RAD = 1.2
"""Turn of the lever at which the latch has left the frame."""
_AJAR_RAD, _HELD_RAD = 0.02, 0.5
"""Turn of a door that stays unlatched, and of a lever that something presses."""
_AHEAD_RAD = 0.15
_DOWN = np.array([0.0, 0.0, -1.0])


def along(view: View, hinge: str, point: Doubles, angle: float) -> Doubles:
    """(3,) where a point would be if what hangs on a hinge were turned by an angle [rad]."""
    joint = view.world.model.joint(hinge).id
    anchor, axis = view.data.xanchor[joint], view.data.xaxis[joint]
    off, cos, sin = point - anchor, np.cos(angle), np.sin(angle)
    there: Doubles = anchor + cos * off + sin * np.cross(axis, off) + (1 - cos) * (axis @ off) * axis
    return there


def open_door(view: View, hinge: str, latch: str) -> Floats:
    """Press the lever down with closed fingers and drag it along the way of the door."""
    touch, press = _lever(view, latch)
    level = np.cross(_DOWN, view.data.xaxis[view.world.model.joint(latch).id])
    orientation = facing(view, _DOWN, closing=level)  # along the lever: the hand is narrow between it and the door
    off = view.tool - touch
    free = abs(_angle(view, latch)) > (_HELD_RAD if _angle(view, hinge) > _AJAR_RAD else _FREE_RAD)
    if free and np.linalg.norm(off) < _WITH_M:
        return go(view, along(view, hinge, view.tool, _AHEAD_RAD) + _DRAG_M * press, CLOSE, view.orientation)
    if np.linalg.norm(off - (off @ press) * press) > _ON_M or not view.closing:
        return go(view, touch - _ABOVE_M * _DOWN, CLOSE, orientation)
    return go(view, touch + _PRESS_M * press, CLOSE, orientation)


def _lever(view: View, latch: str) -> tuple[Doubles, Doubles]:
    """Where the tool touches a latch's lever near its end, and the way it presses; (3,) each."""
    data, geom = view.data, _lever_of(view, latch)
    out = _arm(view, latch, geom)
    out /= np.linalg.norm(out)
    press = np.cross(data.xaxis[view.world.model.joint(latch).id], out)
    press *= -np.sign(press[2])
    size = np.abs(np.stack([out, press]) @ data.geom_xmat[geom].reshape(3, 3)) @ view.world.model.geom_size[geom]
    end = data.geom_xpos[geom] + (size[0] - _FROM_END_M) * out - size[1] * press
    return end - FINGERTIP_M * press, press


def _lever_of(view: View, latch: str) -> int:
    """The part of a latch that is farthest from its axis."""
    model = view.world.model
    parts = np.flatnonzero(model.geom_bodyid == model.jnt_bodyid[model.joint(latch).id])
    return int(max(parts, key=lambda geom: float(np.linalg.norm(_arm(view, latch, geom)))))


def _arm(view: View, latch: str, geom: int) -> Doubles:
    """(3,) from a latch's axis to the middle of a part of it."""
    joint = view.world.model.joint(latch).id
    off = view.data.geom_xpos[geom] - view.data.xanchor[joint]
    arm: Doubles = off - (off @ view.data.xaxis[joint]) * view.data.xaxis[joint]
    return arm


def _angle(view: View, joint: str) -> float:
    """[rad]."""
    return float(view.data.qpos[view.world.model.joint(joint).qposadr[0]])
