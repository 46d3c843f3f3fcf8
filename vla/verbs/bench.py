"""Measure what the docs claim: `vla bench NAME`, a row a metric, with its target and whether it was met.

Names are the files of vla/verbs/benches. With --json it prints one JSON object a line and nothing else. Exits 1 when a
target is missed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from vla.statistics import Paired, Rate

BENCHES = Path(__file__).parent / "benches"


@dataclass(frozen=True)
class Args:
    name: Annotated[str, tyro.conf.Positional]
    """Which benchmark."""
    out: Path = Path("runs/bench")
    """Folder for what the benchmark makes; a benchmark that was interrupted goes on from it."""
    json: bool = False
    """One JSON object a line instead of a table."""
    policy: str | None = None
    """A policy to measure with, where the benchmark takes one: runs/x, bundles/x, or scheme:path."""
    workers: int = 2
    """Processes, and threads while training."""


@dataclass(frozen=True)
class Metric:
    """One measured number, and what was hoped for."""

    metric: str
    value: float
    unit: str
    n: int | None = None
    low: float | None = None
    high: float | None = None
    target: str | None = None
    """Such as ">= 0.9" or "<= 2"; None for a number that is only reported."""

    @property
    def met(self) -> bool | None:
        """Does the value satisfy the target?"""
        if self.target is None:
            return None
        sign, bound = self.target.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def of_rate(name: str, rate: Rate, target: str | None = None) -> Metric:
    """A rate with its interval."""
    return Metric(name, rate.rate, "", rate.n, rate.low, rate.high, target)


def share(name: str, hits: Any, target: str | None = None) -> Metric:
    """How many of (n,) booleans are true, with Wilson's interval."""
    import numpy as np

    from vla.statistics import wilson

    return of_rate(name, wilson(int(np.sum(hits)), len(hits)), target)


def gain(name: str, test: Paired, target: str | None = None) -> Metric:
    """A paired difference in points, with Tango's interval."""
    n = test.wins + test.losses + test.ties
    return Metric(name, 100 * test.difference, "points", n, 100 * test.low, 100 * test.high, target)


def names() -> list[str]:
    """Every benchmark there is."""
    return sorted(file.stem for file in BENCHES.glob("*.py") if not file.stem.startswith("_"))


def main(args: Args) -> int:
    """Run one benchmark and print its rows."""
    from vla.errors import UnknownName
    from vla.runs import revision

    if args.name not in names():
        raise UnknownName(f"no benchmark is called {args.name!r}; there is {', '.join(names())}")
    module = importlib.import_module(f"vla.verbs.benches.{args.name}")
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the rows alone
        metrics: list[Metric] = module.measure(args)
    source = revision()
    if args.json:
        for m in metrics:
            print(json.dumps({"bench": args.name, **asdict(m), "met": m.met, "revision": source}))
    else:
        _table(args.name, metrics, source)
    return 1 if any(m.met is False for m in metrics) else 0


def _table(name: str, metrics: list[Metric], source: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from vla.runs import machine

    table = Table("metric", "value", "interval", "n", "target", "met", title=f"vla bench {name}")
    marks = {None: "", True: "yes", False: "[red]no"}
    for m in metrics:
        interval = "" if m.low is None or m.high is None else f"[{m.low:.3g}, {m.high:.3g}]"
        count = "" if m.n is None else str(m.n)
        table.add_row(m.metric, f"{m.value:.4g} {m.unit}".strip(), interval, count, m.target or "", marks[m.met])
    console = Console()
    console.print(table)
    console.print(f"revision {source}, {machine()}", highlight=False)
