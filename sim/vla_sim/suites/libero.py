"""LIBERO: spatial, object, goal, 10 and 90, with the official task files, initial states and meshes, offline.

An episode is a task and a layout. Seeds 1,000,000 to 1,999,999 are the official initial states, task by task in turn,
the fixtures where seed 0 puts them; any other seed draws its own layout from the task's placement rules, so that
neither demonstrations nor the rollouts that a verifier learns from share a layout with an evaluation. LIBERO-PRO's
perturbations are variants: `libero_object:swap`.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import Missing, UnknownName
from vla.spec import Camera
from vla_sim.arm.decimation import decimate, shrink_textures
from vla_sim.arm.env import ArmEnv, Task, named, panda_spec
from vla_sim.arm.probes import ProbedArm, probes_of
from vla_sim.arm.world import Layout, World, quiet
from vla_sim.rendering import Look
from vla_sim.scripted.libero import PredicateExpert

OFFICIAL = 1_000_000
"""Seeds from here on are official initial states, as many as anybody asks for: the next million."""
_OFFICIAL_SEEDS = range(OFFICIAL, 2 * OFFICIAL)
SPEC = panda_spec((Camera("agent", 96, 128, crop=(20, 0, 96, 128)), Camera("wrist", 64, 64)))
"""The agent's camera loses sky and floor, not one object."""

