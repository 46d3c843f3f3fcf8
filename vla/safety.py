"""The last hop. Whatever arrives, what leaves is within limits, or HOLD, or STOP.

Knows nothing of policies: it believes no number it was given, holds when it hears nothing, and is on by default with
the limits of the spec. On a robot it runs in a process of its own, so that a policy that crashes, hangs or raves
cannot take it along. It is a software guard, not a safety-rated one: an arm among people needs both
(docs/safety.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla.errors import BadConfig
from vla.spec import Dim, Spec
from vla.types import Command, Floats, Mode


@dataclass(frozen=True)
class SafetyConfig:
    """How strict the filter is."""

    overshoot: float = 0.02
    """An action out of limits by up to this fraction of their span is clamped: numerical noise. Beyond: HOLD."""
    violations_to_stop: int = 5
    """This many refused commands in a row latch STOP."""
    clock_tolerance_ns: int = 20_000_000
    """How far in the future a command's stamp may lie [ns]: clocks of two processes disagree a little."""

    def __post_init__(self) -> None:
        if not 0 <= self.overshoot <= 0.1:
            raise BadConfig(f"safety overshoot must be within 0 and 0.1 of the span, got {self.overshoot}")
        if self.violations_to_stop < 1 or self.clock_tolerance_ns < 0:
            raise BadConfig("safety violations_to_stop must be at least 1 and clock_tolerance_ns not negative")


