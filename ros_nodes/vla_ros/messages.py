"""The spine's values as standard ROS messages, and back.

What comes back is untrusted: a message that does not fit raises, it is never padded or reordered.
"""

from __future__ import annotations

import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla.errors import BadConfig, BadObservation
from vla.spec import Dim, Spec
from vla.types import ActionChunk, Command, Floats, Image, Mode

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def to_time(ns: int) -> Time:
    """Nanoseconds as a message."""
    return Time(sec=ns // 10**9, nanosec=ns % 10**9)


def to_ns(stamp: Any) -> int:
    """A Time or Duration message as nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def image_message(image: Image, camera: str, stamp_ns: int) -> ImageMessage:
    """An (h, w, 3) uint8 RGB image."""
    message = ImageMessage(height=image.shape[0], width=image.shape[1], encoding="rgb8", step=image.shape[1] * 3)
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = camera
    message.data = array.array("B", image.tobytes())  # assigning an ndarray is checked byte by byte: 60 ms
    return message


def image_of(message: ImageMessage) -> Image:
    """(h, w, 3) uint8 RGB.

    Raises:
        BadObservation: another encoding, padded rows, or fewer bytes than it says.
    """
    shape = (message.height, message.width, 3)
    if message.encoding != "rgb8" or message.step != message.width * 3 or len(message.data) != np.prod(shape):
        raise BadObservation(
            f"image {shape[:2]} in {message.encoding!r}, rows of {message.step} bytes, {len(message.data)} in all: "
            "publish packed rgb8"
        )
    return np.frombuffer(message.data, np.uint8).reshape(shape)


def state_message(state: Floats, dims: tuple[Dim, ...], stamp_ns: int) -> JointState:
    """(S,) measured state; a name a dimension."""
    message = JointState(name=[d.name for d in dims], position=array.array("d", state.astype(np.float64)))
    message.header.stamp = to_time(stamp_ns)
    return message


def state_of(message: JointState, dims: tuple[Dim, ...]) -> Floats:
    """(S,) float32.

    Raises:
        BadObservation: the names are not the spec's, in its order.
    """
    want = [d.name for d in dims]
    if list(message.name) != want or len(message.position) != len(want):
        raise BadObservation(f"state {list(message.name)} is not the spec's {want}: publish these, in this order")
    return np.array(message.position, np.float32)


def chunk_message(chunk: ActionChunk, spec: Spec) -> JointTrajectory:
    """A chunk, stamped with the observation it was made from; a point an action."""
    points = [_point(action, i * chunk.dt_ns) for i, action in enumerate(chunk.actions)]
    message = JointTrajectory(joint_names=[d.name for d in spec.action], points=points)
    message.header.stamp = to_time(chunk.t0_ns)
    return message


def chunk_of(message: JointTrajectory, spec: Spec) -> ActionChunk:
    """The chunk; `t0_ns` is the stamp of its observation.

    Raises:
        BadConfig: names, lengths or times do not fit.
    """
    actions = _positions(message, spec)
    if len(actions) < 2:
        raise BadConfig(f"a chunk of {len(actions)} point(s) does not tell its period")
    times = np.array([to_ns(p.time_from_start) for p in message.points])
    periods = np.diff(times)
    if times[0] != 0 or (periods != periods[0]).any():
        raise BadConfig("a chunk's points must start at 0 and be evenly spaced")
    return ActionChunk(actions, to_ns(message.header.stamp), int(periods[0]))


def command_message(command: Command, spec: Spec) -> JointTrajectory:
    """A command: the mode as frame_id; one point, none for HOLD and STOP: to ros2_control that is "hold", too."""
    message = JointTrajectory(joint_names=[d.name for d in spec.action])
    message.header.stamp = to_time(command.stamp_ns)
    message.header.frame_id = command.mode.value
    if command.mode is Mode.TRACK:
        message.points = [_point(command.action, command.valid_until_ns - command.stamp_ns)]
    return message


def command_of(message: JointTrajectory, spec: Spec) -> Command:
    """The command.

    Raises:
        BadConfig: an unknown mode, or not exactly one fitting action to TRACK.
    """
    try:
        mode = Mode(message.header.frame_id)
    except ValueError as error:
        raise BadConfig(f"command mode {message.header.frame_id!r} is none of {[m.value for m in Mode]}") from error
    stamp = to_ns(message.header.stamp)
    actions = _positions(message, spec)
    if mode is not Mode.TRACK:
        return Command(np.zeros(len(spec.action), np.float32), stamp, stamp + spec.dt_ns, mode)
    if len(actions) != 1:
        raise BadConfig(f"a TRACK command holds one action, not {len(actions)}")
    return Command(actions[0], stamp, stamp + to_ns(message.points[0].time_from_start), mode)


def diagnostic(name: str, level: bytes, text: str, stamp_ns: int, values: Mapping[str, object]) -> DiagnosticArray:
    """One status, for the standard /diagnostics."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    message = DiagnosticArray(status=[DiagnosticStatus(level=level, name=name, message=text, values=pairs)])
    message.header.stamp = to_time(stamp_ns)
    return message


def _point(action: Floats, from_start_ns: int) -> JointTrajectoryPoint:
    at = Duration(sec=from_start_ns // 10**9, nanosec=from_start_ns % 10**9)
    return JointTrajectoryPoint(positions=array.array("d", action.astype(np.float64)), time_from_start=at)


def _positions(message: JointTrajectory, spec: Spec) -> Floats:
    """(points, A)."""
    want = [d.name for d in spec.action]
    if list(message.joint_names) != want:
        raise BadConfig(f"action {list(message.joint_names)} is not the spec's {want}")
    if any(len(p.positions) != len(want) for p in message.points):
        raise BadConfig(f"an action of the message has not {len(want)} numbers")
    return np.array([p.positions for p in message.points], np.float32).reshape(-1, len(want))
