"""A simulator's opinion of where each candidate leads, distilled into a verifier that sees only images.

Claims: 47% -> 69 to 72% success on an under-trained tabletop policy at K = 16, three refits of three.
Paper: none; ours. Kin: asymmetric actor-critic (arXiv 1710.06542), learning by cheating (arXiv 1912.12294).
Implemented: (1) a privileged value V(simulator state), an ensemble fitted to the discounted success of the policy's own
    rollouts, and of half as many by the scripted expert; (2) at on-policy states the simulator is restored and each
    candidate executed for the few steps that would be executed, labelled with V where it led, centred within the
    state; (3) an image verifier with an encoder of its own is fitted to those labels, and predicts the privileged
    features on the side.
Differs: what is learned is the difference between candidates of one state; distance to an expert's action, or the
    outcome of the whole episode, carry almost none of it (shown in docs/methods/privileged_advantage.md).
Cost: one more encoding an observation and a small MLP a candidate.
Measured: docs/benchmarks.md, `vla bench verification` and `vla bench libero_verification`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla.data.rollouts import Rollouts
from vla.errors import BadConfig, BadDataset
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
    """Settings of the privileged-advantage verifier."""

    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision; the labels are made for this many."""
    n_privileged: int = 1
    """Privileged features of the simulator; taken from the rollouts."""
    judges: int = 1
    """Independent heads whose scores are averaged; each costs 3% of a decision."""
    hidden: int = 256
    """Width of each head."""
    discount: float = 0.98
    """A control step's discount of success in V."""
    value_steps: int = 3000
    """Optimiser steps of the privileged value."""
    steps: int = 1000
    """Optimiser steps of the image verifier."""
    batch_size: int = 64
    """Branched states a step."""
    learning_rate: float = 1e-3
    """Of the heads; the encoder, which starts trained, gets half."""
    auxiliary: float = 1.0
    """Weight of predicting the privileged features."""


