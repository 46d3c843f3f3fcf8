"""How often a suite's scripted expert succeeds: the ceiling of what its demonstrations can teach."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
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


def try_expert(suite: str, todo: Sequence[tuple[str, Sequence[int]]], workers: int) -> Generator[list[Trial]]:
    """The expert on the seeds of each (task, seeds); yields a task's trials when it is done, in any order."""
    items = [(task, tuple(seeds)) for task, seeds in todo]
    for _, trials in run_jobs(functools.partial(_expert_worker, suite), items, workers, print):
        yield trials


def _expert_worker(suite: str) -> Callable[[tuple[str, tuple[int, ...]]], list[Trial]]:
    found: Suite = registry.suite(suite)()
    env = found.draft()
    return lambda item: [run_expert(env, seed, item[0]) for seed in item[1]]
