"""The contract between robot, dataset, policy and bundle. It travels with each; where two meet they are compared.

A mismatch is an error that names the field. Nothing is padded, clipped or renamed silently.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from vla.errors import BadConfig, BadObservation, SpecMismatch
from vla.types import Floats, Observation

Kind = Literal["absolute", "delta", "offset", "velocity"]
Rotation = Literal["none", "axis_angle", "rotation_6d", "quaternion_xyzw"]
Gripper = Literal["none", "width", "positive_open", "positive_close"]
Method = Literal["quantile", "mean_std"]
Flip = Literal["none", "vertical", "rotate_180"]


@dataclass(frozen=True)
class Dim:
    """One dimension of state or action."""

    name: str
    unit: str
    """SI: "m", "rad", "m/s", or "1"."""
    kind: Kind
    """Once a control period, a delta is added to the robot's *commanded* value, an offset to its *measured* value."""
    frame: str
    """The frame it is expressed in, or the joint it belongs to; "gripper" for the gripper's opening."""
    low: float
    high: float
    """Limits [unit], both included. Safety holds an action to them, and what an action `moves` to the state's."""
    max_rate: float | None = None
    """Largest change per second [unit/s] that safety lets through; None where low and high bound the move."""
    moves: str | None = None
    """For a delta or offset: the state dimension it moves. Safety keeps that one within its limits."""


@dataclass(frozen=True)
class CameraPose:
    """Where a camera is: its frame (z forward, x right, y down) in that of what carries it."""

    mount: Literal["base", "hand"]
    position_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]


@dataclass(frozen=True)
class Drift:
    """How far the live robot may be from the one that was trained on before a person is told, or nothing runs."""

    warn_m: float = 0.007
    refuse_m: float = 0.02
    """A camera's position, or the tool's, for joints that drifted [m]."""
    warn_rad: float = 0.018
    refuse_rad: float = 0.035
    """A camera's orientation, or any joint [rad]."""


@dataclass(frozen=True)
class Camera:
    """One camera, as the policy is to see it."""

    name: str
    height: int
    width: int
    crop: tuple[int, int, int, int] | None = None
    """(top, left, height, width) taken from the sensor's image before resizing."""
    flip: Flip = "none"
    """What was done to the sensor's image before it was stored."""
    pose: CameraPose | None = None
    """None where it is not known. Compared within `Spec.drift`, not exactly: no two calibrations agree to the bit."""


@dataclass(frozen=True)
class Normalisation:
    """Which statistics the policy's inputs and outputs are scaled by. The numbers are inside the policy."""

    method: Method
    digest: str
    """SHA-256 of the statistics."""


