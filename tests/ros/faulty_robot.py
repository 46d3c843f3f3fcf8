"""A robot whose sensors break in every way there is, as a node: `sim/next_episode` goes on to the next fault.

Faults are named in `FAULTS`, in order; the last one is none. The fault in force is told on the episode topic.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla import registry
from vla_ros import interface, messages
from vla_ros.node import spin

FAULTS = (
    "nan_state",
    "renamed_state",
    "short_state",
    "no_stamp",
    "small_image",
    "bgr_image",
    "cut_image",
    "empty_image",
    "no_wrist",
    "late_agent",
    "two_robots",
    "two_policies",
    "unknown_words",
    "endless_words",
    "no_words",
    "engine_breaks",
    "none",
)


class FaultyRobot(Node):  # type: ignore[misc]
    """Publishes one fault at a time, at 20 Hz."""

    def __init__(self) -> None:
        super().__init__("sim")
        self._spec = registry.suite("tabletop")().spec
        self._fault, self._stamp_ns = -1, 0
        self._doubles: list[Any] = []
        """Publishers that a second robot, or a second policy, would have."""
        self._state = self.create_publisher(JointState, interface.STATE, interface.NEWEST)
        self._images = {
            c.name: self.create_publisher(ImageMessage, interface.image_topic(c.name), interface.IMAGES)
            for c in self._spec.cameras
        }
        self._instruction = self.create_publisher(String, interface.INSTRUCTION, interface.LATCHED)
        self._episode = self.create_publisher(String, interface.EPISODE, interface.LATCHED)
        self._spec_text = self.create_publisher(String, interface.SPEC, interface.LATCHED)
        self._spec_text.publish(String(data=json.dumps(self._spec.to_json())))
        self.create_service(Trigger, "~/next_episode", self._next)
        self.create_timer(0.05, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Nothing to say."""

    def _next(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._fault += 1
        fault = FAULTS[self._fault]
        words = {"unknown_words": "sing", "engine_breaks": "break", "endless_words": "lift " * 10_000, "no_words": ""}
        self._instruction.publish(String(data=words.get(fault, "lift")))
        self._episode.publish(String(data=json.dumps({"event": fault})))
        for publisher in self._doubles:
            self.destroy_publisher(publisher)
        self._doubles.clear()
        if fault == "two_robots":
            self._doubles.append(self.create_publisher(JointState, interface.STATE, interface.NEWEST))
        if fault == "two_policies":
            self._doubles.append(self.create_publisher(JointTrajectory, interface.CHUNK, interface.WATCHED))
        response.success = True
        return response

    def _tick(self) -> None:
        if self._fault < 0:
            return
        self._stamp_ns += self._spec.dt_ns
        fault = FAULTS[self._fault]
        stamp = 0 if fault == "no_stamp" else self._stamp_ns
        if fault == "two_policies":
            for policy in self._doubles:
                policy.assert_liveliness()
        observation = self._spec.fake_observation()
        for camera, image in observation.images.items():
            if fault == "no_wrist" and camera == "wrist":
                continue
            shown = {"small_image": image[:32], "empty_image": image[:0, :0]}.get(fault, image)
            late = 5 * self._spec.dt_ns if fault == "late_agent" and camera == "agent" else 0
            message = messages.image_message(shown, camera, max(stamp - late, 0))
            if fault == "bgr_image":
                message.encoding = "bgr8"
            if fault == "cut_image":
                message.data = message.data[:100]
            self._images[camera].publish(message)
        state = observation.state.copy()
        if fault == "nan_state":
            state[0] = np.nan
        message = messages.state_message(state, self._spec.state, stamp)
        if fault == "renamed_state":
            message.name = ["tool", *message.name[1:]]
        if fault == "short_state":
            message.position = message.position[:2]
        self._state.publish(message)


if __name__ == "__main__":
    sys.exit(spin(FaultyRobot))
