"""One YAML a robot: every calibration it ever had, newest last, with how sure each number is and where it came from.

    format: 1
    robot: panda_tabletop
    versions:
      - version: 1
        date, revision, spec, note
        cameras: {agent: {intrinsics, intrinsics_covariance, mount, mount_from_camera, covariance, ...}}
        joints: {joint2: {offset_rad, std_rad}}
        clocks: {agent: {offset_s, std_s}}
        gripper: {scale, offset_m}
        tool: {tip_m, covariance}

Versions are never changed, only added. The file is read as untrusted: plain YAML without tags or aliases, and every
number is checked for type, shape and range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla.errors import BadCalibration
from vla.runs import revision, to_plain, write_text
from vla.spec import Spec
from vla_calibration.camera import MAX_PIXELS, CameraModel
from vla_calibration.geometry import Doubles, checked, distance
from vla_calibration.joint_offsets import MAX_OFFSET_RAD
from vla_calibration.time_offset import MAX_OFFSET_S
from vla_calibration.untrusted import CURE, known, label, numbers, read_yaml, text, whole

FORMAT = 1
_MAX_TOOL_M = 1.0
_MAX_MOUNT_M = 20.0
"""Farther from the base, or from the hand, no camera can see what the arm does."""
_MAX_VARIANCE = 100.0
"""Of a place [m², rad²]: beyond, nothing was measured."""
_ROUNDING = 1e-6
"""By which a covariance's smallest eigenvalue may be negative, its variances scaled to 1."""


@dataclass(frozen=True, eq=False)
class CameraEntry:
    """One calibrated camera."""

    intrinsics: CameraModel
    mount: str
    """Frame that carries it: "base" or "hand"."""
    mount_from_camera: Doubles
    """(4, 4)."""
    covariance: Doubles | None
    """(6, 6) of its twist, [m] then [rad], in the camera's frame; None where another program measured it."""
    rms_px: float | None
    """Root mean square reprojection error; None likewise."""
    views: int
    """Views of a board it was found from."""
    far_from_board: Doubles | None = None
    """(4, 4) where the board was: base_from_board for a camera on the hand, hand_from_board for one in the base."""
    intrinsics_covariance: Doubles | None = None
    """(P, P) of `intrinsics.parameters`; None where they were not calibrated here."""


@dataclass(frozen=True)
class Offset:
    """A number and its standard deviation."""

    value: float
    std: float