class SafetyFilter:
    """Checks one command a control period."""

    def __init__(self, spec: Spec, config: SafetyConfig = SafetyConfig()) -> None:
        self._spec = spec
        self._config = config
        self._low, self._high = spec.action_low, spec.action_high
        self._is_delta = np.array([d.kind != "absolute" for d in spec.action])
        names = [d.name for d in spec.state]
        self._moves = [(i, names.index(d.moves)) for i, d in enumerate(spec.action) if d.moves is not None]
        # The same name is not enough: a gripper is sent as -1 to 1 and measured in metres, a velocity is no position.
        self._measures = [(i, j) for i, a in enumerate(spec.action) for j, s in enumerate(spec.state) if _same(a, s)]
        self._sent: Floats | None = None
        self._known = np.zeros(len(spec.action), bool)
        """Where `_sent` was sent, or measured: a rate can count from it."""
        self._moving = False
        """The last command was TRACK."""
        self._violations = 0
        self._stopped = ""

    @property
    def stopped(self) -> str:
        """Why STOP is latched; "" when it is not."""
        return self._stopped

    def stop(self, reason: str) -> None:
        """Latch STOP: the e-stop button, or whoever sees a reason."""
        self._stopped = reason or "stop requested"

    def reset(self) -> None:
        """Release STOP. For a person to call, never for a program on its own."""
        self._stopped, self._violations = "", 0

    def check(self, command: Command | None, now_ns: int, state: Floats | None = None) -> Command:
        """What may go to the robot now.

        Args:
            command: what the schedule wants; None when it was silent.
            now_ns: the time.
            state: (S,) measured state, if known: it bounds where deltas may lead.
        """
        if self._sent is None and state is not None and state.shape == (len(self._spec.state),):
            self._begin_at(state)
        if self._stopped:
            return self._still(Mode.STOP, now_ns, self._stopped)
        if command is None:
            return self._still(Mode.HOLD, now_ns, "silence")
        if command.mode is Mode.STOP:
            self.stop(command.reason)
            return self._still(Mode.STOP, now_ns, self._stopped)
        if command.mode is Mode.HOLD:
            return self._still(Mode.HOLD, now_ns, command.reason)
        if now_ns > command.valid_until_ns:
            late_ms = (now_ns - command.valid_until_ns) / 1e6
            return self._still(Mode.HOLD, now_ns, f"the command is {late_ms:.0f} ms out of date")
        refused = self._why_refused(command, now_ns, state)
        if refused:
            self._violations += 1
            if self._violations >= self._config.violations_to_stop:
                self.stop(f"{self._violations} commands in a row were refused, the last: {refused}")
                return self._still(Mode.STOP, now_ns, self._stopped)
            return self._still(Mode.HOLD, now_ns, refused)
        self._violations = 0
        if not self._moving and state is not None:
            self._begin_at(state)  # while it stood still, a person may have moved the arm
        action, said = self._bounded(command.action)
        self._sent, self._moving = action.copy(), True  # whoever gets the command may scale it in place
        self._known[:] = True
        return Command(action, now_ns, min(command.valid_until_ns, now_ns + self._spec.dt_ns), Mode.TRACK, said)

    def _begin_at(self, state: Floats) -> None:
        """After standing still: absolute dimensions are where the state of the same name says.

        But for a gripper, which was sent further than it is measured as long as it grasps something.
        """
        measured = np.zeros(len(self._spec.action), np.float32) if self._sent is None else self._sent.copy()
        for i, j in self._measures:
            if self._sent is None or self._spec.action[i].frame != "gripper":
                measured[i] = state[j]
        if np.isfinite(measured).all():
            self._sent = np.clip(measured, self._low, self._high)
            self._known[[i for i, _ in self._measures]] = True

    def _why_refused(self, command: Command, now_ns: int, state: Floats | None) -> str:
        """What is wrong with a TRACK command beyond repair; "" when nothing is."""
        action = np.asarray(command.action)
        if action.shape != self._low.shape or action.dtype.kind != "f":
            return f"the action is {action.dtype} {action.shape}, not float {self._low.shape}"
        if not np.isfinite(action).all():
            return "the action holds NaN or infinity"
        if command.stamp_ns > now_ns + self._config.clock_tolerance_ns:
            return f"the command is stamped {(command.stamp_ns - now_ns) / 1e6:.0f} ms in the future"
        slack = self._config.overshoot * (self._high - self._low)
        beyond = (action < self._low - slack) | (action > self._high + slack)
        if beyond.any():
            i = int(np.flatnonzero(beyond)[0])
            return f"{self._spec.action[i].name} = {action[i]:.4g} is outside [{self._low[i]:.4g}, {self._high[i]:.4g}]"
        if state is not None:
            if state.shape != (len(self._spec.state),) or not np.isfinite(state).all():
                return "the measured state has the wrong shape, or NaN"
            for dim, value in zip(self._spec.state, state, strict=True):
                if not -(dim.high - dim.low) <= value - dim.low <= 2 * (dim.high - dim.low):
                    return f"{dim.name} is measured as {value:.4g} {dim.unit}, far from [{dim.low:.4g}, {dim.high:.4g}]"
            for i, j in self._moves:
                dim, reached = self._spec.state[j], float(state[j] + action[i])
                outward = (reached > dim.high and action[i] > 0) or (reached < dim.low and action[i] < 0)
                if outward:
                    return f"{self._spec.action[i].name} would move {dim.name} to {reached:.3f}, out of the workspace"
        return ""

    def _bounded(self, wanted: Floats) -> tuple[Floats, str]:
        """Clamp numerical overshoot, and limit the rate of each dimension that has one; says what it changed."""
        action = np.clip(wanted, self._low, self._high).astype(np.float32)
        for i, dim in enumerate(self._spec.action):
            if dim.max_rate is None:
                continue
            most = dim.max_rate / self._spec.control_rate_hz
            if dim.kind in ("delta", "offset"):  # it is the change itself
                action[i] = np.clip(action[i], -most, most)
            elif dim.kind == "velocity" or self._known[i]:
                before = 0.0 if self._sent is None else self._sent[i]
                action[i] = np.clip(action[i], before - most, before + most)
        changed = np.flatnonzero(action != np.asarray(wanted, np.float32))
        said = ", ".join(f"{self._spec.action[i].name} {wanted[i]:.4g} -> {action[i]:.4g}" for i in changed)
        return action, f"limited: {said}" if said else ""

    def _still(self, mode: Mode, now_ns: int, reason: str) -> Command:
        """No motion: deltas are zero, absolute dimensions stay where they were last sent."""
        action = np.zeros(len(self._spec.action), np.float32) if self._sent is None else self._sent.copy()
        action[self._is_delta] = 0.0
        self._moving = False
        if self._sent is not None:
            self._sent = action.copy()  # a velocity is zero now
        return Command(action, now_ns, now_ns + self._spec.dt_ns, mode, reason)


def _same(action: Dim, state: Dim) -> bool:
    """The state measures the very quantity that an absolute action sets."""
    set_by, measured = ((d.name, d.unit, d.kind, d.frame) for d in (action, state))
    return action.kind == "absolute" and set_by == measured
