"""Physical units <-> what a network likes. The statistics are buffers of the policy, so the exported graph has them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vla.errors import BadDataset
from vla.spec import Dim, Method, Normalisation
from vla.types import Floats


@dataclass(frozen=True, eq=False)
class Statistics:
    """Affine normalisation of states and actions: (value - offset) / scale."""

    method: Method
    state_offset: Floats
    state_scale: Floats
    action_offset: Floats
    action_scale: Floats

    @property
    def digest(self) -> str:
        """SHA-256 of the method and all four arrays."""
        hasher = hashlib.sha256(self.method.encode())
        for array in (self.state_offset, self.state_scale, self.action_offset, self.action_scale):
            hasher.update(np.ascontiguousarray(array, np.float32).tobytes())
        return hasher.hexdigest()

    def for_spec(self) -> Normalisation:
        """What a policy's spec says of them."""
        return Normalisation(self.method, self.digest)


def measure(state: Floats, action: Floats, dims: tuple[tuple[Dim, ...], tuple[Dim, ...]], method: Method) -> Statistics:
    """Statistics of states (T, S) and actions (T, A).

    `quantile` maps the 1st and 99th percentile to -1 and 1: outliers do not squeeze the rest, which min/max would.
    Dimensions that hardly vary are scaled by their limits instead, so that noise is not blown up.

    Raises:
        BadDataset: empty, or not finite; names the dimension.
    """
    pairs = []
    for values, group in zip((state, action), dims, strict=True):
        if len(values) == 0:
            raise BadDataset("no frames to measure statistics on; collect demonstrations first")
        finite = np.atleast_1d(np.isfinite(values).all(axis=0))
        if not finite.all():
            raise BadDataset(f"{[d.name for d, f in zip(group, finite, strict=True) if not f]} holds NaN or infinity")
        if method == "quantile":
            low, high = np.quantile(values, [0.01, 0.99], axis=0)
            offset, scale = (low + high) / 2, (high - low) / 2
        else:
            offset, scale = values.mean(0), values.std(0)
        span = np.array([(d.high - d.low) / 2 for d in group])
        pairs += [offset.astype(np.float32), np.where(scale < 1e-3 * span, span, scale).astype(np.float32)]
    return Statistics(method, *pairs)


class Normaliser(nn.Module):
    """The statistics as buffers: saved with the weights, traced into the graph."""

    state_offset: Tensor
    state_scale: Tensor
    action_offset: Tensor
    action_scale: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.method = statistics.method
        for name in ("state_offset", "state_scale", "action_offset", "action_scale"):
            self.register_buffer(name, torch.as_tensor(getattr(statistics, name)))

    def state(self, state: Tensor) -> Tensor:
        """(..., S) physical -> normalised; clamped to +-5 so that an outlier cannot drive the network far off."""
        return ((state - self.state_offset) / self.state_scale).clamp(-5, 5)

    def action(self, action: Tensor) -> Tensor:
        """(..., A) physical -> normalised."""
        return (action - self.action_offset) / self.action_scale

    def action_inverse(self, action: Tensor) -> Tensor:
        """(..., A) normalised -> physical."""
        return action * self.action_scale + self.action_offset

    def statistics(self) -> Statistics:
        """Back to numpy; the digest must equal the spec's."""
        arrays = [t.detach().cpu().numpy() for t in self.buffers()]
        return Statistics(self.method, *arrays)
