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
    from vla.progress import bar
    from vla_sim.collect import CollectConfig, collect

    config = CollectConfig(args.suite, args.episodes, args.seed, args.noise)
    with bar("collect") as show:
        done = collect(
            config, args.out, args.workers, lambda count, total: show(count / total, f"{count}/{total} episodes")
        )
    print(f"{args.out}: {done.episodes} episodes, {done.frames} frames; {done.tried} seeds tried")
    return 0
