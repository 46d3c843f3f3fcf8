"""Guided capture: which pose to take next, and when it is enough.

The next pose is the one that tells most about the camera's place: of the candidates in sight, that with the largest
gain in log-determinant of the information (D-optimal design), arm noise included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles
from vla_calibration.hand_eye import require_motion
from vla_calibration.intrinsics import MIN_COVERAGE, MIN_VIEWS, coverage, where_unseen
from vla_calibration.rig import Noise, Rig, View, information
from vla_calibration.session import Session
from vla_calibration.synthetic import detect

GOOD_VIEWS = 20
_MIN_SLANT = 0.6
"""Cosine of the angle between the board's normal and the line of sight."""
_MIN_SQUARE_PX = 14.0
_ROUGH = 1e-3
"""Variance of a place before any view, [m²] and [rad²]: 3 cm and 2 degrees, as a ruler gives."""


@dataclass(frozen=True)
class Progress:
    """How far a session is."""

    views: int
    std_m: float
    """Expected standard deviation of the camera's position, once solved."""
    std_rad: float

    def __str__(self) -> str:
        return f"{self.views} views, expect ±{1e3 * self.std_m:.2f} mm ±{np.rad2deg(self.std_rad):.3f} degrees"


def advice(session: Session) -> str:
    """What to do next, in words, when no planner moves the arm: from what the views so far do not show."""
    config, views = session.config, session.views
    covered = coverage([view.detection for view in views], (config.width, config.height))
    if (covered > 0).mean() < MIN_COVERAGE:
        return f"next: move the board {where_unseen(covered)}"
    if len(views) < MIN_VIEWS:
        return "next: turn the hand by 20 to 40 degrees, each time about another axis"
    try:
        require_motion(views)
    except BadCalibration as error:
        return f"next: {error}"
    return (
        f"it can be solved; up to {GOOD_VIEWS} views make it surer" if len(views) < GOOD_VIEWS else "enough: solve it"
    )


def progress(rig: Rig, views: Sequence[View], noise: Noise) -> Progress:
    """What the views taken so far will give."""
    covariance = np.linalg.inv(_so_far(rig, views, noise))[:6, :6]
    std_m, std_rad = (float(np.sqrt(np.trace(covariance[axes, axes]))) for axes in (slice(0, 3), slice(3, 6)))
    return Progress(len(views), std_m, std_rad)


def suggest(rig: Rig, views: Sequence[View], candidates: Sequence[Doubles], noise: Noise) -> int:
    """Which of the poses (4, 4) of the hand to take next.

    Raises:
        BadCalibration: the board is in sight from none of them.
    """
    before = _so_far(rig, views, noise)
    gains = []
    for hand in candidates:
        view = predicted(rig, hand)
        gain = -np.inf if view is None else np.linalg.slogdet(before + information(rig, view, noise))[1]
        gains.append(float(gain))
    if not np.isfinite(max(gains, default=-np.inf)):
        raise BadCalibration(
            f"the board is in sight from none of {len(candidates)} poses: is the rough place of camera and board right?"
        )
    return int(np.argmax(gains))


def predicted(rig: Rig, base_from_hand: Doubles) -> View | None:
    """What the camera would see with the hand there; None when that is too little."""
    across = np.linalg.inv(base_from_hand) if rig.setup == "eye_in_hand" else base_from_hand
    camera_from_board = np.linalg.inv(rig.mount_from_camera) @ across @ rig.far_from_board
    middle = camera_from_board[:3, :3] @ [*rig.board.size_m / 2, 0] + camera_from_board[:3, 3]
    far = np.linalg.norm(middle)
    slant = camera_from_board[:3, 2] @ middle / far
    if slant < _MIN_SLANT or rig.board.square_m * rig.camera.fx * slant / far < _MIN_SQUARE_PX:
        return None  # in sight, but too flat or too small for its markers to be read
    found = detect(rig.camera, rig.board, camera_from_board, 0.0, np.random.default_rng(0))
    return None if found is None else View(found, base_from_hand)


def _so_far(rig: Rig, views: Sequence[View], noise: Noise) -> Doubles:
    return np.eye(12) / _ROUGH + sum((information(rig, v, noise) for v in views), np.zeros((12, 12)))