@dataclass(frozen=True)
class Spec:
    """Everything two parts must agree on before one acts on the other's numbers."""

    robot: str
    """Arm and controller, e.g. "panda_osc_pose"; two parts that name another are not for each other."""
    state: tuple[Dim, ...]
    """What is measured, S dimensions in this order."""
    action: tuple[Dim, ...]
    """What is commanded, A dimensions in this order."""
    rotation: Rotation
    """How turns among the dimensions are written; "none" where there are none."""
    gripper: Gripper
    """What its action means: an opening [m], or a number that above 0 opens or closes; "none" without a gripper."""
    cameras: tuple[Camera, ...]
    """In this order."""
    control_rate_hz: float
    """Actions a second; the action of a chunk's step i is due i periods after its observation."""
    chunk_size: int | None = None
    """H. None before a policy has chosen one (robot, dataset)."""
    normalisation: Normalisation | None = None
    """None before training."""
    drift: Drift | None = None
    """What `vla calibrate check` holds a robot to; None holds it to `Drift`'s defaults."""

    def __post_init__(self) -> None:
        for group in ("state", "action", "cameras"):
            names = [item.name for item in getattr(self, group)]
            if not names or len(set(names)) != len(names):
                raise BadConfig(f"spec.{group} needs at least one entry and unique names, got {names}")
        for dim in (*self.state, *self.action):
            _check_dim(dim)
        for camera in self.cameras:
            _check_camera(camera)
        for name, allowed in (("rotation", Rotation), ("gripper", Gripper)):
            if getattr(self, name) not in get_args(allowed):
                raise BadConfig(f"spec.{name} {getattr(self, name)!r} is none of {get_args(allowed)}")
        units = {d.name: d.unit for d in self.state}
        for dim in self.action:
            if dim.moves is not None and (dim.kind not in ("delta", "offset") or units.get(dim.moves) != dim.unit):
                raise BadConfig(
                    f"spec.action {dim.name!r} moves {dim.moves!r}: it must be a delta or offset of a state dimension, "
                    f"in its unit, {dim.unit!r}"
                )
        if not 0.01 <= self.control_rate_hz <= 10_000:
            raise BadConfig(f"spec.control_rate_hz must be within 0.01 and 10000, got {self.control_rate_hz}")
        if self.chunk_size is not None and not _is_count(self.chunk_size, _MAX_CHUNK):
            raise BadConfig(f"spec.chunk_size must be a whole number from 1 to {_MAX_CHUNK}, got {self.chunk_size!r}")
        if self.drift is not None and not all(0 < v < math.inf for v in dataclasses.astuple(self.drift)):
            raise BadConfig(f"spec.drift: thresholds must be positive and finite, got {self.drift}")

    @property
    def dt_ns(self) -> int:
        """The control period [ns]."""
        return round(1e9 / self.control_rate_hz)

    @property
    def action_low(self) -> Floats:
        """(A,) lower limits."""
        return np.array([d.low for d in self.action], np.float32)

    @property
    def action_high(self) -> Floats:
        """(A,) upper limits."""
        return np.array([d.high for d in self.action], np.float32)

    @property
    def gripper_actions(self) -> list[int]:
        """Indices of the action dimensions that open and close a gripper."""
        return [i for i, d in enumerate(self.action) if d.frame == "gripper"]

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values. What is not known of poses and drift is left out: specs from before had neither."""
        data = dataclasses.asdict(self)
        for camera in data["cameras"]:
            if camera["pose"] is None:
                del camera["pose"]
        if data["drift"] is None:
            del data["drift"]
        return data

    @classmethod
    def from_json(cls, data: Any, where: str = "spec") -> Self:
        """Rebuild a spec from untrusted JSON.

        Raises:
            BadConfig: a field is missing, unknown or of the wrong type; `where` names the source.
        """
        try:
            fields = dict(data)
            fields["state"] = tuple(Dim(**d) for d in fields["state"])
            fields["action"] = tuple(Dim(**d) for d in fields["action"])
            fields["cameras"] = tuple(_camera(c) for c in fields["cameras"])
            if fields.get("drift") is not None:
                fields["drift"] = Drift(**fields["drift"])
            if fields.get("normalisation") is not None:
                fields["normalisation"] = Normalisation(**fields["normalisation"])
            return cls(**fields)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise BadConfig(f"{where} is not a valid spec: {error}. Was it written by another version?") from error

    @classmethod
    def from_text(cls, text: str, where: str = "spec") -> Self:
        """Rebuild a spec from untrusted text. Raises BadConfig; `where` names the source."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadConfig(f"cannot read spec {where}: {error}") from error
        return cls.from_json(data, where)

    def save(self, path: Path) -> None:
        """Write as indented JSON."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises BadConfig."""
        try:
            with path.open() as file:
                text = file.read(_MAX_CHARACTERS + 1)
        except (OSError, ValueError) as error:
            raise BadConfig(f"cannot read spec {path}: {error}") from error
        if len(text) > _MAX_CHARACTERS:
            raise BadConfig(f"{path} has more than {_MAX_CHARACTERS} characters, which no spec has")
        return cls.from_text(text, str(path))

    def fake_observation(self, instruction: str = "", seed: int = 0) -> Observation:
        """A random observation that satisfies this spec; for warm-up, export and tests."""
        rng = np.random.default_rng(seed)
        low = np.array([d.low for d in self.state])
        high = np.array([d.high for d in self.state])
        return Observation(
            images={c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in self.cameras},
            state=rng.uniform(low, high).astype(np.float32),
            instruction=instruction,
        )


