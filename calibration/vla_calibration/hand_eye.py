"""Where a camera is mounted: eye-in-hand or eye-to-hand, from views of one board and the arm's own poses.

OpenCV's five closed-form solvers are the start (Tsai 1989, Park 1994, Horaud 1995, Andreff 2001, Daniilidis 1999). What
follows is maximum likelihood: corners in pixels and arm poses in metres and radians, each weighted by the noise that
the residuals themselves show, camera, board and intrinsics refined together (after Strobl and Hirzinger, 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, difference, inverse, transform
from vla_calibration.rig import Fit, Noise, Prior, Rig, Setup, View, fit

MIN_VIEWS = 6
SOLVERS = {
    "tsai": cv2.CALIB_HAND_EYE_TSAI,
    "park": cv2.CALIB_HAND_EYE_PARK,
    "horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
_MIN_TURN_RAD = np.deg2rad(5.0)
"""Spread of the hand's orientation about its second axis; below, the solution is open along the first."""
_MIN_TRAVEL_M = 0.02
"""Spread of the hand's position; below, the board's size cannot be checked against the arm."""
_MAX_SCALE_ERROR = 0.02
_BENT_SCALE = 0.6, 1.6
"""What joints that are off by 10 degrees leave of the scale; beyond, arm and board do not move together."""
_MAX_POSITION_M, _MAX_ROTATION_RAD, _MAX_RMS_PX = 0.003, np.deg2rad(1.0), 3.0
"""Disagreement of arm and board beyond which they do not belong together."""
_OUTLIER = 5.0
_MAX_REJECTED = 0.3


@dataclass(frozen=True, eq=False)
class HandEye:
    """A camera's place."""

    setup: Setup
    mount_from_camera: Doubles
    """(4, 4); hand_from_camera (eye-in-hand) or base_from_camera (eye-to-hand)."""
    covariance: Doubles
    """(6, 6) of its twist: translation [m], rotation [rad], in the camera's frame."""
    far_from_board: Doubles
    """(4, 4); base_from_board or hand_from_board."""
    camera: CameraModel
    """Refined together with it."""
    noise: Noise
    """Estimated: corners, and arm against board."""
    dof: float | None
    rms_px: float
    used: tuple[int, ...]

    @property
    def std(self) -> tuple[float, float]:
        """Standard deviation of the place: metres, radians (root sums over the axes)."""
        variance = np.diag(self.covariance)
        return float(np.sqrt(variance[:3].sum())), float(np.sqrt(variance[3:].sum()))


def calibrate_hand_eye(
    views: Sequence[View],
    board: Board,
    camera: CameraModel,
    setup: Setup,
    *,
    intrinsics_covariance: Doubles | None = None,
    noise: Noise | None = None,
) -> HandEye:
    """Find the camera's place.

    Args:
        views: at least MIN_VIEWS, with the hand turned about two axes and moved between them.
        board: what was seen.
        camera: intrinsics.
        setup: who carries the camera.
        intrinsics_covariance: (P, P); with it the intrinsics are refined, too.
        noise: of corners and arm when they are known; None estimates them.

    Raises:
        BadCalibration: the views do not determine it or contradict each other; says which, why, and what to do.
    """
    require_consistent(views, MIN_VIEWS)
    require_motion(views)
    used = list(range(len(views)))
    prior = None if intrinsics_covariance is None else Prior(camera.parameters, intrinsics_covariance)
    while True:
        chosen = [views[i] for i in used]
        start = start_rig(chosen, board, camera, setup)
        found = refine(start, chosen, noise, prior)
        spread = np.abs(found.rig.corrections) / [found.noise.position_m] * [1, 1, 1, 0, 0, 0]
        spread += np.abs(found.rig.corrections) / [found.noise.rotation_rad] * [0, 0, 0, 1, 1, 1]
        worst = spread.max(1)
        limit = _OUTLIER * max(float(np.median(worst)) / 2, 0.5)
        if (worst <= limit).all() or noise is not None:
            break
        used = [i for i, size in zip(used, worst, strict=True) if size <= limit]
        if len(used) < max(MIN_VIEWS, (1 - _MAX_REJECTED) * len(views)):
            raise BadCalibration(
                f"{len(views) - len(used)} of {len(views)} views contradict the rest: the board or the camera moved, "
                "or the arm had not settled; fix both and take the views again"
            )
    _require_fit(found)
    return HandEye(
        setup,
        found.rig.mount_from_camera,
        found.covariance_of("mount"),
        found.rig.far_from_board,
        found.rig.camera,
        found.noise,
        found.dof,
        found.rms_px,
        tuple(used),
    )


