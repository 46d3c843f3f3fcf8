"""The values that flow along the spine: frozen, numpy, unbatched, in physical units.

S state dimensions, A action dimensions, H chunk length, N candidates. What each dimension means (unit, frame,
limits) stands in `vla.spec`. `_ns` is nanoseconds on the clock of whoever made the observation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Observation:
    """What the robot perceives at one instant."""

    images: Mapping[str, Image]
    """One (h, w, 3) uint8 RGB image a camera, keyed by camera name."""
    state: Floats
    """(S,) float32, physical units, in the spec's order."""
    instruction: str
    """What to do, in words."""
    stamp_ns: int = 0
    """When the *oldest* of the inputs above was measured."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The action chunks a policy proposes for one observation."""

    actions: Floats
    """(N, H, A), physical units."""
    log_prob: Floats | None = None
    """(N,) log-probability of each, for heads that know it."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """A verifier's opinion of the candidates, and its choice."""

    scores: Floats
    """(N,); higher is better; comparable only within this verdict."""
    best: int | None
    """Index of the chosen candidate. None refuses them all: HOLD."""
    reason: str = ""
    """Why it refused, or on what ground it chose."""
    p_success: Floats | None = None
    """(N,) in [0, 1], when the verifier is calibrated."""

    @property
    def p_success_of_best(self) -> float | None:
        """How likely the chosen candidate is to end in success; None for a refusal or an uncalibrated verifier."""
        return None if self.best is None or self.p_success is None else float(self.p_success[self.best])


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """H actions to execute at a fixed rate from a known moment."""

    actions: Floats
    """(H, A), physical units."""
    t0_ns: int
    """When action 0 is due."""
    dt_ns: int
    """From one action to the next: the control period the policy was trained at."""


class Mode(enum.Enum):
    """What a Command asks of the robot."""

    TRACK = "track"
    """Follow the action."""
    HOLD = "hold"
    """Stay where you are, under control. What silence means."""
    STOP = "stop"
    """Brake, and stay stopped until a person resets."""


@dataclass(frozen=True, eq=False)
class Command:
    """One action for the robot. Only a command that passed `vla.safety` reaches a motor."""

    action: Floats
    """(A,), physical units, for TRACK alone. Under HOLD and STOP a receiver must not execute it: in an absolute
    dimension it may hold a 0, which is a place."""
    stamp_ns: int
    valid_until_ns: int
    """After this moment the receiver must HOLD."""
    mode: Mode
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Decision:
    """Everything one pass of the pipeline produced: logged, plotted, replayed and tested as it is."""

    observation: Observation
    candidates: Candidates
    verdict: Verdict
    chunk: ActionChunk | None
    """The chosen chunk; None means HOLD, and `verdict.reason` says why."""
    timings_ns: Mapping[str, int] = field(default_factory=dict)
    """Wall time of encode, propose and verify, for the whole batch this decision was made in."""
