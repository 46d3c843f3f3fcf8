"""Two runs are compared on the same episodes or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vla import cli
from vla.comparison import compare, rates
from vla.errors import BadConfig, BadDataset
from vla.runs import Run


def make(path: Path, successes: list[bool], suite: str = "tabletop", first_seed: int = 0, **changes: Any) -> Run:
    """A run whose episodes alternate between two skills."""
    run = Run.create(path, "eval", {"suite": suite})
    for i, success in enumerate(successes):
        skill = ("pick", "push")[i % 2]
        row = {"seed": first_seed + i, "task": f"{skill}_red", "skill": skill, "success": success}
        run.append({**row, **changes})
    return run


def test_rates_are_per_skill_and_in_all(tmp_path: Path) -> None:
    found = rates(make(tmp_path / "a", [True, False, True, True]))
    assert [(group, r.k, r.n) for group, r in found.items()] == [("all", 3, 4), ("pick", 2, 2), ("push", 1, 2)]


def test_episodes_are_paired_by_seed_whatever_their_order(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [True, True, False, True])
    b = Run.create(tmp_path / "b", "eval", {"suite": "tabletop"})
    for row in reversed(make(tmp_path / "c", [False, True, True, False]).rows()):
        b.append(row)
    found = compare(a, b)
    assert (found["all"].paired.wins, found["all"].paired.losses, found["all"].paired.ties) == (2, 1, 1)
    assert (found["pick"].paired.wins, found["pick"].paired.losses) == (1, 1)
    assert (found["push"].paired.wins, found["push"].paired.losses) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "libero"}, "suite 'tabletop'.*'libero'"),
        ({"first_seed": 1}, "3 of them in common"),
        ({"task": "stack"}, r"seed 0 was task 'pick_red'.*'stack'"),
    ],
)
def test_other_episodes_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    a, b = make(tmp_path / "a", [True] * 4), make(tmp_path / "b", [True] * 4, **changes)
    with pytest.raises(BadConfig, match=message):
        compare(a, b)


@pytest.mark.parametrize(("changes", "message"), [({"seed": 0}, "seed 0 twice"), ({"success": None}, "episode 1")])
def test_rows_that_cannot_be_paired_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadDataset, match=message):
        rates(make(tmp_path / "a", [True] * 3, **changes))


def test_a_run_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no episodes yet"):
        compare(make(tmp_path / "a", []), make(tmp_path / "b", [True]))


def test_the_verb_prints_both_rates_and_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", [True] * 20)
    make(tmp_path / "b", [False] * 10 + [True] * 10)
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "100.0% [83.9, 100.0] n=20" in out
    assert "+50.0 points" in out
    assert "p=0.002" in out
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["all"]["paired"]["wins"] == 10
    assert found["pick"]["b"] == {
        "k": 5,
        "n": 10,
        "low": pytest.approx(0.2366, abs=1e-4),
        "high": pytest.approx(0.7634, abs=1e-4),
    }


def test_the_verb_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "no run at" in capsys.readouterr().err