def refine(start: Rig, views: Sequence[View], noise: Noise | None = None, prior: Prior | None = None) -> Fit:
    """The maximum-likelihood fit, from a start. Noise None estimates it; a prior frees the intrinsics."""
    camera = ("camera",) if prior is not None else ()
    # First without corrections: the closed forms may be centimetres off, and corrections would follow them.
    rough = fit(start, views, ("mount", "board"), noise or Noise(pixel=1.0), estimate_noise=False)
    unknowns = ("mount", "board", *camera, "corrections")
    return fit(rough.rig, views, unknowns, noise or Noise(), prior=prior, estimate_noise=noise is None)


def closed_form(views: Sequence[View], board_poses: Sequence[Doubles], setup: Setup, solver: str) -> Doubles:
    """mount_from_camera (4, 4) by one of OpenCV's solvers, NaN where it fails; `board_poses`: camera_from_board."""
    hands = [v.base_from_hand if setup == "eye_in_hand" else inverse(v.base_from_hand) for v in views]
    both: list[Any] = [
        part for poses in (hands, board_poses) for part in ([T[:3, :3] for T in poses], [T[:3, 3] for T in poses])
    ]
    try:
        turn, shift = cv2.calibrateHandEye(*both, method=SOLVERS[solver])
    except cv2.error:  # contradictory poses end Andreff's iterations
        return np.full((4, 4), np.nan)
    return transform(np.asarray(turn), np.ravel(shift))


def start_rig(
    views: Sequence[View], board: Board, camera: CameraModel, setup: Setup, *, joints_off: bool = False
) -> Rig:
    """The closed form with the smallest spread of the board's place.

    `joints_off` lets arm and board disagree about lengths as far as joints that are off bend the arm's own.

    Raises:
        BadCalibration: all fail, the images are mirrored, the setup is the other one, or arm and board disagree about
            the size of the squares.
    """
    poses = [board.pose(v.detection, camera) for v in views]
    best: tuple[float, Doubles, Doubles] | None = None
    for solver in SOLVERS:
        X = closed_form(views, poses, setup, solver)
        if not np.isfinite(X).all() or abs(np.linalg.det(X[:3, :3]) - 1) > 1e-3:
            continue
        boards = [_far_from_board(v, X, T, setup) for v, T in zip(views, poses, strict=True)]
        middle = _mean(boards)
        spread = float(np.median([np.linalg.norm(difference(middle, T) * [1, 1, 1, 0.3, 0.3, 0.3]) for T in boards]))
        if best is None or spread < best[0]:
            best = spread, X, middle
    if best is None:
        raise BadCalibration("none of the closed-form solvers finds the camera; take views that differ more")
    require_scale(views, poses, best[1], setup, board, joints_off=joints_off)
    return Rig(setup, board, camera, best[1], best[2], np.empty(0), np.zeros((len(views), 6)))


def require_consistent(views: Sequence[View], at_least: int) -> None:
    """Raises BadCalibration: too few views, several cameras, or stamps that run backwards."""
    if len(views) < at_least:
        raise BadCalibration(f"{len(views)} view(s) of the board: at least {at_least} are needed, 15 to 20 are good")
    if len(cameras := sorted({v.camera for v in views})) > 1:
        raise BadCalibration(f"the views are of several cameras, {', '.join(cameras)}: calibrate one at a time")
    stamps = np.array([v.stamp_ns for v in views])
    if stamps.any() and (np.diff(stamps) <= 0).any():
        i = int(np.argmax(np.diff(stamps) <= 0)) + 1
        raise BadCalibration(
            f"view {i} is stamped {stamps[i]} ns, not after view {i - 1} at {stamps[i - 1]} ns: images and poses may "
            "be paired wrongly; record them in order, by one clock"
        )


