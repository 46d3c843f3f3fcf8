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
    demos: int | None = None
    """The same for each of the suite's tasks, instead of `--episodes`; what the expert cannot do is left out."""
    out: Path | None = None
    """The dataset's folder; datasets/SUITE when none is given."""
    seed: int = 0
    """First seed; each episode uses up one."""
    noise: float = 0.25
    """Noise on the executed moves, as a fraction of the move; what is recorded is the expert's own wish."""
    workers: int = 2
    """Processes."""


def main(args: Args) -> int:
    """Collect, with a progress bar."""
    from vla.progress import bar
    from vla_sim.collect import CollectConfig, collect

    config = CollectConfig(args.suite, args.episodes, args.demos, args.seed, args.noise)
    out = Path("datasets") / args.suite if args.out is None else args.out
    with bar("collect") as show:
        done = collect(config, out, args.workers, lambda count, total: show(count / total, f"{count}/{total} episodes"))
    print(f"{out}: {done.episodes} episodes, {done.frames} frames; {done.tried} seeds tried")
    return 0
