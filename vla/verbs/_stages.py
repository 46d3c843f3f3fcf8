"""The stages that verbs and benchmarks share, each under its progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla.policy import PolicyNet
    from vla.runs import Run
    from vla.training import TrainConfig
    from vla_sim.evaluate import EvalConfig


def open_demonstrations(dataset: Path) -> Any:
    """The training cache of a LeRobotDataset, made where it is missing; see `vla.data.cache.open_cache`."""
    from vla.data.cache import open_cache
    from vla.progress import bar

    with bar("cache") as show:
        return open_cache(dataset, lambda done, total: show(done / total, ""))


def train(name: str, config: TrainConfig, cache: Any, folder: Path, threads: int, **settings: Any) -> PolicyNet:
    """Train on so many threads, and go back to one. `settings` as `vla.training.train` has them.

    Unless `resume` is among them it goes on with whatever training an interruption left in the folder.
    """
    import torch

    from vla import training
    from vla.progress import bar
    from vla.threads import computing_on

    settings.setdefault("resume", (folder / "training.json").exists())
    with bar(name) as show, computing_on(threads):

        def on_step(now: training.Step) -> None:
            show(now.fraction, f"step {now.step} loss {now.loss:.4f}")

        net = training.train(config, cache, folder, on_step=on_step, **settings)
    torch.set_num_threads(1)  # episodes may follow in this process: one decision is too little for two
    return net


def evaluate(name: str, config: EvalConfig, folder: Path, workers: int, **settings: Any) -> Run:
    """Evaluate, with the success so far beside the bar. `settings` as `vla_sim.evaluate.evaluate` has them."""
    from vla.progress import bar
    from vla.statistics import wilson
    from vla_sim import evaluate as simulation

    settings.setdefault("resume", True)
    with bar(name) as show:

        def progress(done: int, successes: int, total: int) -> None:
            show(done / total, str(wilson(successes, done)))

        return simulation.evaluate(config, folder, workers, progress=progress, **settings)


def episodes(run: Run, seeds: range, setup: Callable[[], Callable[[tuple[int, ...]], Any]], workers: int) -> Any:
    """Outcomes (len(seeds),) bool of episodes that `evaluate` has no config for, in the order of the seeds.

    `run` keeps what is done, so an interruption costs the batches at work. `setup` as `vla_sim.workers.run_jobs` has
    it; what it returns answers a batch of seeds with their rows.
    """
    from vla.comparison import by_seed, outcomes
    from vla.progress import bar
    from vla.runs import to_plain
    from vla_sim.workers import run_jobs

    done = set(by_seed(run))
    todo = [seed for seed in seeds if seed not in done]
    batches = [tuple(todo[i : i + 20]) for i in range(0, len(todo), 20)]
    with bar(run.path.name) as show:
        for batch, rows in run_jobs(setup, batches, workers, print):
            for row in rows:
                run.append(to_plain(row))
            done.update(batch)
            show(len(done) / len(seeds), "")
    return outcomes(run)
