"""Actions as words: each dimension in bins, predicted one after another.

Claims: actions become tokens that a language model can speak; 55 B RT-2 and 7 B OpenVLA are trained like this.
Paper: RT-2 (arXiv 2307.15818), OpenVLA (arXiv 2406.09246).
Implemented: uniform bins between the 1st and 99th percentile of each dimension (what normalised -1 and 1 are; values
    beyond fall into the outermost bin), next-token cross-entropy, sampling by inverting the distribution function,
    key-value cache, exact prefix conditioning.
Differs: a small decoder of its own whose every layer attends memory and past tokens together, in place of the language
    model's layers; whole chunks, not single actions; sampled, where both papers take the likeliest token.
Cost: H * A passes of the decoder in sequence, each over one token of every candidate.
Measured: docs/benchmarks.md, `vla bench heads`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.errors import BadConfig
from vla.modules import Head as HeadProtocol
from vla.modules import Memory

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, as `_KeysValues` makes them, for R = B * N sequences."""
_NEVER = -1e9
"""Added to the attention logits of what must not be seen."""


@dataclass(frozen=True)
class Config:
    """Settings of the bins head. Wants quantile-normalised actions."""

    bins: int = 256
    """Bins a dimension."""
    hidden: int = 128
    """Width of the decoder."""
    depth: int = 2
    """Decoder layers."""
    n_heads: int = 4
    """Attention heads a layer."""
    temperature: float = 1.0
    """Sharpens (below 1) or flattens (above 1) what is sampled from; 0 takes the likeliest token."""


