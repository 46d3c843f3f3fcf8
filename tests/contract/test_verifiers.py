"""What every verifier promises, whoever wrote it. A new verifier is tested here without a line being added."""

from __future__ import annotations

import ast
import dataclasses
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundle_parts
import numpy as np
import pytest
import torch
from torch import Tensor

from vla import checkpoint, registry
from vla.data.rollouts import Rollouts
from vla.errors import BadConfig, BadDataset, UnknownName
from vla.fitting import fit
from vla.modules import Batch, Memory, Verifier
from vla.policy import PolicyNet, TorchPolicy
from vla.verifiers.privileged_advantage import Config, fit_value

NAMES = registry.names("verifiers")
FITTED = ("privileged_advantage", "vgps")
QUICK: dict[str, dict[str, Any]] = {
    "privileged_advantage": {"value_steps": 150, "steps": 60, "batch_size": 32, "hidden": 32},
    "vgps": {"steps": 120, "batch_size": 64, "hidden": 32, "learning_rate": 2e-3},
}
"""Settings that make a fit quick."""
N_ACTION_STEPS, H, A = 2, 3, 2
SPEC = bundle_parts.spec()


def settings(name: str) -> dict[str, Any]:
    """What says how many of a chunk's actions are judged, if the verifier has that: all but the last."""
    fields = {f.name for f in dataclasses.fields(registry.module("verifiers", name).Config)}
    return {field: N_ACTION_STEPS for field in ("n_action_steps", "n_steps") if field in fields}


def build(name: str, net: PolicyNet, **more: Any) -> Verifier:
    torch.manual_seed(1)
    verifier: Verifier = registry.build("verifiers", name, settings(name) | more, net.spec, net)
    return verifier.eval()


def candidates(rows: int, n: int, seed: int = 2) -> Tensor:
    """Random chunks (rows, n, H, A) within the limits, physical units."""
    drawn = torch.rand(rows, n, H, A, generator=torch.Generator().manual_seed(seed))
    low, high = torch.as_tensor(SPEC.action_low), torch.as_tensor(SPEC.action_high)
    return low + drawn * (high - low)


def seen(net: PolicyNet, rows: int) -> tuple[Batch, Memory]:
    return TorchPolicy(net).encode(bundle_parts.observations(rows))


