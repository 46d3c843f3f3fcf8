"""LIBERO: spatial, object, goal, 10 and 90, with the official task files, initial states and meshes, offline.

An episode is a task and a layout. Seeds from 1,000,000 on are the official initial states, task by task in turn, the
fixtures where seed 0 puts them; below, a seed draws its own layout from the task's placement rules, so that no
demonstration shares its layout with an evaluation.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import BadConfig, Missing
from vla.spec import Camera
from vla_sim.arm_env import ArmEnv, Task, named, panda_spec
from vla_sim.decimation import decimate
from vla_sim.libero_expert import PredicateExpert
from vla_sim.rendering import Look
from vla_sim.world import Layout, World, quiet

OFFICIAL = 1_000_000
"""Seeds from here on are official initial states."""
SPEC = panda_spec((Camera("agent", 96, 128, crop=(20, 0, 96, 128)), Camera("wrist", 64, 64)))
"""The agent's camera loses sky and floor, not one object."""

_MAX_STEPS = {"libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""The limits LeRobot evaluates with."""
_VISUAL_MESHES = (0, 1, 0, 0, 0, 0)
_LOOKS = {
    "full": Look(_VISUAL_MESHES, shadows=True, reflections=True),
    "decimated": Look(_VISUAL_MESHES, samples=0),
}
_WORLDS = 12
"""Compiled scenes kept in a process, each some 300 MB."""


class LiberoSuite:
    """One of the five."""

    film_camera = "agent"

    def __init__(self, name: str, *variants: str) -> None:
        """`variants` may name a visual mode: "full" (official, the default) or "decimated"."""
        if unknown := [v for v in variants if v not in _LOOKS]:
            raise BadConfig(f"suite {name}: no variant is called {unknown}; there is {', '.join(_LOOKS)}")
        self.name = name
        self.spec = SPEC
        self._visual = variants[0] if variants else "full"
        found = _tasks(name, self._visual)
        self._tasks = found
        self.skills = tuple(sorted({task.skill for task in found.values()}))
        self.tasks = tuple(found)
        self.instructions = tuple(task.instruction for task in found.values())

    def make(self) -> ArmEnv:
        """A new environment; call `reset` before anything else."""
        return ArmEnv(self.name, self.spec, self._task, _LOOKS[self._visual])

    def draft(self) -> ArmEnv:
        """The same physics with decimated meshes: some ten times as many images a second."""
        return LiberoSuite(self.name, "decimated").make()

    def stage(self) -> ArmEnv:
        """The official meshes."""
        return LiberoSuite(self.name, "full").make()

    def other_instruction(self, task: str, seed: int) -> str:
        """The sentence of another task of the suite."""
        others = [t.instruction for t in self._tasks.values() if t.instruction != self._tasks[task].instruction]
        return others[np.random.default_rng([seed, 11]).integers(len(others))]

    def _task(self, seed: int, name: str | None) -> Task:
        return named(self._tasks, self.name, name if name is not None else self.tasks[seed % len(self.tasks)])


@functools.cache
def _tasks(suite: str, visual: str) -> dict[str, Task]:
    """Every task by its official name, in the official order."""
    with quiet():
        try:
            from libero.libero import benchmark
        except ImportError as error:
            raise Missing(f"LIBERO is not installed ({error}): pip install 'vla-stack[libero]'") from error
        problems = benchmark.get_benchmark(suite)(task_order_index=0).tasks
    return {p.name: _task_of(suite, i, len(problems), p, visual) for i, p in enumerate(problems)}


def _task_of(suite: str, index: int, n_tasks: int, problem: Any, visual: str) -> Task:
    from libero.libero import get_libero_path
    from libero.libero.envs.bddl_utils import robosuite_parse_problem

    file = Path(get_libero_path("bddl_files")) / problem.problem_folder / problem.bddl_file
    states = Path(get_libero_path("init_states")) / problem.problem_folder / f"{problem.init_states_file}.npz"
    goals = tuple(tuple(goal) for goal in robosuite_parse_problem(str(file))["goal_state"])

    def layout(world: World, seed: int) -> Layout:
        return _official(world, states, (seed - OFFICIAL) // n_tasks) if seed >= OFFICIAL else world.draw(seed)

    world = functools.partial(_world, file, visual)
    skill = "several" if len(goals) > 1 else _SKILL.get(goals[0][0], "put")
    return Task(problem.name, skill, problem.language, world, layout, PredicateExpert(goals), _MAX_STEPS[suite])


_SKILL = {"in": "put", "on": "put", "open": "open", "close": "close", "turnon": "turn", "turnoff": "turn"}


def _official(world: World, file: Path, number: int) -> Layout:
    """One of a task's official initial states: time, then qpos, then qvel."""
    states = _states(file)
    state = states[number % len(states)]
    nq, nv = world.model.nq, world.model.nv
    return Layout(state[1 : 1 + nq], state[1 + nq : 1 + nq + nv], world.first.fixtures)


@functools.cache
def _states(file: Path) -> Any:
    with np.load(file, allow_pickle=False) as archive:
        return archive["states"]


@functools.lru_cache(maxsize=_WORLDS)
def _world(file: Path, visual: str) -> World:
    def build() -> Any:
        from libero.libero.envs.env_wrapper import ControlEnv

        return ControlEnv(
            bddl_file_name=str(file),
            use_camera_obs=False,
            has_offscreen_renderer=False,
            hard_reset=False,
            ignore_done=True,
        ).env

    world = World(build)
    if visual == "decimated":
        decimate(world.model)
    return world


LiberoSpatial = functools.partial(LiberoSuite, "libero_spatial")
LiberoObject = functools.partial(LiberoSuite, "libero_object")
LiberoGoal = functools.partial(LiberoSuite, "libero_goal")
Libero10 = functools.partial(LiberoSuite, "libero_10")
Libero90 = functools.partial(LiberoSuite, "libero_90")
