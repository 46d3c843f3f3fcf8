"""Two runs are compared on the same episodes or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vla import cli
from vla.comparison import compare, intention, mean_of_successes, rates
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
    assert "p=0.00098" in out
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


def stopped(path: Path, successes: dict[int, bool], **config: Any) -> Run:
    """A run that was to stop as soon as it was decided."""
    run = Run.create(path, "eval", {"suite": "tabletop", "against": "b", "seed": 0, "alpha": None, **config})
    for seed, success in successes.items():
        run.append({"seed": seed, "task": "t", "skill": "pick", "success": success})
    return run


def test_a_run_that_may_stop_is_compared_on_its_seeds_up_to_the_first_gap(tmp_path: Path) -> None:
    """Seeds after a gap finished early because they were quick: they do not count."""
    a = stopped(tmp_path / "a", {0: True, 1: True, 3: True, 4: True})
    b = make(tmp_path / "b", [False] * 6, task="t", skill="pick")
    found = compare(a, b)["all"]
    assert (found.a.n, found.b.n, found.paired.wins) == (2, 2, 2)
    assert found.paired.anytime
    assert rates(a)["all"].n == 2
    assert compare(b, a)["all"].paired.losses == 2


def test_a_run_that_may_stop_over_other_seeds_is_refused_as_any_other(tmp_path: Path) -> None:
    a = stopped(tmp_path / "a", {0: True, 1: True})
    b = make(tmp_path / "b", [False] * 6, first_seed=10)
    for pair in ((a, b), (b, a), (a, stopped(tmp_path / "c", {10: True}, seed=10))):
        with pytest.raises(BadConfig, match="0 of them in common"):
            compare(*pair)


def test_its_intervals_are_those_that_allow_stopping(tmp_path: Path) -> None:
    successes = [True] * 25 + [False] * 5
    plain = make(tmp_path / "plain", successes, task="t", skill="pick")
    b = make(tmp_path / "b", [i % 3 == 0 for i in range(30)], task="t", skill="pick")
    narrow = compare(plain, b)["all"]
    wide, wider = (
        compare(stopped(tmp_path / f"a{alpha}", dict(enumerate(successes)), alpha=alpha), b)["all"]
        for alpha in (None, 0.01)
    )
    assert wider.paired.low < wide.paired.low < narrow.paired.low
    assert wide.a.low < narrow.a.low
    assert "whenever stopped" in str(wide.paired)


def test_measures_are_compared_where_both_succeeded(tmp_path: Path) -> None:
    a, b = (Run.create(tmp_path / name, "eval", {"suite": "tabletop"}) for name in "ab")
    times = {0: (3.0, 2.0), 1: (4.0, 2.0), 2: (9.0, None), 3: (5.0, 2.0)}
    for seed, (x, y) in times.items():
        row = {"seed": seed, "task": "t", "skill": "pick", "path": None}
        a.append({**row, "success": True, "seconds": x})
        b.append({**row, "success": y is not None, "seconds": y or 8.0})
    found = compare(a, b)["all"].measures
    assert set(found) == {"seconds"}
    assert (found["seconds"].mean, found["seconds"].n) == (2.0, 3)
    assert mean_of_successes(b, "seconds") == 2.0
    assert mean_of_successes(b, "path") is None


def test_intention_counts_the_first_object_whatever_came_of_it(tmp_path: Path) -> None:
    run = make(tmp_path / "a", [True] * 2)
    assert intention(run) is None
    run = make(tmp_path / "b", [])
    for seed, (approached, success) in enumerate([("red", False), ("blue", True), ("", False)]):
        run.append({"seed": seed, "success": success, "target": "red", "approached": approached})
    found = intention(run)
    assert found is not None
    assert (found.k, found.n) == (1, 3)


@pytest.mark.parametrize("value", ["fast", True, [1.0], "nan"])
def test_a_measure_that_is_no_number_is_named(tmp_path: Path, value: Any) -> None:
    run = make(tmp_path / "a", [True, True], seconds=value)
    rows = tmp_path / "a" / "episodes.jsonl"
    rows.write_text(rows.read_text().replace('"nan"', "NaN"))  # which we do not write, but Python's json reads
    with pytest.raises(BadDataset, match="episode 1: `seconds` must be a finite number"):
        rates(run)


@pytest.mark.parametrize(("config", "message"), [({"seed": "0"}, "first seed"), ({"alpha": 2.0}, "not a chance")])
def test_a_stopped_runs_settings_are_checked(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    run = stopped(tmp_path / "a", {0: True, 1: False}, **config)
    with pytest.raises(BadDataset, match=message):
        rates(run)


def test_what_may_stop_early_is_not_promised_the_power_of_a_fixed_number(tmp_path: Path) -> None:
    from vla.verbs.eval import detectable

    make(tmp_path / "b", [True, False] * 10)
    assert "13.9 points" in detectable(200, str(tmp_path / "b"))
    assert "half as often" in detectable(200, str(tmp_path / "b"))
    assert "half as often" not in detectable(200, None)
