"""A calibrated verifier: the scale travels with its weights, into the bundle, and never changes the choice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from bundle_parts import observations, save_checkpoint

import vla
from vla import checkpoint, registry
from vla.cli import main
from vla.errors import BadCheckpoint, UnknownName
from vla.normalise import Statistics
from vla.policy import PolicyConfig, fresh
from vla.runs import Run
from vla.tokenizers.words import WordTokenizer
from vla_calibration.verifier import ScoreScale
from vla_deploy.export import export

NAME = "privileged_advantage"


def decide(policy: Path) -> vla.Decision:
    pipeline = vla.open_pipeline(str(policy), NAME, n_candidates=5)
    return pipeline.decide(observations(1)[0], np.random.default_rng(3))


@pytest.mark.parametrize("bend", [None, 0.02])
def test_the_scale_travels_from_the_checkpoint_into_the_bundle(bend: float | None, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "policy")
    before = decide(folder)
    assert before.verdict.p_success is None
    assert before.verdict.p_success_of_best is None
    scale = ScoreScale(2.0, -1.0, bend)
    checkpoint.save_scale(folder, NAME, {**dataclasses.asdict(scale), "brier": 0.1})
    export(folder, tmp_path / "bundle", NAME, n_candidates=5)
    for place in (folder, tmp_path / "bundle"):
        after = decide(place)
        assert after.verdict.best == before.verdict.best
        assert after.verdict.p_success is not None
        expected = scale.p_success(before.verdict.scores.astype(float))
        np.testing.assert_allclose(after.verdict.p_success, expected, atol=1e-4)
        assert after.verdict.p_success_of_best == pytest.approx(expected.max(), abs=1e-4)
    assert "p_success" in (tmp_path / "bundle" / "card.md").read_text()


def test_a_scale_that_is_none(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "policy")
    with pytest.raises(UnknownName, match="fit it first"):
        checkpoint.save_scale(folder, "agreement", {"slope": 1.0, "offset": 0.0})
    for scale in (
        {"slope": -1.0, "offset": 0.0},
        {"slope": 1.0},
        {"slope": "steep", "offset": 0.0},
        [1],
        {"slope": 1, "offset": 0, "bend": 0},
    ):
        path = folder / "verifiers" / f"{NAME}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": scale}))
        with pytest.raises(BadCheckpoint, match="scale"):
            vla.open_pipeline(str(folder), NAME)


def test_the_command_rolls_out_and_an_uncalibrated_robot_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An untrained policy never succeeds: its rollouts are made and kept, and no scale comes of them."""
    suite = registry.suite("tabletop")()
    scales = [
        np.full(len(dims), value, np.float32) for dims in (suite.spec.state, suite.spec.action) for value in (0, 1)
    ]
    words = WordTokenizer.of(suite.instructions)
    net = fresh(PolicyConfig(), suite.spec, words, Statistics("mean_std", *scales), seed=0)
    folder = tmp_path / "policy"
    checkpoint.save(folder, net, {})
    judge = registry.build("verifiers", NAME, {}, net.spec, net)
    checkpoint.save_verifier(folder, NAME, judge, {}, {})
    command = ["calibrate", "verifier", "--policy", str(folder), "--candidates", "2", "--episodes", "4"]
    assert main(command) == 2
    assert "0 successes and 2 failures" in capsys.readouterr().err
    rows = Run.open(folder / "verifiers" / f"{NAME}_scale").rows()
    assert [len(row["scores"]) for row in rows] == [row["decisions"] for row in rows]
    assert main(["calibrate", "verifier", "--policy", str(folder), "--verifier", "vgps"]) == 2
    assert "no fitted verifier 'vgps'" in capsys.readouterr().err
    assert main(["run", "--policy", str(folder), "--calibration", str(tmp_path / "none.yaml")]) == 2
    assert "there is no" in capsys.readouterr().err
