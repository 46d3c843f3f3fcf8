"""`vla up` from outside: its exit code, what it writes, and that no node outlives it, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

GONE_WITHIN_S = 10.0


def up(policy: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "vla.cli", "up", "--bundle", f"fake:{policy}", "--out", str(out), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def nodes(parent: int) -> set[int]:
    """The node processes that were started by this parent, dead or alive."""
    found = set()
    for place in Path("/proc").iterdir():
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
            if f"VLA_PARENT_PID={parent}".encode() in environment:
                found.add(int(place.name))
        except (OSError, ValueError):
            continue
    return found


def until(true: Callable[[], bool], patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_node_outlives_it(end: signal.Signals, code: int, policy: Path, tmp_path: Path) -> None:
    process = up(policy, tmp_path / "run")
    log = policy / "seen.jsonl"
    assert until(log.exists, 30.0), process.communicate(timeout=1)  # the policy has decided: all are at work
    assert len(nodes(process.pid)) == 4
    os.kill(process.pid, end)
    assert until(lambda: not nodes(process.pid), GONE_WITHIN_S)
    said = process.communicate(timeout=GONE_WITHIN_S)
    assert process.returncode == code
    assert "Traceback" not in said[1]


def test_it_writes_what_it_measured_and_misses_its_target(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = up(policy, out, "--episodes", "1", "--rate-scale", "6", "--kill-test")
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors  # a policy that only lifts the tool does no task
    assert "timeout, 80 steps" in said
    measured = json.loads((out / "ros.json").read_text())
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [2_000_000, 2_000_001]
    assert (measured["success"]["k"], measured["success"]["n"]) == (0, 2)
    assert 0 < measured["overhead_p50_ms"] <= measured["overhead_p99_ms"]
    assert measured["hold_after_kill_ms"] < 200
    assert json.loads((out / "run.json").read_text())["kind"] == "ros"


def test_a_policy_that_is_not_there_is_an_error_and_no_traceback(policy: Path, tmp_path: Path) -> None:
    process = up(policy / "missing", tmp_path / "run")
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert errors.startswith("error: ")
    assert "cannot read spec" in errors or "no policy at" in errors


@pytest.mark.parametrize("verb", ["up", "run"])
def test_the_noise_asked_for_is_the_noise_of_the_policy(verb: str, policy: Path) -> None:
    where = ["--bundle" if verb == "up" else "--policy", f"fake:{policy}"]
    argv = [sys.executable, "-m", "vla.cli", verb, *where, "--noise-scale", "-1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=policy, timeout=60)
    assert done.returncode == 2
    assert "noise_scale must be finite and not negative, got -1.0" in done.stderr


def test_the_same_policy_runs_without_ros(policy: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "vla.cli",
        "run",
        "--policy",
        f"fake:{policy}",
        "--verifier",
        "none",
        "--episodes",
        "1",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "step 0: HOLD, none is good enough" in done.stdout
    assert "timeout, 80 steps, 20 decisions" in done.stdout
