"""List the tasks of a suite; with --show draw each of them, with --run try its scripted expert.

Seeds from 1,000,000 to 1,999,999 are LIBERO's official initial states, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_sim.env import Suite

SIZE = 256
COLUMNS = 4


@dataclass(frozen=True)
class Args:
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    task: str | None = None
    """Only this one."""
    show: Path | None = None
    """Draw the beginning of an episode of each task into this PNG: camera "agent", the official look."""
    run: int = 0
    """Episodes a task to run the scripted expert for."""
    seed: int = 1_000_000
    """First seed."""
    workers: int = 1
    """Processes."""


def main(args: Args) -> int:
    """Print a line a task; draw and run what was asked for."""
    from vla import registry
    from vla.errors import BadConfig, UnknownName
    from vla.progress import bar
    from vla.statistics import wilson
    from vla_sim.experts import try_expert
    from vla_sim.workers import check_seeds, check_workers

    if args.run < 0 or args.seed < 0:
        raise BadConfig(f"--run and --seed must not be negative, got {args.run} and {args.seed}")
    if args.show is not None and args.show.suffix != ".png":
        raise BadConfig(f"--show draws a PNG: call it {args.show.with_suffix('.png')}")
    check_workers(args.workers)
    suite = registry.suite(args.suite)()
    check_seeds(args.seed, max(1, args.run) * len(suite.tasks))
    if args.task is not None and args.task not in suite.tasks:
        raise UnknownName(f"no {args.suite} task is called {args.task!r}; there is {', '.join(suite.tasks)}")
    tasks = list(suite.tasks) if args.task is None else [args.task]
    if args.show is not None:
        draw(suite, tasks, args.seed, args.show)
    rates: dict[str, Any] = {}
    if args.run:
        seeds = range(args.seed, args.seed + args.run * len(suite.tasks))
        todo = [(task, seeds[suite.tasks.index(task) :: len(suite.tasks)]) for task in tasks]
        with bar("expert") as show:
            for done, trials in enumerate(try_expert(args.suite, todo, args.workers), 1):
                lost = [trial.seed for trial in trials if not trial.success]
                rate = wilson(len(trials) - len(lost), len(trials))
                rates[trials[0].task] = f"{rate}, lost {lost}" if lost else rate
                show(done / len(todo), trials[0].task)
    width = max(map(len, tasks))
    for task in tasks:
        print(f"{task:{width}}  {rates.get(task, '')}".rstrip())
    return 0


def draw(suite: Suite, tasks: list[str], seed: int, path: Path) -> None:
    """A grid of images, row by row in the order of the tasks."""
    import numpy as np
    from PIL import Image

    images = list(_pictures(suite, tasks, seed))
    images += [np.zeros_like(images[0])] * (-len(images) % COLUMNS)
    rows = [np.concatenate(images[i : i + COLUMNS], 1) for i in range(0, len(images), COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def _pictures(suite: Suite, tasks: list[str], seed: int) -> Iterator[Any]:
    env = suite.stage()
    for task in tasks:
        env.reset(seed, task)
        yield env.render(suite.spec.cameras[0].name, SIZE, SIZE)
