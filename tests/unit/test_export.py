"""What is exported decides as the checkpoint does, whatever the head, the verifier and the numbers of rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bundle_parts
import numpy as np
import onnx
import pytest
import torch

import vla
from vla import registry
from vla.errors import BadBundle, BadConfig, Missing, UnknownInstruction, UnknownName
from vla.layers import ModulatedBlock
from vla.modules import Batch, Memory
from vla.policy import load_policy
from vla.verbs import export as verb
from vla_deploy import graphs
from vla_deploy.engines import names, open_engine
from vla_deploy.export import export
from vla_deploy.latency import latency
from vla_deploy.parity import parity
from vla_deploy.runtime import load_policy as load_bundle


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_parts.save_checkpoint(
        tmp_path_factory.mktemp("run") / "policy", verifiers=("privileged_advantage", "vgps")
    )


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "demo"
    export(checkpoint, out, "privileged_advantage", n_candidates=5)
    return out


@pytest.mark.parametrize("head", registry.names("heads"))
def test_every_head_exports_to_the_same_actions(head: str, tmp_path: Path) -> None:
    saved = bundle_parts.save_checkpoint(tmp_path / "policy", head, verifiers=())
    reference = export(saved, tmp_path / "bundle")
    same = parity(reference, load_bundle(str(tmp_path / "bundle")), bundle_parts.observations(6), n_candidates=7)
    assert same.actions_max_abs < 1e-6
    assert same.met


@pytest.mark.parametrize("verifier", registry.names("verifiers"))
def test_every_verifier_exports_to_the_same_choice(verifier: str, checkpoint: Path, tmp_path: Path) -> None:
    reference = export(checkpoint, tmp_path / "bundle", verifier)
    opened = load_bundle(str(tmp_path / "bundle"))
    same = parity(reference, opened, bundle_parts.observations(8), verifier)
    assert same.scores_max_abs < 1e-4
    assert same.same_choice == same.decisions == 8


def test_parity_notices_another_policy(bundle: Path, checkpoint: Path) -> None:
    other = load_policy(str(checkpoint))
    with torch.no_grad():
        other.net.normaliser.action_offset += 1e-3
    same = parity(other, load_bundle(str(bundle)), bundle_parts.observations(3))
    assert same.actions_max_abs == pytest.approx(1e-3, rel=0.1)
    assert not same.met


def test_rows_and_candidates_are_free(bundle: Path, checkpoint: Path) -> None:
    """Traced with two observations and three candidates; run with others."""
    observed = bundle_parts.observations(5)
    ours, theirs = (
        vla.open_pipeline(str(path), "privileged_advantage", n_candidates=9).decide_batch(
            observed, [np.random.default_rng(i) for i in range(5)]
        )
        for path in (bundle, checkpoint)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.candidates.actions, b.candidates.actions, atol=1e-6)
        np.testing.assert_allclose(a.verdict.scores, b.verdict.scores, atol=1e-4)
        assert a.verdict.best == b.verdict.best


def test_a_bundle_runs_without_torch(bundle: Path) -> None:
    program = f"""
