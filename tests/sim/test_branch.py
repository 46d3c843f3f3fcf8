"""Candidates are tried from the very state and the episode never notices; and what is learned from that."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla import checkpoint, registry
from vla.data.cache import open_cache
from vla.data.rollouts import Rollouts
from vla.errors import BadConfig, BadDataset, SpecMismatch
from vla.fitting import fit_and_save
from vla.normalise import measure
from vla.pipeline import FirstCandidate, Pipeline, open_pipeline
from vla.policy import PolicyConfig, PolicyNet, TorchPolicy, fresh
from vla.posttrain import dagger
from vla.runs import to_plain
from vla.tokenizers.words import WordTokenizer
from vla.types import Floats, Observation
from vla_sim import branch
from vla_sim.branch import BranchConfig, collect_rollouts, joined
from vla_sim.env import Env
from vla_sim.oracle import SimulatorOracle, try_candidate
from vla_sim.rollout import run_episodes
from vla_sim.suites.tabletop import TabletopSuite

SUITE = TabletopSuite()
SEEDS = (60, 61, 62, 63)


class WatchedSuite(TabletopSuite):
    """Remembers which environment an observation came from."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Observation, Env]] = []

    def make(self) -> Env:
        env = super().make()
        look = env.observe

        def observe() -> Observation:
            self.seen.append((look(), env))
            return self.seen[-1][0]

        env.observe = observe  # type: ignore[method-assign]
        return env


class Student:
    """Does what the expert would do, badly: its candidates differ, and some episodes fail."""

    def __init__(self, suite: WatchedSuite, noise: float) -> None:
        self.spec = replace(suite.spec, chunk_size=2)
        self.suite, self.noise = suite, noise
        self.asked: list[Floats] = []

    def encode(self, observations: Sequence[Observation]) -> Floats:
        environments = [next(e for o, e in reversed(self.suite.seen) if o is seen) for seen in observations]
        answers = np.stack([env.expert() for env in environments])
        self.asked += list(answers)
        return answers

    def propose(self, memory: Floats, noise: Floats) -> tuple[Floats, None]:
        half_span = (self.spec.action_high - self.spec.action_low) / 2
        chunks = memory[:, None, None] + self.noise * half_span * noise
        return np.clip(chunks, self.spec.action_low, self.spec.action_high).astype(np.float32), None


def roll_out(
    seeds: tuple[int, ...] = SEEDS, share: float = 1.0, noise: float = 0.1, n_action_steps: int = 2
) -> tuple[Rollouts, Student]:
    suite = WatchedSuite()
    student = Student(suite, noise)
    config = BranchConfig("-", n_action_steps=n_action_steps, n_candidates=3, branch_share=share)
    return branch._roll_out(config, suite, Pipeline(student, FirstCandidate(), 3), seeds), student


@functools.cache
def branched() -> Rollouts:
    return roll_out()[0]


def arrays(rollouts: Rollouts) -> dict[str, Any]:
    return {k: v for k, v in vars(rollouts).items() if isinstance(v, np.ndarray)} | dict(rollouts.images)


def step_of_decision(rollouts: Rollouts) -> Any:
    """(D,) index of the control step each decision was made at."""
    return np.concatenate(
        [np.flatnonzero(rollouts.step_episode == e)[:: rollouts.n_action_steps] for e in range(len(rollouts.success))]
    )


def test_the_episodes_go_as_if_nothing_had_been_tried() -> None:
    plain, _ = roll_out(share=0.0)
    assert len(plain.branch_decision) == 0
    assert plain.branch_actions.shape == (0, 3, 2, 4)
    for name, array in arrays(plain).items():
        if not name.startswith("branch_"):
            np.testing.assert_array_equal(array, arrays(branched())[name], err_msg=name)
    assert plain.instruction == branched().instruction
    assert plain.success.any(), "or it would prove little"


def test_the_chosen_candidates_branch_leads_where_the_episode_went() -> None:
    r = branched()
    at = step_of_decision(r)
    np.testing.assert_array_equal(r.branch_decision, np.arange(len(r.state)))
    np.testing.assert_array_equal(r.branch_actions[:, 0], r.chosen)
    np.testing.assert_array_equal(r.branch_before, r.step_privileged[at])
    goes_on = np.append(np.diff(r.episode) == 0, False)
    np.testing.assert_array_equal(r.branch_after[goes_on, 0], r.step_privileged[at[1:][goes_on[:-1]]])
    assert np.isnan(r.branch_end[goes_on, 0]).all()
    np.testing.assert_array_equal(r.branch_end[~goes_on, 0] == 1, r.success)
    assert (r.branch_after[:, 0] != r.branch_after[:, 1]).any(1).mean() > 0.9, "other candidates lead elsewhere"


