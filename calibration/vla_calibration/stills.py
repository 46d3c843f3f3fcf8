"""What the drift check without a board is given: stills in an npz file, and a folder of the arm's meshes.

    stills.npz      images (N, h, w, 3) uint8 RGB, joints (N, J) [rad] as the encoders report them
    meshes/         gripper.stl in the frame of the link that carries it, base.stl, and JOINT.stl of the link that each
                    joint moves, in that link's frame; binary STL in metres

Read as untrusted: plain arrays only, sizes bounded before anything is unpacked.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.contour import read_stl
from vla_calibration.gripper_drift import ArmShape, Still
from vla_calibration.kinematics import Chain
from vla_calibration.store import Calibration

_LIMIT_BYTES = 512 << 20


def read_stills(path: Path, chain: Chain, calibration: Calibration) -> list[Still]:
    """Stills, their joint angles corrected by the calibrated offsets. Raises BadCalibration."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LIMIT_BYTES:
                raise BadCalibration(f"{path} unpacks to more than {_LIMIT_BYTES} bytes: three stills are enough")
        with np.load(path, allow_pickle=False) as arrays:
            images, joints = arrays["images"], arrays["joints"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadCalibration(f"{path} is no npz of `images` and `joints`: {error}") from error
    n = len(chain.joints)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or joints.shape != (len(images), n):
        raise BadCalibration(
            f"{path}: want images (N, h, w, 3) uint8 and joints (N, {n}), got {images.dtype} {images.shape} and "
            f"{joints.shape}"
        )
    if joints.dtype.kind != "f" or not np.isfinite(joints).all():
        raise BadCalibration(f"{path}: joint angles must be finite numbers [rad]")
    offsets = [calibration.joints[name].value if name in calibration.joints else 0.0 for name in chain.names]
    return [Still(image, angles + offsets) for image, angles in zip(images, joints.astype(np.float64), strict=True)]


def read_shape(folder: Path, chain: Chain) -> ArmShape:
    """The arm's shape from a folder of STL files. Raises BadCalibration: one is missing or no binary STL."""
    links = tuple(read_stl(folder / f"{name}.stl") for name in ("base", *chain.names))
    return ArmShape(chain, read_stl(folder / "gripper.stl"), links)
