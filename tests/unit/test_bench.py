"""`vla bench`: one row a metric with the keys the docs promise, and an exit code that tells of a missed target."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla import registry
from vla.cli import main
from vla.runs import revision
from vla.statistics import wilson
from vla.verbs import bench, demo
from vla.verbs.bench import Metric
from vla.verbs.benches import demo as demo_bench
from vla.verbs.benches import heads as heads_bench
from vla.verbs.benches import libero_verification as libero_bench
from vla.verbs.benches import statistics as statistics_bench
from vla.verbs.benches import suites as suites_bench

KEYS = ["bench", "metric", "value", "unit", "n", "low", "high", "target", "met", "revision"]


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [
        (0.9, ">= 0.9", True),
        (0.89, ">= 0.9", False),
        (2.0, "<= 2", True),
        (2.01, "<= 2", False),
        (1e-5, "<= 1e-4", True),
        (-1.5, ">= -1", False),
        (math.nan, ">= 0", False),
        (math.nan, "<= 0", False),
        (5.0, None, None),
    ],
)
def test_a_target_is_met_or_missed(value: float, target: str | None, met: bool | None) -> None:
    assert Metric("m", value, "", target=target).met is met


def found(monkeypatch: pytest.MonkeyPatch, *metrics: Metric) -> None:
    """Let `vla bench demo` find these instead of measuring for a quarter of an hour."""

    def measure(args: bench.Args) -> list[Metric]:
        print("noise that is not a row")
        return list(metrics)

    monkeypatch.setattr(demo_bench, "measure", measure)


def test_json_is_one_row_a_metric_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, Metric("success", 0.95, "", 400, 0.92, 0.97, ">= 0.9"), Metric("parameters", 12.0, ""))
    assert main(["bench", "demo", "--json"]) == 0
    out = capsys.readouterr()
    rows = [json.loads(line) for line in out.out.splitlines()]
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert list(rows[0].values()) == ["demo", "success", 0.95, "", 400, 0.92, 0.97, ">= 0.9", True, revision()]
    assert list(rows[1].values()) == ["demo", "parameters", 12.0, "", None, None, None, None, None, revision()]
    assert "noise" in out.err


@pytest.mark.parametrize("option", [["--json"], []])
def test_a_missed_target_is_exit_code_1(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, Metric("good", 3, "ms", target="<= 15"), Metric("slow", 16, "ms", target="<= 15"))
    assert main(["bench", "demo", *option]) == 1
    shown = capsys.readouterr().out
    assert "slow" in shown
    assert "<= 15" in shown


def test_an_unknown_name_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nope"]) == 2
    message = capsys.readouterr().err
    assert f"no benchmark is called 'nope'; there is {', '.join(bench.names())}" in message
    assert "demo" in bench.names()


def rate(k: int, n: int = 400) -> dict[str, float]:
    return {"k": k, "n": n, "low": k / n - 0.02, "high": k / n + 0.02}


SUMMARY: dict[str, Any] = {
    "minutes": 11.0,
    "train_minutes": 4.0,
    "parameters": 1_500_000,
    "success": rate(380),
    "success_by_skill": {"pick": rate(99, 100), "push": rate(99, 100), "stack": rate(70, 100), "bowl": rate(9, 10)},
    "success_verified": rate(372),
    "success_onnx": rate(381),
    "swapped_instruction": rate(40),
    "parity_max_abs": 1e-6,
    "latency_ratio_k16": 1.8,
    "ros_success": rate(10, 11),
    "ros_overhead_p99_ms": 9.0,
    "ros_hold_after_kill_ms": 120.0,
    "revision": revision(),
}


OLD = {"revision": "0123456789ab"}


def test_the_demos_summary_becomes_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "summary.json").write_text(json.dumps(SUMMARY))
    assert main(["bench", "demo", "--json", "--out", str(tmp_path)]) == 1
    rows = {row["metric"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [name for name, row in rows.items() if row["met"] is False] == ["success, stack", "verified minus single"]
    assert rows["verified minus single"]["value"] == pytest.approx(-2)
    assert rows["success, bowl"]["met"] is None


def test_a_summary_that_is_no_demos_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").mkdir()
    for text in ("{", "[]", "{}", json.dumps(SUMMARY | {"success": None}), json.dumps(SUMMARY | OLD)):
        (tmp_path / "demo" / "summary.json").write_text(text)
        assert main(["bench", "demo", "--out", str(tmp_path)]) == 2
        assert "cannot be used" in capsys.readouterr().err


def test_heads_are_trained_evaluated_and_timed_once(
    demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole benchmark, two steps long; the second run finds everything there."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "dataset").symlink_to(demonstrations)
    for name, value in (("STEPS", 2), ("EPISODES", 2), ("SEED", 40)):  # 40: sentences the demonstrations have
        monkeypatch.setattr(heads_bench, name, value)
    monkeypatch.setattr(demo, "collect", lambda args: {})
    monkeypatch.setattr(registry, "names", lambda kind: ["l1"])
    shown = []
    for _ in range(2):
        assert main(["bench", "heads", "--json", "--out", str(tmp_path), "--workers", "1"]) == 0
        shown.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    names = [[row["metric"] for row in rows] for rows in shown]
    expected = ["parameters", "success", "decision K=1", "decision K=16"]
    assert names[0] == names[1] == [f"l1, {what}" for what in expected]
    assert [row["n"] for row in shown[0]] == [None, 2, None, None]
    assert shown[0][:2] == shown[1][:2]
    assert all(row["value"] > 0 for row in shown[0] if row["unit"] == "ms")


def test_a_verifier_is_compared_with_the_best_setting_without_one(
    demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The benchmark on LIBERO, on the tabletop and without the fit: two steps of training, two episodes an arm."""
    folder = tmp_path / "libero_verification"
    folder.mkdir()
    (folder / "dataset").symlink_to(demonstrations)
    settings = {"SUITES": ("tabletop",), "STEPS": 2, "EPISODES": 2, "SEED": 40, "VERIFIER": "agreement", "K": 2}
    settings |= {"LEARNED_IN": "tabletop", "CHOICE_EPISODES": 2, "CHOICE_SEED": 50}
    settings |= {"VERIFIED": {"verifier": "agreement", "n_candidates": 2}}
    for name, value in settings.items():
        monkeypatch.setattr(libero_bench, name, value)
    monkeypatch.setattr("vla_sim.collect.collect", lambda *_: None)
    monkeypatch.setattr(libero_bench, "_fit", lambda *_: None)
    shown = []
    for _ in range(2):
        assert main(["bench", "libero_verification", "--json", "--out", str(tmp_path), "--workers", "1"]) == 0
        shown.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert shown[0] == shown[1]
    assert [row["metric"] for row in shown[0]] == [
        *(f"to choose among, single sample, execute {steps}" for steps in (4, 2, 1)),
        *("to choose among, zero noise", "to choose among, agreement"),
        *(f"tabletop, {what}" for what in ("single sample, execute 4", "agreement, K=2", "gain", "p")),
    ]
    assert {row["n"] for row in shown[0]} == {2}