class Head(HeadProtocol):
    """A chunk is a sentence of H * A words, all dimensions of action 0 first."""

    def __init__(self, config: Config, width: int, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        if config.depth < 1 or config.n_heads < 1 or config.hidden < 1 or config.hidden % config.n_heads:
            raise BadConfig(
                f"bins: depth {config.depth} must be at least 1 and hidden {config.hidden} a multiple of n_heads "
                f"{config.n_heads}"
            )
        if config.bins < 2 or not config.temperature >= 0:  # NaN is neither
            raise BadConfig(f"bins: needs 2 bins and temperature 0 at least, got {config.bins}, {config.temperature}")
        self.config = config
        self.shape = (chunk_size, action_dim)
        self.embed = nn.Embedding(config.bins + 1, config.hidden)  # the last one starts a sentence
        self.position = nn.Parameter(torch.randn(chunk_size * action_dim, config.hidden) * 0.02)
        self.of_memory = nn.ModuleList(_KeysValues(width, config.hidden, config.n_heads) for _ in range(config.depth))
        self.layers = nn.ModuleList(_Layer(config.hidden, config.n_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.hidden)
        self.leave = nn.Linear(config.hidden, config.bins)

    def loss(self, memory: Memory, actions: Tensor, is_pad: Tensor) -> Tensor:
        """Cross-entropy of the tokens, given the true ones before them."""
        tokens = self.tokens(actions)
        nats = F.cross_entropy(self.logits(memory, tokens).transpose(1, 2), tokens, reduction="none")
        keep = (~is_pad).to(nats.dtype).repeat_interleave(self.shape[1], 1)
        return (nats * keep).sum() / keep.sum().clamp(min=1.0)

    def sample(self, memory: Memory, noise: Tensor, guide: Tensor | None = None) -> Tensor:
        """Turn noise (B, N, H, A) into chunks of bin centres; each number draws one token."""
        candidates = noise.shape[1]
        uniform = (0.5 * (1 + torch.erf(noise / math.sqrt(2)))).flatten(2).flatten(0, 1)
        known = None if guide is None else self.tokens(guide).repeat_interleave(candidates, 0)
        cache, bias = self._begin(memory, candidates)
        free = torch.zeros_like(bias[..., :1])
        token = torch.full_like(uniform[:, 0], self.config.bins, dtype=torch.int64)
        tokens = []
        for i in range(len(self.position)):
            bias = torch.cat([bias, free], -1)
            logits = self._decode(token[:, None], range(i, i + 1), cache, bias)[:, 0]
            token = self._draw(logits, uniform[:, i])
            if known is not None and i < known.shape[1]:
                token = known[:, i]
            tokens.append(token)
        drawn = torch.stack(tokens, -1).to(noise.dtype)
        out = ((drawn + 0.5) * (2 / self.config.bins) - 1).reshape(noise.shape)
        if guide is not None:
            out = torch.cat([guide[:, None].expand(-1, candidates, -1, -1), out[:, :, guide.shape[1] :]], 2)
        return out

    def tokens(self, actions: Tensor) -> Tensor:
        """Actions (B, T, A), normalised -> (B, T * A) bins."""
        bins = self.config.bins
        return ((actions.flatten(1) + 1) * (bins / 2)).floor().clamp(0, bins - 1).to(torch.int64)

    def logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        """(B, T, bins): logits of each of T tokens (B, T) given those before it; all at once, no cache kept."""
        length = tokens.shape[1]
        start = torch.full_like(tokens[:, :1], self.config.bins)
        cache, bias = self._begin(memory, 1)
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        causal = torch.zeros(length, length, device=tokens.device).masked_fill(later, _NEVER)
        bias = torch.cat([bias.expand(-1, -1, length, -1), causal.expand(len(tokens), 1, -1, -1)], -1)
        return self._decode(torch.cat([start, tokens[:, :-1]], 1), range(length), cache, bias)

    def _begin(self, memory: Memory, candidates: int) -> tuple[Cache, Tensor]:
        """The cache that holds the memory, computed once an observation, and its bias (B * N, 1, 1, S)."""
        cache = []
        for of_memory in self.of_memory:
            keys, values = of_memory(memory.tokens, memory.tokens.shape[1])
            cache.append((_repeat(keys, candidates), _repeat(values, candidates)))
        bias = torch.zeros_like(memory.tokens[..., 0]).masked_fill(~memory.mask, _NEVER)
        return cache, _repeat(bias, candidates)[:, None, None]

    def _decode(self, tokens: Tensor, places: range, cache: Cache, bias: Tensor) -> Tensor:
        """Logits (R, T, bins) at `places` after tokens (R, T), which join the cache; bias (R, 1, T, cached + T)."""
        x = self.embed(tokens) + self.position[places.start : places.stop]
        for i, layer in enumerate(self.layers):
            x, cache[i] = layer(x, len(places), cache[i], bias)
        logits: Tensor = self.leave(self.norm(x))
        return logits

    def _draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """logits (R, bins), uniform (R,) in (0, 1) -> tokens (R,)."""
        if self.config.temperature == 0:
            return logits.argmax(-1)
        below = (logits / self.config.temperature).softmax(-1).cumsum(-1)
        return (below < uniform[:, None]).to(torch.int64).sum(-1).clamp(max=self.config.bins - 1)


class _KeysValues(nn.Module):
    """Tokens (R, T, width) -> keys (R, heads, width of a head, T) and values (R, heads, T, width of a head)."""

    def __init__(self, width: int, hidden: int, n_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.split = (n_heads, hidden // n_heads)

    def forward(self, tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """`length` is T: a plain number exports as a constant, a shape as five nodes, at each of H * A steps."""
        x = self.norm(tokens)
        keys = self.key(x).reshape(-1, length, *self.split).permute(0, 2, 3, 1)
        values = self.value(x).reshape(-1, length, *self.split).transpose(1, 2)
        return keys, values


class _Layer(nn.Module):
    """Pre-norm transformer layer; a token attends the memory and the tokens up to itself, in one softmax.

    Written out, because the fused attention exports as three times as many nodes.
    """

    def __init__(self, hidden: int, n_heads: int) -> None:
        super().__init__()
        self.of_tokens = _KeysValues(hidden, hidden, n_heads)
        self.query = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden))
        self.merge = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(
        self, x: Tensor, length: int, past: tuple[Tensor, Tensor], bias: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (R, T, hidden), `length` is T; bias (R, 1, T, cached + T) added to the attention logits."""
        keys, values = self.of_tokens(x, length)
        keys = torch.cat([past[0], keys], 3)
        values = torch.cat([past[1], values], 2)
        n_heads, width = self.of_tokens.split
        query = self.query(x).reshape(-1, length, n_heads, width).transpose(1, 2) * width**-0.5
        mixed = (query @ keys + bias).softmax(-1) @ values
        x = x + self.merge(mixed.transpose(1, 2).reshape(-1, length, n_heads * width))
        return x + self.mlp(x), (keys, values)


def _repeat(x: Tensor, times: int) -> Tensor:
    """(B, ...) -> (B * times, ...), each row `times` times in a row."""
    return x[:, None].expand(-1, times, *x.shape[1:]).flatten(0, 1)
