"""A language-conditioned Q function learned from the policy's own mixed rollouts; the best-scored candidate is taken.

Claims: helps five generalist policies without changing them, on twelve tasks.
Paper: V-GPS (arXiv 2410.13816); implicit Q-learning (arXiv 2110.06169).
Implemented: IQL on decisions: reward 1 for success at the last one, expectile value, two Q heads with target averages,
    image encoder of its own. A transition is one executed chunk, not one action.
Differs: IQL instead of Cal-QL; the best candidate instead of a draw from softmax(Q / beta), so that a decision is
    reproducible.
Cost: one more encoding an observation and a small MLP a candidate.
Measured: docs/benchmarks.md, `vla bench verification`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.data.rollouts import Rollouts
from vla.layers import average_towards
from vla.modules import Batch, Memory, Progress, Scores
from vla.modules import Verifier as VerifierProtocol
from vla.policy import PolicyNet
from vla.spec import Spec
from vla.verifiers._critic import (
    ActionFeatures,
    Decisions,
    Judge,
    Observer,
    auc,
    descent,
    require_success,
    shuffled,
    split_by_episode,
)


@dataclass(frozen=True)
class Config:
    """Settings of the V-GPS verifier."""

    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision; taken from the rollouts."""
    hidden: int = 256
    """Width of the Q and value heads."""
    expectile: float = 0.7
    """Above 0.5 the value leans towards the better actions in the data."""
    discount: float = 0.98
    """A control step's discount."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 64
    """Decisions a step."""
    learning_rate: float = 5e-4
    """Of the heads; the encoder gets half."""
    target_average: float = 0.98
    """Decay of the target Q heads."""


class Verifier(VerifierProtocol):
    """Score = the smaller of two Q estimates."""

    def __init__(self, config: Config, spec: Spec, policy: PolicyNet) -> None:
        super().__init__()
        self.config, self.n_action_steps = config, config.n_action_steps
        self.observer = Observer(spec, policy)
        self.action = ActionFeatures(spec, policy, config.n_action_steps)
        self.q = nn.ModuleList(Judge(self.observer.width, self.action.width, config.hidden) for _ in range(2))
        self.value = nn.Sequential(
            nn.Linear(self.observer.width, config.hidden), nn.GELU(), nn.Linear(config.hidden, 1)
        )
        self._policy = (policy,)  # in a tuple: not a submodule, its weights are not this module's to save

    @classmethod
    def configure(cls, config: dict[str, Any], rollouts: Rollouts) -> dict[str, Any]:
        """The number of executed steps comes from the rollouts."""
        return {"n_action_steps": rollouts.n_action_steps} | config

    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """actions (B, N, H, A) -> scores (B, N)."""
        features, acts = self.observer(batch), self.action(actions)
        return Scores(torch.minimum(self.q[0](features, acts), self.q[1](features, acts)))

    def fit(self, rollouts: Rollouts, *, seed: int, progress: Progress | None = None) -> dict[str, Any]:
        """Implicit Q-learning on the rollouts' decisions.

        Raises:
            BadDataset: too few episodes, or none succeeded.
        """
        require_success(rollouts)
        torch.manual_seed(seed)
        config, rng = self.config, np.random.default_rng(seed)
        decisions = Decisions(rollouts, self._policy[0])
        train, held = split_by_episode(rollouts.episode, 0.1, rng)
        follows = np.append(np.diff(rollouts.episode) == 0, False)
        following = np.where(follows, np.arange(len(follows)) + 1, np.arange(len(follows)))
        reward = torch.as_tensor((~follows & rollouts.success[rollouts.episode]).astype(np.float32))
        goes_on = torch.as_tensor(follows.astype(np.float32))
        chosen = torch.as_tensor(rollouts.chosen)
        discount = config.discount**config.n_action_steps
        target = copy.deepcopy(self.q)
        descend = descent(self, self.observer, config.learning_rate, 1e-2, config.steps)
        self.train()
        for step, rows in enumerate(shuffled(train, config.batch_size, config.steps, rng)):
            with torch.autocast("cpu", torch.bfloat16):
                features = self.observer(decisions.batch(rows))
                with torch.no_grad():
                    after = self.observer(decisions.batch(following[rows]))
            features = features.float()
            acts = self.action(chosen[rows])[:, None]
            with torch.no_grad():
                backup = reward[rows] + discount * goes_on[rows] * self.value(after.float())[:, 0]
                in_data = torch.minimum(*(q(features, acts)[:, 0] for q in target))
            value = self.value(features)[:, 0]
            loss = _expectile(in_data - value, config.expectile)
            for q in self.q:
                loss = loss + F.mse_loss(q(features, acts)[:, 0], backup)
            descend(loss)
            average_towards(target, self.q, config.target_average)
            if progress:
                progress((step + 1) / config.steps, f"Q loss {float(loss.detach()):.3f}")
        self.eval()
        return {"q_auc": self._held_out_auc(rollouts, decisions, chosen, held), "decisions": len(rollouts.state)}

    @torch.inference_mode()
    def _held_out_auc(self, rollouts: Rollouts, decisions: Decisions, chosen: Tensor, held: Any) -> float:
        """Does Q put decisions of successful episodes above those of failed ones, on episodes not trained on?"""
        parts = np.array_split(held, max(1, len(held) // 128))
        scores = [self.score(decisions.batch(r), None, chosen[r][:, None]).scores[:, 0] for r in parts]  # type: ignore[arg-type]
        return auc(torch.cat(scores), torch.as_tensor(rollouts.success[rollouts.episode[held]]))


def _expectile(error: Tensor, expectile: float) -> Tensor:
    """Squared error, weighted by `expectile` where positive and by its complement where negative."""
    weight = torch.where(error > 0, expectile, 1 - expectile)
    return (weight * error.square()).mean()
