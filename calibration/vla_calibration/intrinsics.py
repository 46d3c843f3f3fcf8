"""Intrinsics from views of a board: OpenCV's solution refined, outliers out, with covariance and coverage.

Zhang, "A flexible new technique for camera calibration" (2000), as OpenCV starts it; the refinement here is the same
least squares for both lens models, so that both come with a covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vla.errors import BadCalibration
from vla_calibration.board import MIN_CORNERS, Board, Detection
from vla_calibration.camera import CameraModel, Model
from vla_calibration.geometry import Doubles, apply, moved, skew, transform
from vla_calibration.least_squares import Rows, Term, solve

MIN_VIEWS = 8
GRID = (4, 3)
"""Cells across and down in which coverage is counted."""
MIN_COVERAGE = 0.6
"""Share of the cells in which a corner was seen. Below, the distortion near the border is a guess."""
MIN_TILT_RAD = np.deg2rad(10.0)
"""Some views must be tilted so far: from the front alone focal length and distance are one number."""
MAX_RMS_PX = 1.5
"""Above, the views do not show one board through one lens."""
MAX_WISH = 20.0
"""Squared standard deviations by which half of the views may disagree about the camera; one camera's make it 1."""
_OUTLIER = 6.0
"""Robust standard deviations of all corners at which one of them is left out."""
_ALWAYS_GOOD_PX = 0.1
_MAX_REJECTED = 0.3
"""Share of a view's corners, or of all views, beyond which something else is wrong."""


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A calibrated camera."""

    camera: CameraModel
    covariance: Doubles
    """(P, P) of `camera.parameters`."""
    sigma_px: float
    """Estimated standard deviation of a corner's coordinate."""
    rms_px: float
    """Root mean square distance from corner to reprojection, over the views used."""
    used: tuple[int, ...]
    """Views that were used; the others were outliers."""
    coverage: Doubles
    """(GRID[1], GRID[0]) corners seen in each cell."""

    @property
    def std(self) -> Doubles:
        """(P,) standard deviations of fx, fy, cx, cy, distortion."""
        return np.sqrt(np.diag(self.covariance))


@dataclass(frozen=True, eq=False)
class _State:
    camera: CameraModel
    poses: tuple[Doubles, ...]


def calibrate_intrinsics(
    views: Sequence[Detection], board: Board, size: tuple[int, int], model: Model = "radtan"
) -> Intrinsics:
    """Calibrate a camera.

    Args:
        views: detections of one board through one camera.
        board: what was seen.
        size: width and height of the images [px].
        model: the lens.

    Raises:
        BadCalibration: too few views, all from one side, too little of the image covered, or views that do not belong
            together; says which and what to do.
    """
    _require_inside(views, size)
    if len(views) < MIN_VIEWS:
        raise BadCalibration(f"{len(views)} view(s) of the board: at least {MIN_VIEWS} are needed, 20 are good")
    covered = coverage(views, size)
    share = float((covered > 0).mean())
    if share < MIN_COVERAGE:
        raise BadCalibration(
            f"the board was seen in {share:.0%} of the image, at least {MIN_COVERAGE:.0%} is needed: "
            f"move it {where_unseen(covered)}"
        )
    kept = dict(enumerate(views))
    while True:
        camera, poses = _start(list(kept.values()), board, size, model)
        _require_tilt(poses)
        found = _refine(camera, poses, list(kept.values()), board)
        cleaned = _without_outliers(kept, found[2])
        if len(cleaned) < max(MIN_VIEWS, (1 - _MAX_REJECTED) * len(views)):
            raise BadCalibration(
                f"{len(views) - len(cleaned)} of {len(views)} views do not fit the rest: they are of another camera or "
                "board, blurred, or the board bends; look at them and take them again"
            )
        if sum(len(v.ids) for v in cleaned.values()) == sum(len(v.ids) for v in kept.values()):
            break
        kept = cleaned
    state, covariance, residuals, sigma, _ = found
    rms = float(np.sqrt(np.concatenate([np.square(r).sum(1) for r in residuals]).mean()))
    if rms > MAX_RMS_PX:
        raise BadCalibration(
            f"the corners are {rms:.1f} px from where one lens would put them: the views are of several cameras, the "
            f"board is not the one described ({board.columns} x {board.rows} {board.kind}), or it bends"
        )
    _require_one_camera(state, found[4], list(kept.values()), board)
    return Intrinsics(state, covariance, sigma, rms, tuple(kept), covered)


def coverage(views: Sequence[Detection], size: tuple[int, int]) -> Doubles:
    """(GRID[1], GRID[0]) how many corners were seen in each cell of the image."""
    corners = np.concatenate([v.corners for v in views]) if views else np.empty((0, 2))
    bins = [np.linspace(0, size[1], GRID[1] + 1), np.linspace(0, size[0], GRID[0] + 1)]
    return np.asarray(np.histogram2d(corners[:, 1], corners[:, 0], bins)[0])


def _without_outliers(kept: dict[int, Detection], residuals: Sequence[Doubles]) -> dict[int, Detection]:
    """Without corners far off, such as those half hidden, and without views that lose too many of them."""
    sigma = 1.4826 * float(np.median(np.abs(np.concatenate(residuals))))
    cleaned = {}
    for (i, view), r in zip(kept.items(), residuals, strict=True):
        good = np.linalg.norm(r, axis=1) <= max(_OUTLIER * sigma, _ALWAYS_GOOD_PX)
        if good.mean() >= 1 - _MAX_REJECTED and good.sum() >= MIN_CORNERS:
            cleaned[i] = Detection(view.ids[good], view.corners[good])
    return cleaned


