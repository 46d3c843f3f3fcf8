"""A policy that LeRobot saved acts here as it does there, and is refused where it cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lerobot_parts
import numpy as np
import pytest

from vla import registry
from vla.errors import BadCheckpoint, BadConfig, UnknownName
from vla.lerobot_policy import _spec
from vla.pipeline import FirstCandidate, Pipeline
from vla.types import Observation
from vla_sim.suites.tabletop import TabletopSuite

SUITE = TabletopSuite()
SPEC = SUITE.spec


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ACT, untrained, as `lerobot-train` saves one, with our spec beside it."""
    folder = tmp_path_factory.mktemp("lerobot") / "pretrained_model"
    lerobot_parts.save_act(folder, SPEC)
    return folder


def observation(seed: int = 60) -> Observation:
    env = SUITE.make()
    env.reset(seed)
    return env.observe()


def test_it_proposes_what_lerobot_would_execute(saved: Path) -> None:
    from lerobot.envs.utils import preprocess_observation
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    seen = observation()
    opened = registry.open_policy(f"lerobot:{saved}")
    decision = Pipeline(opened, FirstCandidate()).decide(seen, np.random.default_rng(0))
    theirs = ACTPolicy.from_pretrained(saved)
    before, after = make_pre_post_processors(theirs.config, pretrained_path=str(saved))
    batch: dict[str, Any] = preprocess_observation({"pixels": dict(seen.images), "agent_pos": seen.state})
    batch["task"] = [seen.instruction]
    ready = before(batch)
    executed = [after(theirs.select_action(ready))[0].numpy() for _ in range(4)]
    assert decision.chunk is not None
    np.testing.assert_allclose(decision.chunk.actions, executed, atol=1e-5)


def test_an_observation_does_not_depend_on_its_neighbours_and_candidates_share_it(saved: Path) -> None:
    opened = registry.open_policy(f"lerobot:{saved}")
    pipeline = Pipeline(opened, FirstCandidate(), n_candidates=3)
    seeds = (60, 61)
    together = pipeline.decide_batch([observation(s) for s in seeds], [np.random.default_rng(s) for s in seeds])
    alone = [pipeline.decide(observation(s), np.random.default_rng(s)) for s in seeds]
    for a, b in zip(together, alone, strict=True):
        assert a.candidates.actions.shape == (3, 4, 4)
        np.testing.assert_array_equal(a.candidates.actions, b.candidates.actions)
    assert np.abs(alone[0].candidates.actions - alone[1].candidates.actions).max() > 1e-4


def test_relative_actions_are_added_to_the_state_they_are_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pi0 has them: the step behind the network adds the state that the step in front of it saw last."""
    from lerobot.policies import factory
    from lerobot.processor.relative_action_processor import AbsoluteActionsProcessorStep, RelativeActionsProcessorStep

    spec = replace(SPEC, action=tuple(replace(d, kind="absolute") for d in SPEC.state), gripper="none")
    plain = factory.make_pre_post_processors

    def relative(*args: Any, **settings: Any) -> Any:
        before, after = plain(*args, **settings)
        step = RelativeActionsProcessorStep(enabled=True)
        before.steps = [*before.steps[:-1], step, before.steps[-1]]
        after.steps = [after.steps[0], AbsoluteActionsProcessorStep(enabled=True, relative_step=step), *after.steps[1:]]
        return before, after

    monkeypatch.setattr(factory, "make_pre_post_processors", relative)
    lerobot_parts.save_act(tmp_path, spec)
    monkeypatch.setattr(factory, "make_pre_post_processors", plain)
    pipeline = Pipeline(registry.open_policy(f"lerobot:{tmp_path}"), FirstCandidate())
    seen = [replace(observation(), state=np.full(8, x, np.float32)) for x in (0.05, 0.12)]
    rngs = [np.random.default_rng(i) for i in (0, 1)]
    for together, one in zip(pipeline.decide_batch(seen, rngs), seen, strict=True):
        alone = pipeline.decide(one, np.random.default_rng(0))
        np.testing.assert_allclose(together.candidates.actions, alone.candidates.actions, atol=1e-6)


def test_it_runs_episodes_through_safety(saved: Path, tmp_path: Path) -> None:
    from vla_sim.evaluate import EvalConfig, evaluate

    run = evaluate(EvalConfig(f"lerobot:{saved}", episodes=2, seed=60), tmp_path / "run", workers=1)
    assert [row["steps"] > 0 for row in run.rows()] == [True, True]


def test_what_it_takes_must_be_what_the_spec_says(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(saved, folder)
    replace(SPEC, cameras=SPEC.cameras[:1]).save(folder / "spec.json")
    with pytest.raises(BadCheckpoint, match=r"observation\.images\.wrist"):
        registry.open_policy(f"lerobot:{folder}")


def test_without_a_spec_it_is_refused_and_the_datasets_will_do(saved: Path, tmp_path: Path) -> None:
    folder, dataset = tmp_path / "bare", tmp_path / "dataset"
    shutil.copytree(saved, folder)
    (folder / "spec.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"copy the spec\.json of the dataset"):
        registry.open_policy(f"lerobot:{folder}")
    dataset.mkdir()
    SPEC.save(dataset / "spec.json")
    (folder / "train_config.json").write_text(json.dumps({"dataset": {"root": str(dataset)}}))
    assert registry.open_policy(f"lerobot:{folder}").spec.chunk_size == 4


def test_what_this_stack_does_not_give_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="2 observations at once"):
        _spec(saved, SimpleNamespace(n_obs_steps=2))
    with pytest.raises(UnknownName, match="no LeRobot policy"):
        registry.open_policy(f"lerobot:{tmp_path}")
    with pytest.raises(UnknownName, match="LeRobot's checkpoints have none"):
        registry.open_policy(f"lerobot:{saved}").verifier("vgps")


def test_a_broken_checkpoint_is_named(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadCheckpoint, match="broken"):
        registry.open_policy(f"lerobot:{folder}")
