"""From chunks at the policy's pace to one action a control period.

Pure and clockless: whoever calls says what time it is. In lock-step simulation that is simulation time; on a robot it
is the safety node's clock, and the node re-stamps a chunk's `t0_ns` to the tick it will start on, so that the time
the policy spent thinking does not skip actions.
"""

from __future__ import annotations

import numpy as np

from vla.errors import BadConfig
from vla.spec import Spec
from vla.types import ActionChunk, Command, Floats, Mode


class ChunkSchedule:
    """Hands out the newest chunk's actions, each at its time and never twice.

    Executing a delta twice moves the arm twice, so an action that was issued is gone: asked again within the same
    period, the schedule says HOLD. An action whose period has passed unasked is skipped, never made up for.
    """

    def __init__(self, spec: Spec, n_action_steps: int) -> None:
        """Raises BadConfig when `n_action_steps` is not within the chunk."""
        if not 1 <= n_action_steps <= (spec.chunk_size or 0):
            raise BadConfig(f"n_action_steps must be within 1 and the chunk's {spec.chunk_size}, got {n_action_steps}")
        self._spec = spec
        self._n = n_action_steps
        self._chunk: ActionChunk | None = None
        self._issued = -1
        self._why = "no chunk yet"

    def accept(self, chunk: ActionChunk) -> None:
        """Replace what was left of the previous chunk.

        Raises:
            BadConfig: another control period, shape, or a value that is not finite; the previous chunk goes on.
        """
        shape = (self._spec.chunk_size, len(self._spec.action))
        if chunk.dt_ns != self._spec.dt_ns:
            raise BadConfig(
                f"chunk period {chunk.dt_ns / 1e6:g} ms, the robot's is {self._spec.dt_ns / 1e6:g} ms: run the policy "
                "at the rate it was trained at"
            )
        if chunk.actions.shape != shape:
            raise BadConfig(f"chunk shape {chunk.actions.shape}, the spec wants {shape}")
        if not np.isfinite(chunk.actions).all():
            raise BadConfig("chunk holds NaN or infinity")
        self._chunk, self._issued = chunk, -1

    def clear(self, reason: str) -> None:
        """Forget the chunk; HOLD for this reason until the next one."""
        self._chunk, self._why = None, reason

    def command(self, now_ns: int) -> Command:
        """What to do in the control period around `now_ns`."""
        chunk, dt = self._chunk, self._spec.dt_ns
        if chunk is None:
            return self._hold(now_ns, self._why)
        # The nearest period, not the one begun last: a tick that comes a little early is still this tick.
        index = (now_ns - chunk.t0_ns + dt // 2) // dt
        if index < 0:
            return self._hold(now_ns, "the chunk is not due yet")
        if index >= self._n:
            return self._hold(now_ns, f"the chunk's {self._n} actions are used up and no new one came")
        if index <= self._issued:
            return self._hold(now_ns, f"action {index} was already issued in this period")
        self._issued = index
        action: Floats = chunk.actions[index]
        return Command(action, now_ns, now_ns + dt, Mode.TRACK)

    def _hold(self, now_ns: int, reason: str) -> Command:
        still = np.zeros(len(self._spec.action), np.float32)
        return Command(still, now_ns, now_ns + self._spec.dt_ns, Mode.HOLD, reason)
