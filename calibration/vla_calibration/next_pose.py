"""Where a person should move the arm next, by the same information gain as in simulation, from nothing but the views.

What is needed for that, a rough lens and rough places of camera and board, comes from an earlier calibration of this
camera or from the first views themselves: focal length after Zhang (2000), places by the closed forms. Candidates stay
near where the arm has stood already, because only its own planner knows what it can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vla.errors import BadCalibration
from vla_calibration.board import Board
from vla_calibration.camera import N_DISTORTION, CameraModel, Mask
from vla_calibration.capture import GOOD_VIEWS, Progress, predicted, progress, suggest
from vla_calibration.geometry import Doubles, difference, inverse, moved
from vla_calibration.hand_eye import require_motion, start_rig
from vla_calibration.intrinsics import MIN_COVERAGE, coverage
from vla_calibration.kinematics import Chain
from vla_calibration.rig import Noise, Rig, View
from vla_calibration.session import Session, SessionConfig
from vla_calibration.solve import MOUNTS
from vla_calibration.store import CameraEntry

MIN_VIEWS = 5
"""From which camera and board are placed roughly."""
_CANDIDATES = 60
_SHIFT_M, _TURN_RAD = 0.08, np.deg2rad(20.0)
"""Standard deviations of a candidate from a pose in which the arm has stood, in sum over the axes."""
_JOINT_RAD = 0.25
_NOISE = Noise(0.5, 1e-3, 2e-3)
"""Of corners and arm, as long as nothing better is known."""


@dataclass(frozen=True, eq=False)
class NextPose:
    """A pose that would tell much."""

    base_from_hand: Doubles
    """(4, 4)."""
    joints: Doubles | None
    """(J,) [rad] that take the hand there; None without the arm's model."""
    expected: Progress
    """What the views give with it."""

    def words(self, base_from_hand: Doubles) -> str:
        """For a person, as seen from where the hand is now."""
        x, y, z = self.base_from_hand[:3, 3]
        step = difference(base_from_hand, self.base_from_hand)
        angle = float(np.linalg.norm(step[3:]))
        axis = step[3:] / max(angle, 1e-9)
        dx, dy, dz = 100 * (self.base_from_hand[:3, 3] - base_from_hand[:3, 3])
        text = (
            f"hand to ({x:.3f}, {y:.3f}, {z:.3f}) m in the base frame, by ({dx:+.0f}, {dy:+.0f}, {dz:+.0f}) cm from "
            f"here, turned by {np.rad2deg(angle):.0f} degrees about ({axis[0]:.1f}, {axis[1]:.1f}, {axis[2]:.1f}) of "
            "the hand"
        )
        if self.joints is not None:
            text += f", joints {', '.join(f'{q:.0f}' for q in np.rad2deg(self.joints))} degrees"
        return f"{text}; then {self.expected}"


def next_pose(
    session: Session, chain: Chain | None, known: CameraEntry | None, rng: np.random.Generator
) -> NextPose | None:
    """The most informative of some poses near those of the session; None when there are views enough.

    Args:
        session: the views so far.
        chain: the arm's model; with it the pose comes with joint angles, within their limits.
        known: an earlier calibration of this camera.
        rng: draws the candidates.

    Raises:
        BadCalibration: the views so far do not say roughly where camera and board are; says what to do.
    """
    views, config = session.views, session.config
    rig = _rough(views, config, known)
    covered = coverage([v.detection for v in views], (config.width, config.height)) > 0
    everywhere = covered.mean() >= MIN_COVERAGE
    if len(views) >= GOOD_VIEWS and everywhere:
        return None
    joints, hands = _candidates(views, chain, rng)
    seen = [predicted(rig, hand) for hand in hands]
    # Until the lens has been seen all over, poses that show the board where it has not been go first.
    new = [i for i, view in enumerate(seen) if view is not None and _cells(view, config)[~covered].any()]
    among = list(range(len(hands))) if everywhere or not new else new
    best = among[suggest(rig, views, [hands[i] for i in among], _NOISE)]
    view = seen[best]
    assert view is not None  # suggest refuses those out of sight
    after = progress(rig, [*views, view], _NOISE)
    return NextPose(hands[best], None if joints is None else joints[best], after)


def _rough(views: Sequence[View], config: SessionConfig, known: CameraEntry | None) -> Rig:
    board, setup = config.board, config.setup
    fits = known is not None and (known.mount, known.intrinsics.width) == (MOUNTS[setup], config.width)
    if known is not None and fits and views:
        hand, mount = views[-1].base_from_hand, known.mount_from_camera
        across = inverse(hand) if setup == "eye_in_hand" else hand
        far = inverse(across) @ mount @ board.pose(views[-1].detection, known.intrinsics)
        return Rig(setup, board, known.intrinsics, mount, far, np.empty(0), np.zeros((len(views), 6)))
    if len(views) < MIN_VIEWS:
        raise BadCalibration(
            f"after {MIN_VIEWS} views the next pose can be named; until then turn the hand by 20 to 40 degrees each "
            "time, about another axis, and move it by 10 cm"
        )
    require_motion(views)
    return start_rig(views, board, _rough_lens(views, board, config), setup, joints_off=True)


def _rough_lens(views: Sequence[View], board: Board, config: SessionConfig) -> CameraModel:
    """Focal length alone; the centre is the image's, and there is no distortion."""
    points = [board.points[v.detection.ids].astype(np.float32) for v in views]
    corners = [v.detection.corners.astype(np.float32) for v in views]
    K = cv2.initCameraMatrix2D(points, corners, (config.width, config.height))
    if not np.isfinite(K).all() or K[0, 0] <= 0:
        raise BadCalibration("the board faced the camera squarely: tilt it by 20 to 40 degrees to each side")
    fx, fy, cx, cy = (float(K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return CameraModel(config.width, config.height, fx, fy, cx, cy, (0.0,) * N_DISTORTION[config.lens], config.lens)


def _candidates(
    views: Sequence[View], chain: Chain | None, rng: np.random.Generator
) -> tuple[list[Doubles] | None, list[Doubles]]:
    """Joint angles, where there is a model, and poses of the hand."""
    starts = [views[i] for i in rng.integers(len(views), size=_CANDIDATES)]
    angles = [v.joints for v in starts]
    if chain is None or any(q is None or q.shape != (len(chain.joints),) for q in angles):
        sigma = np.array([_SHIFT_M] * 3 + [_TURN_RAD] * 3) / np.sqrt(3)
        return None, [moved(v.base_from_hand, rng.normal(0, sigma)) for v in starts]
    low, high = np.array([[j.low, j.high] for j in chain.joints]).T
    joints = [np.clip(q + rng.normal(0, _JOINT_RAD, len(low)), low, high) for q in angles if q is not None]
    return joints, [chain.forward(q)[0] for q in joints]


def _cells(view: View, config: SessionConfig) -> Mask:
    """Which cells of the image a view covers."""
    return np.asarray(coverage([view.detection], (config.width, config.height)) > 0)
