"""LIBERO and robosuite with one thing changed: what does a policy depend on, and does it want or do the wrong thing?

After INT-ACT (Fang et al., arXiv 2506.09930), as `vla_sim.tabletop.probes`: on the same seeds and initial states, and
every change leaves the task feasible. A change is a task with another sentence or another layout, so environments,
snapshots and videos need not know of it.

Not here: other sizes of anything but boxes. A mesh that is only drawn larger would be held where it is not. Distractors
are drawn only (`clutter`): a compiled scene takes no further body.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from vla.errors import UnknownName
from vla_sim.arm import clutter
from vla_sim.arm.dress import Dress
from vla_sim.arm.env import ArmEnv, Task
from vla_sim.arm.world import Layout, World
from vla_sim.env import Suite
from vla_sim.panda import Doubles

PROBES = {
    "language_paraphrase": "the same in other order, or fewer of the same words",
    "language_negation": "the task, and another one that is not to be done",
    "language_unseen_noun": "the object under a name it was not trained on",
    "language_swap": "the sentence of another task; the goal stays, so success must fall",
    "vision_light": "half to three quarters of the light, or a quarter more, a little coloured",
    "vision_texture": "the surface wears another material of the scene",
    "vision_camera": "the outer camera 2 to 4 cm and 1 to 3 degrees off",
    "vision_distractors": "up to three more things, of other shapes and colours, drawn where there is room",
    "objects_pose": "everything 2 to 4 cm aside or nearer, furniture included",
    "objects_size": "cubes 5 to 15% smaller, or 3 to 6% larger",
    "objects_colour": "what can be moved is darker and tinged",
}
"""What each changes."""

_STREAM = 13
_T = TypeVar("_T")
_CLAUSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"pick up (?P<thing>.+) and place it (?P<where>(?:in|on) .+)",
        ("pick {thing} up and place it {where}", "place {thing} {where}"),
    ),
    (r"open (?P<thing>.+) and put (?P<what>.+) inside", ("put {what} inside {thing}",)),
    (r"open (?P<thing>.+) of (?P<whole>the .+)", ("open {whole} {thing}",)),
    (r"turn (?P<how>on|off) (?P<thing>.+?)(?P<rest> and .+)?", ("turn {thing} {how}{rest}",)),
    (
        r"(?:put|push) (?P<thing>.+?) (?P<where>(?:in|on|to|into|under|at) .+?)(?P<rest> and (?:put|close|turn) .+)?",
        ("{where} {verb} {thing}{rest}",),
    ),
)
"""Shapes of the suites' sentences, and other ways to say the same with words that are in them."""
_SYNONYMS = {
    "alphabet soup": "letter broth",
    "bbq sauce": "barbecue relish",
    "butter": "margarine",
    "chocolate pudding": "cocoa dessert",
    "cream cheese": "curd",
    "ketchup": "catsup",
    "milk": "dairy drink",
    "orange juice": "citrus drink",
    "salad dressing": "vinaigrette",
    "tomato sauce": "passata",
    "wine bottle": "flagon",
    "moka pot": "espresso maker",
    "frying pan": "skillet",
    "mug": "cup",
    "bowl": "dish",
    "plate": "platter",
    "book": "novel",
    "drawer": "locker",
    "microwave": "oven",
    "stove": "hob",
    "can": "tin",
    "bread": "loaf",
    "cereal": "muesli",
}


class ArmSuite(Suite, Protocol):
    """A suite on the robosuite arm."""

    def make(self) -> ArmEnv:
        """A new environment."""

    def draft(self) -> ArmEnv:
        """The same with plainer pictures."""

    def stage(self) -> ArmEnv:
        """The official look."""


class ProbedArm:
    """A suite with one probe."""

    def __init__(self, suite: ArmSuite, tasks: Mapping[str, Task], probe: str, without: Sequence[str] = ()) -> None:
        """Raises UnknownName."""
        there_is = probes_of(tasks, without)
        if probe not in there_is:
            raise UnknownName(f"suite {suite.name} has no probe {probe!r}; there is {', '.join(there_is)}")
        self.name, self.spec, self.skills, self.tasks = suite.name, suite.spec, suite.skills, suite.tasks
        self.instructions, self.film_camera = suite.instructions, suite.film_camera
        self.other_instruction = suite.other_instruction
        self._suite = suite
        self._change = functools.partial(_changed, probe, tuple(tasks.values()))

    def make(self) -> ArmEnv:
        """A new environment; call `reset` before anything else."""
        return self._suite.make().altered(self._change)

    def draft(self) -> ArmEnv:
        """The same with plainer pictures."""
        return self._suite.draft().altered(self._change)

    def stage(self) -> ArmEnv:
        """The official look."""
        return self._suite.stage().altered(self._change)


