"""Pieces of networks that methods share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import BadConfig
from vla.modules import Memory


class Pool(nn.Module):
    """Memory tokens (B, S, D) -> one vector (B, D): a learned, masked weighting; the identity for S = 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, 1)

    def forward(self, memory: Memory) -> Tensor:
        """Pool over the real tokens."""
        weight: Tensor = self.weight(memory.tokens)
        logits = weight[..., 0].masked_fill(~memory.mask, -1e9)
        return (logits.softmax(-1)[..., None] * memory.tokens).sum(1)


class ModulatedBlock(nn.Module):
    """Residual MLP whose normalisation is shifted, scaled and gated by a condition (adaLN, arXiv 2212.09748)."""

    def __init__(self, hidden: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 3 * hidden)
        # Narrower inside, where a transformer's would be wider: these two are what each further candidate costs.
        self.inner = nn.Linear(hidden, hidden // 2)
        self.outer = nn.Linear(hidden // 2, hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, hidden); condition (B, 1 or N, condition): shared by all candidates when it is the same for all."""
        scale, shift, gate = self.modulation(condition).split(self.inner.in_features, dim=-1)
        step: Tensor = gate * self.outer(F.relu(self.inner(self.norm(x) * (1 + scale) + shift)))
        return x + step


class ChunkDenoiser(nn.Module):
    """Predicts a field over whole action chunks, given a noise level and the pooled memory.

    The condition is computed once for (observation, noise level), never once a candidate: sampling K chunks costs K
    passes through `inner` and `outer` only. That is what keeps verified sampling within 2x of a single sample.
    """

    frequencies: Tensor

    def __init__(self, width: int, chunk_size: int, action_dim: int, hidden: int, depth: int) -> None:
        super().__init__()
        if hidden < 2 or depth < 1:  # without a block it would not see the observation
            raise BadConfig(f"hidden must be at least 2 and depth at least 1, got {hidden} and {depth}")
        self.pool = Pool(width)
        self.time = nn.Linear(32, width)
        self.enter = nn.Linear(chunk_size * action_dim, hidden)
        self.blocks = nn.ModuleList(ModulatedBlock(hidden, width) for _ in range(depth))
        self.leave = nn.Linear(hidden, chunk_size * action_dim)
        self.register_buffer("frequencies", 20.0 * torch.exp(-0.5 * torch.arange(16.0)), persistent=False)

    def forward(self, pooled: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """pooled (B, D), noisy chunks x (B, N, H, A), noise levels t in [0, 1] (B, N) or (1, 1) -> (B, N, H, A)."""
        phase = t[..., None] * self.frequencies
        time = self.time(torch.cat([phase.sin(), phase.cos()], -1))
        condition = F.gelu(pooled[:, None] + time)
        h = self.enter(x.flatten(2))
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.leave(h).unflatten(2, x.shape[2:])
        return out


def masked_mean(error: Tensor, is_pad: Tensor) -> Tensor:
    """Mean of error (B, ..., H, A) over the steps that are not padding; is_pad (B, H)."""
    keep = (~is_pad).to(error.dtype)
    while keep.dim() < error.dim() - 1:
        keep = keep[:, None]
    keep = keep[..., None].expand_as(error)
    return (error * keep).sum() / keep.sum().clamp(min=1.0)


def average_towards(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Exponential moving average of the weights, in place."""
    with torch.no_grad():
        own: list[Tensor] = list(average.parameters())
        torch._foreach_lerp_(own, list(net.parameters()), 1 - keep)