class Verifier(VerifierProtocol):
    """Score = predicted advantage of a candidate over the mean of its state, in units of its spread."""

    def __init__(self, config: Config, spec: Spec, policy: PolicyNet) -> None:
        super().__init__()
        self.config, self.n_action_steps = config, config.n_action_steps
        self.observer = Observer(spec, policy)
        self.action = ActionFeatures(spec, policy, config.n_action_steps)
        self.privileged = nn.Linear(self.observer.width, config.n_privileged)
        self.value = nn.Linear(self.observer.width, 1)
        seen = self.observer.width + config.n_privileged
        self.judges = nn.ModuleList(Judge(seen, self.action.width, config.hidden) for _ in range(config.judges))
        self._policy = (policy,)  # in a tuple: not a submodule, its weights are not this module's to save

    @classmethod
    def configure(cls, config: dict[str, Any], rollouts: Rollouts) -> dict[str, Any]:
        """Sizes come from the rollouts."""
        sizes = {"n_action_steps": rollouts.n_action_steps, "n_privileged": rollouts.branch_before.shape[1]}
        return sizes | config

    def score(self, batch: Batch, memory: Memory, actions: Tensor) -> Scores:
        """actions (B, N, H, A) -> scores (B, N)."""
        features = self.observer(batch)
        return Scores(self._advantages(features, self.privileged(features), actions).mean(0))

    def _advantages(self, features: Tensor, privileged: Tensor, actions: Tensor) -> Tensor:
        """(judges, B, N), each row centred over its candidates."""
        seen, acts = torch.cat([features, privileged], -1), self.action(actions)
        raw = torch.stack([judge(seen, acts) for judge in self.judges])
        return raw - raw.mean(-1, keepdim=True)

    def fit(self, rollouts: Rollouts, *, seed: int, progress: Progress | None = None) -> dict[str, Any]:
        """Value, labels, distillation.

        Raises:
            BadDataset: no branches, or no episode succeeded.
            BadConfig: the rollouts executed another number of steps.
        """
        if rollouts.n_action_steps != self.config.n_action_steps:
            raise BadConfig(
                f"verifier executes {self.config.n_action_steps} steps, the rollouts {rollouts.n_action_steps}"
            )
        if len(rollouts.branch_decision) == 0:
            raise BadDataset(
                "the rollouts have no branches; privileged_advantage needs a simulator that restores states"
            )
        torch.manual_seed(seed)
        value, measures = fit_value(rollouts, self.config, seed)
        labels = branch_values(value, rollouts)
        return measures | self._distil(rollouts, labels, seed, progress)

    def _distil(self, rollouts: Rollouts, labels: Tensor, seed: int, progress: Progress | None) -> dict[str, Any]:
        config, rng = self.config, np.random.default_rng(seed)
        decisions = Decisions(rollouts, self._policy[0])
        train, held = split_by_episode(rollouts.episode[rollouts.branch_decision], 0.12, rng)
        centred = labels - labels.mean(1, keepdim=True)
        centred = centred / centred.std().clamp(min=1e-6)
        before = torch.as_tensor(rollouts.branch_before)
        before = (before - before.mean(0)) / (before.std(0) + 0.1)
        actions = torch.as_tensor(rollouts.branch_actions)
        descend = descent(self, self.observer, config.learning_rate, 2e-2, config.steps)
        self.train()
        for step, rows in enumerate(shuffled(train, config.batch_size, config.steps, rng)):
            with torch.autocast("cpu", torch.bfloat16):
                features = self.observer(decisions.batch(rollouts.branch_decision[rows]))
            features = features.float()
            guess = self.privileged(features)
            advantages = self._advantages(features, guess, actions[rows])
            loss: Tensor = F.smooth_l1_loss(advantages, centred[rows].expand_as(advantages))
            loss = loss + config.auxiliary * F.smooth_l1_loss(guess, before[rows])
            loss = loss + 0.2 * F.mse_loss(self.value(features)[:, 0], labels[rows].mean(1))
            descend(loss)
            if progress:
                progress((step + 1) / config.steps, f"verifier loss {float(loss.detach()):.3f}")
        self.eval()
        return self._held_out(rollouts, decisions, labels, actions, held)

    @torch.inference_mode()
    def _held_out(
        self, rollouts: Rollouts, decisions: Decisions, labels: Tensor, actions: Tensor, held: Any
    ) -> dict[str, Any]:
        """V of the picked candidate against the mean and the best, on episodes not trained on: what to trust."""
        scores = torch.cat(
            [
                self.score(decisions.batch(rollouts.branch_decision[rows]), None, actions[rows]).scores  # type: ignore[arg-type]
                for rows in np.array_split(held, max(1, len(held) // 64))
            ]
        )
        true = labels[held]
        picked = true.gather(1, scores.argmax(1, keepdim=True))[:, 0]
        return {
            "value_mean": float(true.mean()),
            "value_picked": float(picked.mean()),
            "value_oracle": float(true.max(1).values.mean()),
            "states": len(labels),
            "held_out_states": len(held),
        }


class Value(nn.Module):
    """V(privileged features) in [0, 1]: the mean of an ensemble of small MLPs."""

    def __init__(self, n_features: int, members: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                nn.Linear(n_features, hidden),
                nn.LayerNorm(hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, 1),
            )
            for _ in range(members)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., P) -> (...)."""
        return torch.stack([m(features)[..., 0] for m in self.members]).sigmoid().mean(0)


def fit_value(rollouts: Rollouts, config: Config, seed: int) -> tuple[Value, dict[str, float]]:
    """Fit V to the discounted success of every control step the policy took, and of those the expert took.

    Where the policy seldom succeeds its own episodes hardly tell which way success lies; the expert's do.

    Where every episode succeeded, V tells how soon.

    Raises:
        BadDataset: no episode succeeded.
    """
    require_success(rollouts)
    success = rollouts.success[rollouts.step_episode]
    torch.manual_seed(seed)
    x = torch.as_tensor(np.concatenate([rollouts.step_privileged, rollouts.expert_privileged]))
    reward = [success * config.discount**rollouts.steps_to_end, config.discount**rollouts.expert_steps_to_end]
    y = torch.as_tensor(np.concatenate(reward), dtype=torch.float32)
    train, held = split_by_episode(rollouts.step_episode, 0.1, np.random.default_rng(seed))
    value = Value(x.shape[1])
    optimiser = torch.optim.AdamW(value.parameters(), 2e-3, weight_decay=2e-2, fused=True)
    rows = torch.as_tensor(np.concatenate([train, np.arange(len(success), len(x))]))
    for step in range(config.value_steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / config.value_steps))
        loss = torch.zeros(())
        for member in value.members:  # each member sees its own batches
            batch = rows[torch.randint(len(rows), (256,))]
            loss = loss + F.binary_cross_entropy_with_logits(member(x[batch])[:, 0], y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    value.eval()
    with torch.inference_mode():
        held_auc = auc(value(x[held]), torch.as_tensor(success[held]))
    known = {} if math.isnan(held_auc) else {"value_auc": held_auc}
    return value, known | {"rollout_success": float(rollouts.success.mean())}


def branch_values(value: Value, rollouts: Rollouts) -> Tensor:
    """(R, M) V where each candidate led, or its outcome when it ended the episode."""
    with torch.inference_mode():
        reached = value(torch.as_tensor(rollouts.branch_after))
    end = torch.as_tensor(rollouts.branch_end)
    return torch.where(end.isnan(), reached, end).clone()
