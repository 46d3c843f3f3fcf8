"""How late a camera's stamps are against the joint states': from one recording of a moving arm and a board.

The angle through which the hand turns is the angle through which the board turns in the image, whatever the mount: two
signals of one motion. Cross-correlating their speeds gives the offset to a frame; least squares over both orientations
and the offset refines it and says how sure it is (after Furgale et al. 2013, with splines instead of their full state).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, RotationSpline

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles
from vla_calibration.least_squares import Rows, Term, solve

MAX_OFFSET_S = 0.25
"""Offsets searched, either way."""
MIN_FRAMES = 40
_MIN_SPEED_RAD_S = 0.1
"""Standard deviation of the turning speed; a smooth or slow motion looks the same at any offset."""
_MAX_STD_S = 0.005
_GRID_S = 0.005
_BASE_S = 0.1
"""Over which a speed is taken: from frame to frame the noise of a board's pose drowns a slow turn."""


@dataclass(frozen=True)
class TimeOffset:
    """Joint-state time = camera stamp + offset."""

    offset_s: float
    std_s: float
    residual_rad: float
    """Root mean square disagreement of the orientations that is left."""


@dataclass(frozen=True, eq=False)
class _State:
    offset_s: float
    left: Rotation
    right: Rotation
    """With `left` it absorbs the camera's and the board's orientation."""


def calibrate_time_offset(
    camera_stamps_ns: Sequence[int],
    board_rotations: Doubles,
    joint_stamps_ns: Sequence[int],
    hand_rotations: Doubles,
    eye_in_hand: bool,
) -> TimeOffset:
    """Find the offset.

    Args:
        camera_stamps_ns: (F,) of the frames in which the board was seen.
        board_rotations: (F, 3, 3) camera_from_board.
        joint_stamps_ns: (T,) of the joint states; they should cover the frames.
        hand_rotations: (T, 3, 3) base_from_hand.
        eye_in_hand: who carries the camera.

    Raises:
        BadCalibration: stamps run backwards or barely overlap, the motion is too slow, or the two do not belong
            together.
    """
    camera_s, joint_s = _seconds(camera_stamps_ns, joint_stamps_ns)
    if len(board_rotations) != len(camera_s) or len(hand_rotations) != len(joint_s):
        raise BadCalibration("a rotation is needed for each stamp: the recording is cut short; record it again")
    if not (np.isfinite(board_rotations).all() and np.isfinite(hand_rotations).all()):
        raise BadCalibration("a rotation is NaN or infinite; record again, and check the driver that publishes it")
    inside = (camera_s > joint_s[0] + MAX_OFFSET_S) & (camera_s < joint_s[-1] - MAX_OFFSET_S)
    if inside.sum() < MIN_FRAMES:
        raise BadCalibration(
            f"{int(inside.sum())} frames show the board while joint states were recorded, {MIN_FRAMES} are needed: "
            "record 10 s of motion with the board in sight; if there are more, the clocks differ by seconds: set them "
            "with NTP or PTP first"
        )
    camera_s, seen = camera_s[inside], np.asarray(board_rotations)[inside]
    if not eye_in_hand:  # base_from_hand = X · camera_from_board · Y; for a camera on the hand, its inverse
        seen = seen.transpose(0, 2, 1)
    spline = RotationSpline(joint_s, Rotation.from_matrix(np.asarray(hand_rotations)))
    boards = Rotation.from_matrix(seen)
    start = _correlate(camera_s, boards, spline)
    return _refine(camera_s, boards, spline, start)


