"""The spine, driven by a policy in five lines of numpy: whatever it proposes, `decide` chooses or refuses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from vla.errors import BadConfig, BadObservation
from vla.pipeline import FirstCandidate, Pipeline, how_many
from vla.spec import Camera, Dim, Spec
from vla.types import Floats, Observation, Verdict

SPEC = Spec(
    robot="toy",
    state=(Dim("x", "m", "absolute", "base", -1.0, 1.0),),
    action=(Dim("dx", "m", "delta", "base", -1.0, 1.0), Dim("dy", "m", "delta", "base", -1.0, 1.0)),
    rotation="none",
    gripper="none",
    cameras=(Camera("agent", 4, 4),),
    control_rate_hz=20.0,
    chunk_size=3,
)


@dataclass
class Toy:
    """Proposes state + noise; counts its passes."""

    spec: Spec = SPEC
    poison: float = 0.0
    """Added to every action; NaN makes the proposals worthless."""
    passes: int = 0

    def encode(self, observations: Sequence[Observation]) -> Floats:
        self.passes += 1
        return np.stack([o.state for o in observations])

    def propose(self, memory: Floats, noise: Floats) -> tuple[Floats, Floats | None]:
        return (memory[:, None, None] + noise + np.float32(self.poison)).astype(np.float32), noise.sum((-1, -2))


class Furthest:
    """Prefers the candidate that moves furthest."""

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        scores = np.abs(actions).sum((-1, -2))
        return [Verdict(s, int(s.argmax()), "furthest") for s in scores]


class Fixed:
    """Always gives the same verdict."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        return [self.verdict for _ in observations]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


OBSERVATION = dataclasses.replace(SPEC.fake_observation("go", seed=1), stamp_ns=77)


def test_a_decision_holds_every_intermediate_value() -> None:
    decision = Pipeline(Toy(), Furthest(), n_candidates=5).decide(OBSERVATION, rng())
    assert decision.observation is OBSERVATION
    assert decision.candidates.actions.shape == (5, 3, 2)
    assert decision.candidates.log_prob is not None
    assert decision.candidates.log_prob.shape == (5,)
    assert decision.verdict.best == int(decision.verdict.scores.argmax())
    assert decision.chunk is not None
    np.testing.assert_array_equal(decision.chunk.actions, decision.candidates.actions[decision.verdict.best])
    assert (decision.chunk.t0_ns, decision.chunk.dt_ns) == (77, 50_000_000)
    assert decision.timings_ns.keys() == {"encode", "propose", "verify"}


def test_the_same_generator_gives_the_same_decision() -> None:
    pipeline = Pipeline(Toy(), Furthest(), n_candidates=4)
    one, two = pipeline.decide(OBSERVATION, rng(3)), pipeline.decide(OBSERVATION, rng(3))
    np.testing.assert_array_equal(one.candidates.actions, two.candidates.actions)
    other = pipeline.decide(OBSERVATION, rng(4))
    assert not np.array_equal(one.candidates.actions, other.candidates.actions)


def test_a_decision_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    toy = Toy()
    pipeline = Pipeline(toy, Furthest(), n_candidates=4)
    observations = [SPEC.fake_observation("go", seed=i) for i in range(3)]
    batch = pipeline.decide_batch(observations, [rng(i) for i in range(3)])
    assert toy.passes == 1
    for i, decision in enumerate(batch):
        alone = pipeline.decide(observations[i], rng(i))
        np.testing.assert_array_equal(alone.candidates.actions, decision.candidates.actions)
        assert alone.verdict.best == decision.verdict.best


def test_more_candidates_begin_with_the_same_first_one() -> None:
    """Arms with different K are paired by seed: the unverified choice is the same in both."""
    one = Pipeline(Toy(), FirstCandidate(), 1).decide(OBSERVATION, rng())
    many = Pipeline(Toy(), FirstCandidate(), 16).decide(OBSERVATION, rng())
    assert one.chunk is not None
    assert many.chunk is not None
    np.testing.assert_array_equal(one.chunk.actions, many.chunk.actions)


def test_without_noise_the_policy_is_deterministic() -> None:
    decision = Pipeline(Toy(), FirstCandidate(), 3, noise_scale=0.0).decide(OBSERVATION, rng())
    assert np.ptp(decision.candidates.actions, axis=0).max() == 0


