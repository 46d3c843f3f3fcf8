"""Does the bundle decide as the checkpoint does? Measured on decisions of the one pipeline, in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.pipeline import FirstCandidate, Pipeline
from vla.registry import OpenedPolicy
from vla.types import Observation

TARGET = 1e-4
"""Largest difference of any action, physical units, that still counts as the same policy."""


@dataclass(frozen=True)
class Parity:
    """The largest differences over all decisions."""

    actions_max_abs: float
    """Over every action of every candidate, physical units."""
    scores_max_abs: float
    """Over every score; 0 without a verifier."""
    same_choice: int
    """Decisions in which both chose the same candidate, or both refused."""
    decisions: int

    @property
    def met(self) -> bool:
        """Are the actions the same within `TARGET`?"""
        return self.actions_max_abs <= TARGET


def parity(
    reference: OpenedPolicy,
    bundle: OpenedPolicy,
    observations: Sequence[Observation],
    verifier: str | None = None,
    n_candidates: int = 16,
    seed: int = 0,
) -> Parity:
    """Decide on each observation with both, from the same noise.

    Raises:
        UnknownName: one of them does not have the verifier.
    """
    actions, scores, same = [], [], 0
    both = [
        Pipeline(policy, FirstCandidate() if verifier is None else policy.verifier(verifier), n_candidates)
        for policy in (reference, bundle)
    ]
    for i, observation in enumerate(observations):
        a, b = (pipeline.decide(observation, np.random.default_rng([seed, i])) for pipeline in both)
        actions.append(np.abs(a.candidates.actions - b.candidates.actions).max())
        scores.append(np.abs(a.verdict.scores - b.verdict.scores).max())
        same += a.verdict.best == b.verdict.best
    return Parity(float(max(actions)), float(max(scores)), same, len(observations))
