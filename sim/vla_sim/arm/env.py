"""One environment for every suite built on robosuite's Panda: the robot, its contract, the course of an episode.

What a suite adds is scenes (`World`), layouts and experts. Positions are in the frame of the robot's base: x forward, y
to its left, z up. The tool's orientation is the rotation vector that takes the tool pointing straight down to where it
points now: zero at rest, so that its jump at 180 degrees is as far away as it can be. (As an axis and angle from the
identity, which is what LIBERO's demonstrations hold, the resting tool sits on that jump: Goal rose from 83 to 97 points
for others when they noticed.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, UnknownName
from vla.spec import Camera, Dim, Spec
from vla.types import Command, Floats, Image, Mode, Observation
from vla_sim.arm.osc import DOWN, MOVE_M, TURN_RAD, Goal, turn_between
from vla_sim.arm.progress import advance, begin
from vla_sim.arm.world import CONTROL_RATE_HZ, Layout, World
from vla_sim.env import Progress
from vla_sim.panda import Doubles
from vla_sim.rendering import Look, mujoco, render

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_SETTLE_STEPS = 10
"""Control periods at the start of an episode in which the arm rests with an open gripper: objects fall to the table."""
_OPEN = -1.0
SENSOR_PX = 128
"""Edge of the square image that a camera's crop is taken from."""


def panda_spec(cameras: Sequence[Camera]) -> Spec:
    """The contract of robosuite's Panda under OSC_POSE with a binary gripper, at 20 Hz."""
    base, reach = "base", {"x": (-0.3, 1.0), "y": (-0.8, 0.8), "z": (-0.5, 1.0)}
    tool = [Dim(f"tool_{axis}", "m", "absolute", base, *limits) for axis, limits in reach.items()]
    turn = [Dim(f"turn_{axis}", "rad", "absolute", base, -np.pi, np.pi) for axis in "xyz"]
    width = Dim("width", "m", "absolute", "gripper", -0.005, 0.085)
    grip = Dim("grip", "1", "absolute", "gripper", -1.0, 1.0)
    moves = [Dim(f"d{axis}", "m", "offset", base, -MOVE_M, MOVE_M, moves=f"tool_{axis}") for axis in "xyz"]
    turns = [Dim(f"dturn_{axis}", "rad", "offset", base, -TURN_RAD, TURN_RAD) for axis in "xyz"]
    return Spec(
        robot="panda_osc_pose",
        state=(*tool, *turn, width, grip),
        action=(*moves, *turns, Dim("close", "1", "velocity", "gripper", -1.0, 1.0)),
        rotation="axis_angle",
        gripper="positive_close",
        cameras=tuple(cameras),
        control_rate_hz=CONTROL_RATE_HZ,
    )


class Expert(Protocol):
    """What a task's scripted expert and its privileged features are computed from."""

    def action(self, view: View) -> Floats:
        """(7,) what to do next, physical units."""

    def features(self, view: View) -> Floats:
        """(P,) how far the task has come."""


@dataclass(frozen=True, eq=False)
class Task:
    """One goal in one scene."""

    id: str
    skill: str
    instruction: str
    world: Callable[[], World]
    """Builds the scene, or finds it again."""
    layout: Callable[[World, int], Layout]
    """Where things are in the episode of a seed."""
    expert: Expert
    max_steps: int
    target: str = ""
    """The movable thing that it is about, by its name in the scene; "" for none, or for several."""


