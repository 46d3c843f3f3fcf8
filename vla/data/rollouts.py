"""What verifiers learn from: the policy's own rollouts in simulation, with branches where the simulator was restored.

A *decision* is one pass of the pipeline. At a *branched* decision all M candidates were executed in turn from the
same restored simulator state for `n_action_steps`, and the state each led to was written down. Privileged features
are low-dimensional simulator state: used to make labels, never seen by a verifier at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vla.types import Floats, Image


@dataclass(frozen=True, eq=False)
class Rollouts:
    """E episodes, D decisions, T control steps, R branched decisions, X of the expert's control steps.

    M candidates, P privileged features.
    """

    images: dict[str, Image]
    """Camera -> (D, h, w, 3) uint8, what the policy saw at each decision."""
    state: Floats
    """(D, S) physical units."""
    instruction: list[str]
    """D instructions."""
    chosen: Floats
    """(D, H, A) the chunk whose first `n_action_steps` were executed."""
    episode: npt.NDArray[np.int64]
    """(D,) which episode a decision belongs to; decisions of an episode are consecutive."""
    n_action_steps: int
    """Actions of each chunk that were executed before the next decision."""

    success: npt.NDArray[np.bool_]
    """(E,) outcome of each episode."""
    step_privileged: Floats
    """(T, P) features before every control step of every episode."""
    step_episode: npt.NDArray[np.int64]
    """(T,)."""
    steps_to_end: npt.NDArray[np.int64]
    """(T,) control steps from here to the end of the episode."""
    expert_privileged: Floats
    """(X, P) features before every control step of episodes that the scripted expert brought to success."""
    expert_steps_to_end: npt.NDArray[np.int64]
    """(X,) control steps from there to the success."""

    branch_decision: npt.NDArray[np.int64]
    """(R,) index into the D decisions."""
    branch_actions: Floats
    """(R, M, H, A) candidates executed from the restored state."""
    branch_before: Floats
    """(R, P) features at the decision."""
    branch_after: Floats
    """(R, M, P) features after executing each candidate."""
    branch_end: Floats
    """(R, M) 1 if the candidate ended the episode in success, 0 if in failure, NaN if it goes on."""
    branch_expert: Floats
    """(R, n_action_steps, A) what the scripted expert would have done; for the comparison with DAgger only."""
