"""Where to take hold of an object: the narrowest side that fits, or a point of a rim, where nothing is in the way."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from vla_sim.arm.env import View
from vla_sim.arm.osc import DOWN
from vla_sim.panda import Doubles

_WIDEST_M = 0.068
"""Of what the open fingers take with some room."""
FINGERTIP_M = 0.011
"""From the tool point down to the fingertips."""
HAND_M = 0.028
"""From the tool point up to the hand, which what stands beside a handle must not reach."""
EASY_REACH_M = 0.68
"""From the base in x and y; a tool that points down gets stuck at a straight elbow some 10 cm farther."""
_NEAREST_M = 0.45
"""The same, where the arm is folded; it gets stuck some 10 cm nearer."""
_DEPTHS_M = (0.02, 0.012)
"""Below a rim that it is taken, the better one first."""
_INSIDE_M = (0.004, 0.014, -0.014, 0.024, -0.024)
"""Of a rim that the tool closes, the better one first: one finger then brings the object along."""
_INSIDE_FLAT_M = (0.014, 0.024, 0.004)
"""The same for something flat, whose rim slopes: the fingers slip off its edge."""
_SLANTS_RAD = (0.0, 0.4, -0.4)
"""Between the closing axis and the radius to where the rim is taken, the better one first."""
_RIM_M = 0.01
"""Of an object's top that are its rim."""
_YAWS = np.deg2rad(np.arange(-90, 91, 10))
_ACROSS = np.stack([-np.sin(_YAWS), np.cos(_YAWS)], 1)
_ALONG = np.stack([np.cos(_YAWS), np.sin(_YAWS)], 1)
_GRIP_M = 0.014
"""Of a part that is between the fingers."""
_REACH_M = 0.2
"""Only obstacles this near in x and y are looked at."""


@dataclass(frozen=True, eq=False)
class Grasp:
    """Where the tool is when the fingers close, in the world."""

    position: Doubles
    """(3,) [m]."""
    orientation: Doubles
    """(3, 3)."""
    top: float
    """Height of the object's top [m]."""


def facing_down(yaw: float) -> Doubles:
    """(3, 3) orientation of a tool that points down, its closing axis turned from the world's y by a yaw [rad]."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned: Doubles = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ DOWN
    return turned


def from_above(view: View, body: int) -> Grasp:
    """Across the narrowest side, fingers as low as they go on something flat, below the top of something tall."""
    cloud = view.world.shapes.cloud(view.data, body)
    low, high = cloud[:, 2].min(), cloud[:, 2].max()
    deep = min((low + high) / 2, high - 0.012) if high - low < 0.05 else high - 0.035
    z = max(low + FINGERTIP_M, deep)
    yaws = np.deg2rad(np.arange(-85, 91, 5))
    across = np.stack([-np.sin(yaws), np.cos(yaws)], 1)
    along = np.stack([np.cos(yaws), np.sin(yaws)], 1)
    p, q = across @ cloud[:, :2].T, along @ cloud[:, :2].T
    width, length = np.ptp(p, axis=1), np.ptp(q, axis=1)
    middle = across * ((p.max(1) + p.min(1)) / 2)[:, None] + along * ((q.max(1) + q.min(1)) / 2)[:, None]
    yaw_now = yaw_of(view.orientation)
    cost = width + 0.015 * np.abs(yaws) + 10 * np.maximum(0, width - _WIDEST_M) + 0.005 * np.abs(yaws - yaw_now)
    shifts = np.array([0.0, 0.012, -0.012, 0.024, -0.024])
    centres = middle[:, None] + along[:, None] * shifts[:, None]
    total = cost[:, None] + 0.3 * np.abs(shifts)
    total += _blocked(_near(view, body, centres.mean((0, 1))), yaws, centres, np.full(total.shape, z))
    total[(np.abs(shifts) > length[:, None] / 2 - 0.012) & (shifts != 0)] = np.inf
    yaw, shift = np.unravel_index(int(total.argmin()), total.shape)
    return Grasp(np.array([*centres[yaw, shift], z]), facing_down(yaws[yaw]), float(high))


def fits(view: View, body: int) -> bool:
    """Whether the open fingers go around a body's narrowest side."""
    return bool(np.ptp(_ACROSS @ view.world.shapes.cloud(view.data, body)[:, :2].T, axis=1).min() < _WIDEST_M)


