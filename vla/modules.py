"""The spine in torch: what a backbone, a head and a verifier are. Batched, normalised inside `vla.policy`.

B batch, C cameras, L tokens of text, S memory tokens, D their width, N candidates, H chunk length, A action
dimensions. Everything here may be traced and exported: encode, propose and score become one ONNX graph each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from vla.types import Floats

if TYPE_CHECKING:
    from vla.data.cache import Cache
    from vla.data.rollouts import Rollouts

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a line to show."""


class Batch(NamedTuple):
    """Model inputs for B observations."""

    images: tuple[Tensor, ...]
    """One (B, h, w, 3) uint8 a camera, in the spec's order."""
    state: Tensor
    """(B, S) float32, physical units outside `PolicyNet`, normalised inside it."""
    tokens: Tensor
    """(B, L) int64; 0 is padding."""


class Memory(NamedTuple):
    """What the backbone remembers of an observation; all candidates share it."""

    tokens: Tensor
    """(B, S, D)."""
    mask: Tensor
    """(B, S) bool; True where a token is real."""


class Scores(NamedTuple):
    """A verifier's output."""

    scores: Tensor
    """(B, N); higher is better; comparable only within a row."""
    p_success: Tensor | None = None
    """(B, N) in [0, 1], for verifiers that estimate it."""


class Backbone(nn.Module, ABC):
    """Observation -> Memory. Constructed as `Backbone(config, spec, vocabulary_size)`."""

    width: int
    """D of the memory it makes."""

    @abstractmethod
    def encode(self, batch: Batch) -> Memory:
        """Encode B observations; `batch.state` is already normalised, images are raw uint8."""


class Head(nn.Module, ABC):
    """Memory -> action chunks in normalised units. Constructed as `Head(config, width, chunk_size, action_dim)`."""

    several_modes = True
    """Of two equally good chunks it proposes both, not their average; a contract test holds it to that."""

    @abstractmethod
    def loss(self, memory: Memory, actions: Tensor, is_pad: Tensor) -> Tensor:
        """Scalar training loss for target chunks (B, H, A); `is_pad` (B, H) is True past the episode's end."""

    @abstractmethod
    def sample(self, memory: Memory, noise: Tensor, guide: Tensor | None = None) -> Tensor:
        """Turn noise (B, N, H, A) into chunks (B, N, H, A).

        All randomness comes from `noise`, standard normal: the same noise gives the same chunks, in torch and in
        the exported graph. `guide` (B, H', A), H' <= H, is a prefix that is already being executed and must be kept
        (real-time chunking); heads that cannot say so raise BadConfig. No command passes one yet.
        """


class Verifier(nn.Module, ABC):
    """Scores candidates. Constructed as `Verifier(config, spec, policy)`; `policy` is the one it will judge."""

    n_action_steps: int | None = None
    """It judges this many first actions of a chunk; None: all of them. More are never executed on its word."""

    @abstractmethod
    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """Judge chunks (B, N, H, A); `batch.state` and `actions` in physical units."""

    @classmethod
    def configure(cls, config: dict[str, Any], rollouts: Rollouts) -> dict[str, Any]:
        """The config's fields, completed with what only the rollouts know (sizes, steps executed)."""
        return config

    def fit(self, rollouts: Rollouts, *, seed: int, progress: Progress | None = None) -> dict[str, Any]:
        """Learn from the policy's own rollouts; returns held-out measures. Verifiers that learn nothing need none."""
        return {}


class Objective(nn.Module, ABC):
    """An extra training loss on the memory. Constructed as `Objective(config, spec, width)`."""

    @abstractmethod
    def targets(self, cache: Cache) -> Floats:
        """(T, X) what to predict at each of the dataset's T frames."""

    @abstractmethod
    def loss(self, memory: Memory, targets: Tensor) -> Tensor:
        """Scalar loss for targets (B, X)."""
