"""Success rate of a named policy on a suite: episodes spread over processes, one row each, on disk as they finish."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vla import registry
from vla.pipeline import open_pipeline
from vla.runs import Run, to_plain
from vla.spec import require_match
from vla_sim.env import Suite
from vla_sim.rollout import EpisodeRow, run_episodes
from vla_sim.video import Recorder, save_video
from vla_sim.workers import run_jobs

_AT_ONCE = 20
"""Episodes a process runs together, and then reports: enough to fill a batch, few enough to lose to a kill."""


@dataclass(frozen=True)
class EvalConfig:
    """What decides the outcome of every episode."""

    policy: str
    """A checkpoint folder, a bundle folder, or `scheme:path`."""
    suite: str = "tabletop"
    episodes: int = 200
    seed: int = 1_000_000
    """First seed; far from those demonstrations are collected with."""
    verifier: str | None = None
    """Name of the verifier that chooses; None takes the first candidate."""
    n_candidates: int = 1
    noise_scale: float = 1.0
    n_action_steps: int = 4
    swap_instruction: bool = False


def evaluate(
    config: EvalConfig,
    out: Path,
    workers: int = 2,
    resume: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
    report: Callable[[str], None] = print,
) -> Run:
    """Run the episodes a run folder still lacks.

    Args:
        config: what to evaluate.
        out: the run folder, see `vla.runs`.
        workers: processes.
        resume: go on with the run that is there; its config must be this one.
        progress: called with episodes done, successes among them, and episodes in all.
        report: told about worker processes that crash.

    Raises:
        SpecMismatch: policy and suite disagree; nothing was run or written.
        BadConfig: there is a run already and `resume` is False, or it has another config.
        Missing: the disk is full, or a worker crashed twice on the same episodes; the rows so far are intact.
    """
    policy_spec = open_pipeline(config.policy, config.verifier, config.n_candidates, config.noise_scale).spec
    require_match(policy_spec, registry.suite(config.suite)().spec, config.policy, f"suite {config.suite!r}")
    run = Run.create(out, "eval", config, resume)
    rows = run.rows()
    done = {row["seed"] for row in rows}
    successes = sum(row["success"] for row in rows)
    todo = [seed for seed in range(config.seed, config.seed + config.episodes) if seed not in done]
    batches = [tuple(todo[i : i + _AT_ONCE]) for i in range(0, len(todo), _AT_ONCE)]
    if progress is not None:
        progress(len(done), successes, config.episodes)
    for _, finished in run_jobs(functools.partial(_evaluator, config), batches, workers, report):
        for row in finished:
            run.append(to_plain(row))
            done.add(row.seed)
            successes += row.success
        if progress is not None:
            progress(len(done), successes, config.episodes)
    return run


def film(config: EvalConfig, n: int, folder: Path) -> list[EpisodeRow]:
    """Run the first n episodes once more, and write one video each; its name says how it ended."""
    suite: Suite = registry.suite(config.suite)()
    recorder = Recorder(range(n), suite.film_camera, size=320, stage=suite.stage())
    pipeline = open_pipeline(config.policy, config.verifier, config.n_candidates, config.noise_scale)
    rows = run_episodes(
        pipeline,
        suite,
        range(config.seed, config.seed + n),
        n_action_steps=config.n_action_steps,
        swap_instruction=config.swap_instruction,
        on_step=recorder.frame,
        on_end=recorder.frame,
    )
    for index, row in enumerate(rows):
        name = "_".join([str(row.seed), *row.instruction.split(), "success" if row.success else row.failure])
        save_video(folder / f"{name}.mp4", recorder.frames[index], suite.spec.control_rate_hz)
    return rows


def _evaluator(config: EvalConfig) -> Callable[[tuple[int, ...]], list[EpisodeRow]]:
    suite: Suite = registry.suite(config.suite)()
    pipeline = open_pipeline(config.policy, config.verifier, config.n_candidates, config.noise_scale)
    return lambda seeds: run_episodes(
        pipeline,
        suite,
        seeds,
        n_action_steps=config.n_action_steps,
        batch=_AT_ONCE,
        swap_instruction=config.swap_instruction,
    )
