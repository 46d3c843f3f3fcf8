"""Evaluations put side by side: rates per skill, and two arms paired by seed.

A run that was to stop as soon as it was decided (`against` in its config) gets the wider intervals that allow that,
over its seeds from the first on without a gap: see `vla.sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, BadDataset
from vla.runs import Run
from vla.sequential import anytime_paired, anytime_rate
from vla.statistics import MeanDifference, Outcomes, Paired, Rate, paired, paired_mean, wilson

ALL = "all"
"""The group of every episode, beside one group a skill."""
MEASURES = {"seconds": "time to success [s]", "path": "path [m or rad]", "smoothness": "smoothness [-ln jerk]"}
"""Measures of a row that are compared where both arms succeeded, and how they are called."""


@dataclass(frozen=True)
class Comparison:
    """Two arms over the episodes of one group."""

    a: Rate
    b: Rate
    paired: Paired
    measures: dict[str, MeanDifference]
    """By the names in MEASURES, over seeds on which both succeeded; those that fewer than two such seeds have are left
    out."""


def rates(run: Run) -> dict[str, Rate]:
    """Success in all, then per skill in alphabetical order.

    Raises:
        BadDataset: a row has no seed or success.
    """
    groups: dict[str, list[bool]] = {ALL: []}
    for row in counted(run).values():
        groups[ALL].append(bool(row["success"]))
        if "skill" in row:
            groups.setdefault(row["skill"], []).append(bool(row["success"]))
    return {group: _rate(run, groups[group]) for group in _ordered(groups)}


def intention(run: Run) -> Rate | None:
    """How often the robot went for the object it was told of first, whatever came of it; None where no row tells."""
    told = [row for row in counted(run).values() if row.get("target")]
    return _rate(run, [row.get("approached") == row["target"] for row in told]) if told else None


def mean_of_successes(run: Run, measure: str) -> float | None:
    """Mean of a measure over the episodes that succeeded and have it; None when none has."""
    values = [row.get(measure) for row in counted(run).values() if row["success"]]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def outcomes(run: Run) -> npt.NDArray[np.bool_]:
    """(episodes,) success, in the order of the seeds."""
    return np.array([row["success"] for _, row in sorted(by_seed(run).items())], bool)


def compare(a: Run, b: Run) -> dict[str, Comparison]:
    """Pair two runs by seed, in all and per skill.

    Raises:
        BadConfig: they were not run on the same episodes; says in what they differ.
        BadDataset: a run has no episodes, or rows that cannot be read.
    """
    rows_a, rows_b = counted(a), counted(b)
    common = rows_a.keys() & rows_b.keys()
    if common and may_stop(b):
        rows_a = {seed: row for seed, row in rows_a.items() if seed in common}
    if common and may_stop(a):
        rows_b = {seed: row for seed, row in rows_b.items() if seed in common}
    _require_same_episodes(a, b, rows_a, rows_b)
    groups: dict[str, list[int]] = {ALL: list(rows_a)}
    for seed, row in rows_a.items():
        if "skill" in row:
            groups.setdefault(row["skill"], []).append(seed)
    alpha = _alpha(a) or _alpha(b)
    return {
        g: _compare([rows_a[s] for s in groups[g]], [rows_b[s] for s in groups[g]], alpha) for g in _ordered(groups)
    }


def may_stop(run: Run) -> bool:
    """It was to end as soon as it was decided, so how many episodes it has is no accident."""
    return run.config.get("against") is not None


def by_seed(run: Run) -> dict[int, dict[str, Any]]:
    """The run's episodes by seed.

    Raises:
        BadDataset: a row lacks its seed or outcome, has a measure that is no number, or a seed is there twice.
    """
    found: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(run.rows(), 1):
        if not isinstance(row.get("seed"), int) or not isinstance(row.get("success"), bool):
            raise BadDataset(f"{run.path}, episode {number}: an evaluation's row needs `seed` and `success`, got {row}")
        if not isinstance(row.get("skill", ""), str):
            raise BadDataset(f"{run.path}, episode {number}: `skill` must be a name, got {row['skill']!r}")
        for measure in MEASURES:
            value = row.get(measure)
            if value is not None and not (type(value) in (int, float) and math.isfinite(value)):
                raise BadDataset(f"{run.path}, episode {number}: `{measure}` must be a finite number, got {value!r}")
        if row["seed"] in found:
            raise BadDataset(f"{run.path} has seed {row['seed']} twice; evaluate again into another folder")
        found[row["seed"]] = row
    return found


def counted(run: Run) -> dict[int, dict[str, Any]]:
    """The rows that count, by seed: all, or of a run that may stop those before the first gap in its seeds.

    Raises:
        BadDataset: as `by_seed`.
    """
    rows = by_seed(run)
    if not may_stop(run):
        return rows
    seed, found = run.config.get("seed"), {}
    if type(seed) is not int:
        raise BadDataset(f"{run.path} was to stop early, and its run.json does not say its first seed")
    while seed in rows:
        found[seed] = rows[seed]
        seed += 1
    return found


def _require_same_episodes(a: Run, b: Run, rows_a: dict[int, Any], rows_b: dict[int, Any]) -> None:
    for run, rows in ((a, rows_a), (b, rows_b)):
        if not rows:
            raise BadDataset(f"{run.path} has no episodes yet")
    suites = [run.config.get("suite") for run in (a, b)]
    if suites[0] != suites[1]:
        raise BadConfig(f"{a.path} ran suite {suites[0]!r} and {b.path} ran {suites[1]!r}: these cannot be paired")
    if rows_a.keys() != rows_b.keys():
        common = len(rows_a.keys() & rows_b.keys())
        raise BadConfig(
            f"{a.path} has {len(rows_a)} seeds and {b.path} has {len(rows_b)}, {common} of them in common: "
            "a paired test needs the same episodes. Evaluate both with the same --seed and --episodes."
        )
    for seed, row in rows_a.items():
        if row.get("task") != rows_b[seed].get("task"):
            raise BadConfig(
                f"seed {seed} was task {row.get('task')!r} in {a.path} and {rows_b[seed].get('task')!r} in {b.path}: "
                "were they run on different versions of the suite?"
            )


def _ordered(groups: Iterable[str]) -> list[str]:
    return [ALL, *sorted(group for group in groups if group != ALL)]


def _alpha(run: Run) -> float | None:
    """Error rate of a run that may stop; None for others."""
    if not may_stop(run):
        return None
    alpha = run.config.get("alpha")
    if alpha is not None and not (type(alpha) is float and 0 < alpha < 1):
        raise BadDataset(f"{run.path}: the run.json's alpha is {alpha!r}, not a chance")
    return alpha or 0.05


def _rate(run: Run, hits: list[bool]) -> Rate:
    alpha = _alpha(run)
    return wilson(sum(hits), len(hits)) if alpha is None else anytime_rate(sum(hits), len(hits), alpha)


def _compare(a: list[dict[str, Any]], b: list[dict[str, Any]], alpha: float | None) -> Comparison:
    won_a, won_b = _outcomes(a), _outcomes(b)
    if alpha is None:
        both = paired(won_a, won_b)
        rate_a, rate_b = wilson(int(won_a.sum()), len(a)), wilson(int(won_b.sum()), len(b))
    else:
        both = anytime_paired(won_a, won_b, alpha)
        rate_a, rate_b = anytime_rate(int(won_a.sum()), len(a), alpha), anytime_rate(int(won_b.sum()), len(b), alpha)
    found = {name: _difference(a, b, name) for name in MEASURES}
    return Comparison(rate_a, rate_b, both, {name: d for name, d in found.items() if d.n > 1})


def _outcomes(rows: list[dict[str, Any]]) -> Outcomes:
    return np.array([row["success"] for row in rows], bool)


def _difference(a: list[dict[str, Any]], b: list[dict[str, Any]], measure: str) -> MeanDifference:
    known = [
        (x[measure], y[measure])
        for x, y in zip(a, b, strict=True)
        if x["success"] and y["success"] and x.get(measure) is not None and y.get(measure) is not None
    ]
    values = np.array(known, float).reshape(-1, 2)
    return paired_mean(values[:, 0], values[:, 1])
