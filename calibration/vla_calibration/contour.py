"""Where a gripper is in an image, from its outline: for a drift check when no board is in sight.

The gripper's shape is known (the STL meshes that come with a robot), and about where it should be. Points on its
outline are projected; along each point's normal the image is searched for the edge; the pose that brings outline and
edges together is found by robust least squares, again and again with a narrower search (RAPID: Harris and Stennett
1990; the weights are Tukey's, as in Drummond and Cipolla 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from vla.errors import BadCalibration
from vla.types import Image
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, apply, moved, skew

Index = npt.NDArray[np.int64]

SEARCH_PX = (24.0, 12.0, 12.0, 6.0, 6.0, 4.0, 4.0)
"""How far to either side an edge is searched for, at each iteration."""
_SPACING_PX = 2.0
_OUTSIDE_PX = 2.5
_MIN_IN_SIGHT = 0.9
"""Share of the outline that must lie in the image, its border excepted."""
_STEP_PX = 0.5
_MIN_GRADIENT = 8.0
"""Grey levels a pixel below which there is no edge."""
_TUKEY = 4.685
_MIN_SIGMA_PX = 0.3
_LIMIT_BYTES = 64 << 20
_STL_HEADER = 84
_STL_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


@dataclass(frozen=True, eq=False)
class Mesh:
    """A rigid shape as triangles, in the frame of what carries it."""

    vertices: Doubles
    """(V, 3) [m]."""
    faces: Index
    """(F, 3) indices of vertices, counter-clockwise seen from outside."""
    edges: Index
    """(E, 4) two vertices, and the two faces that meet there (the same one twice at a border)."""

    @classmethod
    def of(cls, vertices: Doubles, faces: Index) -> Self:
        """From triangles; vertices in the same place are made one, so that faces find their neighbours."""
        _, first, same = np.unique(np.round(vertices, 6), axis=0, return_index=True, return_inverse=True)
        merged = same.reshape(-1)[faces]
        merged = merged[(merged != np.roll(merged, 1, 1)).all(1)]
        sides = np.sort(np.stack([merged, np.roll(merged, -1, 1)], 2).reshape(-1, 2), 1)
        face = np.repeat(np.arange(len(merged)), 3)
        ends, at = np.unique(sides, axis=0, return_inverse=True)
        at = at.reshape(-1)
        pairs = np.zeros((len(ends), 2), np.int64)
        pairs[at, 0] = face
        pairs[at[::-1], 1] = face[::-1]  # the first face that has the side, where the line above left the last
        return cls(vertices[first], merged, np.concatenate([ends, pairs], 1))

    def joined(self, other: Mesh, self_from_other: Doubles) -> Mesh:
        """This and another shape that is fixed to it."""
        vertices = np.concatenate([self.vertices, apply(self_from_other, other.vertices)])
        return Mesh.of(vertices, np.concatenate([self.faces, other.faces + len(self.vertices)]))


@dataclass(frozen=True, eq=False)
class Found:
    """A shape found in an image."""

    camera_from_shape: Doubles
    """(4, 4)."""
    share: float
    """Of the outline that lies on an edge."""
    rms_px: float
    """Of that part, across the outline."""


def read_stl(path: Path) -> Mesh:
    """A binary STL in metres. Raises BadCalibration: unreadable, of another format, or not finite."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise BadCalibration(f"cannot read {path}: {error.strerror}") from error
    count = int.from_bytes(data[80:84], "little")
    if len(data) > _LIMIT_BYTES or not count or len(data) != _STL_HEADER + count * _STL_FACET.itemsize:
        raise BadCalibration(
            f"{path} is no binary STL of up to {_LIMIT_BYTES} bytes: export the mesh as one, in metres"
        )
    corners = np.frombuffer(data, _STL_FACET, count, _STL_HEADER)["corners"].astype(np.float64).reshape(-1, 3)
    if not np.isfinite(corners).all() or np.abs(corners).max() > 10:
        raise BadCalibration(f"{path}: its points are not finite or metres away; an STL is wanted in metres")
    return Mesh.of(corners, np.arange(3 * count).reshape(-1, 3))


def find(image: Image, mesh: Mesh, camera: CameraModel, expected: Doubles) -> Found | None:
    """Where a shape is.

    Args:
        image: (h, w, 3) uint8 RGB of that camera.
        mesh: the shape.
        camera: its lens.
        expected: (4, 4) camera_from_shape, right to about `SEARCH_PX[0]` pixels.

    Returns:
        None where too little of its outline is in the image or lies on an edge.
    """
    smooth: Doubles = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float64)
    pose, found = expected, None
    outline: tuple[Doubles, Doubles] | None = None
    for i, reach in enumerate(SEARCH_PX):
        if i in (0, 2, 4):  # a small turn leaves the outline where it is on the shape
            outline = _outline(mesh, camera, pose)
        if outline is None:
            return None
        points, normals = outline
        pixels, by_point, _ = camera.linearise(apply(pose, points))
        off, seen = _edges(smooth, pixels, normals, reach)
        if seen.sum() < 0.3 * len(seen) or seen.sum() < 30:
            return None
        J = np.einsum("ni,nij->nj", normals, by_point @ pose[:3, :3] @ _by_twist(points))[seen]
        step, weight = _robust(J, off[seen], reach / 6)
        pose = moved(pose, step)
        good = weight > 0
        left = off[seen] - J @ step
        found = Found(pose, float(good.sum() / len(seen)), float(np.sqrt(np.square(left[good]).mean())))
    return found


