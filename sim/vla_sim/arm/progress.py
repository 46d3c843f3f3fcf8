"""How far an episode of the robosuite arm has come, and which object the hand went for first.

The parts of a task that is about an object, in order; an episode that failed in one got no farther:
    reach, grasp, carry, place
A task about a drawer or a knob, or about several objects, has no such parts and tells only what was approached.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vla_sim.arm.osc import Goal
from vla_sim.arm.world import World
from vla_sim.env import Progress

PHASES = ("reach", "grasp", "carry", "place")

_NEAR_M = 0.02
"""A tool point this close to a thing has gone for it; on its way the hand stays 6 cm above."""
_SHUT = 0.9
"""Commanded closing from which the fingers have met what they will meet."""
_EMPTY_M = 0.002
"""Closed fingers nearer than this hold nothing."""


def begin(target: str) -> Progress:
    """Nothing has happened yet."""
    return Progress(PHASES[0] if target else "", target)


def advance(before: Progress, world: World, data: Any, goal: Goal) -> Progress:
    """Progress after one more control period; it never goes back. Positions must be up to date."""
    if before.approached and before.phase in ("", PHASES[-1]):
        return before
    nearest, away = world.things.nearest(data, data.site_xpos[world.osc.site])
    near = nearest if away < _NEAR_M else ""
    reached = PHASES.index(before.phase) if before.phase else 0
    if before.phase and reached < 2 and near == before.target:
        reached = 2 if _held(world, data, goal, before.target) else 1
    elif reached == 2 and not goal.closing:
        reached = 3
    return replace(before, phase=PHASES[reached] if before.phase else "", approached=before.approached or near)


def _held(world: World, data: Any, goal: Goal, target: str) -> bool:
    shut = goal.closing and goal.grip > _SHUT and world.osc.width(data) > _EMPTY_M
    return shut and world.shapes.fingers_on(data, world.things.body(target)) > 0
