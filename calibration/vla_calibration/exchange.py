"""Calibrations of and for other programs: ROS's camera_info, easy_handeye2, and URDF or MJCF with the offsets in."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla.runs import write_text
from vla_calibration.camera import MAX_PIXELS, CameraModel, Model
from vla_calibration.geometry import Doubles, transform
from vla_calibration.kinematics import OTHER_TURNS, WRITE_OUT, mjcf_joints, read_xml
from vla_calibration.store import Calibration, CameraEntry
from vla_calibration.untrusted import numbers, read_yaml, whole

ROS_MODELS: dict[Model, str] = {"radtan": "plumb_bob", "fisheye": "equidistant"}
"""Our lens -> ROS's distortion_model."""


def export(calibration: Calibration, folder: Path, model: Path | None = None) -> list[Path]:
    """Write a camera_info and an easy_handeye2 file a camera and, with the arm's model, a patched copy of it.

    Raises:
        BadCalibration: the model lacks a joint that was calibrated.
        Missing: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, entry in calibration.cameras.items():
        for suffix, data in (("camera_info", camera_info(name, entry.intrinsics)), ("handeye", handeye(name, entry))):
            written.append(folder / f"{name}.{suffix}.yaml")
            write_text(written[-1], yaml.safe_dump(data, sort_keys=False))
    if model is not None:
        written.append(folder / model.name)
        write_text(written[-1], patch_model(model, {n: o.value for n, o in calibration.joints.items()}))
    return written


def camera_info(name: str, camera: CameraModel) -> dict[str, Any]:
    """As camera_calibration_parsers reads it; R is the identity and P is K, since there is one eye."""
    K = camera.matrix

    def matrix(rows: int, columns: int, values: Doubles) -> dict[str, Any]:
        return {"rows": rows, "cols": columns, "data": [float(v) for v in np.ravel(values)]}

    return {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": matrix(3, 3, K),
        "distortion_model": ROS_MODELS[camera.model],
        "distortion_coefficients": matrix(1, len(camera.distortion), np.array(camera.distortion)),
        "rectification_matrix": matrix(3, 3, np.eye(3)),
        "projection_matrix": matrix(3, 4, np.column_stack([K, np.zeros(3)])),
    }


def read_camera_info(path: Path) -> CameraModel:
    """A camera from ROS's camera_info YAML. Raises BadCalibration."""
    data = read_yaml(path)
    try:
        models = {ros: ours for ours, ros in ROS_MODELS.items()}
        if data["distortion_model"] not in models:
            raise BadCalibration(f"{path}: distortion model {data['distortion_model']!r} is none of {sorted(models)}")
        model = models[data["distortion_model"]]
        K = numbers(data["camera_matrix"]["data"], (9,), f"{path}, camera_matrix").reshape(3, 3)
        values = data["distortion_coefficients"]["data"]
        distortion = numbers(values, (len(values),), f"{path}, distortion_coefficients")
        width, height = (
            whole(data[f"image_{side}"], 1, MAX_PIXELS, f"{path}, image_{side}") for side in ("width", "height")
        )
        if K[0, 1] or not np.array_equal(K[2], [0, 0, 1]):
            raise BadCalibration(f"{path}: camera_matrix {K.tolist()} has skew or is no camera's")
        fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
        return CameraModel(width, height, fx, fy, cx, cy, tuple(map(float, distortion)), model)
    except (KeyError, TypeError) as error:
        raise BadCalibration(f"{path} lacks or misshapes {error}: it is no camera_info file") from error


def handeye(name: str, entry: CameraEntry) -> dict[str, Any]:
    """As easy_handeye2 stores it: the camera in the frame of the robot's base or of its effector."""
    x, y, z = map(float, entry.mount_from_camera[:3, 3])
    qx, qy, qz, qw = map(float, Rotation.from_matrix(entry.mount_from_camera[:3, :3]).as_quat())
    return {
        "parameters": {
            "name": name,
            "calibration_type": "eye_in_hand" if entry.mount == "hand" else "eye_on_base",
            "robot_base_frame": "base",
            "robot_effector_frame": "hand",
            "tracking_base_frame": name,
        },
        "transform": {
            "translation": {"x": x, "y": y, "z": z},
            "rotation": {"x": qx, "y": qy, "z": qz, "w": qw},
        },
    }


