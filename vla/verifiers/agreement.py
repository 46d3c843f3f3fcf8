"""The candidate that agrees most with the others: a medoid, after a majority vote on the gripper.

Claims: a free baseline; outliers are not executed. Every learned verifier must beat it.
Paper: the voting part of RoboMonkey (arXiv 2506.17811); medoid as in minimum-Bayes-risk decoding.
Implemented: candidates on the losing side of the gripper vote are out; of the rest, the smallest mean distance to the
    others wins, over the first `n_steps` of the chunk, each dimension in units of its limits.
Differs: no Gaussian is fitted and nothing is resampled; the answer is always one of the candidates.
Cost: N x N distances; no network.
Measured: docs/benchmarks.md, `vla bench verification`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.modules import Batch, Memory, Scores
from vla.modules import Verifier as VerifierProtocol
from vla.policy import PolicyNet
from vla.spec import Spec


@dataclass(frozen=True)
class Config:
    """Settings of the agreement verifier."""

    n_steps: int = 4
    """Leading actions of the chunk that are compared: about what will be executed."""


class Verifier(VerifierProtocol):
    """Score = minus the mean distance to the other candidates; the gripper's minority loses by a constant."""

    scale: Tensor
    middle: Tensor

    def __init__(self, config: Config, spec: Spec, policy: PolicyNet) -> None:
        super().__init__()
        self.config = config
        scale = torch.as_tensor((spec.action_high - spec.action_low) / 2)
        self.register_buffer("scale", scale, persistent=False)
        middle = torch.as_tensor((spec.action_high + spec.action_low) / 2)
        self.register_buffer("middle", middle, persistent=False)
        self.gripper = spec.gripper_actions

    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """actions (B, N, H, A) -> scores (B, N)."""
        x = (actions[:, :, : self.config.n_steps] - self.middle) / self.scale
        flat = x.flatten(2)
        # Differences first: |a|^2 + |b|^2 - 2ab cancels for close candidates, and its root is off by 3e-4 in float32.
        distance = (flat[:, :, None] - flat[:, None]).square().sum(-1).sqrt()
        scores = -distance.mean(-1)
        for i in self.gripper:
            opens = (x[..., i].mean(-1) > 0).to(x.dtype)
            majority = (opens.mean(-1, keepdim=True) > 0.5).to(x.dtype)
            scores = scores - 1e3 * (opens - majority).abs()
        return Scores(scores)
