"""Collect demonstrations by the scripted expert into a LeRobotDataset.

Run the same command again to go on after an interruption, or with more `--episodes` to add to a dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    """What to collect, and where to."""

    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 1000
    """Successful demonstrations to end up with."""
    out: Path = Path("datasets/tabletop")
    """The dataset's folder."""
    seed: int = 0
    """First seed; each episode uses up one."""
    noise: float = 0.25
    """Noise on the executed moves, as a fraction of the move; what is recorded is the expert's own wish."""
    workers: int = 2
    """Processes."""


def main(args: Args) -> int:
    """Collect, with a progress bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from vla_sim.collect import CollectConfig, collect

    config = CollectConfig(args.suite, args.episodes, args.seed, args.noise)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("demonstrations", total=args.episodes)
        done = collect(
            config,
            args.out,
            args.workers,
            progress=lambda count, total: bar.update(task, completed=count, total=total),
            report=bar.console.print,
        )
    print(f"{args.out}: {done.episodes} episodes, {done.frames} frames; {done.tried} seeds tried")
    return 0
