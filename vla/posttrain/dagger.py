"""Fine-tune a policy on states it wandered into, with what the expert would do there.

Claims: no-regret imitation; here the fair rival of a verifier, as it spends the same simulator states on the policy.
Paper: DAgger (arXiv 1011.0686).
Implemented: one round; half of each batch are demonstrations, half are branched states of the policy's own rollouts
    with the expert's next actions as target, the rest of the chunk masked.
Differs: one round instead of many; the policy drives alone, the expert only labels.
Cost: a short fine-tuning; nothing at run time.
Measured: docs/benchmarks.md, `vla bench verification`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch

from vla.data.cache import Cache
from vla.data.rollouts import Rollouts
from vla.errors import BadDataset
from vla.modules import Batch, Progress
from vla.policy import PolicyNet
from vla.spec import require_match
from vla.verifiers._critic import Decisions


@dataclass(frozen=True)
class Config:
    """Settings of DAgger."""

    steps: int = 600
    """Optimiser steps."""
    batch_size: int = 64
    """Half demonstrations, half rollout states."""
    learning_rate: float = 3e-4
    """Falls to zero along a cosine."""


def finetune(
    net: PolicyNet,
    demonstrations: Cache,
    rollouts: Rollouts,
    config: Config,
    seed: int,
    progress: Progress | None = None,
) -> PolicyNet:
    """A fine-tuned copy of the policy.

    Raises:
        SpecMismatch: the demonstrations are another robot's.
        BadDataset: the rollouts have no branches, so nobody asked the expert.
    """
    if len(rollouts.branch_decision) == 0:
        raise BadDataset("the rollouts have no branches: the expert was asked at none of their states")
    require_match(net.spec, demonstrations.spec, "the policy", "the demonstrations")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = copy.deepcopy(net).train()
    chunk = net.config.chunk_size
    index, is_pad = demonstrations.chunk_index(chunk)
    tokens = np.stack([net.tokenizer.encode(s) for s in demonstrations.instructions])
    decisions = Decisions(rollouts, net)
    known = rollouts.branch_expert.shape[1]
    expert = np.pad(rollouts.branch_expert, ((0, 0), (0, chunk - known), (0, 0)))
    unknown = torch.as_tensor(np.arange(chunk) >= known)
    optimiser = torch.optim.AdamW(net.parameters(), config.learning_rate, weight_decay=1e-4, fused=True)
    half = min(config.batch_size // 2, len(demonstrations))
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))
        rows = np.sort(rng.choice(len(demonstrations), half, replace=False))
        seen = Batch(
            tuple(torch.as_tensor(demonstrations.images[c.name][rows]) for c in net.spec.cameras),
            torch.as_tensor(demonstrations.state[rows]),
            torch.as_tensor(tokens[demonstrations.instruction[rows]]),
        )
        branch = rng.integers(len(expert), size=half)
        met = decisions.batch(rollouts.branch_decision[branch])
        batch = Batch(
            tuple(torch.cat(pair) for pair in zip(seen.images, met.images, strict=True)),
            torch.cat([seen.state, met.state]),
            torch.cat([seen.tokens, met.tokens]),
        )
        actions = torch.as_tensor(np.concatenate([demonstrations.action[index[rows]], expert[branch]]))
        pad = torch.cat([torch.as_tensor(is_pad[rows]), unknown.expand(half, -1)])
        with torch.autocast("cpu", torch.bfloat16):
            loss = net.loss(net.encode(batch), actions, pad).float()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if progress:
            progress((step + 1) / config.steps, f"loss {float(loss.detach()):.3f}")
    return net.eval()
