"""The tabletop's tasks: what each is called, how it is said, where its objects lie, and when it is done.

Everything here is a function of `View`, the simulator's state in plain numbers; nothing touches MuJoCo. Positions are
in the robot's base frame [m]: x away from the robot, y to its left, z up, the table at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

COLOURS = ("red", "green", "blue")
SKILLS = ("pick", "push", "stack", "bowl")
CUBE_M = 0.044
"""Edge of a cube."""
BOWL_INSIDE_M = 0.04
"""A cube's centre this close to the bowl's, in x and in y, is inside the walls."""
GRASPED_M = 0.0475
"""A closing gripper that stops below this opening, and above half of it, has a cube between its fingers."""
OPEN_M = 0.06
"""From this opening on a gripper has let go."""

_WORDINGS = {
    "pick": ("pick up the {a} cube", "grab the {a} cube", "lift the {a} block", "please pick the {a} block up"),
    "push": ("push the {a} cube to the {b}", "slide the {a} block {b}", "move the {a} cube to the {b}"),
    "stack": ("stack the {a} cube on the {b} cube", "put the {a} block on the {b} one", "place the {a} cube on {b}"),
    "bowl": ("put the {a} cube in the bowl", "drop the {a} block into the bowl", "place the {a} cube in the bowl"),
}

_LOW, _HIGH = np.array([0.40, -0.15]), np.array([0.64, 0.15])
_CUBES_APART, _BOWL_APART = np.array([0.07, 0.09]), np.array([0.09, 0.125])
"""Least distance of two centres in x, or else in y: the open fingers reach 55 mm to either side of a cube in y."""
_MAX_YAW_RAD = 0.3


@dataclass(frozen=True)
class Task:
    """One goal: a skill, the cube it is about, and where that cube is to go."""

    skill: str
    cube: int
    """Index into COLOURS."""
    to: str = ""
    """A direction for push, a colour for stack."""

    @property
    def id(self) -> str:
        """Its name, e.g. "push_red_left"."""
        return "_".join(part for part in (self.skill, COLOURS[self.cube], self.to) if part)

    @property
    def base(self) -> int:
        """Stack only: index of the cube below."""
        return COLOURS.index(self.to)

    @property
    def direction(self) -> float:
        """Push only: +1 to the robot's left (+y), -1 to its right."""
        return 1.0 if self.to == "left" else -1.0

    def wordings(self) -> list[str]:
        """Every sentence that asks for it."""
        return [words.format(a=COLOURS[self.cube], b=self.to) for words in _WORDINGS[self.skill]]


def _all_tasks() -> dict[str, Task]:
    cubes = range(len(COLOURS))
    tasks = [Task("pick", c) for c in cubes]
    tasks += [Task("push", c, direction) for c in cubes for direction in ("left", "right")]
    tasks += [Task("stack", c, below) for c in cubes for below in COLOURS if below != COLOURS[c]]
    tasks += [Task("bowl", c) for c in cubes]
    return {task.id: task for task in tasks}


TASKS = _all_tasks()
"""Every task by its id."""
SAID = {words: task for task in TASKS.values() for words in task.wordings()}
"""What each sentence asks for."""


@dataclass(frozen=True, eq=False)
class View:
    """The simulator's state, as the expert, the judge and the privileged features see it."""

    task: Task
    tool: Doubles
    """(3,) where the point between the fingertips is."""
    target: Doubles
    """(3,) where it was commanded to be."""
    width: float
    """Opening of the gripper [m]."""
    target_width: float
    cubes: Doubles
    """(3, 3) centre of each cube."""
    start: Doubles
    """(3, 3) the same when the episode began."""
    speed: Doubles
    """(3,) [m/s] of each cube."""
    bowl: Doubles
    """(2,) its centre, x and y."""
    steps: int

    @property
    def goal(self) -> Doubles:
        """(3,) where stack and bowl want the cube's centre; for the others, where it is."""
        task = self.task
        if task.skill == "stack":
            on_top: Doubles = self.cubes[task.base] + np.array([0.0, 0.0, CUBE_M])
            return on_top
        if task.skill == "bowl":
            return np.array([*self.bowl, 0.004 + CUBE_M / 2])
        here: Doubles = self.cubes[task.cube]
        return here


def draw_task(rng: np.random.Generator) -> Task:
    """A skill, then one of its tasks, each with equal chance."""
    skill = SKILLS[rng.integers(len(SKILLS))]
    tasks = [task for task in TASKS.values() if task.skill == skill]
    return tasks[rng.integers(len(tasks))]


def draw_layout(rng: np.random.Generator, task: Task) -> tuple[Doubles, Doubles, Doubles]:
    """Positions (3, 2) and yaw (3,) [rad] of the cubes and position (2,) of the bowl, such that the task can be done.

    Apart from the lane a push needs, nothing in the layout tells which task it was drawn for.
    """
    while True:
        cubes = rng.uniform(_LOW, _HIGH, (len(COLOURS), 2))
        bowl = rng.uniform(_LOW, _HIGH)
        between = np.abs(cubes - np.roll(cubes, 1, axis=0))
        if (between < _CUBES_APART).all(1).any() or (np.abs(cubes - bowl) < _BOWL_APART).all(1).any():
            continue
        if task.skill == "push" and not _lane_is_free(cubes, bowl, task):
            continue
        return cubes, rng.uniform(-_MAX_YAW_RAD, _MAX_YAW_RAD, len(COLOURS)), bowl


def judge(view: View) -> tuple[bool, str]:
    """Whether the task is done, or why it can no longer be: (success, failure).

    Disturbing another cube by more than 5 cm, or lifting one, ends the episode.
    """
    task = view.task
    others = [i for i in range(len(COLOURS)) if i != task.cube]
    moved = view.cubes - view.start
    if np.hypot(*moved[others, :2].T).max() > 0.05:
        return False, "moved_other"
    if view.cubes[others, 2].max() > 0.06:
        return False, "wrong_object"
    cube = view.cubes[task.cube]
    if task.skill == "pick":
        return bool(cube[2] > 0.09), ""
    if task.skill == "push":
        along, across = moved[task.cube, 1] * task.direction, abs(moved[task.cube, 0])
        return bool(along > 0.07 and across < 0.05 and cube[2] < 0.03), ""
    error = np.abs(cube - view.goal)
    at_goal = np.hypot(*error[:2]) < 0.03 and error[2] < 0.01
    if task.skill == "bowl":
        at_goal = error[:2].max() < BOWL_INSIDE_M and error[2] < 0.015
    let_go = view.width > OPEN_M and view.tool[2] - cube[2] > 0.02
    return bool(at_goal and let_go and view.speed[task.cube] < 0.05), ""


def _lane_is_free(cubes: Doubles, bowl: Doubles, task: Task) -> bool:
    """The gripper fits behind the cube, and the cube can slide 10 cm and stay in view."""
    x, along = cubes[task.cube, 0], cubes[task.cube, 1] * task.direction
    others = np.delete(cubes, task.cube, axis=0)
    ahead = others[:, 1] * task.direction - along
    blocked = (np.abs(others[:, 0] - x) < 0.07) & (ahead > -0.13) & (ahead < 0.16)
    bowl_ahead = bowl[1] * task.direction - along
    bowl_blocks = abs(bowl[0] - x) < 0.11 and -0.16 < bowl_ahead < 0.19
    return bool(along < 0.10 and not blocked.any() and not bowl_blocks)
