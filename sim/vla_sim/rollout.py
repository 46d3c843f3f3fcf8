"""Closed loop in simulation: many episodes at once through the one pipeline, each on its own clock.

observe -> `Pipeline.decide_batch` -> `ChunkSchedule` -> `SafetyFilter` -> `Env.step`: what runs on a robot, batched
over environments. An episode's noise comes from its seed alone, so two arms run on the same seeds are paired, whatever
they are batched with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vla.errors import BadConfig
from vla.pipeline import Pipeline
from vla.safety import SafetyFilter
from vla.schedule import ChunkSchedule
from vla.spec import require_match
from vla.types import Decision
from vla_sim.env import Env, Suite

_NOISE_STREAM = 7


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


@dataclass(eq=False)
class _Episode:
    """One environment at work."""

    index: int
    seed: int
    env: Env
    schedule: ChunkSchedule
    safety: SafetyFilter
    rng: np.random.Generator
    decisions: int = 0
    holds: int = 0


def run_episodes(
    pipeline: Pipeline,
    suite: Suite,
    seeds: Sequence[int],
    *,
    n_action_steps: int,
    batch: int = 32,
    tasks: Sequence[str] | None = None,
    swap_instruction: bool = False,
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
        before_decide: given the environments the next `decide_batch` is about, in its order.
        on_decision: given index into `seeds`, environment and decision, before the decision is executed. It may move
            the environment, if it puts it back.
        on_step: given index and environment before every control step.
        on_end: given index and environment when the episode is over.

    Returns:
        One row an episode, in the order of `seeds`.

    Raises:
        SpecMismatch: policy and suite disagree; no step was made.
        BadConfig: n_action_steps is not within the chunk.
    """
    require_match(pipeline.spec, suite.spec, "the policy", f"suite {suite.name!r}")
    if not 1 <= n_action_steps <= (pipeline.spec.chunk_size or 0):
        raise BadConfig(f"n_action_steps must be within 1 and the chunk's {pipeline.spec.chunk_size}: {n_action_steps}")
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
            schedule = ChunkSchedule(pipeline.spec, n_action_steps)
            rng = np.random.default_rng([seed, _NOISE_STREAM])
            live.append(_Episode(index, seed, env, schedule, SafetyFilter(pipeline.spec), rng))
        if not live:
            return [rows[i] for i in range(len(seeds))]
        if before_decide is not None:
            before_decide([episode.env for episode in live])
        decisions = pipeline.decide_batch([e.env.observe() for e in live], [e.rng for e in live])
        for episode, decision in zip(live, decisions, strict=True):
            if on_decision is not None:
                on_decision(episode.index, episode.env, decision)
            _execute(episode, decision, n_action_steps, on_step)
            if episode.env.done:
                rows[episode.index] = _row(episode)
                free.append(episode.env)
                if on_end is not None:
                    on_end(episode.index, episode.env)
        live = [episode for episode in live if not episode.env.done]


def _execute(
    episode: _Episode, decision: Decision, n_action_steps: int, on_step: Callable[[int, Env], None] | None
) -> None:
    """Run the control steps until the next decision. Without a chunk the schedule has nothing to say: HOLD."""
    env, dt_ns = episode.env, episode.env.spec.dt_ns
    episode.decisions += 1
    if decision.chunk is None:
        episode.holds += 1
    else:
        episode.schedule.accept(decision.chunk)
    for _ in range(n_action_steps):
        if on_step is not None:
            on_step(episode.index, env)
        now_ns = env.steps * dt_ns
        env.step(episode.safety.check(episode.schedule.command(now_ns), now_ns))
        if env.done:
            return


def _row(episode: _Episode) -> EpisodeRow:
    env = episode.env
    return EpisodeRow(
        seed=episode.seed,
        task=env.task,
        skill=env.skill,
        instruction=env.instruction,
        success=env.success,
        failure=env.failure,
        steps=env.steps,
        decisions=episode.decisions,
        holds=episode.holds,
    )
