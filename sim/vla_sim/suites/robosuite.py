"""robosuite's Lift, Stack, PickPlace, NutAssembly and Door under the same arm and contract as LIBERO.

robosuite has no initial states of its own: a seed draws the layout from the task's placement rules, and the arm starts
where robosuite puts it, without noise. Only the sentences are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.errors import Missing, UnknownName
from vla.spec import Camera
from vla.types import Floats
from vla_sim.arm.env import ArmEnv, Task, View, named, panda_spec
from vla_sim.arm.osc import DOWN, turn_between
from vla_sim.arm.probes import ProbedArm, probes_of
from vla_sim.arm.world import CONTROL_RATE_HZ, World, quiet
from vla_sim.panda import Doubles
from vla_sim.rendering import Look
from vla_sim.scripted.doors import along, open_door
from vla_sim.scripted.grasps import from_above
from vla_sim.scripted.waypoints import CLOSE, OPEN, Place, fetch, go, holds, pick_and_place
from vla_sim.scripted.wrist import by_the_handle

SPEC = panda_spec((Camera("agent", 96, 128, crop=(20, 0, 96, 128)), Camera("wrist", 64, 64)))

_LOOK = Look((0, 1, 0, 0, 0, 0), shadows=True, reflections=True)
_DRAFT = Look((0, 1, 0, 0, 0, 0))
_NEARER_M = 0.06
"""Than the middle of its bin, where the arm would be stretched."""
_UP = np.array([0.0, 0.0, 0.1])
_LIFTED_M = 0.9
_ON_PEG_M = 0.025
"""Height of a nut above the table when it is let go on its peg."""
_QUARTERS = tuple(np.deg2rad(np.arange(0, 360, 90)))
_ROUND = tuple(np.deg2rad(np.arange(0, 360, 15)))
_OPENED_RAD = 0.35


class Scene(Protocol):
    """What one of robosuite's scenes is about."""

    def body(self, view: View) -> int:
        """The body that is to be moved."""

    def goal(self, view: View) -> Doubles:
        """(3,) where it should come to."""

    def action(self, view: View) -> Floats:
        """(7,) what to do next."""


class _Lift:
    def body(self, view: View) -> int:
        return int(view.world.env.cube_body_id)

    def goal(self, view: View) -> Doubles:
        x, y, _ = view.data.xpos[self.body(view)]
        return np.array([x, y, _LIFTED_M])

    def action(self, view: View) -> Floats:
        body = self.body(view)
        return go(view, view.tool + _UP, CLOSE) if holds(view, body) else fetch(view, from_above(view, body))


class _Stack:
    def body(self, view: View) -> int:
        return int(view.world.env.cubeA_body_id)

    def goal(self, view: View) -> Doubles:
        return np.array(view.data.xpos[view.world.env.cubeB_body_id])

    def action(self, view: View) -> Floats:
        top = float(view.world.shapes.cloud(view.data, view.world.env.cubeB_body_id)[:, 2].max())
        place = Place(np.array([*self.goal(view)[:2], top]), top + 0.05)
        body = self.body(view)
        return pick_and_place(view, body, lambda: from_above(view, body), lambda: place)


class _Bin:
    def body(self, view: View) -> int:
        env = view.world.env
        return int(env.obj_body_id[env.objects[env.object_id].name])

    def goal(self, view: View) -> Doubles:
        return np.array(view.world.env.target_bin_placements[view.world.env.object_id])

    def action(self, view: View) -> Floats:
        env, body, goal = view.world.env, self.body(view), self.goal(view)
        if not env.not_in_bin(view.data.xpos[body], env.object_id) and not view.closing:
            return go(view, view.tool + _UP, OPEN)  # success asks for an empty hand, away
        outward = goal[:2] - view.world.base[:2]
        goal[:2] -= _NEARER_M * outward / np.linalg.norm(outward)
        place = Place(goal + np.array([0.0, 0.0, 0.03]), float(goal[2]) + 0.15, near=0.05)
        return pick_and_place(view, body, lambda: from_above(view, body), lambda: place)


@dataclass(frozen=True)
class _Nut:
    yaws: tuple[float, ...]
    """Of the nut, that fit its peg [rad]."""

    def body(self, view: View) -> int:
        return int(view.world.env.obj_body_id[view.world.env.obj_to_use])

    def goal(self, view: View) -> Doubles:
        return np.array(view.data.xpos[_peg(view)])

    def action(self, view: View) -> Floats:
        env, body, peg = view.world.env, self.body(view), self.goal(view)
        peg_top = float(view.world.shapes.cloud(view.data, _peg(view))[:, 2].max())
        place = Place(np.array([*peg[:2], env.table_offset[2] + _ON_PEG_M]), peg_top + 0.02, near=0.004, yaws=self.yaws)
        handle = np.array(view.data.site_xpos[env.object_site_ids[env.nut_id]])
        return pick_and_place(view, body, lambda: by_the_handle(view, body, handle, peg[:2], self.yaws), lambda: place)


