"""Joint angle offsets of an arm, from views of a board over many poses and the arm's nominal kinematics.

An encoder that is off by a degree moves the hand by a centimetre, and everything recorded with it. Camera place, board
place and offsets are fitted together. Two joints need more than that: an offset of the first is the same as turning the
whole base, one of the last the same as turning what the hand carries. They are fitted only when that side is known.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles
from vla_calibration.hand_eye import require_consistent, require_motion, require_scale
from vla_calibration.kinematics import Chain
from vla_calibration.rig import Fit, Noise, Rig, Setup, Unknown, View, fit

Known = Literal["mount", "board"]
MIN_VIEWS = 12
MAX_OFFSET_RAD = np.deg2rad(10.0)
"""Beyond, the arm was assembled or homed wrongly: that is to be repaired, not calibrated away."""
_MIN_SPREAD_RAD = np.deg2rad(6.0)
"""Standard deviation of a joint's angle over the views below which its offset is hardly seen."""
_MAX_STD_RAD = np.deg2rad(0.5)
_MAX_RMS_PX = 3.0


@dataclass(frozen=True, eq=False)
class JointOffsets:
    """True minus reported angles."""

    names: tuple[str, ...]
    """All joints of the arm."""
    offsets_rad: Doubles
    """(J,); zero for a joint that was not fitted."""
    fitted: tuple[int, ...]
    """Joints whose offset was fitted."""
    covariance: Doubles
    """(len(fitted), len(fitted)) [rad²]."""
    mount_from_camera: Doubles
    mount_covariance: Doubles
    """(6, 6), the offsets' own uncertainty included; zero where the mount was known."""
    far_from_board: Doubles
    noise: Noise
    dof: float | None
    rms_px: float

    @property
    def std_rad(self) -> Doubles:
        """(len(fitted),)."""
        return np.sqrt(np.diag(self.covariance))


def fittable(chain: Chain, setup: Setup, known: Sequence[Known]) -> tuple[int, ...]:
    """Joints whose offset can be told from the camera's and the board's place."""
    base_side, hand_side = ("board", "mount") if setup == "eye_in_hand" else ("mount", "board")
    first = 0 if base_side in known else 1
    last = len(chain.joints) if hand_side in known else len(chain.joints) - 1
    return tuple(range(first, last))


def calibrate_joint_offsets(
    views: Sequence[View],
    chain: Chain,
    rig: Rig,
    known: Sequence[Known] = (),
    noise: Noise | None = None,
) -> JointOffsets:
    """Find the offsets.

    Args:
        views: at least MIN_VIEWS with reported joint angles, all joints moving.
        chain: the arm's nominal kinematics.
        rig: where to start: camera and board as `start_rig` guesses them, or as they are known.
        known: sides of the rig that are measured and stay; see `fittable`.
        noise: of corners and arm when they are known; None estimates them.

    Raises:
        BadCalibration: a joint hardly moved, an offset is beyond repair by software, or the views do not fit the arm.
    """
    require_consistent(views, MIN_VIEWS)
    require_motion(views)
    joints = fittable(chain, rig.setup, known)
    _require_spread(views, chain, joints)
    J = len(chain.joints)
    start = replace(rig, offsets=np.zeros(J), corrections=np.zeros((len(views), 6)))
    places: list[Unknown] = [side for side in get_args(Known) if side not in known]
    fitted = functools.partial(fit, chain=chain, joints=joints, name="joint offsets")
    rough = fitted(start, views, [*places, "offsets"], Noise(pixel=1.0), estimate_noise=False)
    unknowns: list[Unknown] = [*places, "offsets", "corrections"]
    found = fitted(rough.rig, views, unknowns, noise or Noise(), estimate_noise=noise is None)
    _require_plausible(found, chain, joints)
    corrected = [replace(v, base_from_hand=chain.forward(_joints_of(v, chain) + found.rig.offsets)[0]) for v in views]
    poses = [rig.board.pose(v.detection, rig.camera) for v in views]
    require_scale(corrected, poses, found.rig.mount_from_camera, rig.setup, rig.board)
    return JointOffsets(
        chain.names,
        found.rig.offsets,
        joints,
        found.covariance_of("offsets"),
        found.rig.mount_from_camera,
        np.zeros((6, 6)) if "mount" in known else found.covariance_of("mount"),
        found.rig.far_from_board,
        found.noise,
        found.dof,
        found.rms_px,
    )


def _require_spread(views: Sequence[View], chain: Chain, joints: Sequence[int]) -> None:
    spread = np.std([_joints_of(v, chain) for v in views], axis=0)
    still = [f"{chain.names[i]} ({np.rad2deg(spread[i]):.1f})" for i in joints if spread[i] < _MIN_SPREAD_RAD]
    if still:
        raise BadCalibration(
            f"hardly moved between the views [degrees]: {', '.join(still)}. Take views that move each of them by 20 "
            "degrees or more"
        )


def _require_plausible(found: Fit, chain: Chain, joints: Sequence[int]) -> None:
    if found.rms_px > _MAX_RMS_PX:
        raise BadCalibration(
            f"corners are {found.rms_px:.1f} px from where the arm's model puts them: this is another arm's model or "
            "tool, or the board moved"
        )
    std = np.sqrt(np.diag(found.covariance_of("offsets")))
    for place, i in enumerate(joints):
        offset = found.rig.offsets[i]
        if std[place] > _MAX_STD_RAD:
            raise BadCalibration(
                f"{chain.names[i]}: its offset is known to ±{np.rad2deg(std[place]):.1f} degrees only; take more "
                "views, with larger and independent motions of the joints"
            )
        if abs(offset) > MAX_OFFSET_RAD:
            raise BadCalibration(
                f"{chain.names[i]} is off by {np.rad2deg(offset):.1f} degrees: home the joint again or check its "
                "assembly; offsets above 10 degrees are not corrected in software"
            )


def _joints_of(view: View, chain: Chain) -> Doubles:
    if view.joints is None:
        raise BadCalibration(f"the view at {view.stamp_ns} ns has no joint angles; record them with each image")
    if view.joints.shape != (len(chain.joints),):
        raise BadCalibration(
            f"the view at {view.stamp_ns} ns has {len(view.joints)} joint angles, the model's arm {len(chain.joints)} "
            f"({', '.join(chain.names)}): it is another arm's model, or --hand is not the hand"
        )
    return view.joints
