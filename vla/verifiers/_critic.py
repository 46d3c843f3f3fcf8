"""What learned verifiers share: an image encoder of their own, and what they see of a candidate. Not a verifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.data.rollouts import Rollouts
from vla.errors import BadDataset
from vla.layers import Pool
from vla.modules import Batch
from vla.policy import PolicyNet
from vla.spec import Spec

Rows = npt.NDArray[np.int64]


class Observer(nn.Module):
    """Observation -> features (B, width). Starts as a copy of the policy's encoder and is trained further.

    A frozen copy of the policy's features costs a third of the gain (docs/methods/privileged_advantage.md): what the
    policy ignores is just what tells its good candidates from its bad ones.
    """

    def __init__(self, spec: Spec, policy: PolicyNet) -> None:
        super().__init__()
        self.normaliser = copy.deepcopy(policy.normaliser)
        self.backbone = copy.deepcopy(policy.backbone)
        self.pool = Pool(self.backbone.width)
        self.width = self.backbone.width + len(spec.state)

    def forward(self, batch: Batch) -> Tensor:
        """Batch in physical units -> (B, width)."""
        state = self.normaliser.state(batch.state)
        memory = self.backbone.encode(batch._replace(state=state))
        return torch.cat([0.5 * self.pool(memory), state], -1)


class ActionFeatures(nn.Module):
    """The executed part of a chunk (..., H, A), physical -> (..., width): the actions and the sums of the deltas."""

    def __init__(self, spec: Spec, policy: PolicyNet, n_action_steps: int) -> None:
        super().__init__()
        self.normaliser = copy.deepcopy(policy.normaliser)
        self.n_action_steps = n_action_steps
        self.deltas = [i for i, d in enumerate(spec.action) if d.kind in ("delta", "offset")]
        self.width = n_action_steps * (len(spec.action) + len(self.deltas))

    def forward(self, actions: Tensor) -> Tensor:
        x = self.normaliser.action(actions[..., : self.n_action_steps, :])
        return torch.cat([x.flatten(-2), x[..., self.deltas].cumsum(-2).flatten(-2)], -1)


class Judge(nn.Module):
    """An MLP over (observation features, action features).

    The first layer is split by its inputs, so the observation's half is computed once for all candidates.
    """

    def __init__(self, observation: int, action: int, hidden: int) -> None:
        super().__init__()
        self.of_observation = nn.Linear(observation, hidden)
        self.of_action = nn.Linear(action, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """observation (B, D), action (B, N, A') -> (B, N)."""
        h = F.relu(self.norm(self.of_observation(observation)[:, None] + self.of_action(action)))
        return self.out(F.relu(self.middle(h)))[..., 0]  # type: ignore[no-any-return]


class Decisions:
    """Rollouts as training batches."""

    def __init__(self, rollouts: Rollouts, policy: PolicyNet) -> None:
        if len(rollouts.state) == 0:
            raise BadDataset("the rollouts hold no decisions; roll out the policy first")
        self.rollouts = rollouts
        self.cameras = [c.name for c in policy.spec.cameras]
        sentences = sorted(set(rollouts.instruction))
        ids = np.stack([policy.tokenizer.encode(s) for s in sentences])
        position = {s: i for i, s in enumerate(sentences)}
        self.tokens = ids[[position[s] for s in rollouts.instruction]]

    def batch(self, rows: Rows) -> Batch:
        """The decisions `rows` as the policy saw them."""
        images = tuple(torch.as_tensor(self.rollouts.images[c][rows]) for c in self.cameras)
        return Batch(images, torch.as_tensor(self.rollouts.state[rows]), torch.as_tensor(self.tokens[rows]))


def descent(
    module: nn.Module, observer: Observer, learning_rate: float, weight_decay: float, steps: int
) -> Callable[[Tensor], None]:
    """What takes one step down a loss: AdamW, a short warm-up and a cosine.

    The encoder, which starts trained, gets half the rate.
    """
    encoder = list(observer.backbone.parameters())
    ours = {id(p) for p in encoder}
    rest = [p for p in module.parameters() if id(p) not in ours]
    groups = [{"params": encoder, "lr": 0.5 * learning_rate}, {"params": rest, "lr": learning_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)

    def factor(step: int) -> float:
        return min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)

    def descend(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()

    return descend


def require_success(rollouts: Rollouts) -> None:
    """Without a success there is nothing to lead to. Raises BadDataset."""
    if not rollouts.success.any():
        raise BadDataset(
            f"none of the {len(rollouts.success)} rollouts succeeded; what leads to success cannot be learned from "
            "them. Roll out more episodes, or train the policy longer"
        )


def split_by_episode(episode: Rows, held_out: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Row indices for training and for validation; no episode is in both.

    Raises:
        BadDataset: fewer than two episodes.
    """
    episodes = np.unique(episode)
    if len(episodes) < 2:
        raise BadDataset(f"{len(episodes)} episode(s) of rollouts; a verifier needs at least two, better five hundred")
    n = max(1, round(held_out * len(episodes)))
    held = np.isin(episode, rng.choice(episodes, n, replace=False))
    return np.flatnonzero(~held), np.flatnonzero(held)


def shuffled(rows: Rows, size: int, steps: int, rng: np.random.Generator) -> Iterator[Rows]:
    """`steps` random batches of up to `size` rows."""
    for _ in range(steps):
        yield np.sort(rng.choice(rows, min(size, len(rows)), replace=False))


def auc(scores: Tensor, positive: Tensor) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN when one kind is missing."""
    high, low = scores[positive], scores[~positive]
    if len(high) == 0 or len(low) == 0:
        return float("nan")
    difference = high[:, None] - low[None]
    return float((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean())
