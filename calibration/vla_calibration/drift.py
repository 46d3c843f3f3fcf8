"""Is the robot still the one the policy was trained on? The live scene against the calibration, before a run.

With a board in sight: where the corners are, against where the calibration puts them. One still view cannot tell a
camera that was bumped from a joint that slipped, and need not: either way the policy sees the hand where it is not. The
verdict is in metres and radians, by thresholds that travel in the bundle's spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla.spec import CameraPose, Drift, Spec, pose_distance
from vla_calibration.board import Board
from vla_calibration.geometry import Doubles, inverse
from vla_calibration.rig import View
from vla_calibration.store import Calibration, CameraEntry, load, robot_digest

Level = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True)
class DriftResult:
    """How far the live scene is from the calibration."""

    level: Level
    metres: float
    """The camera's position against the board, median over the views."""
    radians: float
    pixels: float
    """Median distance of the corners from where they should be."""
    reason: str


def check_scene(
    views: Sequence[View], board: Board, entry: CameraEntry, limits: Drift, base_or_hand_from_board: Doubles
) -> DriftResult:
    """Compare live views with the calibration.

    Args:
        views: one or more, with the arm standing still in each.
        board: what is seen.
        entry: the calibration of this camera.
        limits: of the policy, from its spec.
        base_or_hand_from_board: (4, 4) where the board is: in the base frame for a camera on the hand, and the other
            way round.

    Raises:
        BadCalibration: no views.
    """
    if not views:
        raise BadCalibration("no view of the board: bring it in sight and check again")
    setup = "eye_in_hand" if entry.mount == "hand" else "eye_to_hand"
    twists, pixels = [], []
    for view in views:
        across = inverse(view.base_from_hand) if setup == "eye_in_hand" else view.base_from_hand
        expected = inverse(entry.mount_from_camera) @ across @ base_or_hand_from_board
        seen = board.pose(view.detection, entry.intrinsics)
        moved_camera = expected @ inverse(seen)  # the camera now, in the frame of the camera as calibrated
        turn = Rotation.from_matrix(moved_camera[:3, :3]).as_rotvec()
        # A turn about the camera moves everything it sees; the shift is taken at the board, where it is measured.
        middle = seen[:3, :3] @ [*board.size_m / 2, 0] + seen[:3, 3]
        twists.append(np.r_[moved_camera[:3, :3] @ middle + moved_camera[:3, 3] - middle, turn])
        points = board.points[view.detection.ids] @ expected[:3, :3].T + expected[:3, 3]
        pixels.append(np.linalg.norm(entry.intrinsics.project(points) - view.detection.corners, axis=1))
    shift = np.median(twists, 0)
    metres, radians = float(np.linalg.norm(shift[:3])), float(np.linalg.norm(shift[3:]))
    level = grade(metres, radians, limits)
    what = f"{1e3 * metres:.1f} mm and {np.rad2deg(radians):.2f} degrees from the calibration"
    cure = {
        "ok": "",
        "warn": "; calibrate soon, or look whether the camera is loose",
        "refuse": "; the policy never saw this. Put the camera back, home the arm, or calibrate again",
    }[level]
    return DriftResult(level, metres, radians, float(np.median(np.concatenate(pixels))), f"the board is {what}{cure}")


def require_calibrated(path: Path, spec: Spec) -> list[str]:
    """Hold a robot's newest calibration to a policy's spec; to be called before anything moves.

    Returns:
        What a person should be told, although it may run.

    Raises:
        BadCalibration: no such file, another robot's, or beyond what the spec lets pass.
    """
    results = check_spec(load(path, spec.robot), spec)
    told = {level: [f"{n}: {r.reason}" for n, r in results.items() if r.level == level] for level in ("refuse", "warn")}
    if told["refuse"]:
        raise BadCalibration(
            f"by {path} this is not the robot that the policy was trained on: {'; '.join(told['refuse'])}. Put back "
            "what moved and calibrate again (`vla calibrate`), or train for the robot as it is"
        )
    return told["warn"]


def check_spec(calibration: Calibration, spec: Spec) -> dict[str, DriftResult]:
    """A robot's calibration against a policy's spec: the spec itself, every camera, and every joint that is off."""
    limits, found = spec.drift or Drift(), {}
    if calibration.spec is not None and calibration.spec != robot_digest(spec):
        found["spec"] = _unmeasured("warn", "the calibration was made for another spec of this robot")
    for camera in spec.cameras:
        found[camera.name] = _check_camera(camera.pose, calibration.cameras.get(camera.name), limits)
    for name, offset in calibration.joints.items():
        if abs(offset.value) > limits.warn_rad:
            reason = (
                f"its angle is reported {np.rad2deg(offset.value):+.2f} degrees wrong: the driver must use the "
                "corrected model (`vla calibrate export`)"
            )
            found[name] = DriftResult("warn", float("nan"), abs(offset.value), float("nan"), reason)
    return found


def _check_camera(trained: CameraPose | None, entry: CameraEntry | None, limits: Drift) -> DriftResult:
    if trained is None:
        return _unmeasured("warn", "the policy's spec does not say where it was in training: nothing to compare with")
    if entry is None:
        return _unmeasured("refuse", "the policy knows its place, and it is not calibrated")
    if trained.mount != entry.mount:
        reason = f"mounted on the {entry.mount}, the policy was trained with it on the {trained.mount}"
        return _unmeasured("refuse", reason)
    metres, radians = pose_distance(trained, pose_of(entry))
    reason = f"{1e3 * metres:.1f} mm and {np.rad2deg(radians):.2f} degrees from where the policy was trained"
    return DriftResult(grade(metres, radians, limits), metres, radians, float("nan"), reason)


def _unmeasured(level: Level, reason: str) -> DriftResult:
    return DriftResult(level, float("nan"), float("nan"), float("nan"), reason)


def grade(metres: float, radians: float, limits: Drift) -> Level:
    """ok, warn or refuse; NaN is refused."""
    if not (metres <= limits.refuse_m and radians <= limits.refuse_rad):
        return "refuse"
    return "warn" if metres > limits.warn_m or radians > limits.warn_rad else "ok"


def pose_of(entry: CameraEntry) -> CameraPose:
    """A calibrated camera's place as a spec has it."""
    return as_pose("hand" if entry.mount == "hand" else "base", entry.mount_from_camera)


def as_pose(mount: Literal["base", "hand"], mount_from_camera: Doubles) -> CameraPose:
    """A transform (4, 4) as a spec has it."""
    x, y, z = map(float, mount_from_camera[:3, 3])
    qx, qy, qz, qw = map(float, Rotation.from_matrix(mount_from_camera[:3, :3]).as_quat())
    return CameraPose(mount, (x, y, z), (qx, qy, qz, qw))