def first(batch: Batch, memory: Memory, row: int) -> tuple[Batch, Memory]:
    """One row of a batch, as a batch."""
    part = slice(row, row + 1)
    images = tuple(image[part] for image in batch.images)
    return Batch(images, batch.state[part], batch.tokens[part]), Memory(memory.tokens[part], memory.mask[part])


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_it_is_built_from_defaults_and_scores_every_candidate(name: str) -> None:
    net = bundle_parts.policy()
    verifier: Verifier = registry.build("verifiers", name, {}, net.spec, net)
    if "n_action_steps" in settings(name):
        verifier = build(name, net)  # the default is more than this small policy's chunk
    batch, memory = seen(net, 3)
    for n in (1, 5):
        out = verifier.score(batch, memory, candidates(3, n))
        assert out.scores.shape == (3, n)
        assert out.scores.dtype == torch.float32
        assert torch.isfinite(out.scores).all()
        if out.p_success is not None:
            assert out.p_success.shape == (3, n)
            assert ((out.p_success >= 0) & (out.p_success <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_order_of_the_candidates_does_not_matter(name: str) -> None:
    net = bundle_parts.policy()
    verifier, (batch, memory), actions = build(name, net), seen(net, 3), candidates(3, 6)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    scores = verifier.score(batch, memory, actions).scores
    torch.testing.assert_close(
        verifier.score(batch, memory, actions[:, order]).scores, scores[:, order], atol=1e-5, rtol=0
    )
    assert scores.std(1).min() > 1e-4, "it tells different candidates apart"


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_an_observation_is_judged_alone(name: str) -> None:
    net = bundle_parts.policy()
    verifier, (batch, memory), actions = build(name, net), seen(net, 3), candidates(3, 4)
    whole = verifier.score(batch, memory, actions).scores
    alone = verifier.score(*first(batch, memory, 1), actions[1:2]).scores
    torch.testing.assert_close(whole[1:2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_actions_that_will_not_be_executed_are_not_judged(name: str) -> None:
    net = bundle_parts.policy()
    verifier, (batch, memory), actions = build(name, net), seen(net, 2), candidates(2, 4)
    changed = actions.clone()
    changed[:, :, N_ACTION_STEPS:] = candidates(2, 4, seed=9)[:, :, N_ACTION_STEPS:]
    if not settings(name):
        pytest.skip("it has no such setting")
    torch.testing.assert_close(
        verifier.score(batch, memory, changed).scores, verifier.score(batch, memory, actions).scores
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_verifier_is_refused_and_one_that_needs_no_fit_is_there(name: str) -> None:
    net = bundle_parts.policy()
    learns = any(True for _ in build(name, net).parameters())
    if learns:
        with pytest.raises(UnknownName, match=f"{name}' has not been fitted .* `vla fit-verifier --verifier {name}`"):
            TorchPolicy(net).verifier(name)
    else:
        assert isinstance(TorchPolicy(net).verifier(name).module, registry.module("verifiers", name).Verifier)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_after_saving_and_loading(name: str, tmp_path: Path) -> None:
    net = bundle_parts.policy()
    verifier, (batch, memory), actions = build(name, net), seen(net, 3), candidates(3, 4)
    checkpoint.save(tmp_path, net, {})
    checkpoint.save_verifier(tmp_path, name, verifier, settings(name), {"seed": 1})
    loaded = checkpoint.load_verifiers(tmp_path, checkpoint.load(tmp_path))
    assert set(loaded) == {name}
    with torch.inference_mode():
        assert torch.equal(
            loaded[name].score(batch, memory, actions).scores, verifier.score(batch, memory, actions).scores
        )


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_what_it_claims_and_costs(name: str) -> None:
    lines = (registry.module("verifiers", name).__doc__ or "").splitlines()
    for label in ("Claims: ", "Paper: ", "Implemented: ", "Differs: ", "Cost: ", "Measured: "):
        assert sum(line.startswith(label) for line in lines) == 1, f"{name} has no line {label!r}"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name: str) -> None:
    tree = ast.parse(Path(registry.module("verifiers", name).__file__ or "").read_text())
    config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    for field, following in zip(config.body, [*config.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"{name}: {ast.unparse(field)} has no docstring"


def world(seed: int, episodes: int = 60, decisions: int = 6, M: int = 6) -> Rollouts:
    """Rollouts in which the right answer is known.

    `y` in the state says on which side the goal is; what helps is to move `x` towards it by the first action
    dimension. An episode succeeds when it has come far enough; the policy of an episode is more or less good.
    """
    rng = np.random.default_rng(seed)
    side = np.repeat(rng.choice([-1.0, 1.0], episodes), decisions)
    D = episodes * decisions
    skill = np.repeat(rng.uniform(-0.03, 0.03, episodes), decisions)
    chosen = rng.uniform(-1, 1, (D, H, A)).astype(np.float32)
    chosen[..., 0] = (side * skill)[:, None] + rng.uniform(-0.02, 0.02, (D, H))
    helped = side * chosen[:, :N_ACTION_STEPS, 0].sum(1) / 0.1
    progress = np.concatenate([np.cumsum(h) - h for h in helped.reshape(episodes, decisions)])
    success = helped.reshape(episodes, decisions).sum(1) > 0
    state = np.stack([np.clip(0.1 * progress, -0.5, 0.5), 0.4 * side, rng.uniform(-0.5, 0.5, D)], 1)
    observed = [SPEC.fake_observation(seed=i) for i in range(8)]
    images = {c.name: np.stack([observed[i % 8].images[c.name] for i in range(D)]) for c in SPEC.cameras}
    tried = rng.uniform(-1, 1, (D, M, H, A)).astype(np.float32)
    tried[..., 0] *= 0.05
    effect = side[:, None] * tried[:, :, :N_ACTION_STEPS, 0].sum(2) / 0.1
    before = np.stack([progress, rng.standard_normal(D)], 1).astype(np.float32)
    after = np.stack([progress[:, None] + effect, rng.standard_normal((D, M))], 2).astype(np.float32)
    left = np.tile(np.arange(decisions, 0, -1), episodes)
    episode = np.repeat(np.arange(episodes), decisions)
    return Rollouts(
        images=images,
        state=state.astype(np.float32),
        instruction=[bundle_parts.SENTENCE] * D,
        chosen=chosen,
        episode=episode,
        n_action_steps=N_ACTION_STEPS,
        success=success,
        step_privileged=before,
        step_episode=episode,
        steps_to_end=left,
        expert_privileged=np.zeros((0, 2), np.float32),
        expert_steps_to_end=np.zeros(0, np.int64),
        branch_decision=np.arange(D),
        branch_actions=tried,
        branch_before=before,
        branch_after=after,
        branch_end=np.full((D, M), np.nan, np.float32),
        branch_expert=np.zeros((D, N_ACTION_STEPS, A), np.float32),
    )


def fitted(name: str, rollouts: Rollouts, seed: int = 0) -> tuple[PolicyNet, Verifier, dict[str, Any]]:
    net = bundle_parts.policy()
    kind = registry.module("verifiers", name).Verifier
    torch.manual_seed(seed)
    verifier = registry.build("verifiers", name, kind.configure(QUICK[name], rollouts), net.spec, net)
    return net, verifier, verifier.fit(rollouts, seed=seed)


@functools.cache
def taught(name: str) -> tuple[PolicyNet, Verifier, dict[str, Any]]:
    """Fitted once for the tests that only look."""
    return fitted(name, world(0))


@torch.inference_mode()
def scores(net: PolicyNet, verifier: Verifier, rollouts: Rollouts, actions: Tensor) -> Tensor:
    """What the verifier says of actions (D, N, H, A) at every decision."""
    tokens = np.stack([net.tokenizer.encode(s) for s in rollouts.instruction])
    images = tuple(torch.as_tensor(rollouts.images[c.name]) for c in SPEC.cameras)
    batch = Batch(images, torch.as_tensor(rollouts.state), torch.as_tensor(tokens))
    return verifier.score(batch, net.encode(batch), actions).scores


@pytest.mark.parametrize(("name", "least"), [("privileged_advantage", 0.4), ("vgps", 0.15)])
def test_fitted_it_prefers_what_leads_to_success(name: str, least: float) -> None:
    """On states of other episodes the picked candidate beats the mean, by a share of what the best one would."""
    net, verifier, _ = taught(name)
    fresh = world(1, episodes=30)
    out = scores(net, verifier, fresh, torch.as_tensor(fresh.branch_actions))
    true = fresh.branch_after[..., 0] - fresh.branch_before[:, None, 0]
    picked = true[np.arange(len(true)), out.argmax(1).numpy()]
    share = (picked.mean() - true.mean()) / (true.max(1).mean() - true.mean())
    assert share > least


def test_vgps_puts_decisions_of_successful_episodes_higher() -> None:
    net, verifier, measures = taught("vgps")
    fresh = world(1)
    out = scores(net, verifier, fresh, torch.as_tensor(fresh.chosen)[:, None])[:, 0].numpy()
    success = fresh.success[fresh.episode]
    auc = (out[success][:, None] > out[~success][None]).mean()
    assert auc > 0.6
    assert measures["q_auc"] > 0.6
    assert measures["decisions"] == 360


def test_privileged_advantage_reports_what_to_trust() -> None:
    _, _, measures = taught("privileged_advantage")
    assert measures["value_auc"] > 0.7
    assert measures["value_mean"] < measures["value_picked"] < measures["value_oracle"]
    assert measures["held_out_states"] == round(0.12 * 60) * 6
    assert measures["states"] == 360


def test_the_experts_episodes_tell_where_success_lies_when_the_policy_seldom_gets_there() -> None:
    rollouts = world(0)
    alone = replace(rollouts, success=np.arange(len(rollouts.success)) == 0)
    progress, left = np.tile(np.linspace(-1, 4, 20), 20), np.tile(np.arange(20, 0, -1), 20)
    noise = np.random.default_rng(0).standard_normal(400)
    expert = np.stack([progress, noise], 1).astype(np.float32)
    helped = replace(alone, expert_privileged=expert, expert_steps_to_end=left)
    near, far = (torch.tensor([[x, 0.0]]) for x in (3.0, 0.0))

    def slope(rollouts: Rollouts) -> float:
        value, _ = fit_value(rollouts, Config(value_steps=100), seed=0)
        return float(value(near) - value(far))

    assert slope(helped) > slope(alone) + 0.1


@pytest.mark.parametrize("name", FITTED)
def test_fitting_leaves_the_policy_as_it_was_and_depends_on_the_seed_alone(name: str) -> None:
    rollouts = world(0, episodes=12)
    before = bundle_parts.policy().state_dict()
    net, verifier, _ = fitted(name, rollouts)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    _, again, _ = fitted(name, rollouts)
    _, other, _ = fitted(name, rollouts, seed=5)
    weights = [list(v.parameters())[-1] for v in (verifier, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def with_outcome(rollouts: Rollouts, success: bool) -> Rollouts:
    return replace(rollouts, success=np.full(len(rollouts.success), success))


@pytest.mark.parametrize("name", FITTED)
def test_without_a_success_there_is_nothing_to_learn(name: str) -> None:
    with pytest.raises(BadDataset, match="none of the 8 rollouts succeeded"):
        fit(bundle_parts.policy(), name, with_outcome(world(0, episodes=8), False), seed=0, threads=1)


@pytest.mark.parametrize("name", FITTED)
def test_a_policy_that_never_fails_may_still_be_told_what_is_sooner(name: str) -> None:
    _, _, measures = fit(bundle_parts.policy(), name, with_outcome(world(0, episodes=8), True), seed=0, threads=1)
    assert measures.get("rollout_success", 1.0) == 1.0


@pytest.mark.parametrize("name", FITTED)
def test_no_rollouts_teach_nothing(name: str) -> None:
    rollouts = world(0, episodes=8)
    nothing = {f: v[:0] for f, v in vars(rollouts).items() if isinstance(v, np.ndarray)}
    empty = replace(rollouts, **nothing, instruction=[], images={k: v[:0] for k, v in rollouts.images.items()})
    with pytest.raises(BadDataset, match="rollouts"):
        fit(bundle_parts.policy(), name, empty, seed=0, threads=1)


def test_privileged_advantage_needs_branches_of_its_own_length() -> None:
    rollouts = world(0, episodes=8)
    names = [f for f in vars(rollouts) if f.startswith("branch_")]
    unbranched = replace(rollouts, **{f: getattr(rollouts, f)[:0] for f in names})
    with pytest.raises(BadDataset, match="no branches"):
        fit(bundle_parts.policy(), "privileged_advantage", unbranched, seed=0, threads=1)
    with pytest.raises(BadConfig, match="executes 2 steps, the rollouts 1"):
        build("privileged_advantage", bundle_parts.policy()).fit(replace(rollouts, n_action_steps=1), seed=0)