def test_the_expert_is_asked_in_the_state_itself() -> None:
    r, student = roll_out(seeds=(60,))
    np.testing.assert_array_equal(r.branch_expert[:, 0], np.stack(student.asked))
    assert r.branch_expert.shape == (len(r.state), 2, 4)


def test_counts_and_indices_fit_together() -> None:
    r = roll_out(share=0.5)[0]
    assert (np.diff(r.episode) >= 0).all()
    assert set(r.episode) == set(r.step_episode) == set(range(4))
    assert 0.25 < len(r.branch_decision) / len(r.state) < 0.75
    assert (np.diff(r.branch_decision) > 0).all()
    for e in range(4):
        steps = (r.step_episode == e).sum()
        assert r.steps_to_end[r.step_episode == e].tolist() == list(range(steps, 0, -1))
        assert (r.episode == e).sum() == -(-steps // 2)


def test_the_experts_own_episodes_start_where_the_policys_do_and_end_in_success() -> None:
    r = branched()
    starts = r.expert_steps_to_end == np.append(0, r.expert_steps_to_end)[:-1] - 1
    episodes = np.split(np.arange(len(starts)), np.flatnonzero(~starts)[1:])
    assert 1 <= len(episodes) <= len(SEEDS), "a share of them"
    first = np.stack([r.step_privileged[r.step_episode == e][0] for e in range(len(SEEDS))])
    for rows in episodes:
        assert r.expert_steps_to_end[rows].tolist() == list(range(len(rows), 0, -1))
        assert (r.expert_privileged[rows[0]] == first).all(1).any()
    config = BranchConfig("-", n_action_steps=2, n_candidates=3, expert_share=0.0)
    suite = WatchedSuite()
    none = branch._roll_out(config, suite, Pipeline(Student(suite, 0.1), FirstCandidate(), 3), SEEDS[:1])
    assert none.expert_privileged.shape == (0, r.step_privileged.shape[1])


def test_parts_joined_are_the_whole() -> None:
    whole, parts = branched(), [roll_out(SEEDS[:1])[0], roll_out(SEEDS[1:])[0]]
    together = joined(parts)
    for name, array in arrays(whole).items():
        np.testing.assert_array_equal(arrays(together)[name], array, err_msg=name)
    assert together.instruction == whole.instruction
    assert together.n_action_steps == whole.n_action_steps


@pytest.fixture(scope="module")
def net(demonstrations: Path) -> PolicyNet:
    """Untrained; it knows all the words of the suite."""
    cache = open_cache(demonstrations)
    statistics = measure(cache.state, cache.action, (cache.spec.state, cache.spec.action), "quantile")
    backbone = {"width": 32, "channels": 8, "keypoints": 4, "text_width": 16}
    config = PolicyConfig(head="l1", backbone_config=backbone, head_config={"hidden": 32})
    return fresh(config, cache.spec, WordTokenizer.of(SUITE.instructions), statistics, seed=0)


@pytest.fixture
def policy(net: PolicyNet, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "policy", net, {})
    return tmp_path / "policy"


def test_processes_do_not_change_what_is_collected(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "_AT_ONCE", 1)
    config = BranchConfig(str(policy), episodes=3, n_action_steps=8, n_candidates=2)
    lines: list[tuple[float, str]] = []
    one = collect_rollouts(config, 1, lambda fraction, line: lines.append((fraction, line)))
    two = collect_rollouts(config, 2)
    for name, array in arrays(one).items():
        np.testing.assert_array_equal(arrays(two)[name], array, err_msg=name)
    assert one.instruction == two.instruction
    assert lines[-1] == (1.0, f"{len(one.branch_decision)} branched states")


def test_the_oracle_scores_by_where_a_candidate_leads_and_puts_the_world_back() -> None:
    env, spec = SUITE.make(), replace(SUITE.spec, chunk_size=2)
    env.reset(60)
    rng = np.random.default_rng(0)
    candidates = rng.uniform(spec.action_low, spec.action_high, (1, 5, 2, 4)).astype(np.float32)

    def value(features: Floats) -> Floats:
        return -np.abs(features[:, :3]).sum(1)

    oracle = SimulatorOracle(spec, value, 2)
    oracle.look([env])
    before, saved = env.privileged(), env.snapshot()
    (verdict,) = oracle.verify([env.observe()], None, candidates)
    np.testing.assert_array_equal(env.privileged(), before)
    assert env.steps == 0
    reached = []
    for chunk in candidates[0]:
        reached.append(try_candidate(env, spec, chunk, 2)[0])
        env.restore(saved)
    np.testing.assert_allclose(verdict.scores, value(np.stack(reached)))
    assert verdict.best == np.argmax(value(np.stack(reached)))


def test_the_oracle_takes_the_candidate_that_ends_in_success_whatever_the_value_says() -> None:
    env, spec = SUITE.make(), replace(SUITE.spec, chunk_size=1)
    env.reset(60)
    while not env.done:
        saved, wish = env.snapshot(), env.expert()
        try_candidate(env, spec, wish[None], 1)
    assert env.success
    env.restore(saved)
    back = wish * np.array([-1, -1, -1, 1], np.float32)
    oracle = SimulatorOracle(spec, lambda features: np.full(len(features), 0.9, np.float32), 1)
    oracle.look([env])
    (verdict,) = oracle.verify([env.observe()], None, np.stack([back, back, wish])[None, :, None])
    assert verdict.scores.tolist() == [np.float32(0.9), np.float32(0.9), 1.0]
    assert verdict.best == 2


@functools.cache
def mixed() -> Rollouts:
    """Some succeed, some fail."""
    rollouts, _ = roll_out(tuple(range(60, 72)), share=0.7, noise=0.4)
    assert 2 <= rollouts.success.sum() <= 10
    return rollouts


@pytest.mark.parametrize("name", ["privileged_advantage", "vgps"])
def test_a_verifier_is_fitted_to_real_rollouts_and_chooses_in_the_loop(
    name: str, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = registry.module("verifiers", name)
    fields = {f.name for f in dataclasses.fields(module.Config)}
    quick = {f: 5 for f in ("steps", "value_steps") if f in fields}
    monkeypatch.setattr(module, "Config", functools.partial(module.Config, **quick))
    threads, shown = torch.get_num_threads(), []
    measures = fit_and_save(policy, name, mixed(), 3, 1, lambda fraction, line: shown.append(fraction))
    assert shown[-1] == 1.0
    assert torch.get_num_threads() == threads
    about = json.loads((policy / "verifiers" / f"{name}.json").read_text())
    assert about["config"]["n_action_steps"] == 2
    assert about["fitted"] == to_plain(measures) | {"seed": 3, "episodes": 12}
    pipeline = open_pipeline(str(policy), name, n_candidates=2)
    with pytest.raises(BadConfig, match="judges the first 2 actions"):
        run_episodes(pipeline, SUITE, [80], n_action_steps=8)
    row = run_episodes(pipeline, SUITE, [80], n_action_steps=2)[0]
    assert row.decisions > 0
    assert row.holds == 0


def test_a_policy_that_always_fails_teaches_no_verifier_and_leaves_no_file(policy: Path) -> None:
    rollouts = collect_rollouts(BranchConfig(str(policy), episodes=2, n_action_steps=8), 1)
    with pytest.raises(BadDataset, match="none of the 2 rollouts succeeded"):
        fit_and_save(policy, "privileged_advantage", rollouts, 0, 1)
    assert not (policy / "verifiers").exists()


def test_dagger_comes_closer_to_the_expert_on_states_it_wanders_into(net: PolicyNet, demonstrations: Path) -> None:
    def off(tuned: PolicyNet, rollouts: Rollouts) -> float:
        """Mean distance to the expert, in half the limits' span, over the executed steps of the branched states."""
        policy = TorchPolicy(tuned)
        seen = [
            Observation({c: i[d] for c, i in rollouts.images.items()}, rollouts.state[d], rollouts.instruction[d])
            for d in rollouts.branch_decision
        ]
        acted, _ = policy.propose(policy.encode(seen), np.zeros((len(seen), 1, 8, 4), np.float32))
        half_span = (tuned.spec.action_high - tuned.spec.action_low) / 2
        return float((np.abs(acted[:, 0, :2] - rollouts.branch_expert) / half_span).mean())

    cache, elsewhere = open_cache(demonstrations), branched()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tuned = dagger.finetune(net, cache, mixed(), dagger.Config(steps=60, batch_size=32, learning_rate=3e-3), seed=0)
    assert off(tuned, mixed()) < 0.8 * off(net, mixed())
    assert off(tuned, elsewhere) < 0.8 * off(net, elsewhere)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "a copy is trained"


def test_dagger_refuses_another_robot_and_states_without_an_answer(net: PolicyNet, demonstrations: Path) -> None:
    cache = open_cache(demonstrations)
    other = replace(cache, spec=replace(cache.spec, robot="other"))
    with pytest.raises(SpecMismatch, match="robot"):
        dagger.finetune(net, other, branched(), dagger.Config(), seed=0)
    with pytest.raises(BadDataset, match="no branches"):
        dagger.finetune(net, cache, roll_out((60,), share=0.0)[0], dagger.Config(), seed=0)