def _outline(mesh: Mesh, camera: CameraModel, pose: Doubles) -> tuple[Doubles, Doubles] | None:
    """Points (N, 3) on the outline, in the shape's frame, and their normals (N, 2) in the image, outwards."""
    there = apply(pose, mesh.vertices)
    if there[:, 2].min() < 0.05:
        return None
    corners = there[mesh.faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    front = (facing * corners[:, 0]).sum(1) < 0
    a, b, one, two = mesh.edges.T
    rim = (front[one] != front[two]) | (one == two)
    pixels = camera.project(there)
    length = np.linalg.norm(pixels[a[rim]] - pixels[b[rim]], axis=1)
    pieces = np.maximum(1, np.ceil(length / _SPACING_PX)).astype(int)
    edge = np.repeat(np.flatnonzero(rim), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = ((np.arange(len(edge)) - first + 0.5) / np.repeat(pieces, pieces))[:, None]
    points = (1 - share) * mesh.vertices[a[edge]] + share * mesh.vertices[b[edge]]
    at = camera.project(apply(pose, points))
    along = pixels[b[edge]] - pixels[a[edge]]
    normals = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    inside = _filled(mesh.faces[front], pixels, camera)
    left, right = (_at(inside, at + side * _OUTSIDE_PX * normals) for side in (1, -1))
    rim_of_all = left != right
    kept = rim_of_all & camera.sees(at, SEARCH_PX[0])
    if kept.sum() < _MIN_IN_SIGHT * rim_of_all.sum():
        return None
    return (points[kept], np.where(left, -1, 1)[kept, None] * normals[kept]) if kept.sum() >= 30 else None


def _filled(faces: Index, pixels: Doubles, camera: CameraModel) -> npt.NDArray[np.bool_]:
    """(h, w) where the shape is seen."""
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for triangle in np.round(pixels[faces]).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1)
    return mask.astype(bool)


def _at(mask: npt.NDArray[np.bool_], pixels: Doubles) -> npt.NDArray[np.bool_]:
    x, y = np.round(pixels).astype(int).T
    h, w = mask.shape
    return np.asarray(mask[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)])


def _edges(smooth: Doubles, pixels: Doubles, normals: Doubles, reach: float) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """How far (N,) along its normal each point's strongest edge is [px], and where there is one."""
    steps = np.arange(-reach, reach + _STEP_PX / 2, _STEP_PX)
    x, y = (pixels[:, None] + steps[:, None] * normals[:, None]).astype(np.float32).transpose(2, 0, 1)
    profile: Any = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    slope = np.linalg.norm(profile[:, 2:] - profile[:, :-2], axis=2) / (2 * _STEP_PX)  # at steps[1:-1]
    best = slope[:, 1:-1].argmax(1) + 1
    rows = np.arange(len(best))
    before, top, after = slope[rows, best - 1], slope[rows, best], slope[rows, best + 1]
    curve = before - 2 * top + after
    peak = np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, -1), 0)
    return steps[best + 1] + _STEP_PX * np.clip(peak, -1, 1), top > _MIN_GRADIENT


def _robust(J: Doubles, off: Doubles, most_px: float) -> tuple[Doubles, Doubles]:
    """The twist (6,) that moves the outline onto its edges, and each point's weight (N,)."""
    step, weight = np.zeros(6), np.ones(len(off))
    prior = np.diag([1 / 0.05**2] * 3 + [1 / 0.1**2] * 3)  # keeps what the outline does not show where it was
    for _ in range(10):
        left = off - J @ step
        sigma = float(np.clip(1.4826 * np.median(np.abs(left)), _MIN_SIGMA_PX, most_px))
        weight = np.square(np.maximum(0, 1 - np.square(left / (_TUKEY * sigma))))
        N = J.T @ (weight[:, None] * J) / sigma**2 + prior
        step = np.linalg.solve(N, J.T @ (weight * off) / sigma**2)
    return step, weight


def _by_twist(points: Doubles) -> Doubles:
    """(N, 3, 6) how points move with a twist of their frame, in that frame."""
    return np.concatenate([np.broadcast_to(np.eye(3), (len(points), 3, 3)), -skew(points)], 2)
