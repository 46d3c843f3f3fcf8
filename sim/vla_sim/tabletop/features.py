"""Privileged features of the tabletop: low-dimensional, dense in what success depends on, made to learn V(state) from.

Pushing right is mirrored to look like pushing left, so both teach the same function.
"""

from __future__ import annotations

import numpy as np

from vla.types import Floats
from vla_sim.tabletop.tasks import COLOURS, GRASPED_M, SKILLS, Doubles, View

_LIMIT = 6.0


def privileged_features(view: View, max_steps: int) -> Floats:
    """(33,) distances in units that matter to the task, what the gripper holds, progress, disturbance, time, skill."""
    task = view.task
    pushes, places = task.skill == "push", task.skill in ("stack", "bowl")
    mirror = np.array([1.0, task.direction if pushes else 1.0, 1.0])
    cube = view.cubes[task.cube]
    others = [i for i in range(len(COLOURS)) if i != task.cube]
    to_cube = (view.tool - cube) * mirror
    to_push = to_cube + np.array([0.0, 0.065, 0.0])
    to_goal = cube - view.goal
    near = view.cubes[others] - view.tool
    nearest = near[np.argmin(np.hypot(*near[:, :2].T))] * mirror
    others_moved = np.hypot(*(view.cubes - view.start)[others, :2].T).max()
    away = float(np.hypot(*to_cube[:2]))
    closed_on = view.target_width < GRASPED_M and 0.02 < view.width < GRASPED_M
    holds = closed_on and away < 0.025 and abs(to_cube[2]) < 0.022
    features = np.concatenate(
        [
            to_cube / 0.05,
            to_push / 0.05 * pushes,
            (cube - view.start[task.cube]) * mirror / 0.05,
            (view.target - view.tool) * mirror / 0.04,
            to_goal / 0.05 * places,
            nearest / 0.1,
            [
                away / 0.05,
                view.width / 0.04 - 1.0,
                view.target_width / 0.04 - 1.0,
                1.0 - 2.0 * view.steps / max_steps,
                view.tool[2] / 0.1 - 1.0,
                others_moved / 0.03,
                view.speed[task.cube] / 0.2,
                float(holds),
                _closeness(away, 0.015),
                _closeness(float(np.hypot(*to_push[:2])), 0.02) * pushes,
                _closeness(float(np.hypot(*to_goal[:2])), 0.015) * places,
            ],
            [float(task.skill == skill) for skill in SKILLS],
        ]
    )
    return _bounded(features)


def _closeness(distance: float, scale: float) -> float:
    return float(np.exp(-((distance / scale) ** 2)))


def _bounded(features: Doubles) -> Floats:
    return np.clip(features, -_LIMIT, _LIMIT).astype(np.float32)
