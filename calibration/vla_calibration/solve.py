"""From a session of views to a calibration: lens first, then the camera's place, and with a model the arm's joints."""

from __future__ import annotations

from dataclasses import replace

from vla_calibration.capture import Session
from vla_calibration.hand_eye import calibrate_hand_eye, refine, start_rig
from vla_calibration.intrinsics import Intrinsics, calibrate_intrinsics
from vla_calibration.joint_offsets import calibrate_joint_offsets
from vla_calibration.kinematics import Chain
from vla_calibration.rig import View
from vla_calibration.store import Calibration, CameraEntry, Offset


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
    joints = before.joints if before else {}
    if chain is not None:
        joints, views = _joints(session, lens, chain)
    found = calibrate_hand_eye(views, c.board, lens.camera, c.setup, intrinsics_covariance=lens.covariance)
    mount = "hand" if c.setup == "eye_in_hand" else "base"
    entry = CameraEntry(
        found.camera,
        mount,
        found.mount_from_camera,
        found.covariance,
        found.rms_px,
        len(found.used),
        found.far_from_board,
    )
    base = before or Calibration()
    return replace(
        base, cameras={**base.cameras, c.camera: entry}, joints=joints, note=f"session {session.run.path.name}"
    )


def _joints(session: Session, lens: Intrinsics, chain: Chain) -> tuple[dict[str, Offset], list[View]]:
    """Offsets, and the views with the hand where they say it was."""
    c = session.config
    rough = refine(start_rig(session.views, c.board, lens.camera, c.setup, check_scale=False), session.views)
    found = calibrate_joint_offsets(session.views, chain, rough.rig)
    names = [chain.names[i] for i in found.fitted]
    offsets = {
        name: Offset(float(found.offsets_rad[i]), float(std))
        for name, i, std in zip(names, found.fitted, found.std_rad, strict=True)
    }
    corrected = [
        replace(v, base_from_hand=chain.forward(v.joints + found.offsets_rad)[0])
        for v in session.views
        if v.joints is not None
    ]
    return offsets, corrected