def probes_of(tasks: Mapping[str, Task], without: Sequence[str] = ()) -> dict[str, str]:
    """Those that make sense for a suite's tasks: with one sentence there is nothing to listen to."""
    sentences = {task.instruction for task in tasks.values()}
    left_out = set(without)
    if len(sentences) < 2:
        left_out |= {probe for probe in PROBES if probe.startswith("language_")}
    if any(not _paraphrases(sentence) for sentence in sentences):
        left_out.add("language_paraphrase")
    if any(_renamed(sentence) == sentence for sentence in sentences):
        left_out.add("language_unseen_noun")
    return {probe: what for probe, what in PROBES.items() if probe not in left_out}


def _changed(probe: str, tasks: Sequence[Task], task: Task, seed: int) -> Task:
    """The task of an episode, with one thing changed."""
    rng = np.random.default_rng([seed, _STREAM])
    if not probe.startswith("language_"):
        return replace(task, layout=functools.partial(_laid_out, probe, task.layout))
    others = [other for other in tasks if other.instruction != task.instruction]
    if probe == "language_paraphrase":
        return replace(task, instruction=_choose(rng, _paraphrases(task.instruction)))
    if probe == "language_unseen_noun":
        return replace(task, instruction=_renamed(task.instruction))
    if probe == "language_negation":
        return replace(task, instruction=f"{task.instruction}, do not {_choose(rng, others).instruction}")
    world = task.world()
    here = list(world.things.within_reach(task.layout(world, seed).qpos, world.base))
    there = [other for other in others if other.target != task.target and _alone(other.target, here)]
    said = _choose(rng, there or others)
    # Where the sentence is about the same object, one that is not there or one of several alike, what the hand goes for
    # tells nothing.
    return replace(task, instruction=said.instruction, target=said.target if there else "")


def _alone(name: str, names: Sequence[str]) -> bool:
    """It is among the names, and no other of its kind is: "plate_1", and no "plate_2"."""
    kind = re.sub(r"_\d+$", "", name)
    return [other for other in names if re.sub(r"_\d+$", "", other) == kind] == [name]


def _laid_out(probe: str, plain: Callable[[World, int], Layout], world: World, seed: int) -> Layout:
    """The layout of an episode, with one thing changed."""
    layout, rng = plain(world, seed), np.random.default_rng([seed, _STREAM])
    if probe == "vision_distractors":
        return replace(layout, dress=Dress(solids=clutter.solids(world, layout, rng)))
    if probe != "objects_pose":
        return replace(layout, dress=_dress(probe, world, rng))
    angle = rng.uniform(-np.pi / 2, np.pi / 2)  # to the side or towards the base: farther off the elbow is straight
    shift = rng.uniform(0.02, 0.04) * np.array([-np.cos(angle), np.sin(angle)])
    qpos, fixtures = layout.qpos.copy(), layout.fixtures.copy()
    for address in world.things.qpos:
        qpos[address : address + 2] += shift
    fixtures[:, :2] += shift
    return replace(layout, qpos=qpos, fixtures=fixtures, regions=layout.regions + shift)


def _dress(probe: str, world: World, rng: np.random.Generator) -> Dress:
    """How this episode looks."""
    if probe == "vision_light":
        level = rng.uniform(0.5, 0.75) if rng.random() < 0.5 else 1.25
        return Dress(light=level * rng.uniform(0.9, 1.1, 3))
    if probe == "vision_texture":
        return Dress(surface=_choose(rng, world.wardrobe.materials))
    if probe == "vision_camera":
        shift, turn = _direction(rng), _direction(rng)
        return Dress(camera_shift=shift * rng.uniform(0.02, 0.04), camera_turn=turn * np.deg2rad(rng.uniform(1.0, 3.0)))
    if probe == "objects_size":
        return Dress(size=rng.uniform(0.85, 0.95) if rng.random() < 0.5 else rng.uniform(1.03, 1.06))
    return Dress(tint=rng.uniform(0.5, 0.8) * rng.uniform(0.8, 1.2, 3))


def _paraphrases(sentence: str) -> list[str]:
    """Other ways to say it; none where its shape is not known."""
    for shape, others in _CLAUSES:
        if found := re.fullmatch(shape, sentence):
            parts = {name: part or "" for name, part in found.groupdict().items()}
            return [other.format(verb=sentence.split()[0], **parts) for other in others]
    return []


def _renamed(sentence: str) -> str:
    """The first object that is named, under another name."""
    places = {noun: found.start() for noun in _SYNONYMS if (found := re.search(rf"\b{noun}(?=s?\b)", sentence))}
    if not places:
        return sentence
    noun = min(places, key=lambda one: places[one])
    return re.sub(rf"\b{noun}(?=s?\b)", _SYNONYMS[noun], sentence)


def _choose(rng: np.random.Generator, among: Sequence[_T]) -> _T:
    return among[int(rng.integers(len(among)))]


def _direction(rng: np.random.Generator) -> Doubles:
    direction = rng.standard_normal(3)
    unit: Doubles = direction / np.linalg.norm(direction)
    return unit
