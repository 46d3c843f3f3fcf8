"""`vla demo`: all it writes, and that an interrupted one goes on where it was and touches nothing but its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vla.cli import main
from vla.verbs import demo

# A policy of 8 training steps never succeeds, and a verifier needs both outcomes: every second episode is called a
# success before the fit, which is short. One film is made instead of four, and the revision is held: a commit
# between the two halves would start the demo anew. All else is what people run.
DRIVER = """
import functools, sys
from dataclasses import replace
import numpy as np
from vla_sim import branch, evaluate
from vla import cli, runs
from vla.verifiers import privileged_advantage as verifier
collect = branch.collect_rollouts
def half_succeed(*args):
    rollouts = collect(*args)
    return replace(rollouts, success=np.arange(len(rollouts.success)) % 2 == 0)
branch.collect_rollouts = half_succeed
verifier.Config = functools.partial(verifier.Config, steps=3, value_steps=20)
runs.revision = lambda: "held"
film = evaluate.film
evaluate.film = lambda config, n, folder: film(config, 1, folder)
sys.exit(cli.main(sys.argv[1:]))
"""
RATES = ("success", "success_verified", "success_onnx", "swapped_instruction")
NUMBERS = ("minutes", "train_minutes", "parameters", "parity_max_abs", "latency_ratio_k16")


def start(out: Path) -> subprocess.Popen[str]:
    sizes = {"demonstrations": 64, "steps": 8, "rollouts": 6, "episodes": 2, "ros-successes": 0, "workers": 1}
    arguments = [text for option, value in sizes.items() for text in (f"--{option}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "demo", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def done_stages(out: Path) -> list[str]:
    try:
        return list(json.loads((out / "stages.json").read_text())["done"])
    except FileNotFoundError:
        return []


def test_killed_after_a_stage_it_goes_on_and_ends_with_all_its_numbers(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = start(out)
    deadline = time.monotonic() + 120
    while "train" not in done_stages(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert done_stages(out) == ["collect", "train"]
    weights = (out / "policy" / "policy.safetensors").stat().st_mtime_ns

    process = start(out)
    shown, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert shown.startswith("going on after collect, train\n[3/6] verifier\n")
    assert (out / "policy" / "policy.safetensors").stat().st_mtime_ns == weights

    summary = json.loads((out / "summary.json").read_text())
    for name in RATES:
        assert set(summary[name]) == {"k", "n", "low", "high"}, name
        assert summary[name]["n"] == 2
    assert all(set(rate) == {"k", "n", "low", "high"} for rate in summary["success_by_skill"].values())
    assert sum(rate["n"] for rate in summary["success_by_skill"].values()) == 2
    for name in NUMBERS:
        assert summary[name] > 0, name
    assert summary["parity_max_abs"] < 1e-4
    assert summary["revision"] == "held"
    report = (out / "report.html").read_text()
    assert "privileged_advantage" in report
    assert "<script src" not in report
    assert 'src="http' not in report, "it needs nothing but itself"
    assert "success, on ONNX Runtime" in shown


RATE = {"k": 9, "n": 10, "low": 0.6, "high": 0.98}
FOUND: dict[str, dict[str, Any]] = {
    "collect": {},
    "train": {"train_minutes": 1.0, "parameters": 1_000_000},
    "fit_verifier": {"verifier_fit": {}},
    "_evaluate": {"success": RATE, "success_by_skill": {}, "success_verified": RATE, "swapped_instruction": RATE},
    "_export": {"parity_max_abs": 1e-6, "latency_ratio_k16": 1.9, "decide_k1_ms": 4.0, "decide_k16_ms": 7.6},
    "_evaluate_onnx": {"success_onnx": RATE},
    "_ros": {"ros_success": RATE, "ros_overhead_p99_ms": 9.0, "ros_hold_after_kill_ms": 80.0},
}
"""Each stage's function, and what it would have found."""


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that ran, in order; none takes any time."""
    ran: list[str] = []

    def stage(name: str) -> Any:
        def work(args: demo.Args) -> dict[str, Any]:
            ran.append(name)
            if name == "train":  # what the report is about
                (args.out / "policy").mkdir()
                (args.out / "policy" / "log.jsonl").write_text('{"step": 20, "seconds": 1, "loss": 0.5}\n')
            return FOUND[name]

        return work

    for name in FOUND:
        monkeypatch.setattr(demo, name, stage(name))
    return ran


def test_a_stage_that_fails_is_the_one_to_go_on_with(
    called: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = demo._export

    def out_of_memory(args: demo.Args) -> dict[str, Any]:
        raise MemoryError

    monkeypatch.setattr(demo, "_export", out_of_memory)
    args = demo.Args(out=tmp_path / "demo")
    with pytest.raises(MemoryError):
        demo.main(args)
    assert called == ["collect", "train", "fit_verifier", "_evaluate"]
    monkeypatch.setattr(demo, "_export", working)
    assert demo.main(demo.Args(out=tmp_path / "demo", setup_seconds=120.0)) == 1, "nine of ten through ROS 2"
    assert called == list(FOUND), "set-up took longer this time, but it is the same demo"
    summary = json.loads((args.out / "summary.json").read_text())
    assert 2.0 <= summary["minutes"] < 2.5
    assert summary["ros_success"] == RATE


def test_finished_or_asked_for_something_else_it_starts_anew(called: list[str], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert demo.main(demo.Args(out=out, ros_successes=9)) == 0
    (out / "policy" / "old").touch()
    assert demo.main(demo.Args(out=out, ros_successes=9)) == 0
    assert called == 2 * list(FOUND)
    assert not (out / "policy" / "old").exists()
    assert demo.main(demo.Args(out=out, ros_successes=0)) == 0
    assert called == [*(2 * list(FOUND)), *list(FOUND)[:-1]]


def test_a_folder_with_anything_else_in_it_is_left_alone(
    called: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    (tmp_path / "policy").mkdir()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds thesis.tex, which no demo made; choose another folder for --out" in capsys.readouterr().err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["policy", "thesis.tex"]
    assert called == []
