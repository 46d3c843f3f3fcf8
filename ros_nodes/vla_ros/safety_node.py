"""The last hop, in a process of its own: chunks in, one checked command a control period out.

The robot's state is the clock: each state message is answered with exactly one TRACK at most, so no delta is executed
twice or lost between two timers that drift. A chunk that arrives after the period's HOLD is started at once. HOLD goes
out when the chunk is used up, when the policy's process dies or freezes (liveliness), when the robot's state stops,
when the instruction changes, and as the last word of this process.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla.errors import BadConfig, BadObservation, SpecMismatch
from vla.safety import SafetyConfig, SafetyFilter
from vla.schedule import ChunkSchedule
from vla.spec import Spec, require_match
from vla.types import Floats, Mode
from vla_ros import interface, messages
from vla_ros.node import declared, spin


@dataclass(frozen=True)
class SafetyNodeConfig:
    """What the node needs to know beside `vla.safety.SafetyConfig`."""

    spec: str = ""
    """The policy's spec.json, e.g. runs/demo/bundle/spec.json."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed; then HOLD until the next chunk."""
    max_age_s: float = 1.0
    """A chunk made from an observation older than this [s] is refused: the world has moved on."""

    def __post_init__(self) -> None:
        if not 0 < self.max_age_s <= 60:
            raise BadConfig(f"max_age_s must be above 0 and at most 60, got {self.max_age_s}")


