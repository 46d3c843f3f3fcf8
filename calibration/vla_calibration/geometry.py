"""Rigid transforms as (4, 4) matrices. `a_from_b` maps points of frame b into frame a: p_a = a_from_b · p_b.

A small change of a transform is a twist (6,): translation [m], then rotation vector [rad], both in the transform's own
right-hand frame: `moved(T, twist)` = T · [exp(rotation), translation]. Covariances of transforms are over this twist.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration

Doubles = npt.NDArray[np.float64]


def transform(rotation: Doubles, translation: Doubles) -> Doubles:
    """(4, 4) of a rotation (3, 3) and a translation (3,) [m]."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def inverse(T: Doubles) -> Doubles:
    """b_from_a of a_from_b."""
    return transform(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])


def apply(T: Doubles, points: Doubles) -> Doubles:
    """Points (N, 3) in the other frame."""
    moved_points: Doubles = points @ T[:3, :3].T + T[:3, 3]
    return moved_points


def moved(T: Doubles, twist: Doubles) -> Doubles:
    """The transform changed by a twist (6,) in its right-hand frame."""
    return T @ transform(Rotation.from_rotvec(twist[3:]).as_matrix(), twist[:3])


def difference(T: Doubles, other: Doubles) -> Doubles:
    """The twist (6,) with `moved(T, twist)` = other."""
    step = inverse(T) @ other
    return np.concatenate([step[:3, 3], Rotation.from_matrix(step[:3, :3]).as_rotvec()])


def distance(T: Doubles, other: Doubles) -> tuple[float, float]:
    """How far two transforms are apart: metres and radians."""
    twist = difference(T, other)
    return float(np.linalg.norm(twist[:3])), float(np.linalg.norm(twist[3:]))


def skew(points: Doubles) -> Doubles:
    """(N, 3, 3) matrices with skew(p) @ v = p x v, of points (N, 3)."""
    x, y, z = points.T
    zero = np.zeros_like(x)
    return np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1), np.stack([-y, x, zero], 1)], 1)


def looking_at(eye: Doubles, target: Doubles, roll_rad: float = 0.0) -> Doubles:
    """Where a camera at `eye` (3,) stands that looks at `target` (3,), in their frame: z forward, x right, y down."""
    z = (target - eye) / np.linalg.norm(target - eye)
    up = np.array([0.0, 0.0, 1.0]) if abs(z[2]) < 0.95 else np.array([1.0, 0.0, 0.0])
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z], 1)
    return transform(R @ Rotation.from_rotvec([0.0, 0.0, roll_rad]).as_matrix(), eye)


def checked(T: Doubles, name: str) -> Doubles:
    """The transform, if it is one.

    Raises:
        BadCalibration: not (4, 4), not finite, or its rotation is none (mirrored, scaled, sheared).
    """
    T = np.asarray(T, np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise BadCalibration(f"{name}: want a finite (4, 4) transform, got shape {T.shape}, {T.tolist()}")
    R = T[:3, :3]
    proper = np.allclose(R @ R.T, np.eye(3), atol=1e-4) and np.linalg.det(R) > 0
    if not proper or not np.allclose(T[3], [0, 0, 0, 1]):
        raise BadCalibration(
            f"{name} is no rigid transform (its rotation is mirrored, scaled or sheared): {T.tolist()}; "
            "check the order of the quaternion and the row of translation"
        )
    return T
