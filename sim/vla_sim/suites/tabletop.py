"""`tabletop`: a Panda, three coloured cubes and a bowl; pick, push, stack and put in the bowl. About 1 ms a step.

All objects are in every scene, so what to do can be known only from the instruction. Actions move the commanded tool
position in the base frame (x forward, y left, z up) and set the gripper's opening; the tool always points down.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, UnknownName
from vla.spec import Camera, CameraPose, Dim, Drift, Spec
from vla.types import Command, Floats, Image, Mode, Observation
from vla_sim.env import Progress
from vla_sim.panda import ASSETS, HOME, N_JOINTS, Doubles, ToolIK, with_meshes, with_sky
from vla_sim.rendering import mujoco, render
from vla_sim.tabletop.expert import OPEN_WIDTH_M, STEP_M, expert_action
from vla_sim.tabletop.features import privileged_features
from vla_sim.tabletop.progress import advance, begin
from vla_sim.tabletop.tasks import COLOURS, CUBE_M, SAID, SKILLS, TASKS, Task, View, draw_layout, draw_task, judge

MAX_STEPS = 80
CONTROL_RATE_HZ = 10.0

_LOW, _HIGH = np.array([0.30, -0.30, 0.012]), np.array([0.72, 0.30, 0.35])
"""Where the tool may be commanded to."""
_MARGIN_M = 0.05
"""How far beyond that the spec lets the measured position be: one step, and what inertia and contact add."""
_START_LOW, _START_HIGH = np.array([0.40, -0.08, 0.17]), np.array([0.50, 0.08, 0.23])
"""Where it is when an episode begins."""
_LEASH_M = 0.1
"""Farthest the commanded position may run ahead of the measured one in x, y or z: a blocked arm winds up no force."""
_MOVES_PER_STEP = 5
"""The joint targets move in this many small steps over a control period, not in one jerk."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)

_AGENT_POSE = CameraPose("base", (1.154, 0.0, 0.609), (0.64340532, 0.64340532, -0.29330802, -0.29330802))
_WRIST_POSE = CameraPose("hand", (0.08, 0.0, -0.0684), (-0.18233627, -0.18233627, 0.68319359, 0.68319359))
"""As the two MJCF files have them; a test compares."""