def _correlate(times: Doubles, boards: Rotation, spline: RotationSpline) -> float:
    """The shift at which the turning speeds match best [s]."""
    lag = max(1, round(_BASE_S / float(np.median(np.diff(times)))))
    elapsed = times[lag:] - times[:-lag]
    speed = (boards[lag:] * boards[:-lag].inv()).magnitude() / elapsed
    middle = (times[lag:] + times[:-lag]) / 2
    if speed.std() < _MIN_SPEED_RAD_S:
        raise BadCalibration(
            f"the hand's turning speed varies by {speed.std():.2f} rad/s only: any offset fits. Swing the wrist to and "
            "fro by 20 degrees, once a second, unevenly"
        )
    shifts = np.arange(-MAX_OFFSET_S, MAX_OFFSET_S + _GRID_S / 2, _GRID_S)
    half = float(np.median(elapsed)) / 2
    scores = []
    for shift in shifts:
        turned = (spline(middle + shift + half) * spline(middle + shift - half).inv()).magnitude() / (2 * half)
        scores.append(np.corrcoef(turned, speed)[0, 1])
    best = int(np.argmax(scores))
    if scores[best] < 0.5:
        raise BadCalibration(
            f"camera and joints do not turn alike at any offset up to {MAX_OFFSET_S} s (correlation "
            f"{scores[best]:.2f}): the recordings are of different motions or arms"
        )
    return float(shifts[best])


def _refine(times: Doubles, boards: Rotation, spline: RotationSpline, start: float) -> TimeOffset:
    """hand(t + offset) = left · board(t)⁻¹ · right, for a camera on the hand looking at a board that stands."""

    def residual(state: _State) -> Doubles:
        wanted = spline(times + state.offset_s)
        return np.asarray(((state.left * boards.inv() * state.right) * wanted.inv()).as_rotvec())

    def linearise(state: _State) -> Rows:
        r = residual(state)
        J = np.empty((len(times), 3, 7))
        base = state.left * boards.inv() * state.right
        # Small residuals: the logarithm's own derivative is one.
        J[:, :, 0] = -base.apply(spline(times + state.offset_s).inv().apply(_speed(spline, times + state.offset_s)))
        J[:, :, 1:4] = np.eye(3)
        J[:, :, 4:7] = (state.left * boards.inv()).as_matrix()
        return {"rad": Term.dense(r.ravel(), J.reshape(-1, 7))}

    def retract(state: _State, step: Doubles) -> _State:
        offset = float(np.clip(state.offset_s + step[0], -MAX_OFFSET_S, MAX_OFFSET_S))
        return _State(
            offset, Rotation.from_rotvec(step[1:4]) * state.left, Rotation.from_rotvec(step[4:7]) * state.right
        )

    left, right = _align(spline(times + start), boards.inv())
    found = solve(_State(start, left, right), linearise, retract, "time offset")
    sigma = found.scale("rad")
    std = float(np.sqrt(found.covariance[0, 0])) * sigma
    if std > _MAX_STD_S:
        raise BadCalibration(
            f"the offset is known to ±{1e3 * std:.0f} ms only: record longer, move faster, or bring the board closer"
        )
    return TimeOffset(found.state.offset_s, std, float(np.sqrt(3) * sigma))


def _speed(spline: RotationSpline, times: Doubles) -> Doubles:
    """(F, 3) angular velocity in the fixed frame [rad/s]."""
    step = 1e-4
    return np.asarray((spline(times + step) * spline(times - step).inv()).as_rotvec() / (2 * step))


def _align(hands: Rotation, seen: Rotation) -> tuple[Rotation, Rotation]:
    """left and right with hands ≈ left · seen · right: their motions share axes, so these are aligned (Park 1994)."""
    a = (hands * hands[0].inv()).as_rotvec()
    b = (seen * seen[0].inv()).as_rotvec()
    left, _ = Rotation.align_vectors(a, b)
    right = (left * seen).inv() * hands
    return left, right.mean()


def _seconds(camera_ns: Sequence[int], joint_ns: Sequence[int]) -> tuple[Doubles, Doubles]:
    """Both clocks in seconds from one zero."""
    arrays = []
    for name, stamps in (("camera", camera_ns), ("joint-state", joint_ns)):
        array = np.asarray(stamps, np.int64)
        if len(array) < 2:
            raise BadCalibration(f"{len(array)} {name} stamps: record 10 s of motion with the board in sight")
        if (np.diff(array) <= 0).any():
            at = int(np.argmax(np.diff(array) <= 0)) + 1
            raise BadCalibration(
                f"{name} stamps are not in order at number {at}: sort nothing, find out which driver or transport "
                "reorders them, and record again"
            )
        arrays.append(array)
    zero = arrays[1][0]
    return (arrays[0] - zero) / 1e9, (arrays[1] - zero) / 1e9