def read_handeye(path: Path) -> tuple[str, Doubles]:
    """The mount ("base" or "hand") and mount_from_camera (4, 4) from an easy_handeye2 file. Raises BadCalibration."""
    data = read_yaml(path)
    try:
        kind = data["parameters"]["calibration_type"]
        if kind not in ("eye_in_hand", "eye_on_base"):
            raise BadCalibration(f"{path}: calibration_type {kind!r} is neither eye_in_hand nor eye_on_base")
        shift, turn = data["transform"]["translation"], data["transform"]["rotation"]
        position = numbers([shift[k] for k in "xyz"], (3,), f"{path}, translation")
        quaternion = numbers([turn[k] for k in "xyzw"], (4,), f"{path}, rotation")
    except (KeyError, TypeError) as error:
        raise BadCalibration(f"{path} lacks or misshapes {error}: it is no easy_handeye2 file") from error
    if abs(np.linalg.norm(quaternion) - 1) > 1e-3:
        raise BadCalibration(f"{path}: rotation {quaternion.tolist()} is no unit quaternion in the order x, y, z, w")
    return "hand" if kind == "eye_in_hand" else "base", transform(Rotation.from_quat(quaternion).as_matrix(), position)


def imported(camera_info: Path | None, handeye: Path | None, before: CameraEntry | None) -> CameraEntry:
    """A camera from another program's files; what is not given stays as the store has it.

    Neither file says how sure it is, so the entry does not either.

    Raises:
        BadCalibration: neither file, a file that is none, or lens or place are known from nowhere.
    """
    if camera_info is None and handeye is None:
        raise BadCalibration("import needs --camera-info, ROS's YAML, or --handeye, easy_handeye2's file, or both")
    lens = None if camera_info is None else read_camera_info(camera_info)
    place = None if handeye is None else read_handeye(handeye)
    if before is not None:
        lens = lens or before.intrinsics
        place = place or (before.mount, before.mount_from_camera)
    if lens is None or place is None:
        other = "--camera-info" if lens is None else "--handeye"
        raise BadCalibration(f"the store does not know this camera yet: give {other} as well")
    return CameraEntry(lens, *place, None, None, 0)


def patch_model(path: Path, offsets_rad: dict[str, float]) -> str:
    """A URDF or MJCF with each offset turned into its joint's frame: reported angles then give true poses.

    Raises:
        BadCalibration: the model cannot be read, or lacks a joint.
    """
    root = read_xml(path)
    # Not every <joint> is one: a URDF's transmissions and an MJCF's constraints name them again.
    attributes = mjcf_joints(root) if root.tag == "mujoco" else {joint: joint.attrib for joint in root.findall("joint")}
    joints = {joint.get("name"): joint for joint in attributes}
    parents = {child: parent for parent in root.iter() for child in parent}
    for name, offset in offsets_rad.items():
        if name not in joints:
            raise BadCalibration(f"{path} has no joint {name!r}; it is another robot's model")
        if root.tag == "robot":
            _turn_urdf(joints[name], offset)
        else:
            _turn_mjcf(attributes[joints[name]], parents[joints[name]], offset, path)
    return ET.tostring(root, encoding="unicode") + "\n"


def _turn_urdf(joint: ET.Element, offset: float) -> None:
    origin, axis = joint.find("origin"), joint.find("axis")
    if origin is None:
        origin = ET.SubElement(joint, "origin")
    turn = Rotation.from_euler("xyz", [float(v) for v in (origin.get("rpy") or "0 0 0").split()])
    direction = np.array([float(v) for v in (axis.get("xyz", "1 0 0") if axis is not None else "1 0 0").split()])
    turned = (turn * Rotation.from_rotvec(offset * direction / np.linalg.norm(direction))).as_euler("xyz")
    origin.set("rpy", " ".join(f"{v:.12g}" for v in turned))


def _turn_mjcf(joint: dict[str, str], body: ET.Element, offset: float, path: Path) -> None:
    if other := sorted(OTHER_TURNS.intersection(body.keys())):
        raise BadCalibration(f"{path}: {body.get('name')!r} is turned by {', '.join(other)}: {WRITE_OUT}")
    w, x, y, z = (float(v) for v in (body.get("quat") or "1 0 0 0").split())
    direction = np.array([float(v) for v in (joint.get("axis") or "0 0 1").split()])
    turned = Rotation.from_quat([x, y, z, w]) * Rotation.from_rotvec(offset * direction / np.linalg.norm(direction))
    x, y, z, w = turned.as_quat()
    body.set("quat", " ".join(f"{v:.12g}" for v in (w, x, y, z)))