def by_a_part(view: View, body: int, to: Doubles) -> Grasp:
    """Across a knob, a handle or a wall of what is too wide itself; near its middle, so that it hangs upright.

    `to` (2,) is where the body will be put down in x and y: the arm also reaches there.
    """
    shapes, middle = view.world.shapes, view.data.xipos[body][:2]
    parts, obstacles = shapes.parts(view.data, body), _near(view, body, middle)
    highest = max(float(part[:, 2].max()) for part in parts)
    best: list[tuple[float, Grasp]] = []  # in metres of stretch, as by the rim
    for i, part in enumerate(parts):
        own = np.concatenate([other for j, other in enumerate(parts) if j != i] or [part[:0]])
        centre = (part[:, :2].min(0) + part[:, :2].max(0)) / 2
        width = np.ptp(_ACROSS @ part[:, :2].T, axis=1)
        low, high = float(part[:, 2].min()), float(part[:, 2].max())
        z = np.maximum(_above(own, centre), high - min(_DEPTHS_M[0], high - low - FINGERTIP_M))
        total = 0.02 * np.abs(_YAWS) + 0.02 * np.abs(_YAWS - yaw_of(view.orientation))
        total += 0.05 * np.linalg.norm(centre - view.tool[:2]) + np.linalg.norm(centre - middle)
        total += _stretch(view, body, centre, to) + 2.0 * width + 10.0 * np.maximum(0.0, width - _WIDEST_M)
        total += 50.0 * np.maximum(0.0, _GRIP_M - (high - z + FINGERTIP_M))
        for yaw in np.argsort(total)[:5]:
            points = np.concatenate([obstacles, own[own[:, 2] > z[yaw]]])
            blocked = 3.0 * float(_blocked(points, _YAWS[[yaw]], centre[None, None], z[[yaw], None])[0, 0])
            grasp = Grasp(np.array([*centre, z[yaw]]), facing_down(_YAWS[yaw]), highest)
            best.append((float(total[yaw]) + blocked, grasp))
    return min(best, key=lambda one: one[0])[1]


def _above(points: Doubles, centre: Doubles) -> Doubles:
    """(Y,) height of the tool at which open fingers at (2,) stay above points, for each of `_YAWS`."""
    off = points[:, :2] - centre
    across, along = np.abs(_ACROSS @ off.T), np.abs(_ALONG @ off.T)
    under = (along < 0.016) & (across > 0.02) & (across < 0.066)
    found: Doubles = np.where(under, points[:, 2], -np.inf).max(1, initial=-np.inf) + FINGERTIP_M + 0.001
    return found