def require_motion(views: Sequence[View]) -> None:
    """Raises BadCalibration: the hand did not turn about two axes, or did not travel."""
    poses = [v.base_from_hand for v in views]
    middle = _mean(poses)
    twists = np.array([difference(middle, T) for T in poses])
    turn = np.linalg.svd(twists[:, 3:], compute_uv=False) / np.sqrt(len(poses))
    if turn[0] < _MIN_TURN_RAD:
        raise BadCalibration(
            "the hand only travelled and hardly turned: where the camera sits on it stays open. Turn the wrist by 20 "
            "to 40 degrees between views, about different axes"
        )
    if turn[1] < _MIN_TURN_RAD:
        raise BadCalibration(
            "the hand turned about one axis only: the camera's place along that axis stays open. Tilt the hand about a "
            "second axis by 20 to 40 degrees"
        )
    if np.sqrt(np.square(twists[:, :3] - twists[:, :3].mean(0)).sum(1).mean()) < _MIN_TRAVEL_M:
        raise BadCalibration(
            f"the hand turned but stayed within {100 * _MIN_TRAVEL_M:.0f} cm: the size of the board cannot be checked "
            "against the arm. Move it by 10 cm or more between views"
        )


def require_scale(
    views: Sequence[View],
    poses: Sequence[Doubles],
    X: Doubles,
    setup: Setup,
    board: Board,
    *,
    joints_off: bool = False,
) -> None:
    """The arm's motion gives lengths as well: (R_A - 1) t_X - s R_X t_B = -t_A, solved for t_X and the scale s.

    Raises:
        BadCalibration: the board's squares are not as large as said, its image is mirrored, or the poses are not of
            what carries it.
    """
    hands = [v.base_from_hand if setup == "eye_in_hand" else inverse(v.base_from_hand) for v in views]
    rows, rights = [], []
    for i in range(len(hands)):
        for j in range(i):
            A = inverse(hands[i]) @ hands[j]
            B = poses[i] @ inverse(poses[j])
            rows.append(np.column_stack([A[:3, :3] - np.eye(3), -X[:3, :3] @ B[:3, 3]]))
            rights.append(-A[:3, 3])
    M, y = np.concatenate(rows), np.concatenate(rights)
    solution, *_ = np.linalg.lstsq(M, y, rcond=None)
    variance = np.square(M @ solution - y).mean() * np.linalg.inv(M.T @ M)[3, 3] * len(hands)  # pairs share views
    scale = float(solution[3])
    if scale < -_BENT_SCALE[0]:
        raise BadCalibration(
            "by the arm's motion the board's images are mirrored: switch off mirroring in the camera's driver, or set "
            "its flip in the spec, and take the views again"
        )
    if not _BENT_SCALE[0] < scale < _BENT_SCALE[1]:
        raise BadCalibration(
            f"board and hand do not move together (their lengths are as {scale:.2f} to 1): the setup is the other one "
            f"than {setup!r}, the poses are another arm's, or the board is not the one described"
        )
    if not joints_off and abs(scale - 1) > max(_MAX_SCALE_ERROR, 4 * float(np.sqrt(variance))):
        raise BadCalibration(
            f"by the arm's motion the board's squares measure {1e3 * scale * board.square_m:.2f} mm, not "
            f"{1e3 * board.square_m:.2f} mm: measure the print and set square_m, or these are another arm's poses"
        )


def _require_fit(found: Fit) -> None:
    noise = found.noise
    if noise.position_m > _MAX_POSITION_M or noise.rotation_rad > _MAX_ROTATION_RAD or found.rms_px > _MAX_RMS_PX:
        raise BadCalibration(
            f"arm and board disagree by {1e3 * noise.position_m:.1f} mm, {np.rad2deg(noise.rotation_rad):.1f} degrees "
            f"and {found.rms_px:.1f} px: the board moved, the poses are another arm's or another tool's, the setup is "
            "the other one (eye-in-hand, eye-to-hand), or joints are off: solve them, too, with the arm's model"
        )


def _far_from_board(view: View, X: Doubles, camera_from_board: Doubles, setup: Setup) -> Doubles:
    hand = view.base_from_hand if setup == "eye_in_hand" else inverse(view.base_from_hand)
    return hand @ X @ camera_from_board


def _mean(poses: Sequence[Doubles]) -> Doubles:
    """Mean rotation and median translation."""
    turn = Rotation.from_matrix([T[:3, :3] for T in poses]).mean().as_matrix()
    return transform(turn, np.median([T[:3, 3] for T in poses], 0))
