"""A robot that stands still before a board: publishes one recorded view again and again, `next_episode` the next one.

What it hears of the calibration node's latched topics it passes on as diagnostics.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

from vla_ros import interface, messages
from vla_ros.calibration_node import ARM_JOINTS, HAND_POSE, NEXT_HAND_POSE, NEXT_JOINTS
from vla_ros.node import spin

JOINTS = [f"joint{i}" for i in range(1, 8)]


class BoardRobot(Node):  # type: ignore[misc]
    """Views come from an npz: images (N, h, w, 3), poses (N, 4, 4), joints (N, 7)."""

    def __init__(self) -> None:
        super().__init__("sim")
        path = self.declare_parameter("views", "").value
        with np.load(path, allow_pickle=False) as data:
            self._views = {name: data[name] for name in ("images", "poses", "joints")}
        self._at, self._stamp_ns = -1, 0
        self._heard: dict[str, dict[str, object]] = {}
        self._image = self.create_publisher(ImageMessage, interface.image_topic("agent"), interface.IMAGES)
        self._hand = self.create_publisher(PoseStamped, HAND_POSE, interface.NEWEST)
        self._joints = self.create_publisher(JointState, ARM_JOINTS, interface.NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, interface.DIAGNOSTICS, interface.EVENTS)
        self.create_subscription(CameraInfo, "camera/agent/camera_info", self._on_info, interface.LATCHED)
        self.create_subscription(TransformStamped, "camera/agent/transform", self._on_transform, interface.LATCHED)
        self.create_subscription(PoseStamped, NEXT_HAND_POSE, self._on_next_pose, interface.LATCHED)
        self.create_subscription(JointState, NEXT_JOINTS, self._on_next_joints, interface.LATCHED)
        self.create_service(Trigger, "~/next_episode", self._next)
        self.create_timer(0.05, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Nothing to say."""

    def _next(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._at += 1
        response.success = True
        return response

    def _tick(self) -> None:
        self._stamp_ns += 50_000_000
        for text, values in self._heard.items():  # again and again: who listens may have come late
            status = messages.diagnostic("heard", messages.OK, text, self._stamp_ns, values)
            self._diagnostics.publish(status)
        if self._at < 0:
            return
        self._image.publish(messages.image_message(self._views["images"][self._at], "agent", self._stamp_ns))
        pose, T = PoseStamped(), self._views["poses"][self._at]
        pose.header.stamp = messages.to_time(self._stamp_ns)
        p, q = pose.pose.position, pose.pose.orientation
        p.x, p.y, p.z = map(float, T[:3, 3])
        q.x, q.y, q.z, q.w = map(float, Rotation.from_matrix(T[:3, :3]).as_quat())
        self._hand.publish(pose)
        joints = JointState(name=JOINTS, position=self._views["joints"][self._at].tolist())
        joints.header.stamp = messages.to_time(self._stamp_ns)
        self._joints.publish(joints)

    def _on_info(self, message: CameraInfo) -> None:
        self._heard["info"] = {"fx": message.k[0], "model": message.distortion_model, "width": message.width}

    def _on_transform(self, message: TransformStamped) -> None:
        self._heard["transform"] = {"parent": message.header.frame_id, "x": message.transform.translation.x}

    def _on_next_pose(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        pose = [p.x, p.y, p.z, q.x, q.y, q.z, q.w]
        self._heard["next pose"] = {"frame": message.header.frame_id, "pose": json.dumps(pose)}

    def _on_next_joints(self, message: JointState) -> None:
        self._heard["next joints"] = {"joints": json.dumps(dict(zip(message.name, message.position, strict=True)))}


if __name__ == "__main__":
    sys.exit(spin(BoardRobot))
