"""A checkpoint folder -> a bundle folder."""

from __future__ import annotations

import json
from pathlib import Path

from vla.errors import BadConfig
from vla.modules import Verifier
from vla.pipeline import MAX_CANDIDATES
from vla.policy import TorchPolicy, load_policy
from vla.runs import revision
from vla_deploy import bundle, graphs
from vla_deploy.bundle import Manifest
from vla_deploy.card import card

N_ACTION_STEPS = 4
"""Executed of each chunk where no verifier was fitted for another number."""


def export(
    checkpoint: Path, out: Path, verifier: str | None = None, n_candidates: int = 16, n_action_steps: int | None = None
) -> TorchPolicy:
    """Export a policy, with a verifier if one is named. Returns the checkpoint's policy, to compare the bundle with.

    Raises:
        BadCheckpoint: it cannot be loaded.
        UnknownName: the verifier does not exist or was not fitted for this policy.
        BadConfig: `n_action_steps` is not what the verifier was fitted for, or does not fit the chunk.
        BadBundle: something that is no bundle is in the way.
    """
    policy = load_policy(str(checkpoint))
    judge = None if verifier is None else policy.verifier(verifier).module
    chunk_size = policy.net.config.chunk_size
    steps = _steps(judge, n_action_steps, chunk_size)
    if not 1 <= n_candidates <= MAX_CANDIDATES:
        raise BadConfig(f"n_candidates must be within 1 and {MAX_CANDIDATES}, got {n_candidates}")
    manifest = Manifest(verifier, n_candidates, steps, revision())
    about = json.loads((checkpoint / "config.json").read_text())
    fit = checkpoint / "verifiers" / f"{verifier}.json"
    fitted = None
    if fit.is_file():
        own = json.loads(fit.read_text())
        fitted = own["fitted"] | ({"p_success": own["scale"]} if own.get("scale") else {})
    exported = graphs.trace(policy.net, judge)
    text = card(out.name, policy.spec, manifest, about, fitted)
    bundle.write(out, manifest, policy.spec, policy.net.tokenizer, exported.graphs, exported.golden, text)
    return policy


def _steps(judge: Verifier | None, asked: int | None, chunk_size: int) -> int:
    """How many actions of a chunk to execute: what a verifier judged in training is what must be executed."""
    fitted = None if judge is None else judge.n_action_steps
    if asked is not None and fitted is not None and asked != fitted:
        raise BadConfig(f"the verifier was fitted for {fitted} executed actions of a chunk, not {asked}; fit it again")
    steps = asked if asked is not None else fitted or min(N_ACTION_STEPS, chunk_size)
    if not 1 <= steps <= chunk_size:
        raise BadConfig(f"n_action_steps must be between 1 and the policy's chunk_size {chunk_size}, got {steps}")
    return steps
