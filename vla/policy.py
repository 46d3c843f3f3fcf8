"""A policy in torch: preprocessing, backbone, head and un-normalisation in one module, and its way onto the spine.

Physical units in, physical units out. What is exported is exactly `PolicyNet.encode` and `PolicyNet.propose`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from vla import registry, stacking
from vla.errors import BadConfig, UnknownName
from vla.modules import Backbone, Batch, Head, Memory, Verifier
from vla.normalise import Normaliser, Statistics
from vla.spec import Spec
from vla.tokenizers.words import WordTokenizer
from vla.types import Floats, Observation, Verdict


@dataclass(frozen=True)
class PolicyConfig:
    """Which parts a policy is made of; saved with it."""

    backbone: str = "tiny"
    """Name of the backbone; `vla list` shows them."""
    head: str = "flow"
    """Name of the action head."""
    chunk_size: int = 8
    """H, actions proposed at once."""
    backbone_config: dict[str, Any] = field(default_factory=dict)
    """Fields of the backbone's Config that differ from its defaults."""
    head_config: dict[str, Any] = field(default_factory=dict)
    """Fields of the head's Config that differ from its defaults."""

    def resolved(self) -> Self:
        """With the parts' defaults filled in. Raises UnknownName."""
        backbone = registry.resolved("backbones", self.backbone, self.backbone_config)
        head = registry.resolved("heads", self.head, self.head_config)
        return dataclasses.replace(self, backbone_config=backbone, head_config=head)


class PolicyNet(nn.Module):
    """Observation batch -> memory -> action chunks."""

    backbone: Backbone
    head: Head
    low: Tensor
    high: Tensor

    def __init__(self, config: PolicyConfig, spec: Spec, tokenizer: WordTokenizer, statistics: Statistics) -> None:
        """`spec` is the dataset's; the policy's own adds chunk_size and normalisation."""
        super().__init__()
        self.config = config.resolved()
        self.spec = dataclasses.replace(spec, chunk_size=config.chunk_size, normalisation=statistics.for_spec())
        self.tokenizer = tokenizer
        self.normaliser = Normaliser(statistics)
        self.backbone = registry.build(
            "backbones", config.backbone, config.backbone_config, spec, tokenizer.vocabulary_size
        )
        self.head = registry.build(
            "heads", config.head, config.head_config, self.backbone.width, config.chunk_size, len(spec.action)
        )
        self.register_buffer("low", torch.as_tensor(spec.action_low), persistent=False)
        self.register_buffer("high", torch.as_tensor(spec.action_high), persistent=False)

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def encode(self, batch: Batch) -> Memory:
        """`batch` in physical units."""
        return self.backbone.encode(batch._replace(state=self.normaliser.state(batch.state)))

    def loss(self, memory: Memory, actions: Tensor, is_pad: Tensor) -> Tensor:
        """The head's loss for target chunks (B, H, A) in physical units."""
        return self.head.loss(memory, self.normaliser.action(actions), is_pad)

    def propose(self, memory: Memory, noise: Tensor) -> Tensor:
        """Noise (B, N, H, A) -> actions (B, N, H, A), physical units.

        Bounded by the spec's limits: the policy's action space is that box. Safety checks the same box again.
        """
        actions = self.normaliser.action_inverse(self.head.sample(memory, noise))
        return torch.minimum(torch.maximum(actions, self.low), self.high)


class TorchPolicy:
    """A `PolicyNet` as the pipeline's Policy."""

    def __init__(self, net: PolicyNet, verifiers: dict[str, Verifier] | None = None) -> None:
        self.net = net.eval()
        self.verifiers = verifiers or {}

    @property
    def spec(self) -> Spec:
        """The contract."""
        return self.net.spec

    def batch(self, observations: Sequence[Observation]) -> Batch:
        """B observations as tensors. Raises UnknownInstruction."""
        arrays = stacking.stack(self.spec, self.net.tokenizer, observations)
        images = tuple(torch.as_tensor(arrays[f"image_{c.name}"]) for c in self.spec.cameras)
        return Batch(images, torch.as_tensor(arrays["state"]), torch.as_tensor(arrays["tokens"]))

    @torch.inference_mode()
    def encode(self, observations: Sequence[Observation]) -> tuple[Batch, Memory]:
        """The batch travels with its memory, so that a verifier need not build it again."""
        batch = self.batch(observations)
        return batch, self.net.encode(batch)

    @torch.inference_mode()
    def propose(self, memory: tuple[Batch, Memory], noise: Floats) -> tuple[Floats, None]:
        """Actions (B, N, H, A), physical units."""
        return self.net.propose(memory[1], torch.as_tensor(noise)).numpy(), None

    def verifier(self, name: str) -> TorchVerifier:
        """A fitted verifier, or one that needs no fitting. Raises UnknownName."""
        if (fitted := self.verifiers.get(str(Path(name)))) is not None:  # ./mine.py is mine.py
            return TorchVerifier(fitted)
        built: Verifier = registry.build("verifiers", name, {}, self.spec, self.net)
        if any(True for _ in built.parameters()):
            raise UnknownName(
                f"verifier {name!r} has not been fitted for this policy; run `vla fit-verifier --verifier {name}`. "
                f"Fitted: {sorted(self.verifiers) or 'none'}"
            )
        return TorchVerifier(built)


class TorchVerifier:
    """A `Verifier` module as the pipeline's Verifier."""

    def __init__(self, module: Verifier) -> None:
        self.module = module.eval()
        self.n_action_steps = module.n_action_steps

    @torch.inference_mode()
    def verify(
        self, observations: Sequence[Observation], memory: tuple[Batch, Memory], actions: Floats
    ) -> list[Verdict]:
        """Highest score wins; scores that are not finite refuse."""
        out = self.module.score(memory[0], memory[1], torch.as_tensor(np.ascontiguousarray(actions)))
        return stacking.verdicts(out.scores.numpy(), None if out.p_success is None else out.p_success.numpy())


def load_policy(path: str) -> TorchPolicy:
    """Open a checkpoint folder with the verifiers fitted for it. Raises BadCheckpoint."""
    from vla import checkpoint

    net = checkpoint.load(Path(path))
    return TorchPolicy(net, checkpoint.load_verifiers(Path(path), net))


def fresh(config: PolicyConfig, spec: Spec, tokenizer: WordTokenizer, statistics: Statistics, seed: int) -> PolicyNet:
    """A policy with random weights that depend on `seed` alone. Raises BadConfig, UnknownName."""
    if config.chunk_size < 1:
        raise BadConfig(f"chunk_size must be at least 1, got {config.chunk_size}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return PolicyNet(config, spec, tokenizer, statistics)
        except (AssertionError, ValueError, RuntimeError, MemoryError) as error:  # torch's, about sizes
            parts = f"{config.backbone} {config.backbone_config} with {config.head} {config.head_config}"
            raise BadConfig(f"{parts} cannot be built: {error}") from error
