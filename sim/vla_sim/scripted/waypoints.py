"""The grammar scripted experts are written in: pick and place, open and close, turn, push, each from the present alone.

No skill keeps a memory: what to do next follows from where things are, what the fingers touch and what the gripper was
last told. So an expert can be asked in any state (DAgger, recoveries after a bump), and a policy that sees one frame
can imitate it. Positions are in the world [m]; an action is (7,): move [m], turn [rad], close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.types import Floats
from vla_sim.arm.env import View
from vla_sim.arm.osc import DOWN, MOVE_M, turn_between
from vla_sim.panda import Doubles
from vla_sim.scripted.grasps import FINGERTIP_M, Grasp, facing_down, yaw_of
from vla_sim.scripted.wrist import turned

OPEN, CLOSE = -1.0, 1.0

_GAIN = 1.5
_MAX_TURN_RAD = 0.25
_CLEAR_M = 0.06
"""How far above an object the tool travels."""
_NEAR_M, _ON_M = 0.012, 0.006
"""Close enough to come down; close enough to close."""
_ALIGNED_RAD = 0.12
_UPRIGHT = 0.85
"""Cosine of the tilt up to which a tool points down."""
_HIGHEST_M = 0.35
"""Above its goal that an object is lifted over what is near: a neighbour caught along with it never gets lower."""
_OVERHANG_M = 0.02
"""Beside what hangs over it that an object is lifted; and above it from which something hangs over it."""
_RELEASE_M = 0.02
"""Close enough to let go, in x and y."""
_SHUT = 0.9
"""Commanded closing from which the fingers have met what they will meet."""
_RESTING_M_S = 0.05
_EMPTY_M = 0.002
"""Closed fingers nearer than this hold nothing."""
_PAST_STRAIGHT_RAD = -0.4
"""Of the elbow; it is straight at -0.47."""
_SHOULDER_M = 0.333
"""Above the base."""
_WRIST_ABOVE_M, _WRIST_BEHIND_M = 0.21, 0.088
"""Of a tool that points down."""
_PRESS_M = 0.016
"""Below the bottom of a dish that the fingertips are sent: pressed on, it sticks to them better than to the table."""
_BEHIND = 0.1
"""Of a dish's radius that they press behind its middle; pressed on the rim, it would tip."""


@dataclass(frozen=True)
class Place:
    """Where an object is to go."""

    position: Doubles
    """(3,) its body's x and y, and the height of its lowest point when it is let go."""
    carry: float
    """Height of its lowest point on the way there."""
    near: float = 0.012
    """Close enough in x and y to come down."""
    yaws: tuple[float, ...] = ()
    """Yaws of its body that fit there [rad]; none: it is not turned."""


def go(view: View, position: Doubles, close: float, orientation: Doubles = DOWN) -> Floats:
    """One step towards a pose, as fast as it may."""
    if _overstretched(view) and _stretch(view, position) < _stretch(view, view.tool) - _NEAR_M:
        position = view.tool + _out_and_up(view)
    move = (position - view.tool) * _GAIN
    move *= min(1.0, MOVE_M / max(np.abs(move).max(), 1e-9))
    turn = turn_between(view.orientation, orientation) * _GAIN
    turn *= min(1.0, _MAX_TURN_RAD / max(np.abs(turn).max(), 1e-9))
    return np.array([*move, *turn, close], np.float32)


def _overstretched(view: View) -> bool:
    """The tool points down and the elbow is past straight: pulled in, it would be pressed against its limit."""
    elbow = float(view.data.joint("robot0_joint4").qpos[0])
    return elbow > _PAST_STRAIGHT_RAD and -float(view.orientation[2, 2]) > _UPRIGHT


def _stretch(view: View, position: Doubles) -> float:
    """From the shoulder to the wrist of a tool that points down [m]."""
    away, above = _offset(view.world.base, position)
    return float(np.hypot(away - _WRIST_BEHIND_M, _WRIST_ABOVE_M - _SHOULDER_M - above))


