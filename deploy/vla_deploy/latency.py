"""What verification costs: a verified decision among K candidates against an unverified single sample."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from vla.pipeline import FirstCandidate, Pipeline
from vla.registry import OpenedPolicy
from vla.types import Observation


@dataclass(frozen=True)
class Latency:
    """Lower quartiles over interleaved decisions of one process: what it takes while nothing else wants the core."""

    single_ms: float
    """K = 1, unverified."""
    verified_ms: float
    """K = `n_candidates`, verifier and its own encoder included."""
    n_candidates: int
    decisions: int

    @property
    def ratio(self) -> float:
        """How many times the single sample a verified decision takes."""
        return self.verified_ms / self.single_ms


def latency(
    policy: OpenedPolicy, verifier: str, observation: Observation, n_candidates: int = 16, decisions: int = 200
) -> Latency:
    """Time `decide` with and without verification, in turn, so that both meet the same load on the machine.

    Raises:
        UnknownName: the policy does not have the verifier.
    """
    single = Pipeline(policy, FirstCandidate())
    verified = Pipeline(policy, policy.verifier(verifier), n_candidates)
    rng = np.random.default_rng(0)
    took: dict[Pipeline, list[int]] = {single: [], verified: []}
    for i in range(decisions + 10):
        for pipeline, times in took.items():
            start = time.perf_counter_ns()
            pipeline.decide(observation, rng)
            if i >= 10:  # the first few warm caches
                times.append(time.perf_counter_ns() - start)
    single_ms, verified_ms = (float(np.quantile(times, 0.25)) / 1e6 for times in took.values())
    return Latency(single_ms, verified_ms, n_candidates, decisions)
