"""How close the best of K samples comes to the expert: what a perfect verifier of action error could gain.

RoboMonkey (arXiv 2506.17811) found a power law in K; the same curve is fitted and drawn for our policies. Read it with
care: on the tabletop, lower action error alone did not reliably mean higher success
(docs/methods/privileged_advantage.md).
"""

from __future__ import annotations

import numpy as np

from vla.data.rollouts import Rollouts
from vla.pipeline import Policy
from vla.types import Observation

KS = (1, 2, 4, 8, 16, 32, 64)


def oracle_error(policy: Policy, rollouts: Rollouts, states: int = 256, seed: int = 0) -> dict[str, list[float]]:
    """Mean distance of the best of K samples to the expert's actions, for each K, on branched states.

    Returns:
        {"k": [...], "error": [...]}: root mean square over the executed steps and dimensions, in units of half the
        action limits' span.
    """
    rng = np.random.default_rng(seed)
    n = len(rollouts.branch_decision)
    rows = np.sort(rng.choice(n, min(states, n), replace=False))
    shape = (KS[-1], policy.spec.chunk_size or 0, len(policy.spec.action))
    half_span = (policy.spec.action_high - policy.spec.action_low) / 2
    errors = []
    for part in np.array_split(rows, max(1, len(rows) // 32)):
        decisions = rollouts.branch_decision[part]
        observations = [
            Observation(
                {c: image[d] for c, image in rollouts.images.items()}, rollouts.state[d], rollouts.instruction[d]
            )
            for d in decisions
        ]
        noise = rng.standard_normal((len(part), *shape), np.float32)
        actions, _ = policy.propose(policy.encode(observations), noise)
        off = (actions[:, :, : rollouts.n_action_steps] - rollouts.branch_expert[part][:, None]) / half_span
        errors.append(np.sqrt(np.square(off).mean((2, 3))))
    best = np.minimum.accumulate(np.concatenate(errors), axis=1)
    return {"k": [float(k) for k in KS], "error": [float(best[:, k - 1].mean()) for k in KS]}
