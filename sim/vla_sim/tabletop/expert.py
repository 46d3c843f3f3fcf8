"""The tabletop's scripted expert: what to do next, from the present state alone.

It keeps no memory and works from any state, so it can label states a policy wandered into (DAgger), and a policy that
sees one frame can imitate it. Heights follow funnels instead of phases: the closer the tool is to where it is going,
the lower it flies, so approach, correction and retreat are one smooth rule without timing to guess.
"""

from __future__ import annotations

import numpy as np

from vla.types import Floats
from vla_sim.tabletop.tasks import BOWL_INSIDE_M, CUBE_M, GRASPED_M, OPEN_M, Doubles, View

STEP_M = 0.04
"""Longest move in one control period."""
OPEN_WIDTH_M = 0.08

_GAIN = 0.6
_CLEAR_M = 0.075
"""How far above its goal the tool travels: the fingertips pass over a cube with 4 cm to spare."""
_PUSH_BEHIND_M = 0.065
_PUSH_STEP_M = 0.027


def expert_action(view: View) -> Floats:
    """(4,) dx, dy, dz [m] and gripper opening [m]: the next action of the task's expert."""
    skill = view.task.skill
    if skill == "push":
        return _push(view)
    if not holds(view):
        return _let_go(view) if skill in ("stack", "bowl") and _is_placed(view) else _grasp(view)
    if skill == "pick":
        return _action(_towards(view, np.array([*view.target[:2], 0.20]), 0.6 * STEP_M), 0.0)
    return _place(view)


def _grasp(view: View) -> Floats:
    """Fly over the cube, come down on it, close, and wait until the fingers have met it."""
    cube = view.cubes[view.task.cube]
    away = float(np.hypot(*(view.tool - cube)[:2]))
    above = view.tool[2] - cube[2]
    if away < 0.014 and above < 0.010:
        return _action(np.zeros(3), 0.0)
    goal = cube + np.array([0.0, 0.0, 0.002 + _funnel(away, 0.011, _CLEAR_M)])
    sideways = 1.0 if away < 0.016 else _ramp(above, 0.03, 0.06)
    return _action(_towards(view, goal, STEP_M, sideways), OPEN_WIDTH_M)


def _place(view: View) -> Floats:
    """Carry the held cube over its goal, lower it, and open."""
    cube, goal = view.cubes[view.task.cube], view.goal
    in_bowl = view.task.skill == "bowl"
    # Into the bowl it falls the last 28 mm: open fingers would hit the walls.
    release = goal + np.array([0.0, 0.0, 0.028 if in_bowl else 0.001])
    near = 0.02 if in_bowl else 0.009
    away = float(np.hypot(*(cube - goal)[:2]))
    above = cube[2] - release[2]
    if away < near and above < 0.004:
        return _action(np.zeros(3), OPEN_WIDTH_M)
    over = release + np.array([0.0, 0.0, _funnel(away, near, 0.05 if in_bowl else 0.035)])
    sideways = 1.0 if away < near + 0.005 else _ramp(above, 0.01, 0.03)
    return _action(_towards(view, over + (view.tool - cube), 0.75 * STEP_M, sideways), 0.0)


def _let_go(view: View) -> Floats:
    """Open, and rise once the fingers are off the cube."""
    rise = np.array([0.0, 0.0, 0.6 * STEP_M]) if view.width > 0.05 else np.zeros(3)
    return _action(rise, OPEN_WIDTH_M)


def _push(view: View) -> Floats:
    """With closed fingers, go behind the cube, down, and forward through it."""
    cube, direction = view.cubes[view.task.cube], view.task.direction
    start = np.array([cube[0], cube[1] - direction * _PUSH_BEHIND_M, 0.022])
    behind = (cube[1] - view.target[1]) * direction
    is_low = view.target[2] < 0.045
    if is_low and behind > 0.02 and abs(view.target[0] - cube[0]) < 0.02:
        goal = np.array([cube[0], view.target[1] + direction * STEP_M / _GAIN, 0.022])
        return _action(_towards(view, goal, _PUSH_STEP_M), 0.0)
    away = float(np.hypot(*(view.target - start)[:2]))
    goal = start + np.array([0.0, 0.0, _funnel(away, 0.012, 0.085)])
    sideways = 1.0 if away < 0.018 else _ramp(view.target[2], 0.05, 0.085)
    return _action(_towards(view, goal, STEP_M, sideways), 0.0)


def holds(view: View) -> bool:
    """The fingers have closed on this task's cube."""
    gap = view.tool - view.cubes[view.task.cube]
    closed_on_it = view.target_width < OPEN_M and CUBE_M / 2 < view.width < GRASPED_M
    return bool(closed_on_it and np.hypot(*gap[:2]) < 0.025 and abs(gap[2]) < 0.022)


def _is_placed(view: View) -> bool:
    """The cube is at its goal, or has been dropped so that it will come to rest there."""
    away = np.abs(view.cubes[view.task.cube] - view.goal)
    if view.task.skill == "bowl":
        return bool(away[:2].max() < BOWL_INSIDE_M and away[2] < 0.035)
    return bool(np.hypot(*away[:2]) < 0.03 and away[2] < 0.01)


def _towards(view: View, goal: Doubles, longest: float, sideways: float = 1.0) -> Doubles:
    """A move of the commanded tool position towards a goal; `sideways` in [0, 1] holds x and y back."""
    move = (goal - view.target) * _GAIN
    move[:2] *= sideways
    length = float(np.sqrt(move @ move))
    return move * min(1.0, longest / max(length, 1e-9))


def _funnel(away: float, radius: float, height: float) -> float:
    """Height above the goal to fly at: 0 within the radius, rising fivefold with distance up to `height`."""
    return min(height, max(0.0, away - radius) * 5.0)


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _action(move: Doubles, width: float) -> Floats:
    return np.array([*move, width], np.float32)
