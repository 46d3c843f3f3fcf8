"""The tool's tip by pivoting it in a dimple, and the gripper's width against a gauge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles, checked

MIN_POSES = 5
MIN_WIDTHS = 3
_MAX_RESIDUAL_M = 0.005
_MAX_STD_M = 0.005


@dataclass(frozen=True, eq=False)
class Tool:
    """Where the tip is."""

    tip_m: Doubles
    """(3,) in the hand's frame."""
    covariance: Doubles
    """(3, 3) [m²]."""
    residual_m: float
    """Root mean square distance of the tip from the dimple."""


@dataclass(frozen=True)
class GripperWidth:
    """True width = scale · reported + offset."""

    scale: float
    offset_m: float
    scale_std: float
    offset_std_m: float


def calibrate_tip(base_from_hand: Sequence[Doubles]) -> Tool:
    """The tip, from poses (4, 4) of the hand with the tip resting in one dimple: R · tip + t is the same point in all.

    Raises:
        BadCalibration: too few poses, too little turning, or the tip slipped.
    """
    if len(base_from_hand) < MIN_POSES:
        raise BadCalibration(f"{len(base_from_hand)} poses with the tip in the dimple: at least {MIN_POSES} are needed")
    poses = [checked(T, f"pose {i}") for i, T in enumerate(base_from_hand)]
    M = np.concatenate([np.column_stack([T[:3, :3], -np.eye(3)]) for T in poses])
    y = np.concatenate([-T[:3, 3] for T in poses])
    if np.linalg.cond(M) > 100:
        raise BadCalibration("the hand hardly turned about the dimple: tilt it by 30 degrees and more to all sides")
    solution, *_ = np.linalg.lstsq(M, y, rcond=None)
    residuals = (M @ solution - y).reshape(-1, 3)
    rms = float(np.sqrt(np.square(residuals).sum(1).mean()))
    variance = float(np.square(residuals).sum()) / (len(y) - 6)
    covariance = variance * np.linalg.inv(M.T @ M)[:3, :3]
    if rms > _MAX_RESIDUAL_M or np.sqrt(np.trace(covariance)) > _MAX_STD_M:
        raise BadCalibration(
            f"the tip was {1e3 * rms:.1f} mm from the dimple on average: it slipped, or the arm's joints need "
            "calibrating first"
        )
    return Tool(solution[:3], covariance, rms)


def calibrate_width(reported_m: Sequence[float], true_m: Sequence[float]) -> GripperWidth:
    """Scale and offset of the gripper's width, from reported widths on gauges of known width.

    Raises:
        BadCalibration: too few or too similar gauges, or widths that lie on no line.
    """
    x, y = np.asarray(reported_m, np.float64), np.asarray(true_m, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadCalibration("reported and true widths must be as many finite numbers each")
    spread = min(np.ptp(x), np.ptp(y)) if len(x) else 0.0
    if len(x) < MIN_WIDTHS or spread < 0.01:
        raise BadCalibration(
            f"{len(x)} widths over {1e3 * spread:.0f} mm: close the gripper on at least "
            f"{MIN_WIDTHS} gauges that differ by 10 mm or more"
        )
    M = np.column_stack([x, np.ones_like(x)])
    (scale, offset), *_ = np.linalg.lstsq(M, y, rcond=None)
    residuals = y - M @ [scale, offset]
    variance = float(residuals @ residuals) / (len(x) - 2)
    std = np.sqrt(np.diag(variance * np.linalg.inv(M.T @ M)))
    if not 0.5 < scale < 2 or np.abs(residuals).max() > 0.002:
        raise BadCalibration(
            f"the widths lie on no line near the diagonal (scale {scale:.2f}, off by up to "
            f"{1e3 * np.abs(residuals).max():.1f} mm): check the unit (metres, both fingers together) and the gauges"
        )
    return GripperWidth(float(scale), float(offset), float(std[0]), float(std[1]))
