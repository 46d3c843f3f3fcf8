"""Is the robot still the calibrated one, when no board is in sight? Its own gripper is compared with the image.

The arm's model, its measured joints and the calibrated camera say where the gripper's outline should be; the image
says where its edges are. Each single cause is then tried: the camera moved, or one joint slipped. For each the size
that explains the edges of all stills best is found by robust least squares, and the cause that explains most is graded
by the thresholds of the policy's spec. Stills cannot tell everything apart (a shift and a turn of the camera look alike
this far away), and need not: what counts is whether the policy sees the hand where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vla.errors import BadCalibration
from vla.spec import Drift
from vla.types import Image
from vla_calibration.contour import Mask, Mesh, covered, edges, outline
from vla_calibration.drift import DriftResult, grade
from vla_calibration.geometry import Doubles, apply, inverse, moved, skew
from vla_calibration.kinematics import Chain
from vla_calibration.store import CameraEntry

_REACH = (1.0, 0.5, 0.25, 0.0, 0.0)
"""How far an edge is searched for at each iteration, as a share of how far the cause could move the outline."""
_LEAST_PX, _MOST_PX = 4.0, 24.0
_MOST_M, _MOST_RAD = 0.04, 0.07
"""Of each cause that can be measured; beyond, the outline is not found, which is refused as well."""
_OUTLIER_PX = 2.0
_TUKEY = 4.685
_MIN_POINTS = 150
"""Of a still's outline, about two pixels apart."""
_SPARE = 1.3
"""So many times more than needed are asked of a pose that is suggested: by what drifted, the rest is hidden."""
_MIN_EXPLAINED = 0.5
"""Share of the outline that must lie on edges under the best cause; else it is not this gripper, or it is far off."""


@dataclass(frozen=True, eq=False)
class ArmShape:
    """What of the arm is seen."""

    chain: Chain
    """To the link that carries the gripper."""
    gripper: Mesh
    """In that link's frame, with the fingers as they are while the check runs."""
    links: tuple[Mesh, ...]
    """Of the base and of what each joint moves, in their own frames; only to know what hides the gripper."""


@dataclass(frozen=True, eq=False)
class Still:
    """One image while the arm stood still."""

    image: Image
    joints: Doubles
    """(J,) angles [rad], calibrated offsets included."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """A still, prepared."""

    smooth: Doubles
    joints: Doubles
    points: Doubles
    """(N, 3) of the gripper's outline, in its own frame."""
    normals: Doubles


@dataclass(frozen=True, eq=False)
class _Cause:
    """One explanation: joint (an index) slipped, or (None) the camera moved."""

    joint: int | None
    size: Doubles
    """(1,) [rad], or (3,) [m] in the camera's frame."""
    cost: float
    explained: float


def check_gripper(stills: Sequence[Still], arm: ArmShape, entry: CameraEntry, limits: Drift) -> DriftResult:
    """Compare the gripper in live images with where the calibration puts it.

    Args:
        stills: one or more; three with the wrist turned differently tell causes apart.
        arm: the arm's shape.
        entry: the calibration of the camera, which stands in the base frame.
        limits: of the policy, from its spec.

    Raises:
        BadCalibration: a camera on the hand, or too little of the gripper in sight.
    """
    if entry.mount != "base":
        raise BadCalibration("a camera on the hand always sees its gripper alike: check it with a board")
    seen = [s for s in (_prepared(i, still, arm, entry) for i, still in enumerate(stills)) if s is not None]
    if not seen:
        raise BadCalibration(
            f"in none of {len(stills)} stills enough of the gripper's outline is in sight, and not before the arm "
            "itself: move it to the middle of the image, before the table, and check again"
        )
    causes = [_explained(seen, arm, entry, joint) for joint in (None, *range(len(arm.chain.joints)))]
    best = min(causes, key=lambda cause: cause.cost)
    size = float(np.linalg.norm(best.size))
    metres, radians = (size, 0.0) if best.joint is None else (0.0, size)
    pixels = float(np.sqrt(best.cost))
    if best.explained < _MIN_EXPLAINED:
        reason = (
            f"only {best.explained:.0%} of the gripper's outline lies on edges of the image: it is not where the "
            "calibration puts it, by centimetres, or too dark, or another gripper. Check with a board"
        )
        return DriftResult("refuse", float("nan"), float("nan"), pixels, reason)
    level = grade(metres, radians, limits)
    what = (
        f"as if the camera had moved by {1e3 * size:.1f} mm"
        if best.joint is None
        else f"as if {arm.chain.names[best.joint]} were off by {np.rad2deg(size):.2f} degrees"
    )
    cure = "" if level == "ok" else "; put the camera back, home the arm, or calibrate again"
    return DriftResult(level, metres, radians, pixels, f"the gripper is seen {what}{cure}")