def differences(a: Spec, b: Spec) -> list[str]:
    """Every field on which two specs disagree, as "field: a's value, b's value"; [] when compatible.

    `chunk_size` and `normalisation` are compared only where both sides have decided them, and so are the cameras'
    poses; those may differ by what a's `drift` allows.
    """
    found: list[str] = []
    _differ("", _without_poses(a), _without_poses(b), found)
    limits = a.drift or b.drift or Drift()
    there = {camera.name: camera.pose for camera in b.cameras}
    for camera in a.cameras:
        other = there.get(camera.name)
        if camera.pose is None or other is None:
            continue
        metres, radians = pose_distance(camera.pose, other)
        if camera.pose.mount != other.mount or metres > limits.refuse_m or radians > limits.refuse_rad:
            found.append(
                f"cameras[{camera.name}].pose: {camera.pose.mount} | {other.mount}, {1e3 * metres:.1f} mm and "
                f"{math.degrees(radians):.2f} degrees apart"
            )
    return found


def pose_distance(a: CameraPose, b: CameraPose) -> tuple[float, float]:
    """How far two poses are apart [m], [rad]."""
    opposite = tuple(-x for x in b.quaternion_xyzw)  # the same rotation
    apart = min(math.dist(a.quaternion_xyzw, q) for q in (b.quaternion_xyzw, opposite))
    return math.dist(a.position_m, b.position_m), 4 * math.asin(min(1.0, apart / 2))


def require_match(a: Spec, b: Spec, a_name: str, b_name: str) -> None:
    """Refuse to join two parts whose specs differ.

    Raises:
        SpecMismatch: naming each field with both values.
    """
    found = differences(a, b)
    if found:
        raise SpecMismatch(
            f"{a_name} and {b_name} disagree on {len(found)} field(s) of the spec ({a_name} | {b_name}):\n  "
            + "\n  ".join(found)
            + "\nUse parts made for each other, or collect and train again for this robot."
        )


def check_observation(spec: Spec, observation: Observation) -> None:
    """Refuse an observation the policy must not act on.

    Raises:
        BadObservation: a camera is missing or unknown, a type, shape or dtype is off, or a state is NaN or infinite.
    """
    if not isinstance(observation.images, Mapping) or not isinstance(observation.instruction, str):
        raise BadObservation(
            "observation: want images by camera name and the instruction as text, got "
            f"{type(observation.images).__name__} and {type(observation.instruction).__name__}"
        )
    want = {c.name for c in spec.cameras}
    have = set(observation.images)
    if want != have:
        parts = [f"missing {sorted(want - have)}"] * bool(want - have)
        parts += [f"unexpected {sorted(have - want)}"] * bool(have - want)
        raise BadObservation(f"observation cameras: {', '.join(parts)}; the spec has {[c.name for c in spec.cameras]}")
    for camera in spec.cameras:
        image = observation.images[camera.name]
        shape = (camera.height, camera.width, 3)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
            raise BadObservation(
                f"camera {camera.name!r}: want uint8 {shape}, RGB last, got "
                f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}; "
                "convert or resize it first"
            )
    state = observation.state
    if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.shape != (len(spec.state),):
        raise BadObservation(
            f"state: want float32 ({len(spec.state)},), got "
            f"{getattr(state, 'dtype', type(state).__name__)} {getattr(state, 'shape', '')}"
        )
    bad = ~np.isfinite(state)
    if bad.any():
        names = [d.name for d, is_bad in zip(spec.state, bad, strict=True) if is_bad]
        raise BadObservation(f"state {names} is NaN or infinite; check the sensor or driver that publishes it")


