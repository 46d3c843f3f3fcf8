"""Evaluations put side by side: rates per skill, and two arms paired by seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.errors import BadConfig, BadDataset
from vla.runs import Run
from vla.statistics import Outcomes, Paired, Rate, paired, wilson

ALL = "all"
"""The group of every episode, beside one group a skill."""


@dataclass(frozen=True)
class Comparison:
    """Two arms over the episodes of one group."""

    a: Rate
    b: Rate
    paired: Paired


def rates(run: Run) -> dict[str, Rate]:
    """Success in all, then per skill in alphabetical order.

    Raises:
        BadDataset: a row has no seed or success.
    """
    groups: dict[str, list[bool]] = {ALL: []}
    for row in by_seed(run).values():
        groups[ALL].append(bool(row["success"]))
        if "skill" in row:
            groups.setdefault(row["skill"], []).append(bool(row["success"]))
    return {group: wilson(sum(groups[group]), len(groups[group])) for group in _ordered(groups)}


def compare(a: Run, b: Run) -> dict[str, Comparison]:
    """Pair two runs by seed, in all and per skill.

    Raises:
        BadConfig: they were not run on the same episodes; says in what they differ.
        BadDataset: a run has no episodes, or rows that cannot be read.
    """
    rows_a, rows_b = by_seed(a), by_seed(b)
    _require_same_episodes(a, b, rows_a, rows_b)
    groups: dict[str, list[int]] = {ALL: list(rows_a)}
    for seed, row in rows_a.items():
        if "skill" in row:
            groups.setdefault(row["skill"], []).append(seed)
    return {g: _compare(_outcomes(rows_a, groups[g]), _outcomes(rows_b, groups[g])) for g in _ordered(groups)}


def by_seed(run: Run) -> dict[int, dict[str, Any]]:
    """The run's episodes by seed.

    Raises:
        BadDataset: a row lacks its seed or outcome, or a seed is there twice.
    """
    found: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(run.rows(), 1):
        if not isinstance(row.get("seed"), int) or not isinstance(row.get("success"), bool):
            raise BadDataset(f"{run.path}, episode {number}: an evaluation's row needs `seed` and `success`, got {row}")
        if row["seed"] in found:
            raise BadDataset(f"{run.path} has seed {row['seed']} twice; evaluate again into another folder")
        found[row["seed"]] = row
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


def _outcomes(rows: dict[int, dict[str, Any]], seeds: list[int]) -> Outcomes:
    return np.array([rows[seed]["success"] for seed in seeds])


def _compare(a: Outcomes, b: Outcomes) -> Comparison:
    return Comparison(wilson(int(a.sum()), len(a)), wilson(int(b.sum()), len(b)), paired(a, b))