class SafetyNode(Node):  # type: ignore[misc]
    """Holds the chunk schedule and the safety filter."""

    def __init__(self) -> None:
        """Raises BadConfig."""
        super().__init__("safety")
        config = declared(self, SafetyNodeConfig)
        self._spec = Spec.load(Path(config.spec))
        self._schedule = ChunkSchedule(self._spec, config.n_action_steps)
        self._filter = SafetyFilter(self._spec, declared(self, SafetyConfig))
        self._max_age_ns = round(config.max_age_s * 1e9)
        self._robot_known = False
        self._mismatch = ""
        """Why the robot's spec is not the policy's; no reset makes it so."""
        self._told = ""
        """The STOP that was logged."""
        self._instruction = ""
        self._policies = 0
        """Policies alive on the chunk topic."""
        self._state: Floats | None = None
        self._bad_state = "the robot's state was not heard yet"
        """Why `_state` is None."""
        self._stamp_ns = 0
        """The newest state's: what time it is."""
        self._frozen = False
        """The newest state has no stamp, or that of the one before."""
        self._tracked_ns = -1
        """The state that was last answered with TRACK."""
        self._observed_ns = 0
        """The observation the current chunk was made from."""
        self._cleared_ns = 0
        """Chunks made from earlier observations are refused."""
        self._heard_s = time.monotonic()
        self._ending = False
        period_s = self._spec.dt_ns / 1e9
        self._silence_s = 2.5 * period_s
        self._command = self.create_publisher(JointTrajectory, interface.COMMAND, interface.NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, interface.DIAGNOSTICS, interface.EVENTS)
        self.create_subscription(JointState, interface.STATE, self._on_state, interface.NEWEST)
        self.create_subscription(String, interface.SPEC, self._on_spec, interface.LATCHED)
        self.create_subscription(String, interface.INSTRUCTION, self._on_instruction, interface.LATCHED)
        self.create_subscription(
            JointTrajectory,
            interface.CHUNK,
            self._on_chunk,
            interface.WATCHED,
            event_callbacks=interface.watched_by(self._on_liveliness),
        )
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        # Steady: this watch must not stand still with a simulated clock.
        self.create_timer(period_s, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """HOLD is the last word."""
        self._ending = True
        self._answer()
        for publisher in (self._command, self._diagnostics):
            publisher.wait_for_all_acked(Duration(seconds=0.3))  # what was not read by then is lost with this process

    def _on_state(self, message: JointState) -> None:
        stamp = messages.to_ns(message.header.stamp)
        if stamp < self._stamp_ns:
            self._forget("the robot's clock went back", stamp)
        self._heard_s = time.monotonic()
        self._frozen = stamp <= 0 or stamp == self._stamp_ns
        self._stamp_ns = stamp
        try:
            self._state = messages.state_of(message, self._spec.state)
        except BadObservation as error:
            self._state, self._bad_state = None, str(error)
            self._forget(self._bad_state, stamp)
        self._answer()

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            chunk = messages.chunk_of(message, self._spec)
            oldest = max(self._cleared_ns, self._stamp_ns - self._max_age_ns)
            # A state may come after the chunk that was made of it. Later still is a clock that is gone: the robot was
            # started again while the policy thought.
            if not oldest <= chunk.t0_ns < self._stamp_ns + 2 * self._spec.dt_ns:
                self._report(messages.WARN, "chunk refused: its observation is out of date, or of another clock", {})
                return
            busy = self._tracked_ns == self._stamp_ns  # this period has its action: begin with the next
            start = self._stamp_ns + (self._spec.dt_ns if busy else 0)
            self._schedule.accept(dataclasses.replace(chunk, t0_ns=start))
        except BadConfig as error:
            self._report(messages.ERROR, f"chunk refused: {error}", {})
            return
        self._observed_ns = chunk.t0_ns
        if not busy:
            self._answer()

    def _on_liveliness(self, event: Any) -> None:
        self._policies = event.alive_count
        if event.alive_count == 0:
            self._forget("the policy is gone: its process ended or froze", self._stamp_ns)
            self._answer()

    def _on_instruction(self, message: String) -> None:
        if message.data != self._instruction:
            self._instruction = message.data
            # Not even from the newest observation: the policy may have decided on it before it heard.
            self._forget("the instruction changed", self._stamp_ns + 1)
            self._answer()

    def _on_spec(self, message: String) -> None:
        self._mismatch = ""
        try:
            require_match(self._spec, Spec.from_text(message.data, "the robot's spec"), "the policy", "the robot")
        except (BadConfig, SpecMismatch) as error:
            self._mismatch = str(error)
            self._filter.stop(self._mismatch)
        self._robot_known = True

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._filter.stop("stop requested")
        self._forget("stopped", self._stamp_ns)
        self._answer()
        response.success, response.message = True, "STOP; call reset when it is safe"
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._mismatch:
            response.success, response.message = False, self._mismatch
            return response
        response.success, response.message = True, f"was: {self._filter.stopped or 'not stopped'}"
        self._forget("reset", self._stamp_ns)
        self._filter.reset()
        return response

    def _watch(self) -> None:
        if silent := self._silent():
            self._forget(silent, self._stamp_ns)
            self._answer()

    def _silent(self) -> str:
        silence_s = time.monotonic() - self._heard_s
        return f"no state from the robot for {silence_s:.1f} s" if silence_s > self._silence_s else ""

    def _forget(self, reason: str, stamp_ns: int) -> None:
        self._schedule.clear(reason)
        self._cleared_ns = stamp_ns

    def _answer(self) -> None:
        """Publish the command for the current period."""
        now = self._stamp_ns
        wanted = self._schedule.command(now)
        if doubt := self._doubt():
            wanted = dataclasses.replace(wanted, mode=Mode.HOLD, reason=doubt)
        command = self._filter.check(wanted, now, self._state)
        if command.mode is Mode.TRACK:
            self._tracked_ns = now
        self._tell_a_person()
        self._command.publish(messages.command_message(command, self._spec))
        published = time.monotonic_ns()
        level = {Mode.TRACK: messages.OK, Mode.HOLD: messages.WARN, Mode.STOP: messages.ERROR}[command.mode]
        values = {
            "mode": command.mode.value,
            "observed_ns": self._observed_ns,
            "published_ns": published,
            "robot_known": self._robot_known,
        }
        self._report(level, command.reason, values)

    def _tell_a_person(self) -> None:
        """Log a STOP once: it stays until somebody resets it."""
        if self._filter.stopped and self._filter.stopped != self._told:
            self.get_logger().error(f"STOP: {self._filter.stopped}. Call safety/reset once the cause is gone")
        self._told = self._filter.stopped

    def _doubt(self) -> str:
        """Why nobody can know what is right to do now, whatever the chunk says; "" when all is clear."""
        if self._ending:
            return "the safety node is ending"
        if silent := self._silent():
            return silent
        if not self._robot_known:
            return "the robot's spec was not heard yet"
        if self._state is None:
            return self._bad_state
        if self._frozen:
            return f"the robot's clock stands still at {self._stamp_ns / 1e9:.3f} s: stamp each state anew"
        if not self._instruction:
            return "there is no instruction"
        if self._policies > 1:
            return f"{self._policies} policies send chunks: end all but one"
        for topic, who in ((interface.STATE, "robots publish the state"), (interface.COMMAND, "nodes send commands")):
            if (count := self.count_publishers(topic)) > 1:
                return f"{count} {who}: end all but one"
        return ""

    def _report(self, level: bytes, text: str, values: Mapping[str, object]) -> None:
        self._diagnostics.publish(messages.diagnostic("safety", level, text, self._stamp_ns, values))


if __name__ == "__main__":
    sys.exit(spin(SafetyNode))
