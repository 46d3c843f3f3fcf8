"""Captures calibration views on a robot, and publishes what is calibrated: latched transforms and camera_info.

Capture: the arm is moved by a person or a planner, never by this node; `~/capture` (std_srvs/Trigger) takes the newest
image, with the hand's pose and the joint states of the same moment, into a session folder. Its answer says what the
view was worth, or why it was refused, and which pose would tell most next; that pose is latched on `next_hand_pose`
(and `next_joints`, with the arm's model), and in words on /diagnostics. `~/still` adds the newest image and joint
states to a file for the drift check without a board. Publish: every calibrated camera of the robot's file, once,
latched.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

from vla.errors import BadCalibration, BadConfig, VlaError
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel, Model
from vla_calibration.capture import advice
from vla_calibration.exchange import ROS_MODELS
from vla_calibration.geometry import Doubles, transform
from vla_calibration.kinematics import Chain, load_chain
from vla_calibration.next_pose import NextPose, next_pose
from vla_calibration.rig import Setup, View
from vla_calibration.session import Session, SessionConfig
from vla_calibration.stills import add_still
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
NEXT_HAND_POSE = "next_hand_pose"
"""geometry_msgs/PoseStamped: where the hand would see most next, in the base frame. Nothing moves there by itself."""
NEXT_JOINTS = "next_joints"
"""sensor_msgs/JointState: joint angles that take it there."""
_MAX_APART_NS = 20_000_000
"""Image and pose may be so far apart: the arm stands still for a view."""
_KEPT = 200
"""Poses and joint states to find those of an image among: a fifth of a second at 1 kHz."""


@dataclass(frozen=True)
class CalibrationNodeConfig:
    """What is captured and published; leave `store`, `session` or `stills` empty where it is not wanted."""

    store: str = ""
    """The robot's calibration file to publish."""
    session: str = ""
    """Folder to capture views into; an interrupted session goes on."""
    stills: str = ""
    """npz file that stills of the gripper are added to, for `vla calibrate check --stills`."""
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
    model: str = ""
    """URDF or MJCF of the arm: with it the next pose comes as joint angles, too."""
    hand: str = "tool"
    """Link, body or site of that model that is the hand."""
    base_frame: str = "base"
    """Frame id of the arm's base."""
    hand_frame: str = "hand"
    """Frame id of the arm's hand."""

    def __post_init__(self) -> None:
        if self.setup not in ("eye_in_hand", "eye_to_hand") or self.lens not in ROS_MODELS:
            raise BadConfig(f"setup {self.setup!r} or lens {self.lens!r}: see the parameters' descriptions")
        if not (self.store or self.session or self.stills):
            raise BadConfig("give `store` to publish a calibration, `session` to capture one, `stills` to check one")


