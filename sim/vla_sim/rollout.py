"""Closed loop in simulation: many episodes at once through the one pipeline, each on its own clock.

observe -> `Pipeline.decide_batch` -> `ChunkSchedule` -> `SafetyFilter` -> `Env.step`: what runs on a robot, batched
over environments.

An episode's noise comes from its seed alone, so two arms run on the same seeds are paired, whatever they are batched
with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vla.errors import BadConfig, UnknownInstruction
from vla.pipeline import Pipeline
from vla.safety import SafetyFilter
from vla.schedule import ChunkSchedule
from vla.spec import require_match
from vla.types import Decision
from vla_sim.env import Env, HasProgress, Progress, Suite
from vla_sim.motion import Motion

_NOISE_STREAM = 7
Meanwhile = Literal["hold", "continue"]
REFUSED = "refused"
"""Failure of an episode whose instruction the policy would not take."""
SAFETY_STOP = "safety_stop"
"""Failure of an episode in which the safety filter latched STOP: on a robot it ends with a person."""


@dataclass(frozen=True)
class EpisodeRow:
    """How an episode ended; one line of episodes.jsonl."""

    seed: int
    task: str
    skill: str
    instruction: str
    """What the policy was told."""
    success: bool
    failure: str
    """"" when it succeeded."""
    steps: int
    decisions: int
    holds: int
    """Decisions in which the verifier refused every candidate."""
    seconds: float
    """Simulated time; the time to success where it succeeded."""
    path: float | None
    """Length of the commanded path [m, or rad for joint actions]; see `vla_sim.motion`."""
    smoothness: float | None
    """Log dimensionless jerk of it; higher is smoother."""
    phase: str
    """The farthest part of the task that was reached; "" where the suite does not tell."""
    target: str
    """The object that the instruction was about; "" where the suite does not tell."""
    approached: str
    """The first object that the robot went for; "" for none."""


@dataclass(frozen=True)
class _Timing:
    """When decisions are asked for, come, and are executed, in control periods."""

    n_action_steps: int
    delay: int
    meanwhile: Meanwhile


@dataclass(eq=False)
class _Episode:
    """One environment at work."""

    index: int
    seed: int
    env: Env
    schedule: ChunkSchedule
    safety: SafetyFilter
    rng: np.random.Generator
    motion: Motion
    decisions: int = 0
    holds: int = 0
    refused: bool = False

    @property
    def over(self) -> bool:
        """It is done, or will not go on: the policy does not take it on, or safety has stopped it."""
        return self.refused or self.env.done or bool(self.safety.stopped)

    @property
    def failure(self) -> str:
        """Why it failed; "" when it succeeded."""
        if self.refused:
            return REFUSED
        return self.env.failure if self.env.done else SAFETY_STOP


def run_episodes(
    pipeline: Pipeline,
    suite: Suite,
    seeds: Sequence[int],
    *,
    n_action_steps: int,
    batch: int = 32,
    tasks: Sequence[str] | None = None,
    swap_instruction: bool = False,
    delay: int = 0,
    meanwhile: Meanwhile = "hold",
    may_refuse: bool = False,
    before_decide: Callable[[list[Env]], None] | None = None,
    on_decision: Callable[[int, Env, Decision], None] | None = None,
    on_step: Callable[[int, Env], None] | None = None,
    on_end: Callable[[int, Env], None] | None = None,
) -> list[EpisodeRow]:
    """Run one episode a seed to its end.

    Args:
        pipeline: policy and verifier.
        suite: makes the environments.
        seeds: one an episode; each decides scene, wording, noise and, without `tasks`, the task.
        n_action_steps: actions of a chunk that are executed before the next decision; so long a refusal holds, too.
        batch: environments at a time. When one is done the next seed takes its place.
        tasks: a task id an episode, instead of the one its seed draws.
        swap_instruction: tell the policy to do another task than the one that is judged.
        delay: control periods from an observation to the decision on it: the world goes on while the policy thinks.
        meanwhile: "hold": the robot stands still while the policy thinks, then executes the chunk from its first
            action, as the ROS 2 nodes do. "continue": it goes on with the chunk before, and enters the new one where
            time has got to.
        may_refuse: an instruction the policy does not know is a failed episode instead of an error.
        before_decide: given the environments the next `decide_batch` is about, in its order.
        on_decision: given index into `seeds`, environment and decision, before the decision is executed. It may move
            the environment, if it puts it back.
        on_step: given index and environment before every control step.
        on_end: given index and environment when the episode is over.

    Returns:
        One row an episode, in the order of `seeds`.

    Raises:
        SpecMismatch: policy and suite disagree; no step was made.
        BadConfig: n_action_steps is not within the chunk, or more than the verifier judges; or the chunk is over
            before the policy has thought.
        UnknownInstruction: the policy does not know the suite's words, and `may_refuse` is False.
    """
    require_match(pipeline.spec, suite.spec, "the policy", f"suite {suite.name!r}")
    timing = _Timing(n_action_steps, delay, meanwhile)
    pipeline.require_steps(n_action_steps)
    longest = _executable(pipeline.spec.chunk_size or 0, timing)
    rows: dict[int, EpisodeRow] = {}
    todo = iter(enumerate(seeds))
    free = [suite.make() for _ in range(min(batch, len(seeds)))]
    live: list[_Episode] = []
    while True:
        while free and (following := next(todo, None)) is not None:
            index, seed = following
            env = free.pop()
            env.reset(seed, tasks[index] if tasks is not None else None)
            if swap_instruction:
                env.set_instruction(suite.other_instruction(env.task, seed))
            schedule = ChunkSchedule(pipeline.spec, longest)
            rng = np.random.default_rng([seed, _NOISE_STREAM])
            live.append(_Episode(index, seed, env, schedule, SafetyFilter(pipeline.spec), rng, Motion(suite.spec)))
        if not live:
            return [rows[i] for i in range(len(seeds))]
        if before_decide is not None:
            before_decide([episode.env for episode in live])
        decisions = _decide(pipeline, live, may_refuse)
        for episode, decision in zip(live, decisions, strict=True):
            if decision is None:
                episode.refused = True
            else:
                if on_decision is not None:
                    on_decision(episode.index, episode.env, decision)
                _execute(episode, decision, timing, on_step)
            if episode.over:
                rows[episode.index] = _row(episode)
                free.append(episode.env)
                if on_end is not None:
                    on_end(episode.index, episode.env)
        live = [episode for episode in live if not episode.over]


def _executable(chunk_size: int, timing: _Timing) -> int:
    """How many actions of a chunk may be executed. Raises BadConfig when there are not enough."""
    n, delay = timing.n_action_steps, timing.delay
    if delay < 0:
        raise BadConfig(f"delay must not be negative: {delay}")
    if timing.meanwhile == "hold":
        return n
    if delay + n > chunk_size:
        raise BadConfig(
            f"going on while the policy thinks for {delay} periods and then executing {n} actions needs a chunk of "
            f"{delay + n}, and it has {chunk_size}: execute fewer, or hold meanwhile"
        )
    # It enters the chunk `delay` late, executes n actions, and goes on with what is left while the next is thought out.
    return min(n + 2 * delay, chunk_size)


def _decide(pipeline: Pipeline, live: list[_Episode], may_refuse: bool) -> list[Decision | None]:
    """One decision an episode; None where the policy does not know the words, if it may."""
    observations, rngs = [e.env.observe() for e in live], [e.rng for e in live]
    before = [rng.bit_generator.state for rng in rngs]
    try:
        return list(pipeline.decide_batch(observations, rngs))
    except UnknownInstruction:
        if not may_refuse:
            raise
    decisions: list[Decision | None] = []
    for observation, rng, state in zip(observations, rngs, before, strict=True):
        rng.bit_generator.state = state
        try:
            decisions.append(pipeline.decide(observation, rng))
        except UnknownInstruction:
            decisions.append(None)
    return decisions


def _execute(
    episode: _Episode, decision: Decision, timing: _Timing, on_step: Callable[[int, Env], None] | None
) -> None:
    """Let the world go on while the policy thinks, then run the control steps until the next decision.

    Without a chunk, or when it is used up, the schedule has nothing to say: HOLD.
    """
    env, dt_ns, schedule = episode.env, episode.env.spec.dt_ns, episode.schedule
    episode.decisions += 1
    for period in range(timing.delay + timing.n_action_steps):
        if period == timing.delay:
            if decision.chunk is None:
                episode.holds += 1
                schedule.clear(decision.verdict.reason)
            elif timing.meanwhile == "hold":
                schedule.accept(replace(decision.chunk, t0_ns=env.steps * dt_ns))
            else:
                schedule.accept(decision.chunk)
        if on_step is not None:
            on_step(episode.index, env)
        now_ns = env.steps * dt_ns
        command = episode.safety.check(schedule.command(now_ns), now_ns, env.state())
        episode.motion.add(command)
        env.step(command)
        if episode.over:
            return


def _row(episode: _Episode) -> EpisodeRow:
    env = episode.env
    # Whoever refused a sentence went for nothing, right or wrong.
    progress = env.progress if isinstance(env, HasProgress) and not episode.refused else Progress("", "")
    return EpisodeRow(
        seed=episode.seed,
        task=env.task,
        skill=env.skill,
        instruction=env.instruction,
        success=env.success,
        failure=episode.failure,
        steps=env.steps,
        decisions=episode.decisions,
        holds=episode.holds,
        seconds=env.steps / env.spec.control_rate_hz,
        path=episode.motion.path,
        smoothness=episode.motion.smoothness,
        phase=progress.phase,
        target=progress.target,
        approached=progress.approached,
    )