@dataclass(frozen=True, eq=False)
class View:
    """The simulator's state, as experts see it; frame: the scene's world."""

    world: World
    data: Any
    tool: Doubles
    """(3,) [m]."""
    orientation: Doubles
    """(3, 3) of the tool."""
    width: float
    """Opening of the fingers [m]."""
    width_speed: float
    """How fast they open [m/s]."""
    grip: float
    """Commanded closing, -1 to 1."""
    closing: bool
    """The gripper was last told to close."""
    steps: int
    max_steps: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One moment of an episode: the physics and everything the environment remembers beside it."""

    physics: npt.NDArray[np.float64]
    episode: _Episode


@dataclass(frozen=True, eq=False)
class _Episode:
    task: Task
    instruction: str
    layout: Layout
    goal: Goal
    progress: Progress
    steps: int = 0
    success: bool = False


class ArmEnv:
    """One episode at a time of any task of a suite. Environments of a process share the compiled scenes."""

    def __init__(self, name: str, spec: Spec, tasks: Callable[[int, str | None], Task], look: Look) -> None:
        """`tasks` gives the task of a seed, or the one that is named."""
        self.spec = spec
        self._name, self._tasks, self._look = name, tasks, look
        self._low, self._high = spec.action_low, spec.action_high

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        return self._episode.instruction

    @property
    def task(self) -> str:
        """Which goal decides success."""
        return self._episode.task.id

    @property
    def skill(self) -> str:
        """The kind of task."""
        return self._episode.task.skill

    @property
    def steps(self) -> int:
        """Control periods since the reset; the settling at the start is not counted."""
        return self._episode.steps

    @property
    def done(self) -> bool:
        """The episode is over."""
        return self.success or bool(self.failure)

    @property
    def success(self) -> bool:
        """The official environment calls it solved."""
        return self._episode.success

    @property
    def failure(self) -> str:
        """ "" or "timeout": these tasks cannot fail otherwise."""
        episode = self._episode
        return "timeout" if not episode.success and episode.steps >= episode.task.max_steps else ""

    @property
    def progress(self) -> Progress:
        """How far the episode has come, and what the hand went for."""
        return self._episode.progress

    def altered(self, change: Callable[[Task, int], Task]) -> ArmEnv:
        """A new environment that puts each episode's task through `change`, given its seed, first."""
        return ArmEnv(self._name, self.spec, lambda seed, task: change(self._tasks(seed, task), seed), self._look)

    def reset(self, seed: int, task: str | None = None) -> None:
        """Start an episode. Raises UnknownName for a task there is not."""
        found = self._tasks(seed, task)
        world = found.world()
        layout = found.layout(world, seed)
        self._switch(world)
        data = self._data
        mujoco.mj_resetData(world.model, data)
        data.qpos[:], data.qvel[:] = layout.qpos, layout.qvel
        self._episode = _Episode(found, found.instruction, layout, world.rest, begin(found.target))
        world.enter(layout)
        mujoco.mj_fwdPosition(world.model, data)
        goal, still = world.rest, np.zeros(7, np.float32)
        for i in range(_SETTLE_STEPS):
            # The official controller's first goal is where the tool was before the initial state was set.
            goal = world.osc.towards(data, goal, still) if i else goal
            goal = world.osc.run(data, goal, _OPEN, world.substeps)
        self._finish(replace(self._episode, goal=goal))

    def state(self) -> Floats:
        """(8,) where the tool is and how it is turned, the opening of the fingers, the commanded closing."""
        world, goal = self._world, self._episode.goal
        position, orientation = world.osc.tool(self._data)
        turn = turn_between(DOWN, orientation)
        return np.array([*(position - world.base), *turn, world.osc.width(self._data), goal.grip], np.float32)

    def observe(self) -> Observation:
        """Both cameras and the state."""
        images = {c.name: self._picture(c) for c in self.spec.cameras}
        return Observation(images, self.state(), self.instruction, self.steps * self.spec.dt_ns)

    def step(self, command: Command) -> None:
        """Run one control period.

        Raises:
            BadConfig: the action leaves the spec's limits; only what passed `vla.safety` may come here.
        """
        world, episode, data = self._world, self._episode, self._data
        world.enter(episode.layout)
        goal, close = episode.goal, 0.0
        if command.mode is Mode.TRACK:
            action = command.action
            if not ((action >= self._low) & (action <= self._high)).all():
                raise BadConfig(
                    f"action {action} leaves the limits {self._low} to {self._high} of the spec, or is NaN; "
                    "put it through vla.safety before env.step"
                )
            goal, close = world.osc.towards(data, goal, action), float(action[6])
        goal = world.osc.run(data, goal, close, world.substeps)
        self._finish(replace(episode, goal=goal, steps=episode.steps + 1))

    def snapshot(self) -> Snapshot:
        """The physics' full integration state and the episode's."""
        physics = np.empty(mujoco.mj_stateSize(self._world.model, _STATE))
        mujoco.mj_getState(self._world.model, self._data, physics, _STATE)
        return Snapshot(physics, self._episode)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, of this or another environment of the suite."""
        world = snapshot.episode.task.world()
        self._switch(world)
        self._episode = snapshot.episode
        world.enter(self._episode.layout)
        mujoco.mj_setState(world.model, self._data, snapshot.physics, _STATE)
        # Positions and contacts only: a full mj_forward would change the solver's warm start, and what follows.
        mujoco.mj_fwdPosition(world.model, self._data)

    def privileged(self) -> Floats:
        """(P,) see the suite's expert."""
        return self._episode.task.expert.features(self._view())

    def expert(self) -> Floats:
        """(7,) what the scripted expert does from here."""
        return np.clip(self._episode.task.expert.action(self._view()), self._low, self._high)

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; the goal stays. What it is about is not known then."""
        self._episode = replace(self._episode, instruction=instruction, progress=begin(""))

    def render(self, camera: str, height: int, width: int) -> Image:
        """One upright image from "agent", "wrist" or another camera of the scene."""
        world = self._world
        world.enter(self._episode.layout)
        world.show_switches(self._data)
        solids = self._episode.layout.dress.solids
        return render(world.model, self._data, _CAMERAS.get(camera, camera), height, width, self._look, solids)

    def _picture(self, camera: Camera) -> Image:
        """What the policy gets: cut out of a larger image, or drawn at its size."""
        if camera.crop is None:
            return self.render(camera.name, camera.height, camera.width)
        top, left, height, width = camera.crop
        whole = self.render(camera.name, SENSOR_PX, SENSOR_PX)
        return np.ascontiguousarray(whole[top : top + height, left : left + width])

    def _switch(self, world: World) -> None:
        if getattr(self, "_world", None) is not world:
            self._world, self._data = world, mujoco.MjData(world.model)

    def _finish(self, episode: _Episode) -> None:
        """The end of a control period: positions and contacts of the new state, and its verdict."""
        mujoco.mj_fwdPosition(self._world.model, self._data)
        progress = advance(episode.progress, self._world, self._data, episode.goal)
        self._episode = replace(episode, success=self._world.success(self._data), progress=progress)

    def _view(self) -> View:
        world, episode = self._world, self._episode
        world.enter(episode.layout)
        tool, orientation = world.osc.tool(self._data)
        return View(
            world,
            self._data,
            tool,
            orientation,
            world.osc.width(self._data),
            world.osc.width_speed(self._data),
            episode.goal.grip,
            episode.goal.closing,
            episode.steps,
            episode.task.max_steps,
        )


_CAMERAS = {"agent": "agentview", "wrist": "robot0_eye_in_hand"}


def named(tasks: dict[str, Task], suite: str, name: str) -> Task:
    """The task of a name. Raises UnknownName."""
    if name not in tasks:
        raise UnknownName(f"no {suite} task is called {name!r}; there is {', '.join(tasks)}")
    return tasks[name]