def _out_and_up(view: View) -> Doubles:
    """(3,) the way on which an elbow that is past straight gets straight, from where it can bend."""
    out = view.tool[:2] - view.world.base[:2]
    return MOVE_M * np.array([*(2.0 * out / np.hypot(*out)), 1.0])


def stay(view: View, close: float, orientation: Doubles | None = None) -> Floats:
    """Do nothing but open or close."""
    return go(view, view.tool, close, view.orientation if orientation is None else orientation)


def is_shut(view: View) -> bool:
    """The fingers were told to close and have come to rest: they lag behind the command by several periods."""
    return view.closing and view.grip > _SHUT and view.width_speed > -_RESTING_M_S


def holds(view: View, body: int) -> bool:
    """The closed fingers have something between them, and it is this body."""
    return bool(is_shut(view) and view.width > _EMPTY_M and view.world.shapes.fingers_on(view.data, body))


def pick_and_place(view: View, body: int, grasp: Callable[[], Grasp], place: Callable[[], Place]) -> Floats:
    """Bring a body somewhere and let go. `grasp` and `place` are asked only when they are needed."""
    if not view.closing and view.grip > -_SHUT and view.world.shapes.fingers_on(view.data, body):
        return stay(view, OPEN)  # it was just let go
    if view.closing and not is_shut(view):
        return stay(view, CLOSE)  # it may move as the fingers close: where to take it is decided
    if holds(view, body):
        return _carry(view, body, place())
    return fetch(view, grasp())


def push(view: View, body: int, to: Doubles) -> Floats:
    """Slide a dish over the table until it is at `to` (2,): closed fingers press on its middle and take it along."""
    cloud = view.world.shapes.cloud(view.data, body)
    low, high = cloud.min(0), cloud.max(0)
    radius = float((high - low)[:2].mean() / 2)
    off = to - view.data.xpos[body][:2]
    away = max(float(np.hypot(*off)), 1e-9)
    spot = np.array([*((low + high)[:2] / 2 - off / away * _BEHIND * radius), low[2] + FINGERTIP_M - _PRESS_M])
    beside, above = _offset(view.tool, spot)
    if beside < 0.5 * radius and above < _PRESS_M + 0.009:
        return go(view, np.array([*(view.tool[:2] + off * min(1.0, MOVE_M / away)), spot[2]]), CLOSE)
    height = min(_CLEAR_M, max(0.0, beside - _NEAR_M) * 5.0) if is_shut(view) else _CLEAR_M
    return _fly(view, spot + np.array([0.0, 0.0, height]), spot[2] + _CLEAR_M, CLOSE, DOWN)


def grasp_on(view: View, position: Doubles, orientation: Doubles) -> bool:
    """It is time to close: the open tool is where it should be, or the fingers are closing there already."""
    away, above = _offset(view.tool, position)
    if view.closing:
        return not is_shut(view) and away < 0.025 and abs(above) < 0.02
    turn = float(np.linalg.norm(turn_between(view.orientation, orientation)))
    return away < _ON_M and abs(above) < _ON_M and turn < _ALIGNED_RAD


def fetch(view: View, grasp: Grasp) -> Floats:
    """Fly over, turn, come down with open fingers, and close."""
    if -view.orientation[2, 2] < _UPRIGHT:
        return _withdraw(view)
    if grasp_on(view, grasp.position, grasp.orientation):
        return stay(view, CLOSE, grasp.orientation)
    away, above = _offset(view.tool, grasp.position)
    turn = float(np.linalg.norm(turn_between(view.orientation, grasp.orientation)))
    hover = max(grasp.top + _CLEAR_M, grasp.position[2] + _CLEAR_M + 0.01) - grasp.position[2]
    height = hover if turn > 0.2 or view.grip > -_SHUT else min(hover, max(0.0, away - _NEAR_M) * 5.0)
    if view.closing or (view.grip > -_SHUT and above < 0.03):
        height = hover  # it closed on nothing: up, and again
    return _fly(view, grasp.position + np.array([0.0, 0.0, height]), hover + grasp.position[2], OPEN, grasp.orientation)


