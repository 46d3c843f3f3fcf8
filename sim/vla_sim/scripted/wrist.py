"""Which way to turn what is held: of the ways it fits, the one that leaves the wrist and the elbow room.

Angles are yaws of a tool that points down [rad], zero when its fingers close along the world's y. The wrist's joint
turns less than a full turn, so within its range every yaw has one value, and the way from one to another may not be the
shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_sim.arm.env import View
from vla_sim.panda import Doubles
from vla_sim.scripted.grasps import EASY_REACH_M, Grasp, facing_down, yaw_of

_LOW, _HIGH = -2.0, 3.55
"""The range of the Panda's seventh joint, 166 degrees to each side of 45 degrees beside the rest, less some room."""
_DIRECT = 3.0
"""Up to here the shorter way from the rest is the way within the range."""
_OUT_OF_RANGE = 10.0
_MOST_AT_ONCE_RAD = 1.0


def turned(view: View, body: int, to: Doubles, yaws: Sequence[float]) -> tuple[Doubles, float]:
    """(3, 3) orientation to bring a held body to (2,) with one of `yaws`, and how far that is from now [rad]."""
    now = _within(yaw_of(view.orientation))
    _, final = _best(view, now, view.tool[:2] - view.data.xpos[body][:2], body, to, yaws)
    return facing_down(now + float(np.clip(final - now, -_MOST_AT_ONCE_RAD, _MOST_AT_ONCE_RAD))), abs(final - now)


def by_the_handle(view: View, body: int, handle: Doubles, to: Doubles, yaws: Sequence[float]) -> Grasp:
    """Across a bar at (3,) that points away from the body's middle, so that the body can be turned to fit at `to`."""
    away = handle[:2] - view.data.xpos[body][:2]
    along = float(np.arctan2(away[1], away[0]))
    ways = [_within(along + turn) for turn in (0.0, np.pi)]
    yaw = min(ways, key=lambda way: _excess(way, _DIRECT) + _best(view, way, away, body, to, yaws)[0])
    return Grasp(handle, facing_down(yaw), float(view.world.shapes.cloud(view.data, body)[:, 2].max()))


def _best(view: View, now: float, off: Doubles, body: int, to: Doubles, yaws: Sequence[float]) -> tuple[float, float]:
    """Least cost and its final yaw, for a tool at `off` (2,) from the body that it holds."""
    axes = view.data.xmat[body].reshape(3, 3)
    ways = []
    for yaw in yaws:
        final = _within(now + yaw - float(np.arctan2(axes[1, 0], axes[0, 0])))
        cos, sin = np.cos(final - now), np.sin(final - now)
        tool = to + np.array([[cos, -sin], [sin, cos]]) @ off
        stretch = float(np.linalg.norm(tool - view.world.base[:2])) - EASY_REACH_M
        ways.append((max(0.0, stretch) + 0.01 * abs(final) + _excess(final), final))
    return min(ways)


def _within(yaw: float) -> float:
    return float((yaw - _LOW) % (2 * np.pi) + _LOW)


def _excess(yaw: float, most: float = _HIGH) -> float:
    return _OUT_OF_RANGE if yaw > most else 0.0