def in_sight(joints: Doubles, arm: ArmShape, entry: CameraEntry) -> bool:
    """Is enough of the gripper's outline in sight, and not before the arm itself, at joint angles (J,) [rad]?"""
    return len(_outline(joints, arm, entry)[0]) >= _SPARE * _MIN_POINTS


def _prepared(i: int, still: Still, arm: ArmShape, entry: CameraEntry) -> _Seen | None:
    lens = entry.intrinsics
    if still.image.shape != (lens.height, lens.width, 3):
        raise BadCalibration(f"still {i} is {still.image.shape}, the camera {(lens.height, lens.width, 3)}")
    points, normals = _outline(still.joints, arm, entry)
    if len(points) < _MIN_POINTS:
        return None
    return _Seen(cv2.GaussianBlur(still.image, (0, 0), 1.0).astype(np.float64), still.joints, points, normals)


def _outline(joints: Doubles, arm: ArmShape, entry: CameraEntry) -> tuple[Doubles, Doubles]:
    lens, camera_from_base = entry.intrinsics, inverse(entry.mount_from_camera)
    frames = [np.eye(4), *arm.chain.frames(joints)]
    shapes = [(mesh, camera_from_base @ T) for mesh, T in zip(arm.links, frames, strict=True)]
    pose = camera_from_base @ arm.chain.forward(joints)[0]
    return outline(arm.gripper, lens, pose, covered(shapes, lens)) or (np.empty((0, 3)), np.empty((0, 2)))


def _explained(seen: Sequence[_Seen], arm: ArmShape, entry: CameraEntry, joint: int | None) -> _Cause:
    """The size of one cause that brings outlines and edges together."""
    size: Doubles = np.zeros(3 if joint is None else 1)
    cost, explained = np.inf, 0.0
    most = _MOST_M if joint is None else _MOST_RAD
    J, _, _ = _all_rows(seen, arm, entry, joint, size, _LEAST_PX)
    # Farther than the cause could move it, an edge is another one: the wrist's own turn moves the outline by pixels.
    widest = min(_MOST_PX, most * float(np.quantile(np.linalg.norm(J, axis=1), 0.95)))
    for share in _REACH:
        reach = max(_LEAST_PX, share * widest)
        J, off, found = _all_rows(seen, arm, entry, joint, size, reach)
        cost = float(np.where(found, np.minimum(np.square(off), _OUTLIER_PX**2), _OUTLIER_PX**2).mean())
        explained = float((found & (np.abs(off) < _OUTLIER_PX)).mean())
        size = size + _step(J[found], off[found], size, most, reach)
    return _Cause(joint, size, cost, explained)


def _all_rows(
    seen: Sequence[_Seen], arm: ArmShape, entry: CameraEntry, joint: int | None, size: Doubles, reach: float
) -> tuple[Doubles, Doubles, Mask]:
    """`_rows` of every still, one after the other."""
    J, off, found = zip(*(_rows(s, arm, entry, joint, size, reach) for s in seen), strict=True)
    return np.concatenate(J), np.concatenate(off), np.concatenate(found)


def _rows(
    s: _Seen, arm: ArmShape, entry: CameraEntry, joint: int | None, size: Doubles, reach: float
) -> tuple[Doubles, Doubles, Mask]:
    """How the outline moves with the cause (N, P), how far its edges are [px] (N,), and where there is one."""
    place, joints = entry.mount_from_camera, s.joints
    if joint is None:
        place = moved(place, np.r_[size, 0, 0, 0])
    else:
        joints = joints + size * np.eye(len(joints))[joint]
    hand, body = arm.chain.forward(joints)
    pose = inverse(place) @ hand
    pixels, by_point, _ = entry.intrinsics.linearise(apply(pose, s.points))
    off, found = edges(s.smooth, pixels, s.normals, reach)
    if joint is None:
        by_size = -by_point
    else:
        turn = body[:3, joint] - skew(s.points) @ body[3:, joint]
        by_size = np.einsum("nij,nj->ni", by_point, turn @ pose[:3, :3].T)[:, :, None]
    return np.einsum("ni,nij->nj", s.normals, by_size), off, found


def _step(J: Doubles, off: Doubles, size: Doubles, prior: float, reach: float) -> Doubles:
    """Robust least squares (Tukey's weights), with a weak prior on the size for what no outline shows."""
    step = np.zeros(J.shape[1])
    for _ in range(8):
        left = off - J @ step
        sigma = float(np.clip(1.4826 * np.median(np.abs(left)), 0.3, reach / 6)) if len(left) else 1.0
        weight = np.square(np.maximum(0, 1 - np.square(left / (_TUKEY * sigma))))
        N = J.T @ (weight[:, None] * J) / sigma**2 + np.eye(len(step)) / prior**2
        step = np.linalg.solve(N, J.T @ (weight * off) / sigma**2 - size / prior**2)
    return step