def by_the_rim(view: View, body: int, to: Doubles, above_bottom: float | None = None) -> Grasp:
    """One finger inside, one outside, as deep below the rim as the hand gets or at a height above the bottom [m].

    `to` (2,) is where the body will be put down in x and y: of two sides, the one that the arm also reaches there.
    """
    cloud = view.world.shapes.cloud(view.data, body)
    up = _upwards(view, body)  # a bowl that slid off something is tilted
    heights = cloud @ up
    bottom, top, highest = heights.min(), heights.max(), float(cloud[:, 2].max())
    rim = cloud[heights > top - _RIM_M, :2]  # without the handle of a mug
    low, high = rim.min(0), rim.max(0)
    middle, radius = (low + high) / 2, float((high - low).mean() / 2)
    depths = _DEPTHS_M if above_bottom is None else (top - bottom - above_bottom,)
    yaws, across, along = _YAWS, _ACROSS, _ALONG
    points = _near(view, body, middle)
    best: list[tuple[float, Grasp]] = []  # in metres of stretch, about: what is in the way weighs most
    insides = _INSIDE_M if above_bottom is None else _INSIDE_FLAT_M
    for slant, depth, inside in itertools.product(_SLANTS_RAD, depths, insides):
        around = np.cos(slant) * np.stack([across, -across], 1) + np.sin(slant) * along[:, None]
        centres = middle + (radius - inside) * around
        total = (0.02 * np.abs(yaws) + 0.02 * np.abs(yaws - yaw_of(view.orientation)))[:, None]
        total = total + 0.05 * np.linalg.norm(centres - view.tool[:2], axis=2)
        total += _stretch(view, body, centres, to)
        tops = (top - centres @ up[:2]) / up[2]
        blocked = 3.0 * _blocked(points, yaws, centres, tops - depth)
        total += 3.0 * (depths[0] - depth) + 2.0 * abs(inside) + 0.1 * abs(slant) + blocked
        total += 5.0 * (highest - tops)  # held by its lower side it would tilt more, and take along what it stands in
        yaw, side = np.unravel_index(int(total.argmin()), total.shape)
        position = np.array([*centres[yaw, side], tops[yaw, side] - depth])
        grasp = Grasp(position, facing_down(yaws[yaw]), highest)
        best.append((float(total.min()), grasp))
        if not blocked[yaw, side]:
            break
    return min(best, key=lambda one: one[0])[1]


def _stretch(view: View, body: int, centres: Doubles, to: Doubles) -> Doubles:
    """(...) cost of reaching centres (..., 2) of a body, now and when it is at `to` (2,), too far out or folded [m]."""
    cost: Doubles = np.zeros(centres.shape[:-1])
    for moved in (np.zeros(2), to - view.data.xpos[body][:2]):
        reach = np.linalg.norm(centres + moved - view.world.base[:2], axis=-1)
        cost += 2.0 * np.maximum(0.0, np.maximum(reach - EASY_REACH_M, 3.0 * (_NEAREST_M - reach)))
    return cost


def _upwards(view: View, body: int) -> Doubles:
    """(3,) the axis of a body that points up most, in the world."""
    axes = view.data.xmat[body].reshape(3, 3)
    most = np.abs(axes[2]).argmax()
    up: Doubles = axes[:, most] * np.sign(axes[2, most])
    return up


def _near(view: View, body: int, middle: Doubles) -> Doubles:
    """(n, 3) points on what may be in the way around (2,)."""
    points = view.world.shapes.obstacles(view.data, body)
    near: Doubles = points[np.abs(points[:, :2] - middle).max(1) < _REACH_M]
    return near


def _blocked(points: Doubles, yaws: Doubles, centres: Doubles, z: Doubles) -> Doubles:
    """(Y, C) penalty for points in the way of the open fingers or of the hand, at centres (Y, C, 2), heights (Y, C)."""
    points = points[points[:, 2] > z.min() - 0.014]
    off = points[:, :2] - centres[:, :, None]
    cos, sin = np.cos(yaws)[:, None, None], np.sin(yaws)[:, None, None]
    across = np.abs(off[..., 1] * cos - off[..., 0] * sin)
    along = np.abs(off[..., 0] * cos + off[..., 1] * sin)
    above = points[:, 2] - z[..., None]
    fingers = (along < 0.016) & (across > 0.028) & (across < 0.066) & (above > -0.014) & (above < 0.06)
    hand = (along < 0.036) & (across < 0.108) & (above > 0.03) & (above < 0.2)
    hits = fingers.sum(2) + hand.sum(2)
    return np.where(hits > 0, 0.15 + 0.004 * np.minimum(hits, 25), 0.0)


def yaw_of(orientation: Doubles) -> float:
    """How far the closing axis, the tool's x, is turned from the world's y [rad]."""
    return float(np.arctan2(-orientation[0, 0], orientation[1, 0]))
