"""Rectified flow over whole action chunks.

Claims: multimodal chunks in a few Euler steps; LIBERO 95.0 for NORA-1.5's expert, which is built like this.
Paper: pi-0 (arXiv 2410.24164), NORA-1.5 (arXiv 2511.14659), flow matching (arXiv 2210.02747).
Implemented: straight paths between noise and action, Beta(1.5, 1) noise levels, Euler sampling, prefix guidance by
    inpainting.
Differs: the expert is a modulated MLP over the flattened chunk with pooled memory, not a cross-attending transformer;
    several noise draws share one encoding in training.
Cost: one encoding and `n_steps` passes of the expert, whatever K.
Measured: docs/benchmarks.md, `vla bench demo`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.errors import BadConfig
from vla.layers import ChunkDenoiser, masked_mean
from vla.modules import Head as HeadProtocol
from vla.modules import Memory


@dataclass(frozen=True)
class Config:
    """Settings of the flow head."""

    hidden: int = 240
    """Width of the expert."""
    depth: int = 3
    """Residual blocks of the expert."""
    n_steps: int = 8
    """Euler steps from noise to action."""
    noise_draws: int = 4
    """Noise levels trained on for each encoded observation: the expert is cheap, the encoder is not."""


class Head(HeadProtocol):
    """Velocity field v(x, t) with x = (1 - t) action + t noise; sampling integrates from t = 1 to t = 0."""

    def __init__(self, config: Config, width: int, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        if config.n_steps < 1 or config.noise_draws < 1:
            raise BadConfig(f"flow: n_steps and noise_draws must be at least 1, got {config}")
        self.config = config
        self.field = ChunkDenoiser(width, chunk_size, action_dim, config.hidden, config.depth)

    def loss(self, memory: Memory, actions: Tensor, is_pad: Tensor) -> Tensor:
        """Mean squared error of the velocity noise - action."""
        actions = actions[:, None].expand(-1, self.config.noise_draws, -1, -1)
        # Beta(1.5, 1) by inverting its distribution function t^1.5: more weight on the noisy end, where modes part.
        t = torch.rand(actions.shape[:2], device=actions.device) ** (1 / 1.5)
        noise = torch.randn_like(actions)
        x = actions + t[..., None, None] * (noise - actions)
        error = self.field(self.field.pool(memory), x, t) - (noise - actions)
        return masked_mean(error.square(), is_pad)

    def sample(self, memory: Memory, noise: Tensor, guide: Tensor | None = None) -> Tensor:
        """Integrate noise (B, N, H, A) to actions in `n_steps` Euler steps."""
        pooled = self.field.pool(memory)
        x = noise
        for i in range(self.config.n_steps):
            level = 1 - i / self.config.n_steps
            if guide is not None:
                x = _inpaint(x, noise, guide, level)
            t = torch.full((1, 1), level, dtype=x.dtype, device=x.device)
            x = x - self.field(pooled, x, t) / self.config.n_steps
        return x if guide is None else _inpaint(x, noise, guide, 0.0)


def _inpaint(x: Tensor, noise: Tensor, guide: Tensor, level: float) -> Tensor:
    """Put the prefix guide (B, H', A) where the straight path has it at this noise level."""
    n = guide.shape[1]
    known = guide[:, None] + level * (noise[:, :, :n] - guide[:, None])
    return torch.cat([known, x[:, :, n:]], dim=2)