@dataclass(frozen=True, eq=False)
class Tip:
    """Where the tool's tip is."""

    tip_m: Doubles
    """(3,) in the hand's frame."""
    covariance: Doubles
    """(3, 3) [m²]."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """One version: everything known about a robot at a date."""

    cameras: dict[str, CameraEntry] = field(default_factory=dict)
    joints: dict[str, Offset] = field(default_factory=dict)
    """Joint -> true minus reported angle [rad]."""
    clocks: dict[str, Offset] = field(default_factory=dict)
    """Camera -> joint-state time minus camera stamp [s]."""
    gripper: tuple[float, float] | None = None
    """true width = scale · reported + offset [m]."""
    tool: Tip | None = None
    spec: str | None = None
    """`robot_digest` of the spec it was made for."""
    note: str = ""
    version: int = 0
    """Set when it is stored."""
    date: str = ""
    revision: str = ""


def robot_digest(spec: Spec) -> str:
    """Digest of what a spec says of the robot: what a policy adds, and where cameras are, is left out."""
    cameras = tuple(replace(camera, pose=None) for camera in spec.cameras)
    return replace(spec, cameras=cameras, chunk_size=None, normalisation=None, drift=None).digest()


def add(path: Path, robot: str, calibration: Calibration) -> int:
    """Append a version to a robot's file, made if there is none; returns its number. Atomic.

    Raises:
        BadCalibration: the file is another robot's, or damaged, or the version is none that could be read again.
    """
    versions = [_plain(c) for c in history(path, robot)] if path.exists() else []
    number = len(versions) + 1
    label(robot, "the robot's name")
    about = {"version": number, "date": datetime.now(UTC).isoformat(timespec="seconds"), "revision": revision()}
    versions.append(_plain(calibration) | about)
    _calibration(versions[-1], "the new version", number)  # one that cannot be read again would cost all the others
    document = yaml.safe_dump({"format": FORMAT, "robot": robot, "versions": versions}, sort_keys=False, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, document)
    return number


def history(path: Path, robot: str | None = None) -> list[Calibration]:
    """Every version in a robot's file, oldest first.

    Raises:
        BadCalibration: no such file, not a calibration, damaged, or of another robot than `robot`.
    """
    data = read_yaml(path)
    own, versions = data.get("format"), data.get("versions")
    if isinstance(own, int) and own > FORMAT:
        raise BadCalibration(f"{path} is of format {own}, this version reads format {FORMAT}: update vla-stack")
    if own != FORMAT or not isinstance(versions, list) or not versions:
        raise BadCalibration(f"{path} is no calibration of format {FORMAT}. {CURE}")
    known(data, ("format", "robot", "versions"), str(path))
    whose = label(data.get("robot"), f"{path}, robot")
    if robot is not None and whose != robot:
        raise BadCalibration(
            f"{path} is the calibration of robot {whose!r}, not of {robot!r}: choose that robot's file"
        )
    return [_calibration(entry, f"{path}, version {i}", i) for i, entry in enumerate(versions, 1)]


def robot_of(path: Path) -> str:
    """Whose calibration a file is. Raises BadCalibration."""
    return label(read_yaml(path).get("robot"), f"{path}, robot")


def load(path: Path, robot: str | None = None, version: int | None = None) -> Calibration:
    """One version, the newest unless told otherwise. Raises BadCalibration, see `history`."""
    versions = history(path, robot)
    if version is None:
        return versions[-1]
    if not 1 <= version <= len(versions):
        raise BadCalibration(f"{path} has versions 1 to {len(versions)}, not {version}")
    return versions[version - 1]


def differences(a: Calibration, b: Calibration) -> list[str]:
    """What changed from a to b, in words a person can judge; [] when nothing did."""
    found: list[str] = []
    for name in sorted({*a.cameras, *b.cameras}):
        if name not in a.cameras or name not in b.cameras:
            found.append(f"camera {name}: only in version {(a if name in a.cameras else b).version}")
            continue
        x, y = a.cameras[name], b.cameras[name]
        if x.mount != y.mount:
            found.append(f"camera {name}: mounted on the {x.mount}, then on the {y.mount}")
            continue
        metres, radians = distance(x.mount_from_camera, y.mount_from_camera)
        if metres > 0 or radians > 0:
            found.append(f"camera {name}: moved by {1e3 * metres:.2f} mm and {math.degrees(radians):.3f} degrees")
        focal = y.intrinsics.fx / x.intrinsics.fx - 1
        if x.intrinsics != y.intrinsics:
            found.append(f"camera {name}: intrinsics changed, focal length by {100 * focal:+.3f}%")
    for name in sorted({*a.joints, *b.joints}):
        change = math.degrees(b.joints.get(name, Offset(0, 0)).value - a.joints.get(name, Offset(0, 0)).value)
        if change:
            found.append(f"joint {name}: offset changed by {change:+.3f} degrees")
    for name in sorted({*a.clocks, *b.clocks}):
        change = b.clocks.get(name, Offset(0, 0)).value - a.clocks.get(name, Offset(0, 0)).value
        if change:
            found.append(f"clock of {name}: offset changed by {1e3 * change:+.2f} ms")
    if a.gripper != b.gripper:
        found.append(f"gripper: {a.gripper} then {b.gripper} (scale, offset [m])")
    was, now = ("none" if c.tool is None else f"{np.round(c.tool.tip_m, 5).tolist()} m" for c in (a, b))
    if was != now:
        found.append(f"tool: tip at {was}, then {now}")
    return found


def _plain(c: Calibration) -> dict[str, Any]:
    return {
        "version": c.version,
        "date": c.date,
        "revision": c.revision,
        "spec": c.spec,
        "note": c.note,
        "cameras": {name: to_plain(entry) for name, entry in c.cameras.items()},
        "joints": {name: {"offset_rad": o.value, "std_rad": o.std} for name, o in c.joints.items()},
        "clocks": {name: {"offset_s": o.value, "std_s": o.std} for name, o in c.clocks.items()},
        "gripper": None if c.gripper is None else {"scale": c.gripper[0], "offset_m": c.gripper[1]},
        "tool": to_plain(c.tool),
    }


def _calibration(data: Any, where: str, number: int) -> Calibration:
    try:
        known(data, _VERSION, where)
        if whole(data["version"], 1, 1 << 31, f"{where}, version") != number:
            raise BadCalibration(f"{where} calls itself {data['version']!r}. {CURE}")
        gripper, tool = data["gripper"], data.get("tool")  # files from before have none
        datetime.fromisoformat(text(data["date"], f"{where}, date"))
        return Calibration(
            {label(k, where): _camera(entry, f"{where}, camera {k}") for k, entry in data["cameras"].items()},
            {
                text(k, where): _offset(v, "rad", MAX_OFFSET_RAD, f"{where}, joint {k}")
                for k, v in data["joints"].items()
            },
            {label(k, where): _offset(o, "s", MAX_OFFSET_S, f"{where}, clock {k}") for k, o in data["clocks"].items()},
            None if gripper is None else _gripper(gripper, f"{where}, gripper"),
            None if tool is None else _tip(tool, f"{where}, tool"),
            None if data["spec"] is None else text(data["spec"], f"{where}, spec"),
            text(data["note"], f"{where}, note"),
            number,
            data["date"],
            text(data["revision"], f"{where}, revision"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadCalibration(f"{where} lacks or misshapes {error}. {CURE}") from error


def _camera(data: Any, where: str) -> CameraEntry:
    lens = known(known(data, _CAMERA, where)["intrinsics"], _LENS, f"{where}, intrinsics")
    fx, fy, cx, cy = map(float, numbers([lens[key] for key in ("fx", "fy", "cx", "cy")], (4,), f"{where}, intrinsics"))
    distortion = numbers(lens["distortion"], (len(lens["distortion"]),), f"{where}, distortion")
    width, height = (whole(lens[key], 1, MAX_PIXELS, f"{where}, {key}") for key in ("width", "height"))
    if data["mount"] not in ("base", "hand"):
        raise BadCalibration(f"{where}: mount {data['mount']!r} is neither 'base' nor 'hand'")
    place = checked(numbers(data["mount_from_camera"], (4, 4), f"{where}, mount_from_camera"), where)
    rms = None if data["rms_px"] is None else float(numbers(data["rms_px"], (), f"{where}, rms_px"))
    if (rms is not None and rms < 0) or np.linalg.norm(place[:3, 3]) > _MAX_MOUNT_M:
        raise BadCalibration(f"{where}: {rms} px, at {place[:3, 3].tolist()} m, is no camera's of this arm. {CURE}")
    board, of_lens = data["far_from_board"], data.get("intrinsics_covariance")  # files from before have none
    given = data["covariance"]
    covariance = None if given is None else _covariance(given, 6, f"{where}, covariance")
    if covariance is not None and np.trace(covariance) > _MAX_VARIANCE:
        raise BadCalibration(f"{where}: its place is known to {np.sqrt(np.trace(covariance)):.1f} m. {CURE}")
    n = 4 + len(distortion)
    return CameraEntry(
        CameraModel(width, height, fx, fy, cx, cy, tuple(map(float, distortion)), lens["model"]),
        data["mount"],
        place,
        covariance,
        rms,
        whole(data["views"], 0, 1 << 31, f"{where}, views"),
        None if board is None else checked(numbers(board, (4, 4), f"{where}, far_from_board"), where),
        None if of_lens is None else _covariance(of_lens, n, f"{where}, intrinsics_covariance"),
    )


def _covariance(value: Any, n: int, where: str) -> Doubles:
    """(n, n), symmetric and positive semidefinite but for rounding; variances may be zero: what was known."""
    found = numbers(value, (n, n), where)
    std = np.sqrt(np.maximum(np.diag(found), 0))
    scale = np.where(std > 0, std, 1.0)
    scaled = found / np.outer(scale, scale)
    if (np.diag(found) < 0).any() or not np.allclose(scaled, scaled.T, rtol=0, atol=_ROUNDING):
        raise BadCalibration(f"{where} is none: it has negative variances or is not symmetric. {CURE}")
    if np.linalg.eigvalsh(scaled).min() < -_ROUNDING:
        raise BadCalibration(f"{where} is none: some combination has a negative variance. {CURE}")
    return (found + found.T) / 2


def _tip(data: Any, where: str) -> Tip:
    tip = numbers(known(data, _fields(Tip), where)["tip_m"], (3,), f"{where}, tip_m")
    if np.linalg.norm(tip) > _MAX_TOOL_M:
        raise BadCalibration(f"{where}: a tip {np.linalg.norm(tip):.2f} m from the hand is no tool's. {CURE}")
    return Tip(tip, _covariance(data["covariance"], 3, f"{where}, covariance"))


def _offset(data: Any, unit: str, limit: float, where: str) -> Offset:
    keys = (f"offset_{unit}", f"std_{unit}")
    value, std = numbers([known(data, keys, where)[key] for key in keys], (2,), where)
    if abs(value) > limit or std < 0:
        raise BadCalibration(f"{where}: {value} ± {std} {unit} is beyond ±{limit:.3g} {unit}. {CURE}")
    return Offset(float(value), float(std))


def _gripper(data: Any, where: str) -> tuple[float, float]:
    keys = ("scale", "offset_m")
    scale, offset = numbers([known(data, keys, where)[key] for key in keys], (2,), where)
    if not 0.5 < scale < 2 or abs(offset) > 0.05:
        raise BadCalibration(f"{where}: scale {scale} and offset {offset} m are no gripper's. {CURE}")
    return float(scale), float(offset)


def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


_VERSION, _CAMERA, _LENS = _fields(Calibration), _fields(CameraEntry), _fields(CameraModel)