def _peg(view: View) -> int:
    """The body of the peg that the nut belongs on."""
    env = view.world.env
    return int((env.peg1_body_id, env.peg2_body_id)[env.nut_id])


class _Door:
    def body(self, view: View) -> int:
        return int(view.world.model.body(view.world.env.door.latch_body).id)

    def goal(self, view: View) -> Doubles:
        env = view.world.env
        return along(view, env.door.hinge_joint, view.data.site_xpos[env.door_handle_site_id], _OPENED_RAD)

    def action(self, view: View) -> Floats:
        door = view.world.env.door
        return open_door(view, door.hinge_joint, door.joints[1])


_SCENES: dict[str, tuple[str, int, str, Scene]] = {
    "Lift": ("lift the red cube", 100, "cube", _Lift()),
    "Stack": ("stack the red cube on the green cube", 160, "cubeA", _Stack()),
    "PickPlaceCan": ("put the can into its bin", 240, "Can", _Bin()),
    "PickPlaceMilk": ("put the milk into its bin", 240, "Milk", _Bin()),
    "PickPlaceBread": ("put the bread into its bin", 240, "Bread", _Bin()),
    "PickPlaceCereal": ("put the cereal into its bin", 240, "Cereal", _Bin()),
    "NutAssemblySquare": ("put the square nut on the square peg", 300, "SquareNut", _Nut(_QUARTERS)),
    "NutAssemblyRound": ("put the round nut on the round peg", 300, "RoundNut", _Nut(_ROUND)),
    "Door": ("open the door", 300, "", _Door()),
}
"""Instruction, limit [steps], the movable thing it is about ("" for none), expert."""
_FIXED = ("objects_pose", "objects_size")
_NO_PROBES = {"pick_place": _FIXED, "nut_assembly": _FIXED, "door": (*_FIXED, "objects_colour", "vision_distractors")}
"""Bins and pegs stay where they are and leave no room, what is no box keeps its size, and a door is all there is."""


@dataclass(frozen=True)
class RobosuiteExpert:
    """A scene's expert, and the features that tell how far it has come."""

    scene: Scene

    def action(self, view: View) -> Floats:
        """(7,) what to do next."""
        return self.scene.action(view)

    def features(self, view: View) -> Floats:
        """(19,) distances in units that matter, what the gripper holds, time."""
        body = self.scene.body(view)
        thing = view.data.xpos[body]
        hand, way = view.tool - thing, thing - self.scene.goal(view)
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


class RobosuiteSuite:
    """One family of robosuite's tasks."""

    skills: Sequence[str]
    tasks: Sequence[str]
    instructions: Sequence[str]
    film_camera = "agent"

    def __init__(self, name: str, skill: str, tasks: tuple[str, ...], *variants: str) -> None:
        if variants:
            raise UnknownName(f"suite {name} has no variant {variants[0]!r}; it has none at all")
        self.name, self.spec, self.skills, self.tasks = name, SPEC, (skill,), tasks
        self.instructions = tuple(_SCENES[task][0] for task in tasks)
        self._tasks = {task: _task(task, skill) for task in tasks}

    def make(self) -> ArmEnv:
        """A new environment; call `reset` before anything else."""
        return ArmEnv(self.name, self.spec, self._task, _LOOK)

    def draft(self) -> ArmEnv:
        """Without shadows and reflections."""
        return ArmEnv(self.name, self.spec, self._task, _DRAFT)

    def stage(self) -> ArmEnv:
        """The official look."""
        return self.make()

    def other_instruction(self, task: str, seed: int) -> str:
        """A sentence about something else; for a suite of one task, of another suite."""
        others = [words for other, (words, *_) in _SCENES.items() if other != task]
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
    words, max_steps, target, scene = _SCENES[name]
    world = functools.partial(_world, name)
    return Task(name, skill, words, world, World.draw, RobosuiteExpert(scene), max_steps, target)


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


Lift = functools.partial(RobosuiteSuite, "lift", "lift", ("Lift",))
Stack = functools.partial(RobosuiteSuite, "stack", "stack", ("Stack",))
PickPlace = functools.partial(
    RobosuiteSuite, "pick_place", "put", ("PickPlaceCan", "PickPlaceMilk", "PickPlaceBread", "PickPlaceCereal")
)
NutAssembly = functools.partial(RobosuiteSuite, "nut_assembly", "put", ("NutAssemblySquare", "NutAssemblyRound"))
Door = functools.partial(RobosuiteSuite, "door", "open", ("Door",))
