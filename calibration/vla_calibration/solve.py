"""From a session of views to a calibration: lens first, then the camera's place, and with a model the arm's joints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.hand_eye import calibrate_hand_eye, refine, start_rig
from vla_calibration.intrinsics import Intrinsics, calibrate_intrinsics
from vla_calibration.joint_offsets import calibrate_joint_offsets
from vla_calibration.kinematics import Chain
from vla_calibration.rig import Setup, View
from vla_calibration.session import Session
from vla_calibration.store import Calibration, CameraEntry, Offset

MOUNTS: dict[Setup, str] = {"eye_in_hand": "hand", "eye_to_hand": "base"}
"""Setup -> the frame that carries the camera."""


def solve_session(session: Session, chain: Chain | None = None, before: Calibration | None = None) -> Calibration:
    """Calibrate a session's camera; what an earlier calibration knew of the rest of the robot is kept.

    Args:
        session: views and what they are of.
        chain: the arm's nominal kinematics; with it, its joint offsets are found first, and the camera's place by them.
        before: the robot's newest calibration.

    Raises:
        BadCalibration: the views do not determine it; says why and what to do.
    """
    c, views = session.config, session.views
    lens = calibrate_intrinsics([v.detection for v in views], c.board, (c.width, c.height), c.lens)
    base = before or Calibration()
    if chain is not None:
        entry, joints = _with_joints(session, lens, chain)
    elif base.joints:
        raise _no_model(base)
    else:
        entry, joints = _place(session, lens), {}
    note = f"session {session.run.path.name}"
    return replace(base, cameras={**base.cameras, c.camera: entry}, joints=joints, note=note)


def corrected(views: Sequence[View], chain: Chain | None, calibration: Calibration) -> list[View]:
    """Views with the hand where the calibrated joints put it; as they are where no joint was calibrated.

    Raises:
        BadCalibration: joints are calibrated, and the arm's model or a view's joint angles are missing.
    """
    if not calibration.joints:
        return list(views)
    if chain is None:
        raise _no_model(calibration)
    offsets = np.array([calibration.joints[n].value if n in calibration.joints else 0.0 for n in chain.names])
    found = []
    for view in views:
        if view.joints is None:
            raise BadCalibration(f"the view at {view.stamp_ns} ns has no joint angles; record them with each image")
        found.append(replace(view, base_from_hand=chain.forward(view.joints + offsets)[0]))
    return found


def _no_model(calibration: Calibration) -> BadCalibration:
    return BadCalibration(
        f"joints {', '.join(calibration.joints)} of this robot are calibrated, and without the arm's model the poses "
        "cannot be corrected: pass the nominal model (--model)"
    )


def _place(session: Session, lens: Intrinsics) -> CameraEntry:
    c = session.config
    found = calibrate_hand_eye(session.views, c.board, lens.camera, c.setup, intrinsics_covariance=lens.covariance)
    place, far, n = found.mount_from_camera, found.far_from_board, len(found.used)
    mount = MOUNTS[c.setup]
    return CameraEntry(found.camera, mount, place, found.covariance, found.rms_px, n, far, lens.covariance)


def _with_joints(session: Session, lens: Intrinsics, chain: Chain) -> tuple[CameraEntry, dict[str, Offset]]:
    """The camera's place and the joint offsets, fitted together: each is as sure as the other lets it be."""
    c, views = session.config, session.views
    start = refine(start_rig(views, c.board, lens.camera, c.setup, joints_off=True), views)
    found = calibrate_joint_offsets(views, chain, start.rig)
    offsets = {
        chain.names[i]: Offset(float(found.offsets_rad[i]), float(std))
        for i, std in zip(found.fitted, found.std_rad, strict=True)
    }
    place, far = found.mount_from_camera, found.far_from_board
    mount, n = MOUNTS[c.setup], len(views)
    entry = CameraEntry(lens.camera, mount, place, found.mount_covariance, found.rms_px, n, far, lens.covariance)
    return entry, offsets
