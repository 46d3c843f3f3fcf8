"""A shape's outline in an image: where it should be, and how far the image's edges are from there.

The shape is known, as triangles (the STL meshes that come with a robot). Where a face that is seen meets one that is
not, and nothing of the shape lies beyond, there is its outline; along each point's normal the image is searched for the
edge (RAPID: Harris and Stennett 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from vla.errors import BadCalibration
from vla.types import Image
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, apply

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BORDER_PX = 24.0
"""Points nearer to the image's border are left out: their edge may be beyond it."""
_SPACING_PX = 2.0
_OUTSIDE_PX = 2.5
_MARGIN_PX = 8
_MIN_IN_SIGHT = 0.9
"""Share of the outline that must lie in the image, its border excepted."""
_STEP_PX = 0.5
_MIN_GRADIENT = 8.0
"""Grey levels a pixel below which there is no edge."""
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


def covered(shapes: Sequence[tuple[Mesh, Doubles]], camera: CameraModel) -> Mask:
    """(h, w) where shapes, each at its camera_from_shape (4, 4), are seen, and a margin around them."""
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for mesh, pose in shapes:
        there = apply(pose, mesh.vertices)
        if there[:, 2].min() > 0.05:
            mask |= _filled(mesh.faces, camera.project(there), camera)
    return np.asarray(cv2.dilate(mask, np.ones((2 * _MARGIN_PX + 1,) * 2, np.uint8)), bool)


def outline(
    mesh: Mesh, camera: CameraModel, pose: Doubles, hidden: Mask | None = None
) -> tuple[Doubles, Doubles] | None:
    """The outline of a shape.

    Args:
        mesh: the shape.
        camera: the lens.
        pose: (4, 4) camera_from_shape.
        hidden: (h, w) where it is not to be looked for: the rest of the arm, before the shape or behind it.

    Returns:
        Points (N, 3) in the shape's frame and their normals (N, 2) in the image, outwards; None where too little of it
        lies in the image.
    """
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
    inside = _filled(mesh.faces[front], pixels, camera).astype(bool)
    left, right = (_at(inside, at + side * _OUTSIDE_PX * normals) for side in (1, -1))
    rim_of_all = left != right
    kept = rim_of_all & camera.sees(at, BORDER_PX)
    if kept.sum() < _MIN_IN_SIGHT * rim_of_all.sum():
        return None
    if hidden is not None:
        kept &= ~_at(hidden, at)
    return (points[kept], np.where(left, -1, 1)[kept, None] * normals[kept]) if kept.sum() >= 30 else None


def _filled(faces: Index, pixels: Doubles, camera: CameraModel) -> Image:
    """(h, w) 1 where the shape is seen."""
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for triangle in np.round(pixels[faces]).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1)
    return mask


def _at(mask: Mask, pixels: Doubles) -> Mask:
    x, y = np.round(pixels).astype(int).T
    h, w = mask.shape
    return np.asarray(mask[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)])


def edges(smooth: Doubles, pixels: Doubles, normals: Doubles, reach: float) -> tuple[Doubles, Mask]:
    """How far (N,) along its normal each point's strongest edge is [px], and where there is one.

    Args:
        smooth: (h, w, 3) the image, smoothed.
        pixels: (N, 2) points of the outline.
        normals: (N, 2) their normals.
        reach: how far to either side to look [px].
    """
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