def _withdraw(view: View) -> Floats:
    """A tool that reached forward: back out of where it is, then up and upright."""
    back = -view.orientation[:, 2]
    if view.grip > -_SHUT:
        return stay(view, OPEN)
    points = view.world.shapes.obstacles(view.data)
    if len(points) and np.linalg.norm(points - view.tool, axis=1).min() < 0.09:
        return go(view, view.tool + 0.06 * back + np.array([0.0, 0.0, 0.03]), OPEN, view.orientation)
    return go(view, view.tool + np.array([0.0, 0.0, 0.02]), OPEN, _upright(view.orientation))


def _carry(view: View, body: int, place: Place) -> Floats:
    cloud = view.world.shapes.cloud(view.data, body)
    bottom = float(cloud[:, 2].min())
    off = place.position[:2] - view.data.xpos[body][:2]
    away = float(np.hypot(*off))
    orientation, turn = _upright(view.orientation), 0.0
    if place.yaws:
        orientation, turn = turned(view, body, place.position[:2], place.yaws)
    above = bottom - place.position[2]
    sinking = abs(float(view.data.cvel[body][5])) > 0.02
    if away < _RELEASE_M and (above < 0.01 or (above < 0.03 and not sinking)):
        return stay(view, OPEN)
    low = above < 0.5 * (place.carry - place.position[2])
    if turn < _ALIGNED_RAD and away < place.near + (0.006 if low else 0.0):
        drop = place.position[2] - bottom
        return go(view, view.tool + np.array([*off, drop]), CLOSE, orientation)
    over = min(_tops_near(view, body) + 0.02, place.position[2] + _HIGHEST_M) if away > 0.05 else -np.inf
    lift = max(place.carry, over) - bottom
    sideways = 1.0 if lift < 0.01 else max(0.0, 1.0 - (lift - 0.01) / 0.02)
    beside = off * sideways if sideways else _from_under(view, body, cloud)
    return go(view, view.tool + np.array([*beside, max(lift, -0.03)]), CLOSE, orientation)


def _from_under(view: View, body: int, cloud: Doubles) -> Doubles:
    """(2,) the shortest move along x or y that brings a held body out from under what hangs over it [m]."""
    low, high = cloud.min(0) - _OVERHANG_M, cloud.max(0) + _OVERHANG_M
    points = view.world.shapes.obstacles(view.data, body)
    over = points[(points > [*low[:2], high[2]]).all(1) & (points[:, :2] < high[:2]).all(1), :2]
    if not len(over):
        return np.zeros(2)
    moves = np.concatenate([np.diag(over.max(0) - low[:2]), np.diag(over.min(0) - high[:2])])
    shortest: Doubles = moves[np.abs(moves).sum(1).argmin()]
    return shortest


def _fly(view: View, goal: Doubles, hover: float, close: float, orientation: Doubles) -> Floats:
    """Towards a goal; low and far from it, up first."""
    away, _ = _offset(view.tool, goal)
    position = goal.copy()
    if away > 0.05:
        clear = max(hover, _tops_near(view) + _CLEAR_M) if view.tool[2] < hover + 0.1 else hover
        sideways = np.clip((view.tool[2] - clear + 0.05) / 0.03, 0.0, 1.0)
        position[:2] = view.tool[:2] + (goal[:2] - view.tool[:2]) * sideways
        position[2] = max(goal[2], clear)
    return go(view, position, close, orientation)


def _tops_near(view: View, body: int | None = None) -> float:
    """Height of the highest obstacle within a hand's breadth of the tool, or of a body that it holds."""
    points = view.world.shapes.obstacles(view.data, body)
    centre = view.tool if body is None else view.data.xpos[body]
    near = np.abs(points[:, :2] - centre[:2]).max(1) < 0.08
    return float(points[near, 2].max()) if near.any() else -np.inf


def _offset(position: Doubles, goal: Doubles) -> tuple[float, float]:
    """How far (3,) is beside a goal, and how far above it [m]."""
    off = position - goal
    return float(np.hypot(*off[:2])), float(off[2])


def _upright(orientation: Doubles) -> Doubles:
    """The same yaw, pointing straight down."""
    return facing_down(yaw_of(orientation))
