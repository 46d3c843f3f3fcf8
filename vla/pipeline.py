"""The spine: the only path from pixels to a chosen action chunk. No threads, no ROS, no I/O.

Simulation, the deployed runtime and the ROS node all call `Pipeline.decide`. A policy and a verifier are
anything that satisfies the two protocols below: torch modules, ONNX sessions, another framework's policy.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vla.errors import BadConfig
from vla.spec import Spec, check_observation
from vla.types import ActionChunk, Candidates, Decision, Floats, Observation, Verdict

MAX_CANDIDATES = 4096
"""Many more than help; a slip of the keyboard beyond it would take all memory."""


def how_many(candidates: int | None, verifier: str | None) -> int:
    """The number of candidates asked for; where none is, as many as a verifier is worth having for."""
    return candidates if candidates is not None else 1 if verifier is None else 16


class Policy(Protocol):
    """Proposes action chunks. `Memory` is whatever `encode` returns: opaque, shared by all N candidates."""

    @property
    def spec(self) -> Spec:
        """The contract; `chunk_size` is decided."""

    def encode(self, observations: Sequence[Observation]) -> Any:
        """One pass over B observations, however many candidates follow.

        Raises UnknownInstruction for words it was not trained on.
        """

    def propose(self, memory: Any, noise: Floats) -> tuple[Floats, Floats | None]:
        """Turn noise (B, N, H, A) into actions (B, N, H, A) [physical units] and log-probabilities (B, N) or None."""


class Verifier(Protocol):
    """Judges the candidates; may refuse them all.

    One that judges only the first n actions of a chunk says so in an attribute `n_action_steps`.
    """

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        """One verdict an observation, for actions (B, N, H, A) [physical units]."""


class FirstCandidate:
    """No verification: take candidate 0. The baseline every verifier is compared with."""

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        """Choose index 0."""
        return [Verdict(np.zeros(actions.shape[1], np.float32), 0, "unverified") for _ in observations]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """encode -> propose N candidates -> verify -> chunk."""

    policy: Policy
    verifier: Verifier
    n_candidates: int = 1
    noise_scale: float = 1.0
    """Standard deviation of the sampling noise; 0 makes the policy deterministic."""

    def __post_init__(self) -> None:
        if not isinstance(self.n_candidates, int) or not 1 <= self.n_candidates <= MAX_CANDIDATES:
            raise BadConfig(
                f"n_candidates must be a whole number from 1 to {MAX_CANDIDATES}, got {self.n_candidates!r}"
            )
        if not 0 <= self.noise_scale < math.inf:
            raise BadConfig(f"noise_scale must be finite and not negative, got {self.noise_scale}")
        if self.policy.spec.chunk_size is None:
            raise BadConfig("a policy's spec must say its chunk_size")

    @property
    def spec(self) -> Spec:
        """The policy's contract."""
        return self.policy.spec

    def require_steps(self, n_action_steps: int) -> None:
        """Raises BadConfig where a chunk has not so many actions, or the verifier does not judge so many."""
        judged: int | None = getattr(self.verifier, "n_action_steps", None)
        if not 1 <= n_action_steps <= (self.spec.chunk_size or 0):
            raise BadConfig(f"n_action_steps must be within 1 and the chunk's {self.spec.chunk_size}: {n_action_steps}")
        if judged is not None and n_action_steps > judged:
            raise BadConfig(
                f"the verifier judges the first {judged} actions of a chunk: executing {n_action_steps} would move the "
                f"robot unverified. Execute {judged} or fewer (--n-action-steps), or fit it again"
            )

    def noise(self, rng: np.random.Generator) -> Floats:
        """(N, H, A) noise for one decision."""
        shape = (self.n_candidates, self.spec.chunk_size or 0, len(self.spec.action))
        return rng.standard_normal(shape, np.float32) * np.float32(self.noise_scale)

    def decide(self, observation: Observation, rng: np.random.Generator) -> Decision:
        """Choose a chunk for one observation, or refuse (`chunk` is None).

        Raises:
            BadObservation: the observation breaks the spec; nothing was computed.
        """
        return self.decide_batch([observation], [rng])[0]

    def decide_batch(self, observations: Sequence[Observation], rngs: Sequence[np.random.Generator]) -> list[Decision]:
        """`decide` for B independent observations in one pass each through encode, propose and verify.

        Each draws its noise from its own generator, so a decision does not depend on its neighbours.

        Raises:
            BadObservation: as `decide`.
            BadConfig: there is not one generator for each.
        """
        if len(rngs) != len(observations):
            raise BadConfig(f"{len(observations)} observations and {len(rngs)} random generators; give one to each")
        if not observations:
            return []
        for observation in observations:
            check_observation(self.spec, observation)
        noise = np.stack([self.noise(rng) for rng in rngs])
        t0 = time.perf_counter_ns()
        memory = self.policy.encode(observations)
        t1 = time.perf_counter_ns()
        actions, log_prob = self.policy.propose(memory, noise)
        t2 = time.perf_counter_ns()
        verdicts = self.verifier.verify(observations, memory, actions)
        t3 = time.perf_counter_ns()
        timings = {"encode": t1 - t0, "propose": t2 - t1, "verify": t3 - t2}
        decisions = []
        for i, (observation, verdict) in enumerate(zip(observations, verdicts, strict=True)):
            candidates = Candidates(actions[i], None if log_prob is None else log_prob[i])
            verdict = _refuse_unusable(candidates, verdict)
            chunk = None
            if verdict.best is not None:
                chunk = ActionChunk(candidates.actions[verdict.best], observation.stamp_ns, self.spec.dt_ns)
            decisions.append(Decision(observation, candidates, verdict, chunk, timings))
        return decisions


def open_pipeline(
    policy: str | os.PathLike[str], verifier: str | None = None, n_candidates: int = 1, noise_scale: float = 1.0
) -> Pipeline:
    """Open a policy by name and put a verifier behind it.

    Args:
        policy: a checkpoint folder (`runs/x`), a bundle folder (`bundles/x`), or `scheme:path`.
        verifier: a verifier's name; the policy finds the fitted one it was saved or exported with. None: unverified.
        n_candidates: chunks sampled for each observation.
        noise_scale: see `Pipeline`.

    Raises:
        UnknownName: nothing is called that.
        BadCheckpoint, BadBundle: it is there but cannot be trusted.
    """
    from vla import registry

    opened = registry.open_policy(policy)
    chosen: Verifier = FirstCandidate() if verifier is None else opened.verifier(verifier)
    return Pipeline(opened, chosen, n_candidates, noise_scale)


def _refuse_unusable(candidates: Candidates, verdict: Verdict) -> Verdict:
    """A NaN from a network is a refusal, whatever the verifier said; so is a choice that is no candidate, as -1."""
    if verdict.best is None:
        return verdict
    if not 0 <= verdict.best < len(candidates.actions):
        reason = f"the verifier chose candidate {verdict.best} of {len(candidates.actions)}"
        return dataclasses.replace(verdict, best=None, reason=reason)
    if not np.isfinite(candidates.actions[verdict.best]).all():
        return dataclasses.replace(verdict, best=None, reason="the chosen action chunk is not finite")
    if not np.isfinite(verdict.scores).all():
        return dataclasses.replace(verdict, best=None, reason="the verifier's scores are not finite")
    return verdict