def where_unseen(covered: Doubles) -> str:
    """In words, where the board has not been yet."""
    rows, columns = ("top", "middle", "bottom"), ("left", "centre left", "centre right", "right")
    empty = [f"{rows[r]} {columns[c]}" for r, c in np.argwhere(covered == 0)]
    return "to the " + ", ".join(empty) + " of the image"


def _require_inside(views: Sequence[Detection], size: tuple[int, int]) -> None:
    for i, view in enumerate(views):
        if (view.corners < -1).any() or (view.corners > np.array(size)).any():
            raise BadCalibration(
                f"view {i} has corners outside an image of {size[0]} x {size[1]}: it is of another camera or resolution"
            )


def _require_tilt(poses: Sequence[Doubles]) -> None:
    tilts = np.array([np.arccos(np.clip(abs(T[2, 2]), 0, 1)) for T in poses])
    if (tilts > MIN_TILT_RAD).sum() < 3:
        raise BadCalibration(
            f"the board faced the camera squarely in {(tilts <= MIN_TILT_RAD).sum()} of {len(poses)} views: focal "
            f"length and distance cannot be told apart. Tilt it by 20 to 40 degrees to each side"
        )


def _require_one_camera(
    camera: CameraModel, poses: Sequence[Doubles], views: Sequence[Detection], board: Board
) -> None:
    """Two cameras' views, half and half, are fitted by one in between, and no view stands out.

    So each view is asked what focal length and centre it would rather have, in units of its own uncertainty.
    """
    wishes = []
    for view, T in zip(views, poses, strict=True):
        points = board.points[view.ids]
        pixels, by_point, by_camera = camera.linearise(apply(T, points))
        by_shift = by_point @ T[:3, :3]
        focal = by_camera[:, :, :1] + by_camera[:, :, 1:2] * camera.fy / camera.fx
        columns = [focal, by_camera[:, :, 2:4], by_shift, -by_shift @ skew(points)]
        J = np.concatenate(columns, 2).reshape(2 * len(points), -1)
        r = (view.corners - pixels).ravel()
        step, *_ = np.linalg.lstsq(J, r, rcond=None)
        variance = float(np.square(r - J @ step).sum()) / (len(r) - len(step))
        wish = step[:3] @ np.linalg.solve(np.linalg.inv(J.T @ J)[:3, :3] * variance, step[:3])
        wishes.append(float(wish) / 3)
    if np.median(wishes) > MAX_WISH:
        raise BadCalibration(
            f"the views disagree about the camera by {np.sqrt(np.median(wishes)):.0f} standard deviations: they are of "
            "several cameras, or of one whose zoom or focus moved. Fix the focus and take the views again"
        )


def _start(
    views: Sequence[Detection], board: Board, size: tuple[int, int], model: Model
) -> tuple[CameraModel, tuple[Doubles, ...]]:
    points = [board.points[v.ids].reshape(-1, 1, 3) for v in views]
    corners = [v.corners.reshape(-1, 1, 2) for v in views]
    K: Any
    try:
        if model == "fisheye":
            flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW
            _, K, distortion, turns, shifts = cv2.fisheye.calibrate(points, corners, size, None, None, flags=flags)
        else:
            floats = [p.astype(np.float32) for p in points], [c.astype(np.float32) for c in corners]
            _, K, distortion, turns, shifts = cv2.calibrateCamera(*floats, size, None, None)
    except cv2.error as error:
        raise BadCalibration(
            f"no {model} camera explains the views ({error.err}); are all of them of this board and camera?"
        ) from error
    fx, fy, cx, cy = (float(K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = CameraModel(size[0], size[1], fx, fy, cx, cy, tuple(map(float, distortion.ravel())), model)
    poses = [transform(np.asarray(cv2.Rodrigues(r)[0]), np.ravel(t)) for r, t in zip(turns, shifts, strict=True)]
    return camera, tuple(poses)


def _refine(
    camera: CameraModel, poses: tuple[Doubles, ...], views: Sequence[Detection], board: Board
) -> tuple[CameraModel, Doubles, list[Doubles], float, tuple[Doubles, ...]]:
    """Camera, covariance of its parameters, residuals (N, 2) a view [px], the corners' noise [px], board poses."""
    n_camera = len(camera.parameters)
    n = n_camera + 6 * len(poses)

    def linearise(state: _State) -> Rows:
        residuals, information, gradient = [], np.zeros((n, n)), np.zeros(n)
        for i, (view, T) in enumerate(zip(views, state.poses, strict=True)):
            points = board.points[view.ids]
            pixels, by_point, by_camera = state.camera.linearise(apply(T, points))
            by_shift = by_point @ T[:3, :3]
            J = np.concatenate([by_camera, by_shift, -by_shift @ skew(points)], 2).reshape(2 * len(points), -1)
            r = (pixels - view.corners).ravel()
            at = np.r_[0:n_camera, n_camera + 6 * i : n_camera + 6 * i + 6]
            information[np.ix_(at, at)] += J.T @ J
            gradient[at] += J.T @ r
            residuals.append(r)
        return {"px": Term(np.concatenate(residuals), information, gradient)}

    def retract(state: _State, step: Doubles) -> _State:
        moves = step[n_camera:].reshape(-1, 6)
        moved_poses = tuple(moved(T, move) for T, move in zip(state.poses, moves, strict=True))
        return _State(state.camera.with_parameters(state.camera.parameters + step[:n_camera]), moved_poses)

    found = solve(_State(camera, poses), linearise, retract, "intrinsics")
    sigma = found.scale("px")
    ends = np.cumsum([2 * len(v.ids) for v in views])[:-1]
    residuals: list[Doubles] = [r.reshape(-1, 2) for r in np.split(found.residuals["px"], ends)]
    covariance = found.covariance[:n_camera, :n_camera] * sigma**2
    return found.state.camera, covariance, residuals, sigma, found.state.poses
