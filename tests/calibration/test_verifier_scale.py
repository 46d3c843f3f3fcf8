"""A calibrated verifier: the scale travels with its weights, into the bundle, and never changes the choice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from bundle_parts import observations, save_checkpoint

import vla
from vla import checkpoint
from vla.errors import BadCheckpoint, UnknownName
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