import sys, vla, numpy
pipeline = vla.open_pipeline({str(bundle)!r}, "privileged_advantage", n_candidates=4)
decision = pipeline.decide(pipeline.spec.fake_observation("push the red cube"), numpy.random.default_rng(0))
assert decision.chunk is not None and decision.chunk.actions.shape == (3, 2), decision
print(sorted({{"torch", "onnx", "mujoco"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


def test_unknown_words_are_refused_as_they_are_in_training(bundle: Path) -> None:
    pipeline = vla.open_pipeline(str(bundle))
    with pytest.raises(UnknownInstruction, match=r"\['banana'\]"):
        pipeline.decide(bundle_parts.spec().fake_observation("pick up the banana"), np.random.default_rng(0))


def test_a_verifier_that_was_not_exported_is_not_there(bundle: Path) -> None:
    with pytest.raises(UnknownName, match="has verifier 'privileged_advantage', not 'vgps'"):
        vla.open_pipeline(str(bundle), "vgps")


@pytest.mark.parametrize(
    ("asked", "reason"), [({"n_action_steps": 3}, "fitted for 2"), ({"n_candidates": 0}, "n_candidates")]
)
def test_settings_that_contradict_the_checkpoint_are_refused(
    asked: dict[str, int], reason: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=reason):
        export(checkpoint, tmp_path / "bundle", "privileged_advantage", **asked)
    assert not (tmp_path / "bundle").exists()


def test_the_defaults_travel_with_the_bundle(bundle: Path) -> None:
    opened = load_bundle(str(bundle)).bundle
    assert (opened.manifest.n_candidates, opened.manifest.n_action_steps) == (5, 2)
    assert opened.manifest.verifier == "privileged_advantage"
    for part in ("value_auc: 0.5", "camera `wrist`: 16 x 16", "`dx`: delta, [-0.05, 0.05] m", "blue"):
        assert part in opened.card


def test_what_the_verifier_judges_travels_with_the_bundle(bundle: Path, checkpoint: Path) -> None:
    for place in (checkpoint, bundle):
        pipeline = vla.open_pipeline(str(place), "privileged_advantage", 5)
        pipeline.require_steps(2)
        with pytest.raises(BadConfig, match="judges the first 2 actions"):
            pipeline.require_steps(3)


def test_graphs_take_only_what_they_read(bundle: Path) -> None:
    inputs = {p.stem: {i.name for i in onnx.load(p).graph.input} for p in bundle.glob("*.onnx")}
    observed = {"image_agent", "image_wrist", "state", "tokens"}
    assert inputs == {
        "encode": observed,
        "propose": {"memory_tokens", "memory_mask", "noise"},
        "verify": observed | {"actions"},
    }


@pytest.mark.parametrize("head", ["flow", "diffusion"])
def test_conditions_are_computed_once_an_observation_not_once_a_candidate(head: str) -> None:
    """What keeps K candidates affordable; an innocent change of a shape would cost it silently."""
    net = bundle_parts.policy(head)
    rows: list[torch.Size] = []
    for module in net.modules():
        if isinstance(module, ModulatedBlock):
            module.modulation.register_forward_hook(lambda _m, _i, out: rows.append(out.shape[:2]))
    with torch.inference_mode():
        net.propose(Memory(torch.randn(2, 1, 32), torch.ones(2, 1, dtype=torch.bool)), torch.randn(2, 16, 3, 2))
    assert len(rows) == 9
    assert set(rows) == {(2, 1)}


def test_an_image_that_is_not_cast_first_is_refused() -> None:
    net = bundle_parts.policy()
    encode = net.backbone.encode

    def transposes_first(batch: Batch) -> Memory:
        return encode(batch._replace(images=tuple(i.transpose(1, 2) for i in batch.images)))

    net.backbone.encode = transposes_first  # type: ignore[method-assign]
    with pytest.raises(BadConfig, match=r"image_agent \(uint8\) must be a cast"):
        graphs.trace(net, None)


def test_the_verb_prints_what_it_measured(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = verb.Args(str(checkpoint), tmp_path / "b", "privileged_advantage", json=True)
    assert verb.main(args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parity"]["actions_max_abs"] < 1e-6
    assert report["parity"]["same_choice"] == 32
    assert report["latency_ratio"] == pytest.approx(report["latency"]["verified_ms"] / report["latency"]["single_ms"])
    assert verb.main(verb.Args(str(checkpoint), tmp_path / "b")) == 0
    assert "same choice in 32 of 32" in capsys.readouterr().out
    assert not (tmp_path / "b" / "verify.onnx").exists()


def test_latency_times_both_arms(bundle: Path) -> None:
    took = latency(load_bundle(str(bundle)), "privileged_advantage", bundle_parts.observations(1)[0], 64, decisions=30)
    assert took.verified_ms > took.single_ms > 0.05
    assert took.decisions == 30


def test_engines_are_found_by_name(bundle: Path) -> None:
    assert {"onnxruntime", "tensorrt"} <= set(names())
    with pytest.raises(UnknownName, match="no engine is called 'openvino'; there is onnxruntime"):
        open_engine("openvino", b"", "encode.onnx")
    with pytest.raises(BadBundle, match=r"cannot load encode\.onnx"):
        open_engine("onnxruntime", b"not a graph", "encode.onnx")


def test_an_engine_whose_library_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as on a machine without it
    with pytest.raises(Missing, match="needs the Python package 'tensorrt'"):
        open_engine("tensorrt", b"", "encode.onnx")
