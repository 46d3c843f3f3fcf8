"""A small encoder to train from scratch in minutes on a CPU: where the thing the sentence names is, in each image.

Claims: about a million parameters with the flow head; learns a tabletop of several tasks in minutes.
Paper: FiLM (arXiv 1709.07871), spatial softmax (arXiv 1504.00702).
Implemented: a camera's image goes through strided convolutions that the sentence modulates (FiLM), then keypoints by
    spatial softmax; keypoints, state and sentence meet in an MLP; the memory is one token.
Differs: no pretraining, no patch tokens: a patch transformer of equal quality was four times slower a step here.
Cost: about 25 million multiply-adds an observation with two 64 x 64 cameras.
Measured: docs/benchmarks.md, `vla bench demo`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.modules import Backbone as BackboneProtocol
from vla.modules import Batch, Memory
from vla.spec import Spec
from vla.tokenizers.words import MAX_WORDS


@dataclass(frozen=True)
class Config:
    """Settings of the tiny backbone."""

    width: int = 256
    """Width of the memory token."""
    channels: int = 48
    """Channels of each camera's convolutions."""
    keypoints: int = 24
    """Keypoints a camera."""
    text_width: int = 64
    """Width of the sentence encoder."""


class Backbone(BackboneProtocol):
    """FiLM convolutions -> keypoints -> one memory token."""

    def __init__(self, config: Config, spec: Spec, vocabulary_size: int) -> None:
        super().__init__()
        self.width = config.width
        self.text = _Sentence(vocabulary_size, config.text_width)
        self.cameras = nn.ModuleList(_Camera(config) for _ in spec.cameras)
        features = len(spec.cameras) * config.keypoints * 3 + len(spec.state) + config.text_width
        self.fuse = nn.Sequential(
            nn.Linear(features, config.width),
            nn.LayerNorm(config.width),
            nn.GELU(),
            nn.Linear(config.width, config.width),
            nn.GELU(),
        )

    def encode(self, batch: Batch) -> Memory:
        """One token an observation."""
        text = self.text(batch.tokens)
        seen = [camera(image, text) for camera, image in zip(self.cameras, batch.images, strict=True)]
        token = self.fuse(torch.cat([*seen, batch.state, text], -1))
        return Memory(token[:, None], torch.ones_like(batch.tokens[:, :1], dtype=torch.bool))


class _Sentence(nn.Module):
    """Token ids (B, L) -> (B, text_width): one transformer layer, mean over the real words."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, width, padding_idx=0)
        # As large as a word: at 0.02 "red on green" and "green on red" stay one sentence for thousands of steps.
        self.position = nn.Parameter(torch.randn(MAX_WORDS, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        pad = tokens == 0
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        x = self.layer(x, src_key_padding_mask=pad)
        keep = (~pad).to(x.dtype)[..., None]
        mean: Tensor = (x * keep).sum(1) / keep.sum(1).clamp(min=1.0)
        return mean


class _Camera(nn.Module):
    """Image (B, h, w, 3) uint8 -> keypoint positions and strengths (B, 3 * keypoints)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.channels
        self.stem = nn.Conv2d(3, c // 2, 4, 2, 1)
        self.down = nn.Conv2d(c // 2, c, 4, 2, 1)
        self.film_down = nn.Linear(config.text_width, 2 * c)
        self.mix = nn.Conv2d(c, c, 3, 1, 1)
        self.film_mix = nn.Linear(config.text_width, 2 * c)
        self.heat = nn.Conv2d(c, config.keypoints, 1)
        self.temperature = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        x = image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1  # TensorRT takes uint8 into a cast only
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(x))
        x = F.relu(_film(self.down(x), self.film_down(text)))
        x = F.relu(_film(self.mix(x), self.film_mix(text)))
        heat = self.heat(x).float()
        rows = torch.linspace(-1, 1, heat.shape[2], device=heat.device)
        columns = torch.linspace(-1, 1, heat.shape[3], device=heat.device)
        heat_flat = heat.flatten(2)
        weight = (heat_flat * self.temperature.exp()).softmax(-1)
        strength = (weight * heat_flat).sum(-1) * 0.1
        weight = weight.unflatten(2, heat.shape[2:])
        y = (weight.sum(3) * rows).sum(-1)
        x = (weight.sum(2) * columns).sum(-1)
        return torch.cat([x, y, strength], -1)


def _film(x: Tensor, modulation: Tensor) -> Tensor:
    """Scale and shift channels (B, c, h, w) by a modulation (B, 2c)."""
    scale, shift = modulation[..., None, None].chunk(2, dim=1)
    return x * (1 + scale) + shift
