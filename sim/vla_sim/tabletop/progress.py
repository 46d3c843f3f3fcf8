"""How far a tabletop episode has come, and which cube the robot went for.

The parts of each task, in order; an episode that failed in one got no farther:
    pick         reach, grasp, lift
    push         reach, contact, push
    stack, bowl  reach, grasp, carry, place
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_sim.env import Progress
from vla_sim.tabletop.expert import holds
from vla_sim.tabletop.tasks import COLOURS, View

PHASES = {
    "pick": ("reach", "grasp", "lift"),
    "push": ("reach", "contact", "push"),
    "stack": ("reach", "grasp", "carry", "place"),
    "bowl": ("reach", "grasp", "carry", "place"),
}

_LOW_M = 0.06
"""The tool travels above this and works below it."""
_NEAR_M = 0.09
"""A low tool this close to a cube has gone for it: a push stands 65 mm behind."""
_MOVED_M = 0.01
_OVER_GOAL_M = 0.03


def begin(skill: str, target: str) -> Progress:
    """Nothing has happened yet."""
    return Progress(PHASES[skill][0], target)


def advance(view: View, before: Progress) -> Progress:
    """Progress after one more control period; it never goes back."""
    phases = PHASES[view.task.skill]
    approached = before.approached or _approached(view)
    reached = max(phases.index(before.phase), _phase(view))
    return replace(before, phase=phases[reached], approached=approached)


def _approached(view: View) -> str:
    away = np.hypot(*(view.cubes - view.tool)[:, :2].T)
    nearest = int(np.argmin(away))
    return COLOURS[nearest] if view.tool[2] < _LOW_M and away[nearest] < _NEAR_M else ""


def _phase(view: View) -> int:
    """Index of the part of the task that this moment is in."""
    task, cube = view.task, view.cubes[view.task.cube]
    if task.skill == "push":
        if (cube[1] - view.start[task.cube, 1]) * task.direction > _MOVED_M:
            return 2
    elif holds(view):
        over_goal = np.hypot(*(cube - view.goal)[:2]) < _OVER_GOAL_M
        return 3 if task.skill != "pick" and over_goal else 2
    return int(_approached(view) == COLOURS[task.cube])
