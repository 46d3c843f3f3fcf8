"""Captures calibration views on a robot, and publishes what is calibrated: latched transforms and camera_info.

Capture: the arm is moved by a person or a planner; `~/capture` (std_srvs/Trigger) takes the newest image, with the
hand's pose and the joint states of the same moment, into a session folder. Its answer says what the view was worth, or
why it was refused. Publish: every calibrated camera of the robot's file, once, latched.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

from vla.errors import BadConfig, VlaError
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel
from vla_calibration.capture import advice
from vla_calibration.export import ROS_MODELS
from vla_calibration.geometry import transform
from vla_calibration.rig import View
from vla_calibration.session import Session, SessionConfig
from vla_calibration.store import CameraEntry, load
from vla_ros import interface, messages
from vla_ros.node import declared, spin

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # not among the wheels; there a camera's transform has a topic of its own
    TFMessage = None

HAND_POSE = "hand_pose"
"""geometry_msgs/PoseStamped: the hand in the base frame, by the arm's own kinematics."""
ARM_JOINTS = "arm_joints"
"""sensor_msgs/JointState of the arm as its encoders report it; `state` holds the policy's own dimensions."""
_MAX_APART_NS = 20_000_000
"""Image and pose may be so far apart: the arm stands still for a view."""


@dataclass(frozen=True)
class CalibrationNodeConfig:
    """What is captured and published; leave `session` or `store` empty for only one of them."""

    store: str = ""
    """The robot's calibration file to publish."""
    session: str = ""
    """Folder to capture views into; an interrupted session goes on."""
    robot: str = "panda_tabletop"
    """Name of the robot."""
    camera: str = "agent"
    """Camera that is captured."""
    setup: str = "eye_to_hand"
    """eye_in_hand or eye_to_hand."""
    lens: str = "radtan"
    """radtan or fisheye."""
    columns: int = 10
    """Squares of the ChArUco board across."""
    rows: int = 7
    """Squares down."""
    square_m: float = 0.025
    """Side of a square, as measured on the print [m]."""
    marker_m: float = 0.018
    """Side of a marker [m]."""
    base_frame: str = "base"
    """Frame id of the arm's base."""
    hand_frame: str = "hand"
    """Frame id of the arm's hand."""

    def __post_init__(self) -> None:
        if self.setup not in ("eye_in_hand", "eye_to_hand") or self.lens not in ROS_MODELS:
            raise BadConfig(f"setup {self.setup!r} or lens {self.lens!r}: see the parameters' descriptions")
        if not self.store and not self.session:
            raise BadConfig("give `store` to publish a calibration, `session` to capture one, or both")


