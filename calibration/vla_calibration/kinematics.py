"""A serial arm's kinematics, read from its URDF or MJCF: joint angles to the hand's pose, and its body Jacobian."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles, inverse, transform

_LIMIT_BYTES = 8 << 20
_MAX_LINKS = 100
OTHER_TURNS = {"euler", "axisangle", "xyaxes", "zaxis"}
"""Attributes of an MJCF body that turn it, beside the quaternion."""
WRITE_OUT = "only quaternions are read; have MuJoCo write the model out (mj_saveLastXML)"


@dataclass(frozen=True, eq=False)
class Joint:
    """One moving joint and what stands before it."""

    name: str
    fixed: Doubles
    """(4, 4) from the frame after the joint before to this joint's own."""
    axis: Doubles
    """(3,) unit vector it turns about, in its own frame."""
    low: float
    high: float
    """Limits [rad]."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Revolute joints from base to hand."""

    joints: tuple[Joint, ...]
    tip: Doubles
    """(4, 4) from the last joint's frame to the hand's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The joints' names, from the base on."""
        return tuple(joint.name for joint in self.joints)

    def forward(self, angles: Doubles) -> tuple[Doubles, Doubles]:
        """base_from_hand (4, 4) at joint angles (J,) [rad], and its body Jacobian (6, J).

        The Jacobian gives the hand's twist, in the hand's frame, for each radian of each joint.
        """
        frames = self.frames(angles)
        hand = (frames[-1] if frames else np.eye(4)) @ self.tip
        J = np.empty((6, len(frames)))
        for i, (joint, frame) in enumerate(zip(self.joints, frames, strict=True)):
            hand_from_joint = inverse(hand) @ frame
            axis = hand_from_joint[:3, :3] @ joint.axis
            J[:3, i] = np.cross(hand_from_joint[:3, 3], axis)
            J[3:, i] = axis
        return hand, J

    def frames(self, angles: Doubles) -> list[Doubles]:
        """base_from_link (4, 4) of the link that each joint moves, at joint angles (J,) [rad]."""
        if np.shape(angles) != (len(self.joints),):
            raise BadCalibration(f"{np.shape(angles)} joint angles for an arm of {len(self.joints)}: {self.names}")
        T, found = np.eye(4), []
        for joint, angle in zip(self.joints, angles, strict=True):
            T = T @ joint.fixed @ transform(Rotation.from_rotvec(joint.axis * angle).as_matrix(), np.zeros(3))
            found.append(T)
        return found


def load_chain(path: Path, hand: str) -> Chain:
    """Read the arm from its model.

    Args:
        path: a URDF or MJCF file.
        hand: the link (URDF), or the body or site (MJCF), that is the hand.

    Raises:
        BadCalibration: the file is neither, `hand` is not in it, or the arm has joints other than revolute ones.
    """
    root = read_xml(path)
    if root.tag == "robot":
        return _urdf(root, hand, path)
    if root.tag == "mujoco":
        return _mjcf(root, hand, path)
    raise BadCalibration(f"{path} is neither a URDF (<robot>) nor an MJCF (<mujoco>): its root is <{root.tag}>")