def test_a_verifier_may_refuse_them_all() -> None:
    refusal = Verdict(np.zeros(1, np.float32), None, "none of these")
    decision = Pipeline(Toy(), Fixed(refusal)).decide(OBSERVATION, rng())
    assert decision.chunk is None
    assert decision.verdict.reason == "none of these"


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused(poison: float) -> None:
    decision = Pipeline(Toy(poison=poison), FirstCandidate(), 2).decide(OBSERVATION, rng())
    assert decision.chunk is None
    assert decision.verdict.best is None
    assert "not finite" in decision.verdict.reason


def test_scores_that_are_not_finite_are_refused() -> None:
    bad = Verdict(np.array([0, np.nan], np.float32), 0, "sure")
    decision = Pipeline(Toy(), Fixed(bad), 2).decide(OBSERVATION, rng())
    assert decision.chunk is None
    assert "scores are not finite" in decision.verdict.reason


@pytest.mark.parametrize("best", [-1, 2])
def test_a_choice_that_is_no_candidate_is_refused(best: int) -> None:
    decision = Pipeline(Toy(), Fixed(Verdict(np.zeros(2, np.float32), best, "sure")), 2).decide(OBSERVATION, rng())
    assert decision.chunk is None
    assert f"chose candidate {best} of 2" in decision.verdict.reason


def test_a_bad_observation_is_refused_before_anything_is_computed() -> None:
    toy = Toy()
    nan = dataclasses.replace(OBSERVATION, state=np.array([np.nan], np.float32))
    with pytest.raises(BadObservation, match=r"\['x'\] is NaN"):
        Pipeline(toy, FirstCandidate()).decide_batch([OBSERVATION, nan], [rng(), rng()])
    assert toy.passes == 0


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(BadConfig, match="n_candidates"):
        Pipeline(Toy(), FirstCandidate(), 0)
    with pytest.raises(BadConfig, match="chunk_size"):
        Pipeline(Toy(spec=dataclasses.replace(SPEC, chunk_size=None)), FirstCandidate())


def test_one_generator_for_each_observation() -> None:
    pipeline = Pipeline(Toy(), FirstCandidate())
    observations = [SPEC.fake_observation("go"), SPEC.fake_observation("go", seed=1)]
    with pytest.raises(BadConfig, match="2 observations and 1 random generators"):
        pipeline.decide_batch(observations, [np.random.default_rng(0)])
    assert pipeline.decide_batch([], []) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", None),
        ("images", []),
        ("instruction", None),
        ("instruction", b"go"),
        ("state", [0.0]),
        ("state", None),
    ],
)
def test_an_observation_of_other_types_is_refused(name: str, value: Any) -> None:
    observation = dataclasses.replace(SPEC.fake_observation("go"), **{name: value})
    with pytest.raises(BadObservation, match="want"):
        Pipeline(Toy(), FirstCandidate()).decide(observation, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("n_candidates", "noise_scale"), [(0, 1.0), (2.5, 1.0), (10**9, 1.0), (1, -1.0), (1, math.nan), (1, math.inf)]
)
def test_settings_that_cannot_be_are_refused(n_candidates: Any, noise_scale: float) -> None:
    with pytest.raises(BadConfig, match=r"n_candidates|noise_scale"):
        Pipeline(Toy(), FirstCandidate(), n_candidates, noise_scale)


class Farsighted(Furthest):
    """Judges the first two actions of a chunk."""

    n_action_steps = 2


@pytest.mark.parametrize(("verifier", "most"), [(FirstCandidate(), 3), (Furthest(), 3), (Farsighted(), 2)])
def test_no_action_is_executed_that_the_verifier_did_not_judge(verifier: Any, most: int) -> None:
    pipeline = Pipeline(Toy(), verifier)
    for n in range(1, most + 1):
        pipeline.require_steps(n)
    for n in (0, most + 1):
        with pytest.raises(BadConfig, match="judges the first 2" if n == 3 else "n_action_steps must be within"):
            pipeline.require_steps(n)


def test_a_verifier_is_given_something_to_choose_from_unless_told_otherwise() -> None:
    asked = [(None, None), (None, "vgps"), (3, None), (1, "vgps"), (0, "vgps")]
    assert [how_many(*pair) for pair in asked] == [1, 16, 3, 1, 0], "0 is refused by the pipeline, not replaced"
