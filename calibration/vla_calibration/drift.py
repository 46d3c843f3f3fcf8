"""Is the robot still the one the policy was trained on? The live scene against the calibration, before a run.

With a board in sight: where the corners are, against where the calibration puts them. One still view cannot tell a
camera that was bumped from a joint that slipped, and need not: either way the policy sees the hand where it is not. The
verdict is in metres and radians, by thresholds that travel in the bundle's spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla.spec import CameraPose, Drift, Spec
from vla_calibration.board import Board
from vla_calibration.geometry import Doubles, inverse
from vla_calibration.rig import View
from vla_calibration.store import Calibration, CameraEntry

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


def check_spec(calibration: Calibration, spec: Spec) -> dict[str, DriftResult]:
    """Each camera's calibrated place against the one in a policy's spec, where both know it."""
    from vla.spec import pose_distance

    limits = spec.drift or Drift()
    found = {}
    for camera in spec.cameras:
        entry = calibration.cameras.get(camera.name)
        if entry is None or camera.pose is None:
            continue
        metres, radians = pose_distance(camera.pose, pose_of(entry))
        level: Level = "refuse" if camera.pose.mount != entry.mount else grade(metres, radians, limits)
        reason = f"{1e3 * metres:.1f} mm and {np.rad2deg(radians):.2f} degrees from where the policy was trained"
        if camera.pose.mount != entry.mount:
            reason = f"mounted on the {entry.mount}, the policy was trained with it on the {camera.pose.mount}"
        found[camera.name] = DriftResult(level, metres, radians, float("nan"), reason)
    return found


def grade(metres: float, radians: float, limits: Drift) -> Level:
    """ok, warn or refuse; NaN is refused."""
    if not (metres <= limits.refuse_m and radians <= limits.refuse_rad):
        return "refuse"
    return "warn" if metres > limits.warn_m or radians > limits.warn_rad else "ok"


def pose_of(entry: CameraEntry) -> CameraPose:
    """A calibrated camera's place as a spec has it."""
    x, y, z = map(float, entry.mount_from_camera[:3, 3])
    qx, qy, qz, qw = map(float, Rotation.from_matrix(entry.mount_from_camera[:3, :3]).as_quat())
    return CameraPose("hand" if entry.mount == "hand" else "base", (x, y, z), (qx, qy, qz, qw))