_MAX_STEPS = {"libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""The limits LeRobot evaluates with."""
_VISUAL_MESHES = (0, 1, 0, 0, 0, 0)
_LOOKS = {
    "full": Look(_VISUAL_MESHES, shadows=True, reflections=True),
    "decimated": Look(_VISUAL_MESHES),
}
PERTURBATIONS = {"language": "lan", "object": "object", "swap": "swap", "task": "task"}
"""LIBERO-PRO's changes to spatial, object, goal and 10, and how its folders call them: other words, other looks of the
objects, places exchanged, another goal in the same scene."""
SHIFTS = {f"{axis}0.{step}": f"temp_{axis}0.{step}" for axis in "xy" for step in range(1, 6)}
"""LIBERO-PRO's graded ones, of libero_object alone: what is asked for lies elsewhere, 7 cm a step."""
_SHUFFLED = "shuffled"
"""Ours, for libero_object: there the thing that is asked for always lies in one place, so that a policy trained on it
need neither look nor listen."""
_SHUFFLE_STREAM = 17
_NO_PROBES = ("objects_size",)
"""Its objects are meshes."""
_WORLDS = 12
"""Compiled scenes kept in a process, each some 400 MB, twice that with libero_10's meshes."""


class LiberoSuite:
    """One of the five."""

    skills: Sequence[str]
    tasks: Sequence[str]
    instructions: Sequence[str]
    film_camera = "agent"

    def __init__(self, name: str, *variants: str) -> None:
        """`variants` may name a visual mode, "full" (official, the default) or "decimated", and a perturbation.

        Raises:
            UnknownName: the suite has no such variant, or two of a kind.
        """
        possible = (*PERTURBATIONS, *SHIFTS, _SHUFFLED) if name == "libero_object" else tuple(PERTURBATIONS)
        looks = [v for v in variants if v in _LOOKS]
        changes = [v for v in variants if v in possible]
        known = (*_LOOKS, *possible)
        if len(looks) + len(changes) < len(variants) or len(looks) > 1 or len(changes) > 1:
            raise UnknownName(f"suite {name} has no variant {'+'.join(variants)!r}; there is {', '.join(known)}")
        self.name = name
        self.spec = SPEC
        self._visual, self._change = (looks or ["full"])[0], changes
        found = _tasks(name, "".join(changes), self._visual)
        self._tasks = found
        self.skills = tuple(sorted({task.skill for task in found.values()}))
        self.tasks = tuple(found)
        self.instructions = tuple(task.instruction for task in found.values())

    def make(self) -> ArmEnv:
        """A new environment; call `reset` before anything else."""
        return ArmEnv(self.name, self.spec, self._task, _LOOKS[self._visual])

    def draft(self) -> ArmEnv:
        """The same physics with decimated meshes: four times as many images a second."""
        return LiberoSuite(self.name, "decimated", *self._change).make()

    def stage(self) -> ArmEnv:
        """The official meshes."""
        return LiberoSuite(self.name, "full", *self._change).make()

    def other_instruction(self, task: str, seed: int) -> str:
        """The sentence of another task of the suite."""
        others = [t.instruction for t in self._tasks.values() if t.instruction != self._tasks[task].instruction]
        return others[np.random.default_rng([seed, 11]).integers(len(others))]

    @property
    def probes(self) -> dict[str, str]:
        """What may be changed, to find out what a policy depends on."""
        return probes_of(self._tasks, _NO_PROBES)

    def probed(self, probe: str) -> ProbedArm:
        """The same suite with one thing changed. Raises UnknownName."""
        return ProbedArm(self, self._tasks, probe, _NO_PROBES)

    def _task(self, seed: int, name: str | None) -> Task:
        return named(self._tasks, self.name, name if name is not None else self.tasks[seed % len(self.tasks)])


@functools.cache
def _tasks(suite: str, variant: str, visual: str) -> dict[str, Task]:
    """Every task by its official name, in the official order."""
    with quiet():
        try:
            from libero.libero import benchmark
        except ImportError as error:
            raise Missing(f"LIBERO is not installed ({error}): pip install 'vla-stack[libero]'") from error
        problems = benchmark.get_benchmark(suite)(task_order_index=0).tasks
    return {problem.name: _task_of(suite, problems, problem, variant, visual) for problem in problems}


def _task_of(suite: str, problems: Sequence[Any], problem: Any, variant: str, visual: str) -> Task:
    from libero.libero import get_libero_path

    perturbation = (PERTURBATIONS | SHIFTS).get(variant)
    folder = f"{problem.problem_folder}_{perturbation}" if perturbation else problem.problem_folder
    file = Path(get_libero_path("bddl_files")) / folder / problem.bddl_file
    states = Path(get_libero_path("init_states")) / folder / f"{problem.init_states_file}.npz"
    if missing := [path.name for path in (file, states) if not path.is_file()]:
        raise Missing(
            f"{suite}:{variant}: {missing} is not installed: spatial, object, goal and 10 alone are perturbed"
        )
    parsed = _parsed(folder, problem)
    goals = tuple(tuple(goal) for goal in parsed["goal_state"])
    said = _said(problems, parsed) if perturbation else problem.language

    def layout(world: World, seed: int) -> Layout:
        official = seed in _OFFICIAL_SEEDS
        found = _official(world, states, (seed - OFFICIAL) // len(problems)) if official else world.draw(seed)
        return _shuffled(world, found, seed, goals) if variant == _SHUFFLED else found

    world = functools.partial(_world, file, visual)
    skill = "several" if len(goals) > 1 else _SKILL.get(goals[0][0], "put")
    target = goals[0][1] if skill == "put" else ""
    return Task(problem.name, skill, said, world, layout, PredicateExpert(goals), _MAX_STEPS[suite], target)


def _parsed(folder: str, problem: Any) -> dict[str, Any]:
    """A problem as LIBERO reads its file in a folder."""
    with quiet():
        from libero.libero import get_libero_path
        from libero.libero.envs.bddl_utils import robosuite_parse_problem

        found: dict[str, Any] = robosuite_parse_problem(
            str(Path(get_libero_path("bddl_files"), folder, problem.bddl_file))
        )
    return found


def _said(problems: Sequence[Any], parsed: dict[str, Any]) -> str:
    """The sentence of a perturbed problem. Files say "pick the milk", LIBERO "pick up the milk", which is in none."""
    sentence = " ".join(parsed["language_instruction"])
    for plain in problems:
        if " ".join(_parsed(plain.problem_folder, plain)["language_instruction"]) == sentence:
            return str(plain.language)
    return sentence.lower()


_SKILL = {"in": "put", "on": "put", "open": "open", "close": "close", "turnon": "turn", "turnoff": "turn"}


def _official(world: World, file: Path, number: int) -> Layout:
    """One of a task's official initial states: time, then qpos, then qvel."""
    states = _states(file)
    state = states[number % len(states)]
    nq, nv = world.model.nq, world.model.nv
    return Layout(state[1 : 1 + nq], state[1 + nq : 1 + nq + nv], world.first.fixtures)


def _shuffled(world: World, layout: Layout, seed: int, goals: Sequence[Sequence[str]]) -> Layout:
    """Things exchange their places at random; what others go into stays."""
    names, stays = world.things.names, [place for _, *_, place in goals]
    moved = [
        address
        for address, name in zip(world.things.qpos, names, strict=True)
        if not any(place.startswith(name) for place in stays)
    ]
    qpos, order = layout.qpos.copy(), np.random.default_rng([seed, _SHUFFLE_STREAM]).permutation(moved)
    for to, fro in zip(moved, order, strict=True):
        qpos[to : to + 2] = layout.qpos[fro : fro + 2]
    return replace(layout, qpos=qpos)


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

    # robosuite's environments are circles of references: without this, what left the cache stays, with its meshes.
    gc.collect()
    world = World(build)
    if visual == "decimated":
        decimate(world.model)
        shrink_textures(world.model)
    return world


LiberoSpatial = functools.partial(LiberoSuite, "libero_spatial")
LiberoObject = functools.partial(LiberoSuite, "libero_object")
LiberoGoal = functools.partial(LiberoSuite, "libero_goal")
Libero10 = functools.partial(LiberoSuite, "libero_10")
Libero90 = functools.partial(LiberoSuite, "libero_90")
