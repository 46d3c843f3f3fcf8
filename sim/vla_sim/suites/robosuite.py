"""robosuite's Lift, Stack and PickPlace (can, milk, bread, cereal) under the same arm and contract as LIBERO.

robosuite has no initial states of its own: a seed draws the layout from the task's placement rules, and the arm starts
where robosuite puts it, without noise. Only the sentences are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.errors import Missing
from vla.spec import Camera
from vla.types import Floats
from vla_sim.arm_env import ArmEnv, Task, View, named, panda_spec
from vla_sim.arm_probes import ProbedArm, probes_of
from vla_sim.grasps import from_above
from vla_sim.osc import DOWN, turn_between
from vla_sim.panda import Doubles
from vla_sim.rendering import Look
from vla_sim.waypoints import CLOSE, OPEN, Place, fetch, go, holds, pick_and_place
from vla_sim.world import CONTROL_RATE_HZ, World, quiet

SPEC = panda_spec((Camera("agent", 96, 128, crop=(20, 0, 96, 128)), Camera("wrist", 64, 64)))

_LOOK = Look((0, 1, 0, 0, 0, 0), shadows=True, reflections=True)
_DRAFT = Look((0, 1, 0, 0, 0, 0), samples=0)
_NEARER_M = 0.06
"""Than the middle of its bin, where the arm would be stretched."""
_UP = np.array([0.0, 0.0, 0.1])
_WORDS = {
    "Lift": "lift the red cube",
    "Stack": "stack the red cube on the green cube",
    "PickPlaceCan": "put the can into its bin",
    "PickPlaceMilk": "put the milk into its bin",
    "PickPlaceBread": "put the bread into its bin",
    "PickPlaceCereal": "put the cereal into its bin",
}
_TARGETS = {"Lift": "cube", "Stack": "cubeA"}
_MAX_STEPS = {"Lift": 100, "Stack": 160}
_NO_PROBES = {"pick_place": ("objects_pose", "objects_size")}
"""Its bins stay where they are and leave no room, and its objects are no boxes."""


@dataclass(frozen=True)
class RobosuiteExpert:
    """Lifts, stacks or puts into a bin, whichever the scene is for."""

    def action(self, view: View) -> Floats:
        """(7,) what to do next."""
        env, body = view.world.env, _object(view)
        if hasattr(env, "cube"):
            if holds(view, body):
                return go(view, view.tool + _UP, CLOSE)
            return fetch(view, from_above(view, body))
        if not hasattr(env, "cubeA") and not env.not_in_bin(view.data.xpos[body], env.object_id) and not view.closing:
            return go(view, view.tool + _UP, OPEN)  # success asks for an empty hand, away
        return pick_and_place(view, body, lambda: from_above(view, body), lambda: _place(view))

    def features(self, view: View) -> Floats:
        """(19,) distances in units that matter, what the gripper holds, time."""
        body = _object(view)
        thing = view.data.xpos[body]
        hand, way = view.tool - thing, thing - _goal(view)
        scalars = [
            np.exp(-float(hand @ hand) / 0.02**2),
            np.exp(-float(way[:2] @ way[:2]) / 0.03**2),
            view.width / 0.04 - 1.0,
            view.grip,
            float(view.closing),
            float(holds(view, body)),
            view.data.cvel[body][5] / 0.2,
        ]
        turn = turn_between(DOWN, view.orientation)
        parts = [hand / 0.05, way / 0.05, way / 0.3, turn[:2], scalars, [1.0 - 2.0 * view.steps / view.max_steps]]
        features: Floats = np.clip(np.concatenate(parts), -6.0, 6.0).astype(np.float32)
        return features


def _object(view: View) -> int:
    """The body that the task is about."""
    env = view.world.env
    if hasattr(env, "cube"):
        return int(env.cube_body_id)
    if hasattr(env, "cubeA"):
        return int(env.cubeA_body_id)
    return int(env.obj_body_id[env.objects[env.object_id].name])


def _goal(view: View) -> Doubles:
    """(3,) where it should come to."""
    env = view.world.env
    if hasattr(env, "cube"):
        lifted: Doubles = view.data.xpos[env.cube_body_id] * [1, 1, 0] + [0, 0, 0.9]
        return lifted
    if hasattr(env, "cubeB"):
        return np.array(view.data.xpos[env.cubeB_body_id])
    return np.array(env.target_bin_placements[env.object_id])


def _place(view: View) -> Place:
    goal = _goal(view)
    if hasattr(view.world.env, "cubeB"):
        top = float(view.world.shapes.cloud(view.data, view.world.env.cubeB_body_id)[:, 2].max())
        return Place(np.array([*goal[:2], top]), top + 0.05)
    outward = goal[:2] - view.world.base[:2]
    goal[:2] -= _NEARER_M * outward / np.linalg.norm(outward)
    return Place(goal + np.array([0.0, 0.0, 0.03]), float(goal[2]) + 0.15, near=0.05)


class RobosuiteSuite:
    """One family of robosuite's tasks."""

    skills: Sequence[str]
    tasks: Sequence[str]
    instructions: Sequence[str]
    film_camera = "agent"

    def __init__(self, name: str, skill: str, *tasks: str) -> None:
        self.name, self.spec, self.skills, self.tasks = name, SPEC, (skill,), tasks
        self.instructions = tuple(_WORDS[task] for task in tasks)
        self._tasks = {task: _task(task, skill) for task in tasks}

    def make(self) -> ArmEnv:
        """A new environment; call `reset` before anything else."""
        return ArmEnv(self.name, self.spec, self._task, _LOOK)

    def draft(self) -> ArmEnv:
        """Without shadows, reflections and multisampling."""
        return ArmEnv(self.name, self.spec, self._task, _DRAFT)

    def stage(self) -> ArmEnv:
        """The official look."""
        return self.make()

    def other_instruction(self, task: str, seed: int) -> str:
        """A sentence about something else; for a suite of one task, of another suite."""
        others = [words for other, words in _WORDS.items() if other != task]
        return others[np.random.default_rng([seed, 11]).integers(len(others))]

    @property
    def probes(self) -> dict[str, str]:
        """What may be changed, to find out what a policy depends on."""
        return probes_of(self._tasks, _NO_PROBES.get(self.name, ()))

    def probed(self, probe: str) -> ProbedArm:
        """The same suite with one thing changed. Raises UnknownName."""
        return ProbedArm(self, self._tasks, probe, _NO_PROBES.get(self.name, ()))

    def _task(self, seed: int, name: str | None) -> Task:
        return named(self._tasks, self.name, name if name is not None else self.tasks[seed % len(self.tasks)])


def _task(name: str, skill: str) -> Task:
    world = functools.partial(_world, name)
    target = _TARGETS.get(name, name.removeprefix("PickPlace"))
    return Task(name, skill, _WORDS[name], world, World.draw, RobosuiteExpert(), _MAX_STEPS.get(name, 240), target)


@functools.cache
def _world(name: str) -> World:
    with quiet():
        try:
            import robosuite
        except ImportError as error:
            raise Missing(f"robosuite is not installed ({error}): pip install 'vla-stack[sim]'") from error

    def build() -> Any:
        return robosuite.make(
            name,
            robots="Panda",
            controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=CONTROL_RATE_HZ,
            hard_reset=False,
            ignore_done=True,
            initialization_noise=None,
        )

    return World(build)


Lift = functools.partial(RobosuiteSuite, "lift", "lift", "Lift")
Stack = functools.partial(RobosuiteSuite, "stack", "stack", "Stack")
PickPlace = functools.partial(
    RobosuiteSuite, "pick_place", "put", "PickPlaceCan", "PickPlaceMilk", "PickPlaceBread", "PickPlaceCereal"
)