def read_xml(path: Path) -> ET.Element:
    """Parse a model. Raises BadCalibration: unreadable, too large, or with entities of its own."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise BadCalibration(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _LIMIT_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise BadCalibration(
            f"{path} is larger than {_LIMIT_BYTES} bytes or declares entities: no robot model needs that"
        )
    try:
        return ET.fromstring(data)
    except ET.ParseError as error:
        raise BadCalibration(f"{path} is not XML: {error}") from error


def _urdf(root: ET.Element, hand: str, path: Path) -> Chain:
    parents = {}
    for element in root.findall("joint"):
        child = element.find("child")
        parents[child.get("link", "") if child is not None else ""] = element
    if hand not in parents:
        raise BadCalibration(f"{path}: no joint leads to link {hand!r}; there is {', '.join(sorted(parents))}")
    steps: list[ET.Element] = []
    link = hand
    while link in parents:
        steps.append(parents[link])
        if len(steps) > _MAX_LINKS:
            raise BadCalibration(f"{path}: the links before {hand!r} go round in a circle")
        parent = steps[-1].find("parent")
        link = parent.get("link", "") if parent is not None else ""
    joints, fixed = [], np.eye(4)
    for element in reversed(steps):
        origin = element.find("origin")
        if origin is not None:
            turn = Rotation.from_euler("xyz", _numbers(origin.get("rpy"), "0 0 0", 3, path))
            fixed = fixed @ transform(turn.as_matrix(), _numbers(origin.get("xyz"), "0 0 0", 3, path))
        kind, name = element.get("type", ""), element.get("name", "")
        if kind == "fixed":
            continue
        if kind not in ("revolute", "continuous"):
            raise BadCalibration(f"{path}: joint {name!r} on the way to {hand!r} is {kind!r}, not revolute")
        axis, limit = element.find("axis"), element.find("limit")
        low, high = (
            (-np.pi, np.pi)
            if limit is None or kind == "continuous"
            else _numbers(f"{limit.get('lower', '0')} {limit.get('upper', '0')}", "", 2, path)
        )
        direction = _unit(axis.get("xyz") if axis is not None else None, "1 0 0", path)
        joints.append(Joint(name, fixed, direction, float(low), float(high)))
        fixed = np.eye(4)
    return Chain(tuple(joints), fixed)


def _mjcf(root: ET.Element, hand: str, path: Path) -> Chain:
    world = root.find("worldbody")
    compiler = root.find("compiler")
    degrees = compiler is None or compiler.get("angle", "degree") == "degree"
    steps = _way(world, hand) if world is not None else None
    if steps is None:
        raise BadCalibration(f"{path}: no body or site called {hand!r} (included files are not followed)")
    attributes = mjcf_joints(root)
    joints, fixed = [], np.eye(4)
    for element in steps:
        if other := sorted(OTHER_TURNS.intersection(element.keys())):
            raise BadCalibration(f"{path}: {element.get('name')!r} is turned by {', '.join(other)}: {WRITE_OUT}")
        q = _numbers(element.get("quat"), "1 0 0 0", 4, path)
        if not np.linalg.norm(q):
            raise BadCalibration(f"{path}: the quaternion of {element.get('name')!r} is zero")
        turn = Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix()
        fixed = fixed @ transform(turn, _numbers(element.get("pos"), "0 0 0", 3, path))
        for joint in (attributes[e] for e in element.findall("joint")) if element.tag == "body" else ():
            name = joint.get("name", "")
            shifted = np.r_[_numbers(joint.get("pos"), "0 0 0", 3, path), _numbers(joint.get("ref"), "0", 1, path)]
            if joint.get("type", "hinge") != "hinge" or shifted.any():
                raise BadCalibration(f"{path}: joint {name!r} is no hinge in its body's origin with its zero there")
            limits = _numbers(joint.get("range"), "-180 180" if degrees else f"{-np.pi} {np.pi}", 2, path)
            low, high = np.deg2rad(limits) if degrees else limits
            axis = _unit(joint.get("axis"), "0 0 1", path)
            joints.append(Joint(name, fixed, axis, float(low), float(high)))
            fixed = np.eye(4)
    return Chain(tuple(joints), fixed)


def mjcf_joints(root: ET.Element) -> dict[ET.Element, dict[str, str]]:
    """Every joint's attributes, those of its class of defaults included."""
    classes: dict[str, dict[str, str]] = {}
    found: dict[ET.Element, dict[str, str]] = {}

    def learn(default: ET.Element, inherited: dict[str, str]) -> None:
        joint = default.find("joint")
        own = inherited | ({} if joint is None else joint.attrib)
        classes[default.get("class", "main")] = own
        for inner in default.findall("default"):
            learn(inner, own)

    def walk(element: ET.Element, kind: str) -> None:
        for child in element:
            if child.tag == "joint":
                found[child] = classes.get(child.get("class", kind), {}) | child.attrib
            elif child.tag in ("worldbody", "body", "frame"):
                walk(child, child.get("childclass", kind))

    for default in root.findall("default"):
        learn(default, {})
    walk(root, "main")
    return found


def _way(element: ET.Element, name: str) -> list[ET.Element] | None:
    """The bodies down to a body or site of that name, and it."""
    for child in element:
        if child.tag not in ("body", "site"):
            continue
        if child.get("name") == name:
            return [child]
        below = _way(child, name)
        if below is not None:
            return [child, *below]
    return None


def _numbers(text: str | None, default: str, n: int, path: Path) -> Doubles:
    try:
        values = np.array([float(word) for word in (text or default).split()])
    except ValueError as error:
        raise BadCalibration(f"{path}: {text!r} is not {n} numbers") from error
    if values.shape != (n,) or not np.isfinite(values).all():
        raise BadCalibration(f"{path}: {text!r} is not {n} finite numbers")
    return values


def _unit(text: str | None, default: str, path: Path) -> Doubles:
    axis = _numbers(text, default, 3, path)
    if not np.linalg.norm(axis):
        raise BadCalibration(f"{path}: a joint's axis is zero")
    return np.asarray(axis / np.linalg.norm(axis))
