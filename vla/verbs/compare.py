"""Compare two evaluations episode by episode, over the same seeds.

Prints both success rates, and the paired difference (first minus second) with Tango's interval and McNemar's mid-p, in
all and per skill; where both succeeded, also the mean difference in time, path and smoothness. A run that
was to stop early (`vla eval --against`) gets the intervals that allow that, on the seeds it ran. Runs whose seeds,
tasks or suites differ are refused: their difference would be one of luck as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Args:
    a: tyro.conf.Positional[Path]
    """The run in question, e.g. runs/verified."""
    b: tyro.conf.Positional[Path]
    """The run it is compared with, e.g. runs/single."""
    json: bool = False
    """Print one JSON object {group: {a, b, paired}} instead of lines."""


def main(args: Args) -> int:
    """Print the comparison."""
    from vla.comparison import MEASURES, compare
    from vla.runs import Run, to_plain

    found = compare(Run.open(args.a), Run.open(args.b))
    if args.json:
        import json

        print(json.dumps(to_plain(found), indent=2))
        return 0
    width = max(len(str(args.a)), len(str(args.b)), *map(len, MEASURES.values()))
    for group, comparison in found.items():
        print(group)
        print(f"  {args.a!s:{width}}  {comparison.a}")
        print(f"  {args.b!s:{width}}  {comparison.b}")
        print(f"  {'difference':{width}}  {comparison.paired}")
        for measure, difference in comparison.measures.items():
            print(f"  {MEASURES[measure]:{width}}  {difference}")
    return 0