class CalibrationNode(Node):  # type: ignore[misc]
    """One robot's calibration, being taken or being told."""

    def __init__(self) -> None:
        """Raises BadConfig, BadCalibration."""
        super().__init__("calibration")
        self._config = declared(self, CalibrationNodeConfig)
        self._image: ImageMessage | None = None
        self._hand: PoseStamped | None = None
        self._joints: JointState | None = None
        self._session: Session | None = None
        self._publishers_kept: list[Any] = []
        if self._config.store:
            self._publish(load(Path(self._config.store), self._config.robot).cameras)
        if self._config.session:
            topic = interface.image_topic(self._config.camera)
            self.create_subscription(ImageMessage, topic, self._on_image, interface.IMAGES)
            self.create_subscription(PoseStamped, HAND_POSE, self._on_hand, interface.NEWEST)
            self.create_subscription(JointState, ARM_JOINTS, self._on_joints, interface.NEWEST)
            self.create_service(Trigger, "~/capture", self._on_capture)

    def close(self) -> None:
        """Every view is on disk already."""

    def _on_image(self, message: ImageMessage) -> None:
        self._image = message

    def _on_hand(self, message: PoseStamped) -> None:
        self._hand = message

    def _on_joints(self, message: JointState) -> None:
        self._joints = message

    def _on_capture(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = self._capture()
            response.success = True
        except VlaError as error:
            response.message = str(error)
            response.success = False
        return response

    def _capture(self) -> str:
        """Take one view. Raises BadConfig, BadCalibration, BadObservation."""
        if self._image is None or self._hand is None:
            lacking = [n for n, m in ((self._config.camera, self._image), (HAND_POSE, self._hand)) if m is None]
            raise BadConfig(f"nothing came yet from {' and '.join(lacking)}: is its publisher running?")
        stamp_ns = messages.to_ns(self._image.header.stamp)
        apart = abs(messages.to_ns(self._hand.header.stamp) - stamp_ns)
        if apart > _MAX_APART_NS:
            raise BadConfig(
                f"image and {HAND_POSE} are {apart / 1e6:.0f} ms apart, at most {_MAX_APART_NS / 1e6:.0f} are allowed: "
                "wait until the arm stands still, and check that both use one clock"
            )
        image = messages.image_of(self._image)
        session = self._opened(image.shape[1], image.shape[0])
        found = session.config.board.detect(image)
        if found is None:
            raise BadConfig("the board is not found in the image: light, focus, distance, or another board?")
        joints = None if self._joints is None else np.array(self._joints.position, np.float64)
        session.add(View(found, _pose(self._hand), joints, stamp_ns, self._config.camera))
        corners = f"{len(found.ids)} of {session.config.board.n_corners} corners"
        return f"view {len(session.views)}: {corners}; {advice(session)}"

    def _opened(self, width: int, height: int) -> Session:
        """The session, begun with the first image's size; an image of another size is refused by `Session.create`."""
        c = self._config
        board = Board(columns=c.columns, rows=c.rows, square_m=c.square_m, marker_m=c.marker_m)
        if self._session is None or (self._session.config.width, self._session.config.height) != (width, height):
            about = SessionConfig(c.robot, c.camera, c.setup, board, width, height, c.lens)  # type: ignore[arg-type]
            self._session = Session.create(Path(c.session), about)
        return self._session

    def _publish(self, cameras: dict[str, CameraEntry]) -> None:
        """Everything once, latched; kept alive with the node."""
        frames = {"base": self._config.base_frame, "hand": self._config.hand_frame}
        stamp = self.get_clock().now().to_msg()
        transforms = []
        for name, entry in cameras.items():
            transforms.append(transform_message(name, frames[entry.mount], entry, stamp))
            self._latch(CameraInfo, f"camera/{name}/camera_info", camera_info_message(name, entry.intrinsics, stamp))
        if TFMessage is not None:
            self._latch(TFMessage, "/tf_static", TFMessage(transforms=transforms))
            return
        for message in transforms:
            self._latch(TransformStamped, f"camera/{message.child_frame_id}/transform", message)

    def _latch(self, kind: Any, topic: str, message: Any) -> None:
        publisher = self.create_publisher(kind, topic, interface.LATCHED)
        publisher.publish(message)
        self._publishers_kept.append(publisher)


def transform_message(camera: str, parent: str, entry: CameraEntry, stamp: Any) -> TransformStamped:
    """parent_from_camera: where the camera's optical frame is."""
    message = TransformStamped(child_frame_id=camera)
    message.header.frame_id, message.header.stamp = parent, stamp
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, entry.mount_from_camera[:3, 3])
    q.x, q.y, q.z, q.w = map(float, Rotation.from_matrix(entry.mount_from_camera[:3, :3]).as_quat())
    return message


def camera_info_message(camera: str, lens: CameraModel, stamp: Any) -> CameraInfo:
    """Intrinsics; R is the identity and P is K, since there is one eye."""
    message = CameraInfo(width=lens.width, height=lens.height, distortion_model=ROS_MODELS[lens.model])
    message.header.frame_id, message.header.stamp = camera, stamp
    message.d = [float(v) for v in lens.distortion]
    message.k = [float(v) for v in lens.matrix.ravel()]
    message.r = [float(v) for v in np.eye(3).ravel()]
    message.p = [float(v) for v in np.column_stack([lens.matrix, np.zeros(3)]).ravel()]
    return message


def _pose(message: PoseStamped) -> Any:
    """(4, 4) base_from_hand. Raises BadConfig for a quaternion that is none; the view checks the rest."""
    p, q = message.pose.position, message.pose.orientation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
        raise BadConfig(f"{HAND_POSE}: {quaternion.tolist()} is no unit quaternion; check who publishes it")
    return transform(Rotation.from_quat(quaternion).as_matrix(), np.array([p.x, p.y, p.z]))


if __name__ == "__main__":
    sys.exit(spin(CalibrationNode))
