"""The simulator as verifier: execute every candidate, look where it led, put the world back. An upper bound.

No robot can do this. It tells how much of the gap between a single sample and a perfect choice a learned verifier
has closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vla import stacking
from vla.safety import SafetyFilter
from vla.schedule import ChunkSchedule
from vla.spec import Spec
from vla.types import ActionChunk, Floats, Observation, Verdict
from vla_sim.env import Env


def try_candidate(env: Env, spec: Spec, actions: Floats, n_action_steps: int) -> tuple[Floats, float]:
    """Execute the first actions of a chunk (H, A) as they would be, and stay there.

    Returns:
        The privileged features reached, and 1 when the episode ended in success, 0 in failure, NaN when it goes on.
    """
    schedule, safety = ChunkSchedule(spec, n_action_steps), SafetyFilter(spec)
    schedule.accept(ActionChunk(actions, env.steps * spec.dt_ns, spec.dt_ns))
    for _ in range(n_action_steps):
        now_ns = env.steps * spec.dt_ns
        env.step(safety.check(schedule.command(now_ns), now_ns, env.state()))
        if env.done:
            break
    goes_on = not env.done or env.failure == "timeout"
    return env.privileged(), np.nan if goes_on else float(env.success)


class SimulatorOracle:
    """Scores a candidate by a privileged value of the state it leads to."""

    def __init__(self, spec: Spec, value: Callable[[Floats], Floats], n_action_steps: int) -> None:
        """`value` maps features (N, P) to (N,)."""
        self._spec = spec
        self._value = value
        self._n = n_action_steps
        self._envs: list[Env] = []

    def look(self, envs: list[Env]) -> None:
        """The environments that the next `verify` is about: `run_episodes(before_decide=oracle.look)`."""
        self._envs = list(envs)

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        """Try all candidates of all environments."""
        scores = np.empty(actions.shape[:2], np.float32)
        for i, env in enumerate(self._envs):
            start = env.snapshot()
            reached, ends = [], []
            for chunk in actions[i]:
                features, end = try_candidate(env, self._spec, chunk, self._n)
                reached.append(features)
                ends.append(end)
                env.restore(start)
            scores[i] = np.where(np.isnan(ends), self._value(np.stack(reached)), ends)
        return stacking.verdicts(scores)
