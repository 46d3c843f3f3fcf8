"""A suite behind topics, in place of a robot: cameras, state and instruction out, commands in.

One timer is the robot's clock. At each tick it executes the command that answers the state it published last, or holds
when there is none, and then publishes the new state. Robot time is ticks times the control period, so `rate_scale`
changes how fast time passes and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla import registry
from vla.errors import BadConfig
from vla.types import Command, Mode
from vla_ros import interface, messages
from vla_ros.node import declared, spin


@dataclass(frozen=True)
class SimNodeConfig:
    """Which robot and world."""

    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    rate_scale: float = 1.0
    """How many times faster than real time."""
    seed: int = 2_000_000
    """Of the first episode; each later one's is the next."""
    autostart: bool = False
    """Begin the next episode whenever none is running, instead of waiting to be told."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.rate_scale <= 100:  # slower, a period is longer than the safety node waits for a state
            raise BadConfig(f"rate_scale must be within 0.5 and 100, got {self.rate_scale}")
        if self.seed < 0:
            raise BadConfig(f"seed must not be negative, got {self.seed}")


class SimNode(Node):  # type: ignore[misc]
    """Steps an environment of a suite at its control rate."""

    def __init__(self) -> None:
        """Raises UnknownName, BadConfig."""
        super().__init__("sim")
        config = declared(self, SimNodeConfig)
        self._env = registry.suite(config.suite)().make()
        self._env.reset(config.seed)  # it is looked at before the first episode begins
        self._spec = self._env.spec
        self._seed = config.seed
        self._autostart = config.autostart
        self._wanted = self._running = False
        self._stamp_ns = 0
        self._command: Command | None = None
        self._held = 0
        self._images = {
            c.name: self.create_publisher(ImageMessage, interface.image_topic(c.name), interface.IMAGES)
            for c in self._spec.cameras
        }
        self._state = self.create_publisher(JointState, interface.STATE, interface.NEWEST)
        self._clock_time = self.create_publisher(ClockMessage, "/clock", interface.NEWEST)
        self._instruction = self.create_publisher(String, interface.INSTRUCTION, interface.LATCHED)
        self._episode = self.create_publisher(String, interface.EPISODE, interface.LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, interface.DIAGNOSTICS, interface.EVENTS)
        self._spec_text = self.create_publisher(String, interface.SPEC, interface.LATCHED)
        self._spec_text.publish(String(data=json.dumps(self._spec.to_json())))
        self.create_subscription(JointTrajectory, interface.COMMAND, self._on_command, interface.NEWEST)
        self.create_service(Trigger, "~/next_episode", self._on_next_episode)
        period_s = self._spec.dt_ns / 1e9 / config.rate_scale
        self.create_timer(period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Nothing to say."""

    def _on_command(self, message: JointTrajectory) -> None:
        try:
            command = messages.command_of(message, self._spec)
        except BadConfig as error:
            self._report(messages.ERROR, f"command refused: {error}", {})
            return
        if command.stamp_ns == self._stamp_ns:  # any other answers a state that is gone
            self._command = command

    def _on_next_episode(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._wanted = True
        response.success = True
        return response

    def _tick(self) -> None:
        if self._wanted or (self._autostart and not self._running):
            self._begin()
        elif self._running:
            self._step()
        self._publish()

    def _begin(self) -> None:
        """Start an episode. At a tick, so that no image of the old scene is still under way to the policy."""
        self._env.reset(self._seed)
        self._seed += 1
        self._wanted, self._running, self._command, self._held = False, True, None, 0
        self._say(self._env.instruction)
        self._tell_episode("began")

    def _step(self) -> None:
        hold = Command(np.zeros(len(self._spec.action), np.float32), self._stamp_ns, self._stamp_ns, Mode.HOLD)
        command, self._command = self._command or hold, None
        self._held += command.mode is not Mode.TRACK
        try:
            self._env.step(command)
        except BadConfig as error:
            self._report(messages.ERROR, f"command refused: {error}", {})
            self._env.step(hold)
        if self._env.done:
            self._running = False
            self._say("")
            self._tell_episode("ended")

    def _publish(self) -> None:
        self._stamp_ns += self._spec.dt_ns
        stamp = self._stamp_ns
        observation = self._env.observe()
        begun = time.monotonic_ns()
        self._clock_time.publish(ClockMessage(clock=messages.to_time(stamp)))
        for camera, image in observation.images.items():
            self._images[camera].publish(messages.image_message(image, camera, stamp))
        self._state.publish(messages.state_message(observation.state, self._spec.state, stamp))
        self._report(messages.OK, "", {"published_ns": begun})

    def _say(self, instruction: str) -> None:
        """Tell the policy what to do; "" is nothing."""
        self._instruction.publish(String(data=instruction))

    def _tell_episode(self, event: str) -> None:
        env = self._env
        row = {
            "event": event,
            "seed": self._seed - 1,
            "task": env.task,
            "skill": env.skill,
            "instruction": env.instruction,
            "success": env.success,
            "failure": env.failure,
            "steps": env.steps,
            "held_steps": self._held,
        }
        self._episode.publish(String(data=json.dumps(row)))

    def _report(self, level: bytes, text: str, values: Mapping[str, object]) -> None:
        self._diagnostics.publish(messages.diagnostic("robot", level, text, self._stamp_ns, values))


if __name__ == "__main__":
    sys.exit(spin(SimNode))