def _spec() -> Spec:
    base = "base"
    measured = [
        Dim(f"tool_{axis}", "m", "absolute", base, float(low) - _MARGIN_M, float(high) + _MARGIN_M)
        for axis, low, high in zip("xyz", _LOW, _HIGH, strict=True)
    ]
    lag = [Dim(f"lag_{axis}", "m", "absolute", base, -0.15, 0.15) for axis in "xyz"]
    widths = [Dim(name, "m", "absolute", "gripper", -0.005, 0.085) for name in ("width", "commanded_width")]
    moves = [Dim(f"d{axis}", "m", "delta", base, -STEP_M, STEP_M, moves=f"tool_{axis}") for axis in "xyz"]
    return Spec(
        robot="panda_tabletop",
        state=(*measured, *lag, *widths),
        action=(*moves, Dim("width", "m", "absolute", "gripper", 0.0, OPEN_WIDTH_M)),
        rotation="none",
        gripper="width",
        cameras=(Camera("agent", 64, 64, pose=_AGENT_POSE), Camera("wrist", 64, 64, pose=_WRIST_POSE)),
        control_rate_hz=CONTROL_RATE_HZ,
        drift=Drift(),
    )


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One moment of an episode: the physics and everything the environment remembers beside it."""

    physics: npt.NDArray[np.float64]
    episode: _Episode


@dataclass(frozen=True, eq=False)
class _Episode:
    task: Task
    instruction: str
    start: Doubles
    target: Doubles
    joints: Doubles
    width: float
    progress: Progress
    steps: int = 0
    success: bool = False
    failure: str = ""


class TabletopEnv:
    """One tabletop. Environments of a process share the model and the renderer; each has its own data."""

    def __init__(self, model: Any, spec: Spec) -> None:
        self.spec = spec
        self._model = model
        self._data = mujoco.MjData(model)
        self._ik = ToolIK()
        self._tool = model.site("tool").id
        self._finger = model.joint("finger1").qposadr[0]
        self._cubes = np.array([model.joint(colour).qposadr[0] + np.arange(3) for colour in COLOURS])
        self._velocities = np.array([model.joint(colour).dofadr[0] + np.arange(3) for colour in COLOURS])
        self._action_low, self._action_high = spec.action_low, spec.action_high
        self._substeps = round(1.0 / CONTROL_RATE_HZ / model.opt.timestep / _MOVES_PER_STEP)
        self.reset(0)

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        return self._episode.instruction

    @property
    def task(self) -> str:
        """Which goal decides success, e.g. "stack_red_on_blue"."""
        return self._episode.task.id

    @property
    def skill(self) -> str:
        """pick, push, stack or bowl."""
        return self._episode.task.skill

    @property
    def steps(self) -> int:
        """Control periods since the reset."""
        return self._episode.steps

    @property
    def done(self) -> bool:
        """The episode is over."""
        return self._episode.success or bool(self._episode.failure)

    @property
    def success(self) -> bool:
        """The task was done."""
        return self._episode.success

    @property
    def failure(self) -> str:
        """ "", "timeout", "moved_other" or "wrong_object"."""
        return self._episode.failure

    @property
    def progress(self) -> Progress:
        """See `vla_sim.tabletop.progress`."""
        return self._episode.progress

    def reset(self, seed: int, task: str | None = None) -> None:
        """Start an episode. Raises UnknownName for a task there is not."""
        if task is not None and task not in TASKS:
            raise UnknownName(f"no tabletop task is called {task!r}; there is {', '.join(TASKS)}")
        rng = np.random.default_rng(seed)
        drawn = draw_task(rng)
        goal = TASKS[task] if task is not None else drawn
        wordings = goal.wordings()
        instruction = wordings[rng.integers(len(wordings))]
        data = self._data
        mujoco.mj_resetData(self._model, data)
        cubes, yaw, bowl = draw_layout(rng, goal)
        for i, address in enumerate(self._cubes[:, 0]):
            turn = np.cos(yaw[i] / 2), 0.0, 0.0, np.sin(yaw[i] / 2)
            data.qpos[address : address + 7] = *cubes[i], CUBE_M / 2, *turn
        data.mocap_pos[0, :2] = bowl
        target = rng.uniform(_START_LOW, _START_HIGH)
        joints = self._ik.solve(HOME, target, 30)
        data.qpos[:N_JOINTS] = data.ctrl[:N_JOINTS] = joints
        data.qpos[self._finger : self._finger + 2] = data.ctrl[N_JOINTS] = OPEN_WIDTH_M / 2
        mujoco.mj_kinematics(self._model, data)
        start = data.qpos[self._cubes]
        progress = begin(goal.skill, COLOURS[goal.cube])
        self._episode = _Episode(goal, instruction, start, target, joints, OPEN_WIDTH_M, progress)
        self._view = self._look()

    def state(self) -> Floats:
        """(8,) where the tool is, how far it has yet to go, the opening of the fingers, measured and commanded [m]."""
        view = self._view
        return np.array([*view.tool, *(view.target - view.tool), view.width, view.target_width], np.float32)

    def observe(self) -> Observation:
        """Both cameras and the state."""
        images = {c.name: self.render(c.name, c.height, c.width) for c in self.spec.cameras}
        return Observation(images, self.state(), self.instruction, self.steps * self.spec.dt_ns)

    def step(self, command: Command) -> None:
        """Run one control period.

        Raises:
            BadConfig: the action leaves the spec's limits; only what passed `vla.safety` may come here.
        """
        target, joints, width = self._episode.target, self._episode.joints, self._episode.width
        data = self._data
        if command.mode is Mode.TRACK:
            move, width = self._check(command.action)
            leash = np.clip(target + move, self._view.tool - _LEASH_M, self._view.tool + _LEASH_M)
            target = np.clip(leash, _LOW, _HIGH)
            joints = self._ik.solve(joints, target, 2)
        before = data.ctrl[:N_JOINTS].copy()
        data.ctrl[N_JOINTS] = width / 2
        for k in range(1, _MOVES_PER_STEP + 1):
            data.ctrl[:N_JOINTS] = before + (joints - before) * (k / _MOVES_PER_STEP)
            mujoco.mj_step(self._model, data, self._substeps)
        mujoco.mj_kinematics(self._model, data)
        episode = replace(self._episode, target=target, joints=joints, width=width, steps=self.steps + 1)
        self._episode = episode
        self._view = self._look()
        success, failure = judge(self._view)
        if not success and not failure and episode.steps >= MAX_STEPS:
            failure = "timeout"
        progress = advance(self._view, episode.progress)
        self._episode = replace(episode, progress=progress, success=success, failure=failure)

    def snapshot(self) -> Snapshot:
        """The physics' full integration state and the episode's."""
        physics = np.empty(mujoco.mj_stateSize(self._model, _STATE))
        mujoco.mj_getState(self._model, self._data, physics, _STATE)
        return Snapshot(physics, self._episode)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, of this or another tabletop."""
        mujoco.mj_setState(self._model, self._data, snapshot.physics, _STATE)
        # Positions only: a full mj_forward would change the solver's warm start, and with it the continuation.
        mujoco.mj_kinematics(self._model, self._data)
        self._episode = snapshot.episode
        self._view = self._look()

    def privileged(self) -> Floats:
        """(33,) see `vla_sim.tabletop.features`."""
        return privileged_features(self._view, MAX_STEPS)

    def expert(self) -> Floats:
        """(4,) see `vla_sim.tabletop.expert`."""
        return expert_action(self._view)

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; the goal stays, what the robot is to go for is as told."""
        told = SAID.get(instruction, self._episode.task)
        progress = replace(self._episode.progress, target=COLOURS[told.cube])
        self._episode = replace(self._episode, instruction=instruction, progress=progress)

    def render(self, camera: str, height: int, width: int) -> Image:
        """One image from "agent", "wrist" or "film"."""
        return render(self._model, self._data, camera, height, width)

    def _check(self, action: Floats) -> tuple[Doubles, float]:
        if not ((action >= self._action_low) & (action <= self._action_high)).all():
            raise BadConfig(
                f"action {action} leaves the limits {self._action_low} to {self._action_high} of the spec, or is NaN; "
                "put it through vla.safety before env.step"
            )
        return action[:3].astype(np.float64), float(action[3])

    def _look(self) -> View:
        data, episode = self._data, self._episode
        return View(
            task=episode.task,
            tool=data.site_xpos[self._tool].copy(),
            target=episode.target,
            width=2 * float(data.qpos[self._finger]),
            target_width=episode.width,
            cubes=data.qpos[self._cubes],
            start=episode.start,
            speed=np.sqrt((data.qvel[self._velocities] ** 2).sum(1)),
            bowl=data.mocap_pos[0, :2].copy(),
            steps=episode.steps,
        )


class TabletopSuite:
    """Every task of the tabletop."""

    name = "tabletop"
    film_camera = "film"

    def __init__(self, visual: Literal["primitive", "mesh"] = "primitive") -> None:
        """`visual="mesh"` draws the true Panda, many times slower; the physics is the same. Raises UnknownName."""
        if visual not in ("primitive", "mesh"):
            raise UnknownName(f"suite tabletop has no variant {visual!r}; there is primitive, mesh")
        self.spec = _spec()
        self.skills = SKILLS
        self.tasks = tuple(TASKS)
        self.instructions = tuple(words for task in TASKS.values() for words in task.wordings())
        self._visual = visual

    def make(self) -> TabletopEnv:
        """A new environment, already reset to seed 0."""
        return TabletopEnv(_model(self._visual), self.spec)

    def draft(self) -> TabletopEnv:
        """The primitives are quick enough."""
        return self.make()

    def stage(self) -> TabletopEnv:
        """One with the Panda's meshes, for videos. Raises Missing without robosuite."""
        return TabletopEnv(_model("mesh"), self.spec)

    @property
    def probes(self) -> Mapping[str, str]:
        """See `vla_sim.tabletop.probes`."""
        from vla_sim.tabletop.probes import PROBES

        return PROBES

    def probed(self, probe: str) -> TabletopSuite:
        """This suite with one thing changed in every episode. Raises UnknownName."""
        from vla_sim.tabletop.probes import ProbedTabletop

        return ProbedTabletop(probe, self._visual)

    def other_instruction(self, task: str, seed: int) -> str:
        """A sentence for a task about another cube."""
        rng = np.random.default_rng([seed, 11])
        others = [other for other in TASKS.values() if other.cube != TASKS[task].cube]
        wordings = others[rng.integers(len(others))].wordings()
        return wordings[rng.integers(len(wordings))]


@functools.cache
def _model(visual: str) -> Any:
    return build(visual).compile()


def build(visual: str) -> Any:
    """The tabletop's `MjSpec`, to be compiled."""
    scene = mujoco.MjSpec.from_file(str(ASSETS / "tabletop.xml"))
    if visual == "mesh":
        with_meshes(scene)
        with_sky(scene)
    return scene
