"""What an environment and a suite of tasks are to the rest of the project.

An environment runs one episode at a time in simulation time: `step` is one control period, whatever the wall clock
does. Everything privileged (`privileged`, `expert`, `snapshot`) is for making data; no policy or verifier sees it at
run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vla.spec import Spec
from vla.types import Command, Floats, Image, Observation


class Env(Protocol):
    """One simulated robot with a task to do."""

    spec: Spec
    """The contract; `chunk_size` is None, a policy decides it."""

    @property
    def instruction(self) -> str:
        """What the policy is told."""

    @property
    def task(self) -> str:
        """Which goal decides success; an id from the suite's `tasks`."""

    @property
    def skill(self) -> str:
        """The kind of task, by which results are grouped."""

    @property
    def steps(self) -> int:
        """Control periods since the reset."""

    @property
    def done(self) -> bool:
        """The episode is over."""

    @property
    def success(self) -> bool:
        """The task was done."""

    @property
    def failure(self) -> str:
        """Why the episode failed: "timeout", "moved_other", ...; "" while it runs and when it succeeded."""

    def reset(self, seed: int, task: str | None = None) -> None:
        """Start an episode. The seed decides the scene, the wording and, unless given, the task."""

    def state(self) -> Floats:
        """(S,) the measured state, as `observe` has it; nothing is drawn for it."""

    def observe(self) -> Observation:
        """Render all cameras and read the state; `stamp_ns` is simulation time."""

    def step(self, command: Command) -> None:
        """Run one control period. TRACK executes the action; HOLD and STOP keep the current target."""

    def snapshot(self) -> Any:
        """The full state of physics and episode; small, immutable, valid for every environment of this suite."""

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot. What follows is bit for bit what followed then."""

    def privileged(self) -> Floats:
        """(P,) features of the simulator's state that tell how far the task has come."""

    def expert(self) -> Floats:
        """(A,) what the scripted expert does from here, physical units; answers in any state."""

    def set_instruction(self, instruction: str) -> None:
        """Tell the policy something else; the goal stays."""

    def render(self, camera: str, height: int, width: int) -> Image:
        """Draw one (height, width, 3) uint8 RGB image; for videos."""


@dataclass(frozen=True)
class Progress:
    """How far an episode has come, and what the robot went for; to find out where and why policies fail."""

    phase: str
    """The farthest part of the task that was reached: "reach", "grasp", "carry"..."""
    target: str
    """The object that the instruction is about, as it was told."""
    approached: str = ""
    """The first object that the robot went for; "" when none. The policy's intention, right or wrong."""


@runtime_checkable
class HasProgress(Protocol):
    """An environment that tells its progress; not all can."""

    @property
    def progress(self) -> Progress:
        """So far."""


class Suite(Protocol):
    """A family of tasks on one robot. Constructed without arguments."""

    name: str
    spec: Spec
    skills: Sequence[str]
    tasks: Sequence[str]
    """Task ids."""
    instructions: Sequence[str]
    """Every sentence it can say; vocabularies are built from them."""
    film_camera: str
    """From where people like to watch; need not be one of the policy's."""

    def make(self) -> Env:
        """A new environment; call `reset` before anything else."""

    def draft(self) -> Env:
        """One that draws as fast as it can, for making data: same physics, same robot, plainer pictures."""

    def stage(self) -> Env:
        """One that looks its best and draws slowly: restore another environment's snapshot in it to film that."""

    def other_instruction(self, task: str, seed: int) -> str:
        """A sentence for a different task about a different object: the control for whether a policy listens."""


@runtime_checkable
class Probed(Protocol):
    """A suite that can be perturbed, to find out what a policy depends on."""

    @property
    def probes(self) -> Mapping[str, str]:
        """Name -> what it changes, in a line. "language_...", "vision_..." or "objects_..."."""

    def probed(self, probe: str) -> Suite:
        """The same suite with one thing changed in every episode, by the episode's seed; tasks and goals stay.

        Raises:
            UnknownName: there is no such probe.
        """