class CalibrationNode(Node):  # type: ignore[misc]
    """One robot's calibration, being taken or being told."""

    def __init__(self) -> None:
        """Raises BadConfig, BadCalibration."""
        super().__init__("calibration")
        self._config = declared(self, CalibrationNodeConfig)
        self._images: deque[ImageMessage] = deque(maxlen=4)
        self._hands: deque[PoseStamped] = deque(maxlen=_KEPT)
        self._joints: deque[JointState] = deque(maxlen=_KEPT)
        self._session: Session | None = None
        self._latched: dict[str, Any] = {}
        self._known: CameraEntry | None = None
        self._chain: Chain | None = None
        if self._config.model:
            self._chain = load_chain(Path(self._config.model), self._config.hand)
        if self._config.store:
            cameras = load(Path(self._config.store), self._config.robot).cameras
            self._known = cameras.get(self._config.camera)
            self._publish(cameras)
        if self._config.session:
            c = self._config
            self._board = Board(columns=c.columns, rows=c.rows, square_m=c.square_m, marker_m=c.marker_m)
            self._status: tuple[str, dict[str, float]] | None = None
            self.create_timer(1.0, self._tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
            self._diagnostics = self.create_publisher(DiagnosticArray, interface.DIAGNOSTICS, interface.EVENTS)
            self.create_subscription(PoseStamped, HAND_POSE, self._on_hand, interface.NEWEST)
            self._serve("~/capture", self._capture)
        if self._config.stills:
            self._serve("~/still", self._still)
        if self._config.session or self._config.stills:
            topic = interface.image_topic(self._config.camera)
            self.create_subscription(ImageMessage, topic, self._on_image, interface.IMAGES)
            self.create_subscription(JointState, ARM_JOINTS, self._on_joints, interface.NEWEST)

    def close(self) -> None:
        """Every view is on disk already."""

    def _on_image(self, message: ImageMessage) -> None:
        self._images.append(message)

    def _on_hand(self, message: PoseStamped) -> None:
        self._hands.append(message)

    def _on_joints(self, message: JointState) -> None:
        self._joints.append(message)

    def _serve(self, name: str, work: Callable[[], str]) -> None:
        """A service that does `work` and answers with its words, or with why it could not."""

        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message = work()
                response.success = True
            except VlaError as error:
                response.message = str(error)
                response.success = False
            return response

        self.create_service(Trigger, name, answer)

    def _capture(self) -> str:
        """Take one view. Raises BadConfig, BadCalibration, BadObservation."""
        taken, parts = self._moment(HAND_POSE)
        hand, arm = parts[HAND_POSE], parts.get(ARM_JOINTS)
        stamp_ns = _stamp_ns(taken)
        joints = None if arm is None else self._angles(arm)
        image = messages.image_of(taken)
        session = self._opened(image.shape[1], image.shape[0])
        found = session.config.board.detect(image)
        if found is None:
            raise BadConfig("the board is not found in the image: light, focus, distance, or another board?")
        session.add(View(found, _pose(hand), joints, stamp_ns, self._config.camera))
        corners = f"{len(found.ids)} of {session.config.board.n_corners} corners"
        return f"view {len(session.views)}: {corners}; {self._say_next(session, stamp_ns)}"

    def _still(self) -> str:
        """Add one still. Raises BadConfig, BadCalibration, BadObservation, Missing."""
        taken, parts = self._moment(ARM_JOINTS)
        n = add_still(Path(self._config.stills), messages.image_of(taken), self._angles(parts[ARM_JOINTS]))
        return f"still {n} in {self._config.stills}; three are enough, the wrist turned between them"

    def _angles(self, arm: JointState) -> Doubles:
        """(J,) joint angles [rad]. Raises BadConfig: they are not those of the model, or not in its order."""
        if self._chain is not None and tuple(arm.name) != self._chain.names:
            raise BadConfig(
                f"{ARM_JOINTS} has {list(arm.name)}, the model's arm {list(self._chain.names)}: publish these, in this "
                "order"
            )
        return np.array(arm.position, np.float64)

    def _moment(self, needed: str) -> tuple[ImageMessage, dict[str, Any]]:
        """The newest image that has the `needed` message of the same moment, and all that came of that moment.

        Each topic arrives on its own: of the very newest image the pose may still be on its way.
        """
        came = {name: kept for name, kept in ((HAND_POSE, self._hands), (ARM_JOINTS, self._joints)) if kept}
        if not self._images or needed not in came:
            lacking = [n for n, there in ((self._config.camera, self._images), (needed, needed in came)) if not there]
            raise BadConfig(f"nothing came yet from {' and '.join(lacking)}: is its publisher running?")
        apart = {}
        for taken in reversed(self._images):
            stamp_ns = _stamp_ns(taken)
            parts = {name: min(kept, key=lambda m: abs(_stamp_ns(m) - stamp_ns)) for name, kept in came.items()}
            apart = {name: abs(_stamp_ns(message) - stamp_ns) for name, message in parts.items()}
            if max(apart.values()) <= _MAX_APART_NS:
                return taken, parts
        far = ", ".join(f"{name} by {ns / 1e6:.0f} ms" for name, ns in apart.items() if ns > _MAX_APART_NS)
        raise BadConfig(
            f"apart from the image: {far}, at most {_MAX_APART_NS / 1e6:.0f} are allowed: check that both use one "
            "clock, and that neither has stopped"
        )

    def _say_next(self, session: Session, stamp_ns: int) -> str:
        """What to do next, in words that are published, too; with the pose, where the views so far can tell one."""
        text, values = advice(session), {"views": float(len(session.views))}
        try:
            best = next_pose(session, self._chain, self._known, np.random.default_rng(len(session.views)))
        except BadCalibration as error:
            text += f"; {error}"
        else:
            if best is not None:
                text += f"; most would tell: {best.words(session.views[-1].base_from_hand)}"
                values |= {"expected_mm": 1e3 * best.expected.std_m, "expected_deg": np.rad2deg(best.expected.std_rad)}
                self._publish_next(best, stamp_ns)
        self._status = text, values
        self._tell()
        return text

    def _tell(self) -> None:
        """Once a second: whoever looks may have come late."""
        if self._status is not None:
            now = self.get_clock().now().nanoseconds
            text, values = self._status
            self._diagnostics.publish(messages.diagnostic("calibration", messages.OK, text, now, values))

    def _publish_next(self, best: NextPose, stamp_ns: int) -> None:
        pose = pose_message(best.base_from_hand, self._config.base_frame, stamp_ns)
        self._latch(PoseStamped, NEXT_HAND_POSE, pose)
        if best.joints is not None and self._chain is not None:
            joints = JointState(name=list(self._chain.names), position=best.joints.tolist())
            joints.header.stamp = messages.to_time(stamp_ns)
            self._latch(JointState, NEXT_JOINTS, joints)

    def _opened(self, width: int, height: int) -> Session:
        """The session, begun with the first image's size; an image of another size is refused by `Session.create`."""
        c, setup, lens = self._config, cast(Setup, self._config.setup), cast(Model, self._config.lens)
        if self._session is None or (self._session.config.width, self._session.config.height) != (width, height):
            about = SessionConfig(c.robot, c.camera, setup, self._board, width, height, lens)
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
        if topic not in self._latched:
            self._latched[topic] = self.create_publisher(kind, topic, interface.LATCHED)
        self._latched[topic].publish(message)


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


def pose_message(T: Doubles, frame: str, stamp_ns: int) -> PoseStamped:
    """A transform (4, 4) into `frame`."""
    message = PoseStamped()
    message.header.frame_id, message.header.stamp = frame, messages.to_time(stamp_ns)
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = map(float, T[:3, 3])
    q.x, q.y, q.z, q.w = map(float, Rotation.from_matrix(T[:3, :3]).as_quat())
    return message


def _stamp_ns(message: Any) -> int:
    return messages.to_ns(message.header.stamp)


def _pose(message: PoseStamped) -> Any:
    """(4, 4) base_from_hand. Raises BadConfig for a quaternion that is none; the view checks the rest."""
    p, q = message.pose.position, message.pose.orientation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    if not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
        raise BadConfig(f"{HAND_POSE}: {quaternion.tolist()} is no unit quaternion; check who publishes it")
    return transform(Rotation.from_quat(quaternion).as_matrix(), np.array([p.x, p.y, p.z]))


if __name__ == "__main__":
    sys.exit(spin(CalibrationNode))
