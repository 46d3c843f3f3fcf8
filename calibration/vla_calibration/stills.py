"""What the drift check without a board is given: stills in an npz file, and a folder of the arm's meshes.

    stills.npz      images (N, h, w, 3) uint8 RGB, joints (N, J) [rad] as the encoders report them
    meshes/         gripper.stl in the frame of the link that carries it, base.stl, and JOINT.stl of the link that each
                    joint moves, in that link's frame; binary STL in metres

Read as untrusted: plain arrays only, sizes bounded before anything is unpacked.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vla.errors import BadCalibration
from vla.runs import write_bytes
from vla.types import Image
from vla_calibration.contour import read_stl
from vla_calibration.geometry import Doubles
from vla_calibration.gripper_drift import ArmShape, Still
from vla_calibration.kinematics import Chain
from vla_calibration.store import Calibration

_LIMIT_BYTES = 512 << 20


def add_still(path: Path, image: Image, joints: Doubles) -> int:
    """Add an image (h, w, 3) and joint angles (J,) [rad] to a file, made if there is none; returns how many it has.

    Raises:
        BadCalibration: joint angles are NaN; or the file is none of stills, or of another camera's or arm's, or full.
        Missing: the disk is full; the file is as it was.
    """
    if not np.isfinite(joints).all():
        raise BadCalibration(f"joint angles {joints.tolist()} are not finite: look at who publishes them")
    images, angles = image[None], joints[None]
    if path.exists():
        before = _read(path)
        if before[0].shape[1:] != image.shape or before[1].shape[1:] != joints.shape:
            raise BadCalibration(
                f"{path} holds images {before[0].shape[1:]} and joints {before[1].shape[1:]}, now came "
                f"{image.shape} and {joints.shape}: begin another file"
            )
        images, angles = np.concatenate([before[0], images]), np.concatenate([before[1], angles])
    if images.nbytes + angles.nbytes > _LIMIT_BYTES // 2:
        raise BadCalibration(f"{path} is full with {len(images) - 1} stills: three are enough")
    packed = io.BytesIO()
    np.savez_compressed(packed, images=images, joints=angles)
    write_bytes(path, packed.getvalue())
    return len(images)


def read_stills(path: Path, chain: Chain, calibration: Calibration) -> list[Still]:
    """Stills, their joint angles corrected by the calibrated offsets. Raises BadCalibration."""
    images, joints = _read(path)
    if joints.shape[1] != len(chain.joints):
        raise BadCalibration(f"{path}: {joints.shape[1]} joint angles a still, the model has {len(chain.joints)}")
    offsets = [calibration.joints[name].value if name in calibration.joints else 0.0 for name in chain.names]
    return [Still(image, angles + offsets) for image, angles in zip(images, joints.astype(np.float64), strict=True)]


def _read(path: Path) -> tuple[Image, npt.NDArray[np.floating]]:
    """Images (N, h, w, 3) and joint angles (N, J)."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LIMIT_BYTES:
                raise BadCalibration(f"{path} unpacks to more than {_LIMIT_BYTES} bytes: three stills are enough")
        with np.load(path, allow_pickle=False) as arrays:
            images, joints = arrays["images"], arrays["joints"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadCalibration(f"{path} is no npz of `images` and `joints`: {error}") from error
    images_fit = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    if not images_fit or joints.ndim != 2 or len(joints) != len(images):
        raise BadCalibration(
            f"{path}: want images (N, h, w, 3) uint8 and joints (N, J), got {images.dtype} {images.shape} and "
            f"{joints.shape}"
        )
    if joints.dtype.kind != "f" or not np.isfinite(joints).all():
        raise BadCalibration(f"{path}: joint angles must be finite numbers [rad]")
    return images, joints


def read_shape(folder: Path, chain: Chain) -> ArmShape:
    """The arm's shape from a folder of STL files. Raises BadCalibration: one is missing or no binary STL."""
    links = tuple(read_stl(folder / f"{name}.stl") for name in ("base", *chain.names))
    return ArmShape(chain, read_stl(folder / "gripper.stl"), links)
