"""Fit a verifier to a policy's rollouts and put it beside the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vla import checkpoint, registry
from vla.data.rollouts import Rollouts
from vla.modules import Progress, Verifier
from vla.policy import PolicyNet
from vla.threads import computing_on


def fit(
    net: PolicyNet,
    name: str,
    rollouts: Rollouts,
    seed: int,
    threads: int = 2,
    progress: Progress | None = None,
    **settings: Any,
) -> tuple[Verifier, dict[str, Any], dict[str, Any]]:
    """Build and fit a verifier; returns it with its config and the measures on held-out episodes.

    `settings` are fields of its Config that differ from the defaults.

    Raises:
        UnknownName: no such verifier.
        BadDataset: the rollouts do not hold what it learns from.
    """
    kind = getattr(registry.module("verifiers", name), registry.KINDS["verifiers"])
    config = registry.resolved("verifiers", name, kind.configure(settings, rollouts))
    with computing_on(threads), torch.random.fork_rng():
        torch.manual_seed(seed)
        verifier: Verifier = registry.build("verifiers", name, config, net.spec, net)
        measures = verifier.fit(rollouts, seed=seed, progress=progress)
    return verifier.eval(), config, measures


def fit_and_save(
    policy: Path,
    name: str,
    rollouts: Rollouts,
    seed: int,
    threads: int = 2,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Fit a verifier for a checkpoint and save it in `policy/verifiers/`; returns the held-out measures."""
    verifier, config, measures = fit(checkpoint.load(policy), name, rollouts, seed, threads, progress, **settings)
    episodes = len(rollouts.success)
    checkpoint.save_verifier(policy, name, verifier, config, measures | {"seed": seed, "episodes": episodes})
    return measures
