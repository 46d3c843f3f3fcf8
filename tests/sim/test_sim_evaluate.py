"""`vla eval` on a real checkpoint: rows on disk, resumable after a kill, refused where specs differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla.cli import main
from vla.errors import BadConfig, SpecMismatch
from vla.runs import Run
from vla_sim.evaluate import EvalConfig, evaluate
from vla_sim.suites.tabletop import TabletopSuite

SUITE = TabletopSuite()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy: as good as any to see that nothing is lost or doubled."""
    import torch

    from vla import checkpoint
    from vla.normalise import measure
    from vla.policy import PolicyConfig, PolicyNet
    from vla.tokenizers.words import WordTokenizer

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    spec = SUITE.spec
    state = np.stack([rng.uniform(d.low, d.high, 100) for d in spec.state], 1).astype(np.float32)
    action = np.stack([rng.uniform(d.low, d.high, 100) for d in spec.action], 1).astype(np.float32)
    statistics = measure(state, action, (spec.state, spec.action), "quantile")
    net = PolicyNet(PolicyConfig(head="l1"), spec, WordTokenizer.of(SUITE.instructions), statistics)
    folder = tmp_path_factory.mktemp("policy")
    checkpoint.save(folder, net, {})
    return folder


def outcomes(run: Run) -> list[tuple[Any, ...]]:
    rows = sorted(run.rows(), key=lambda row: row["seed"])
    return [(row["seed"], row["task"], row["success"], row["steps"], row["decisions"]) for row in rows]


def test_processes_do_not_change_the_outcome_and_rows_say_what_happened(policy: Path, tmp_path: Path) -> None:
    config = EvalConfig(str(policy), episodes=22, seed=500, n_action_steps=8)
    one, two = evaluate(config, tmp_path / "one", workers=1), evaluate(config, tmp_path / "two", workers=2)
    assert [row[0] for row in outcomes(one)] == list(range(500, 522))
    # Batches differ, so the network's float32 sums may in the last bit: the same episodes, nearly all alike.
    assert np.mean([a == b for a, b in zip(outcomes(one), outcomes(two), strict=True)]) > 0.9
    row = one.rows()[0]
    assert set(row) >= {"seed", "task", "skill", "instruction", "success", "failure", "steps", "decisions"}
    assert one.kind == "eval"
    assert one.config["n_action_steps"] == 8


def test_a_killed_evaluation_resumes_without_losing_or_doubling_an_episode(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    arguments = ["eval", "--policy", str(policy), "--out", str(out), "--workers", "1"]
    arguments += ["--episodes", "42", "--seed", "500", "--n-action-steps", "8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vla.cli", *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (out / "episodes.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = Run.open(out).rows()
    assert 0 < len(before) < 42
    with (out / "episodes.jsonl").open("a") as file:
        file.write('{"seed": 541, "succ')  # what a kill in the middle of a write leaves
    assert main(arguments) == 2
    assert "resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.splitlines()[-2].split()[-1] == "n=42"
    run = Run.open(out)
    assert run.rows()[: len(before)] == before
    assert [row[0] for row in outcomes(run)] == list(range(500, 542))


def test_a_resumed_run_must_be_the_same_run(policy: Path, tmp_path: Path) -> None:
    config = EvalConfig(str(policy), episodes=2, n_action_steps=8)
    evaluate(config, tmp_path / "run", workers=1)
    with pytest.raises(BadConfig, match="n_action_steps was 8, now 4"):
        evaluate(replace(config, n_action_steps=4), tmp_path / "run", workers=1, resume=True)


def test_a_policy_for_another_robot_is_refused_before_anything_is_written(policy: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(policy, tmp_path / "other")
    spec = json.loads((policy / "spec.json").read_text())
    spec["control_rate_hz"] = 20.0
    (tmp_path / "other" / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(SpecMismatch, match=r"control_rate_hz: 20\.0 \| 10\.0"):
        evaluate(EvalConfig(str(tmp_path / "other")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
