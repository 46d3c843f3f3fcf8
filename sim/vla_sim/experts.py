"""How often a suite's scripted expert succeeds: the ceiling of what its demonstrations can teach."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vla import registry
from vla.types import Command, Mode
from vla_sim.env import Env, Suite
from vla_sim.workers import run_jobs


@dataclass(frozen=True)
class Trial:
    """How one episode of the expert ended."""

    task: str
    seed: int
    success: bool
    steps: int


def run_expert(env: Env, seed: int, task: str) -> Trial:
    """One episode without noise, through the same limits as a policy's actions."""
    env.reset(seed, task)
    while not env.done:
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    return Trial(task, seed, env.success, env.steps)


def try_expert(
    suite: str,
    tasks: Sequence[str],
    seeds: Callable[[str], Sequence[int]],
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Trial]:
    """The expert on every seed of every task, task by task; `seeds` gives those of a task."""
    todo = [(task, tuple(seeds(task))) for task in tasks]
    total, trials = sum(len(one) for _, one in todo), []
    for _, finished in run_jobs(functools.partial(_expert_worker, suite), todo, workers, print):
        trials += finished
        progress(len(trials), total)
    order = {task: i for i, task in enumerate(tasks)}
    return sorted(trials, key=lambda trial: (order[trial.task], trial.seed))


def _expert_worker(suite: str) -> Callable[[tuple[str, tuple[int, ...]]], list[Trial]]:
    found: Suite = registry.suite(suite)()
    env = found.draft()
    return lambda item: [run_expert(env, seed, item[0]) for seed in item[1]]
