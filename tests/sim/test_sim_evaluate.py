"""`vla eval` on a real checkpoint: rows on disk, resumable after a kill, refused where specs differ."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vla import registry
from vla.cli import main
from vla.comparison import compare
from vla.errors import BadConfig, SpecMismatch
from vla.runs import Run
from vla_sim.evaluate import EvalConfig, _digest, delay_periods, evaluate, film
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


def test_processes_do_not_change_the_outcome_not_even_one_that_is_killed(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla_sim.evaluate._AT_ONCE", 4)
    config = EvalConfig(str(policy), episodes=16, seed=500, n_action_steps=8)
    reports: list[str] = []

    def kill(done: int, successes: int, total: int) -> None:
        if done == 4:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    one = evaluate(config, tmp_path / "one", workers=1)
    two = evaluate(config, tmp_path / "two", workers=2, progress=kill, report=reports.append)
    assert [row[0] for row in outcomes(one)] == list(range(500, 516))
    assert [row[0] for row in outcomes(two)] == list(range(500, 516)), "each once"
    # Batches differ, so the network's float32 sums may in the last bit: the same episodes, nearly all alike.
    assert np.mean([a == b for a, b in zip(outcomes(one), outcomes(two), strict=True)]) > 0.9
    assert len(reports) == 1
    assert "exit code -9" in reports[0]
    assert reports[0] in (tmp_path / "two" / "crashes.log").read_text()
    assert not (tmp_path / "one" / "crashes.log").exists()


def test_rows_say_what_happened(policy: Path, tmp_path: Path) -> None:
    run = evaluate(EvalConfig(str(policy), episodes=1, seed=500, n_action_steps=8), tmp_path / "run", workers=1)
    assert {"seed", "task", "skill", "instruction", "success", "failure", "steps", "decisions"} <= set(run.rows()[0])
    assert run.kind == "eval"
    assert run.config["n_action_steps"] == 8


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
    (total,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("all ")]
    assert total.split()[-1] == "n=42"
    run = Run.open(out)
    assert run.rows()[: len(before)] == before
    assert [row[0] for row in outcomes(run)] == list(range(500, 542))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit-verifier --policy POLICY --episodes 0", "episodes must be at least 1"),
        ("fit-verifier --policy POLICY --seed -1", "seed not negative"),
        ("fit-verifier --policy POLICY --workers 0", "workers must be within 1"),
        ("fit-verifier --policy POLICY --verifier nothing", "no verifier is called 'nothing'"),
        ("fit-verifier --policy POLICY/nothing", "is not a finished checkpoint"),
        ("fit-verifier --policy POLICY --seed 4294967290", "seeds end at 4294967295"),
        ("eval --policy POLICY --out new --seed 5000000000", "seeds end at 4294967295"),
        ("tasks --run -1", "must not be negative"),
        ("tasks --run 1 --seed -1", "must not be negative"),
        ("tasks --run 1 --workers 0", "workers must be within 1"),
        ("tasks --show grid", "call it grid.png"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    policy: Path,
    arguments: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vla_sim.branch.run_jobs", lambda *_: pytest.fail("it runs"))
    assert main(arguments.replace("POLICY", str(policy)).split()) == 2
    assert message in capsys.readouterr().err


def test_a_resumed_run_must_be_the_same_run(policy: Path, tmp_path: Path) -> None:
    config = EvalConfig(str(policy), episodes=2, n_action_steps=8)
    evaluate(config, tmp_path / "run", workers=1)
    with pytest.raises(BadConfig, match="n_action_steps was 8, now 4"):
        evaluate(replace(config, n_action_steps=4), tmp_path / "run", workers=1, resume=True)


@pytest.mark.parametrize("shipped", [False, True])
def test_a_policy_that_was_trained_on_meanwhile_is_another(
    policy: Path, tmp_path: Path, shipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vla import checkpoint, zoo

    monkeypatch.setattr(zoo, "HERE", tmp_path)
    shutil.copytree(policy, tmp_path / "policy")
    config = EvalConfig("zoo:policy" if shipped else str(tmp_path / "policy"), episodes=1, n_action_steps=8)
    evaluate(config, tmp_path / "run", workers=1)
    weights = tmp_path / "policy" / "policy.safetensors"
    tensors = checkpoint.load_tensors(weights)
    checkpoint.save_tensors(weights, {k: v + k.startswith("head.") for k, v in tensors.items()})
    with pytest.raises(BadConfig, match="has changed since"):
        evaluate(config, tmp_path / "run", workers=1, resume=True)


def test_a_lerobot_policy_with_another_scale_is_another(tmp_path: Path) -> None:
    config = EvalConfig(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    scale = tmp_path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    scale.write_bytes(b"1")
    before = _digest(config)
    scale.write_bytes(b"3")
    assert _digest(config) != before


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--episodes", "0"], "episodes must be at least 1"),
        (["--episodes", "-3"], "episodes must be at least 1"),
        (["--seed", "-1"], "seed not negative"),
        (["--workers", "0"], "workers must be within 1 and"),
        (["--workers", "100000"], "workers must be within 1 and"),
        (["--candidates", "100000"], "n_candidates must be a whole number from 1 to 4096"),
        (["--noise-scale", "nan"], "noise_scale must be finite"),
        (["--suite", "tabletop:blue"], "no variant 'blue'"),
        (["--suite", "lift:blue"], "no variant 'blue'"),
        (["--latency-ms", "10", "--control-rate-hz", "0", "--episodes", "1"], "0.0 Hz cannot be"),
        (["--n-action-steps", "9"], "within 1 and the chunk's 8: 9"),
        (["--latency-ms", "900", "--meanwhile", "continue"], "needs a chunk of 13"),
    ],
)
def test_settings_that_cannot_be_are_a_line_and_exit_code_2(
    asked: list[str], says: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--policy", str(policy), "--out", str(tmp_path / "run"), "--workers", "1", *asked]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_out_that_is_a_file_is_bad_input(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main(["eval", "--policy", str(policy), "--out", str(out), "--workers", "1", "--episodes", "1"]) == 2
        assert main(["collect", "--out", str(out), "--workers", "1", "--episodes", "1"]) == 2
        assert "choose another path" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_policy_for_another_robot_is_refused_before_anything_is_written(policy: Path, tmp_path: Path) -> None:
    shutil.copytree(policy, tmp_path / "other")
    spec = json.loads((policy / "spec.json").read_text())
    spec["control_rate_hz"] = 20.0
    (tmp_path / "other" / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(SpecMismatch, match=r"control_rate_hz: 20\.0 \| 10\.0"):
        evaluate(EvalConfig(str(tmp_path / "other")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def rival(path: Path, successes: int, seeds: range = range(500, 580), suite: str = "tabletop") -> Path:
    """A run that was better than any untrained policy: it succeeded on its first seeds."""
    run = Run.create(path, "eval", {"suite": suite})
    env = SUITE.make()
    for i, seed in enumerate(seeds):
        env.reset(seed)
        run.append({"seed": seed, "task": env.task, "success": i < successes})
    return path


def test_an_evaluation_stops_once_it_is_decided_and_resuming_runs_no_more(policy: Path, tmp_path: Path) -> None:
    against = rival(tmp_path / "rival", 80)
    config = EvalConfig(str(policy), episodes=80, seed=500, n_action_steps=8, against=str(against))
    run = evaluate(config, tmp_path / "run", workers=1)
    found = compare(run, Run.open(against))["all"].paired
    assert found.high < 0
    assert len(run.rows()) == 20, "all of the first twenty were lost: that is enough"
    assert len(evaluate(config, tmp_path / "run", workers=1, resume=True).rows()) == 20
    undecided = replace(config, episodes=24, alpha=1e-12)
    assert len(evaluate(undecided, tmp_path / "all", workers=1).rows()) == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 400}, "lacks 100 of the 180 seeds, 400 for one"),
        ({"alpha": 1.5}, "alpha must be between 0 and 1"),
        ({"suite": "other"}, "ran suite 'tabletop', this is 'other'"),
        ({"against": None, "alpha": 0.1}, "against which run"),
    ],
)
def test_what_cannot_be_stopped_against_is_refused_before_anything_is_written(
    policy: Path, tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "suite", lambda name: TabletopSuite)
    against = rival(tmp_path / "rival", 1)
    config = replace(EvalConfig(str(policy), episodes=80, seed=500, against=str(against)), **changes)
    if changes.get("seed"):
        config = replace(config, episodes=180)
    with pytest.raises(BadConfig, match=message):
        evaluate(config, tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()


def test_failures_are_drawn_and_drawing_them_changes_nothing(policy: Path, tmp_path: Path) -> None:
    config = EvalConfig(str(policy), episodes=6, seed=500, n_action_steps=8)
    plain = evaluate(config, tmp_path / "plain", workers=1)
    drawn = evaluate(config, tmp_path / "drawn", workers=1, thumbnails=2)
    assert drawn.rows() == plain.rows()
    pictures = sorted((tmp_path / "drawn" / "failures").glob("*.jpg"))
    phases = {str(row["seed"]): row["phase"] for row in drawn.rows() if not row["success"]}
    assert pictures
    for picture in pictures:
        phase, seed = picture.stem.split("_")
        assert phases[seed] == phase
        with Image.open(picture) as image:
            assert image.size == (640, 160)
            strip = np.asarray(image).astype(int)
        assert np.abs(strip[:, :160] - strip[:, 480:]).max() > 40, "the first moment is not the last"
    counts = [sum(p.stem.startswith(phase) for p in pictures) for phase in set(phases.values())]
    assert max(counts) <= 2


def test_no_more_episodes_are_filmed_than_there_are(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TabletopSuite, "stage", TabletopSuite.make)
    rows = film(EvalConfig(str(policy), episodes=1, seed=500, n_action_steps=8), 3, tmp_path)
    assert [row.seed for row in rows] == [500]
    assert len(list(tmp_path.glob("500_*.mp4"))) == len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("latency_ms", "rate", "periods"), [(0, 10, 0), (1, 10, 1), (100, 10, 1), (101, 10, 2), (150, 20, 3)]
)
def test_a_latency_costs_whole_periods(latency_ms: float, rate: float, periods: int) -> None:
    assert delay_periods(latency_ms, rate) == periods


@pytest.mark.parametrize(("latency_ms", "rate"), [(-1, 10), (float("nan"), 10), (float("inf"), 10), (1, 0)])
def test_a_latency_that_cannot_be_is_refused(latency_ms: float, rate: float) -> None:
    with pytest.raises(BadConfig, match="cannot be"):
        delay_periods(latency_ms, rate)


def test_vla_latency_averages_over_rates_and_vla_probe_compares_with_the_unchanged(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--policy", str(policy), "--episodes", "3", "--seed", "500", "--workers", "1", "--json"]
    asked = ["latency", *common, "--out", str(tmp_path / "l"), "--latency-ms", "120", "--rates", "10", "30"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["control_rate_hz"], r["delay_periods"]) for r in found["rates"]] == [(10.0, 2), (30.0, 4)]
    share = np.mean([r["success"]["k"] / r["success"]["n"] for r in found["rates"]])
    assert found["frequency_averaged_score"]["mean"] == pytest.approx(share)
    assert main([*asked[:-1], "10"]) == 2
    capsys.readouterr()
    probes = ["probe", *common, "--out", str(tmp_path / "p"), "--probes", "language_negation", "vision_light"]
    assert main(probes) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["probe"] for row in rows] == ["unchanged", "language_negation", "vision_light"]
    assert [row["refused"] for row in rows] == [0, 3, 0]
    assert rows[2]["difference"]["ties"] <= 3
    assert main([*probes[:-1], "vision_sound"]) == 2
    assert "vision_light" in capsys.readouterr().err


def test_unknown_words_fail_their_episodes_and_all_of_them_the_evaluation(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vla_sim.suites.tabletop import TabletopEnv

    reset = TabletopEnv.reset

    def told(strange: set[int]) -> None:
        def begin(env: TabletopEnv, seed: int, task: str | None = None) -> None:
            reset(env, seed, task)
            if seed in strange:
                env.set_instruction("juggle")

        monkeypatch.setattr(TabletopEnv, "reset", begin)

    command = ["eval", "--policy", str(policy), "--episodes", "3", "--seed", "500", "--workers", "1", "--out"]
    told({501})
    assert main([*command, str(tmp_path / "some")]) == 0
    assert "1 of 3 episodes refused, for words it was never trained on: 'juggle'" in capsys.readouterr().out
    rows = {row["seed"]: row["failure"] for row in Run.open(tmp_path / "some").rows()}
    assert (rows[501], "refused" in (rows[500], rows[502])) == ("refused", False)
    assert main([*command, str(tmp_path / "s"), "--swap-instruction"]) == 0, "the sentence is another's: no wonder"
    told({500, 501, 502})
    assert main([*command, str(tmp_path / "all")]) == 2
    assert "is not for tabletop: 3 of 3 episodes refused" in capsys.readouterr().err


def test_a_suite_without_probes_says_so(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprobed:
        """Only what every suite has."""

        name = "unprobed"
        spec = SUITE.spec

    monkeypatch.setattr(registry, "suite", lambda name: Unprobed)
    with pytest.raises(BadConfig, match="has no probes"):
        evaluate(EvalConfig(str(policy), probe="vision_light"), tmp_path / "run")