def test_statistics_are_measured_against_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole benchmark on few draws; then with an interval that is too narrow, which it must notice."""
    monkeypatch.setattr(statistics_bench, "DRAWS", 400)
    main(["bench", "statistics", "--json", "--out", str(tmp_path)])
    rows = {row["metric"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert 0.92 < rows["Wilson, n=200, rate 0.9, coverage"]["value"] < 0.98
    assert 0.92 < rows["Tango, n=200, 10 points, coverage"]["value"] < 0.98
    assert rows["sequential, false claims"]["met"] is True
    assert rows["fixed-n McNemar looked at 20 times, false claims"]["value"] > 0.05
    monkeypatch.setattr(statistics_bench, "wilson", lambda k, n: wilson(k, n, 0.9))
    (*_, farthest) = statistics_bench._wilson(np.random.default_rng(0))
    assert farthest.met is False


class BothWays:
    """LeRobot's loop and ours, as the benchmark of suites sees them; stops the third episode of the first try."""

    tried = 0

    def __init__(self, config: Any) -> None:
        self.config = config

    def episode(self, number: int) -> suites_bench.Row:
        BothWays.tried += 1
        if BothWays.tried == 3:
            raise KeyboardInterrupt
        return suites_bench.Row(1_000_000 + 10 * number, number != 1, number != 2, 6.0, 60.0)

    def close(self) -> None:
        pass


def test_a_policy_through_both_loops_is_compared_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suites_bench, "_Both", BothWays)
    command = ["bench", "suites", "--policy", "runs/x", "--json", "--out", str(tmp_path)]
    assert main(command) == 130
    assert main(command) == 0
    rows = {row["metric"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    n = suites_bench.EPISODES
    assert BothWays.tried == n + 1
    assert rows["the policy, success through ours"]["value"] == (n - 1) / n
    assert rows["ours minus LeRobot's"]["value"] == 0
    assert rows["the policy through ours, full meshes, episodes"]["value"] == 600
    ratio = rows["the policy, ours to LeRobot"]
    assert (ratio["value"], ratio["met"], ratio["n"]) == (10, True, n)