_MAX_CHUNK = 1000
_MAX_PIXELS = 8192
_MAX_CHARACTERS = 1 << 20
"""Of a spec's file."""


def _check_dim(dim: Dim) -> None:
    """A dimension whose limits bound something. Raises BadConfig."""
    where = f"spec dimension {dim.name!r}"
    if not all(isinstance(text, str) and text and text.isprintable() for text in (dim.name, dim.unit, dim.frame)):
        raise BadConfig(f"{where}: name, unit {dim.unit!r} and frame {dim.frame!r} must be printable text")
    # Also in float32, as actions are: a limit that is infinite there would let everything through.
    most = float(np.finfo(np.float32).max)
    if not (-most <= dim.low < dim.high <= most and np.float32(dim.low) < np.float32(dim.high)):
        raise BadConfig(f"{where}: limits [{dim.low}, {dim.high}] are not an interval")
    if dim.kind not in get_args(Kind):
        raise BadConfig(f"{where}: kind {dim.kind!r} is none of {get_args(Kind)}")
    if dim.max_rate is not None and not 0 < dim.max_rate <= most:
        raise BadConfig(f"{where}: max_rate must be positive and finite, or None, got {dim.max_rate}")


def _check_camera(camera: Camera) -> None:
    """A camera whose name can be a file's and a topic's. Raises BadConfig."""
    where = f"spec camera {camera.name!r}"
    if not (isinstance(camera.name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", camera.name)):
        raise BadConfig(f"{where}: it must be named in letters, digits and underscores")
    if not (_is_count(camera.height, _MAX_PIXELS) and _is_count(camera.width, _MAX_PIXELS)):
        raise BadConfig(f"{where}: {camera.height!r} x {camera.width!r} is not within 1 and {_MAX_PIXELS} pixels")
    if camera.crop is not None and not (len(camera.crop) == 4 and all(type(n) is int and n >= 0 for n in camera.crop)):
        raise BadConfig(f"{where}: crop {camera.crop} is not (top, left, height, width) in pixels")
    if camera.flip not in get_args(Flip):
        raise BadConfig(f"{where}: flip {camera.flip!r} is none of {get_args(Flip)}")


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _without_poses(spec: Spec) -> dict[str, Any]:
    data = spec.to_json()
    data.pop("drift", None)
    for camera in data["cameras"]:
        camera.pop("pose", None)
    return data


def _camera(data: dict[str, Any]) -> Camera:
    crop, pose = data.get("crop"), data.get("pose")
    if pose is not None:
        position, quaternion = tuple(map(float, pose["position_m"])), tuple(map(float, pose["quaternion_xyzw"]))
        if len(position) != 3 or len(quaternion) != 4 or not abs(math.hypot(*quaternion) - 1) <= 1e-3:  # NaN is neither
            raise ValueError(f"camera {data.get('name')!r}: its pose is no position and unit quaternion")
        if pose["mount"] not in ("base", "hand") or not all(map(math.isfinite, position)):
            raise ValueError(f"camera {data.get('name')!r}: it is mounted neither on the base nor on the hand")
        pose = CameraPose(pose["mount"], position, quaternion)
    return Camera(**{**data, "crop": tuple(crop) if crop else None, "pose": pose})


_UNDECIDED = ("chunk_size", "normalisation")


def _differ(path: str, a: Any, b: Any, found: list[str]) -> None:
    if path in _UNDECIDED and (a is None or b is None):
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            _differ(f"{path}.{key}" if path else key, a.get(key), b.get(key), found)
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            names = [[i["name"] if isinstance(i, dict) else i for i in side] for side in (a, b)]
            found.append(f"{path}: {names[0]} | {names[1]}")
            return
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            name = x["name"] if isinstance(x, dict) and x.get("name") == (y or {}).get("name") else i
            _differ(f"{path}[{name}]", x, y, found)
    elif a != b:
        found.append(f"{path}: {a!r} | {b!r}")
