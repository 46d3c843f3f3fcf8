"""Drawers and knobs, for scripted experts: open, close, turn. Like `waypoints`, from the present alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.types import Floats
from vla_sim.arm.env import View
from vla_sim.arm.osc import turn_between
from vla_sim.panda import Doubles
from vla_sim.scripted.grasps import yaw_of
from vla_sim.scripted.waypoints import CLOSE, OPEN, go, grasp_on, holds, is_shut, stay

_TILT_RAD = np.deg2rad(75)
"""Of a tool that reaches for a handle, from pointing down: flatter, and the hand hits what stands on the table."""
_BEFORE_M, _ONTO_M = 0.10, 0.006
"""In front of a handle where the tool turns; beyond its face where the fingers close."""
_PULL_M = 0.08
_UP = np.array([0.0, 0.0, 1.0])
_TURN_PER_STEP_RAD = 0.25
_MOST_TURN_RAD = 1.5


@dataclass(frozen=True)
class Drawer:
    """A body that slides, and the handle on it."""

    body: int
    handle: Doubles
    """(3,) middle of the foremost solid part [m]."""
    out: Doubles
    """(3,) the way it opens, a unit vector."""
    opened: float
    """How far it is open [m]."""


def drawer_of(view: View, joint: str) -> Drawer:
    """The drawer that slides on a joint."""
    model, data = view.world.model, view.data
    number = model.joint(joint).id
    body = int(model.jnt_bodyid[number])
    sign = opens(view, number)
    out = data.xmat[body].reshape(3, 3) @ model.jnt_axis[number] * sign
    handle = data.geom_xpos[foremost(view, body, out)].copy()
    return Drawer(body, handle, out, float(data.qpos[model.jnt_qposadr[number]]) * sign)


def opens(view: View, joint: int) -> float:
    """1 where a drawer or a door opens to angles or positions that grow, -1 where they shrink."""
    low, high = view.world.model.jnt_range[joint]
    return -1.0 if abs(low) > abs(high) else 1.0


def reach_of(view: View, geom: int) -> Doubles:
    """(3,) how far a part reaches from its middle along the world's axes [m]."""
    turned: Doubles = np.abs(view.data.geom_xmat[geom].reshape(3, 3)) @ view.world.model.geom_aabb[geom][3:]
    return turned


def foremost(view: View, body: int, out: Doubles) -> int:
    """The solid part of a body that reaches farthest towards `out` (3,): its handle."""
    model = view.world.model

    def front(geom: int) -> float:
        return float(view.data.geom_xpos[geom] @ out + reach_of(view, geom) @ np.abs(out))

    parts = np.flatnonzero(model.geom_bodyid == body)
    return int(max((g for g in parts if model.geom_contype[g] or model.geom_conaffinity[g]), key=front))


def pull_open(view: View, drawer: Drawer) -> Floats:
    """Take the handle from in front and pull."""
    holding, action = take_handle(view, drawer)
    return go(view, view.tool + drawer.out * _PULL_M, CLOSE, view.orientation) if holding else action


def take_handle(view: View, drawer: Drawer) -> tuple[bool, Floats]:
    """Whether the closed fingers have the handle, and what to do while they do not: come from in front and close."""
    orientation = facing(view, -drawer.out)
    onto = drawer.handle - drawer.out * _ONTO_M
    if holds(view, drawer.body):
        return True, stay(view, CLOSE)
    if grasp_on(view, onto, orientation):
        return False, stay(view, CLOSE, orientation)
    return False, _approach(view, onto, drawer.out, orientation, OPEN)


def push_shut(view: View, drawer: Drawer) -> Floats:
    """With closed fingers against the handle, push."""
    orientation = facing(view, -drawer.out)
    return _approach(view, drawer.handle - drawer.out * _PULL_M, drawer.out, orientation, CLOSE, drawer.opened)


def turn_knob(view: View, joint: str, way: float) -> Floats:
    """Take a knob from above and turn it, `way` 1 or -1; let go and begin again when the wrist has turned far."""
    model, data = view.world.model, view.data
    body = int(model.jnt_bodyid[model.joint(joint).id])
    solid = [g for g in np.flatnonzero(model.geom_bodyid == body) if model.geom_contype[g]]
    top = max(data.geom_xpos[g][2] for g in solid)
    knob = np.mean([data.geom_xpos[g] for g in solid if data.geom_xpos[g][2] > top - 0.004], 0)
    knob[2] = top + 0.004
    away = np.hypot(*(view.tool - knob)[:2])
    low = view.tool[2] - knob[2] < 0.03
    turned = way * yaw_of(view.orientation)
    if view.closing and away < 0.03 and low:
        if not is_shut(view):
            return stay(view, CLOSE)
        if turned < _MOST_TURN_RAD:
            action = stay(view, CLOSE)
            action[5] = way * _TURN_PER_STEP_RAD
            return action
    straight = facing(view, -_UP, closing=np.array([0.0, 1.0, 0.0]))
    if low and away < 0.03 and (turned > 1.0 or view.grip > -0.9):
        return go(view, view.tool + _UP * (0.05 if view.grip < -0.9 else 0.0), OPEN, view.orientation)
    if grasp_on(view, knob, straight):
        return stay(view, CLOSE, straight)
    return _approach(view, knob, _UP, straight, OPEN)


def _approach(
    view: View, goal: Doubles, out: Doubles, orientation: Doubles, close: float, before: float = 0.0
) -> Floats:
    """Come to a goal along `-out`: turn and line up in front of it first."""
    off = view.tool - goal
    ahead = float(off @ out)
    beside = off - ahead * out
    turn = float(np.linalg.norm(turn_between(view.orientation, orientation)))
    lined_up = np.linalg.norm(beside) < (0.012 if ahead > 0.05 else 0.02) and turn < 0.15
    if lined_up:
        return go(view, goal, close, orientation)
    start = goal + out * (_BEFORE_M + before)
    if np.linalg.norm(beside) > 0.05 and ahead < 0.05:
        start = view.tool + out * 0.08 + _UP * 0.05  # beside it and too far in: back first
    return go(view, start, close, orientation)


def facing(view: View, ahead: Doubles, closing: Doubles | None = None) -> Doubles:
    """(3, 3) a tool that points `ahead` and somewhat down, fingers closing from above and below.

    Of the two such orientations, the one that is nearer to the present.
    """
    if closing is None:
        points = ahead * np.sin(_TILT_RAD) - _UP * np.cos(_TILT_RAD)
        closing = _UP - (_UP @ points) * points
        closing /= np.linalg.norm(closing)
    else:
        points = ahead
    ways = [np.stack([way, np.cross(points, way), points], 1) for way in (closing, -closing)]
    return min(ways, key=lambda way: float(np.linalg.norm(turn_between(view.orientation, way))))
