"""card.md: what a person should know before letting a bundle move a robot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vla.spec import Dim, Spec
from vla_deploy.bundle import Manifest


def card(name: str, spec: Spec, manifest: Manifest, policy: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> str:
    """Markdown for one bundle.

    Args:
        name: the bundle's name.
        spec: the policy's contract.
        manifest: its defaults.
        policy: what the checkpoint says of itself: parts, tokenizer, how it was trained, revision.
        fitted: measures of the verifier's fit; None when it learned nothing or there is none.
    """
    words = ", ".join(policy.get("tokenizer", {}).get("words", []))
    lines = [
        f"# {name}",
        "",
        f"A policy for `{spec.robot}` at {spec.control_rate_hz:g} Hz, {spec.chunk_size} actions a chunk, exported from",
        f"revision {manifest.revision}; trained at revision {policy.get('revision', 'unknown')}. Digests of every file",
        "are in bundle.json.",
        "",
        "## Use",
        f"Sample {manifest.n_candidates} candidates, execute {manifest.n_action_steps} actions of the chosen one. "
        f"Instructions may use these words only: {words}.",
        "",
        "## Inputs and outputs",
        *(f"- camera `{c.name}`: {c.height} x {c.width} RGB, crop {c.crop}, flip {c.flip}" for c in spec.cameras),
        *(f"- state {_dim(d)}" for d in spec.state),
        *(f"- action {_dim(d)}" for d in spec.action),
        "",
        "## Policy",
        *_fields(policy.get("policy", {})),
        "",
        "## Data and training",
        *_fields(policy.get("trained", {})),
        "",
        "## Verifier",
        f"- name: {manifest.verifier or 'none: the first candidate is taken'}",
        *_fields(fitted or {}),
        "- scores are comparable within one decision only, unless p_success is among the outputs",
        "",
        "## Evaluation",
        "Run `vla eval` on this folder; its run folder holds the success rates with their intervals.",
    ]
    return "\n".join(lines) + "\n"


def _dim(dim: Dim) -> str:
    return f"`{dim.name}`: {dim.kind}, [{dim.low:g}, {dim.high:g}] {dim.unit}, {dim.frame}"


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"- {key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()]
