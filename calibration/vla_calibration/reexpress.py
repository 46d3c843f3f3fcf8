"""Recordings made under one calibration, re-expressed under another, without recording again.

Actions: positions, deltas and velocities of the base frame are turned (and absolute ones moved) into the new base.
Images: what another camera place would have seen, exact for a pure turn of the camera and for everything on one plane,
such as the table; what stands above the plane shifts by parallax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from vla.errors import BadCalibration
from vla.spec import Dim
from vla.types import Floats, Image
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, checked, inverse

_FAR_M = 10.0
_CONTINUED = 1 / 16
"""Of the image's height: about half of an object. Without it an object at the border is cut off; without an end it is
drawn as a bar across the gap."""


def reexpress(values: Floats, dims: Sequence[Dim], new_from_old: Doubles, frame: str = "base") -> Floats:
    """States or actions (..., D) of the frame `frame`, as the new frame has them.

    Args:
        values: in the order of `dims`; others than x, y, z triplets of that frame in metres stay as they are.
        dims: what they mean.
        new_from_old: (4, 4) the old frame in the new one.
        frame: which frame was redefined.

    Raises:
        BadCalibration: rotations of that frame are among the dimensions, which this does not turn, or no triplet is.
    """
    T = checked(new_from_old, "new_from_old")
    result = np.array(values, np.float32)
    for at, moves in _triplets(dims, frame):
        turned = values[..., at] @ T[:3, :3].T
        result[..., at] = turned + T[:3, 3] if moves else turned
    return result


def reexpress_dims(dims: Sequence[Dim], new_from_old: Doubles, frame: str = "base") -> tuple[Dim, ...]:
    """The same dimensions in the new frame: limits become the box around the old, turned one; so do the rates.

    The box is larger by the corners that the turn leaves empty: whoever lets a robot run by it should look at it.

    Raises:
        BadCalibration: as `reexpress`.
    """
    T, found = checked(new_from_old, "new_from_old"), list(dims)
    R = T[:3, :3]
    for at, moves in _triplets(dims, frame):
        low, high = np.array([[dims[i].low, dims[i].high] for i in at]).T
        middle, half = R @ (low + high) / 2 + T[:3, 3] * moves, np.abs(R) @ (high - low) / 2
        rates = [dims[i].max_rate for i in at]
        turned = [None] * 3 if None in rates else (np.abs(R) @ np.array(rates, np.float64)).tolist()
        for i, m, h, rate in zip(at, middle, half, turned, strict=True):
            found[i] = replace(dims[i], low=float(m - h), high=float(m + h), max_rate=rate)
    return tuple(found)


def _triplets(dims: Sequence[Dim], frame: str) -> Iterator[tuple[list[int], bool]]:
    """Indices of each x, y, z of a frame, and whether they are places, which move with the frame, or only turn."""
    own = [i for i, d in enumerate(dims) if d.frame == frame]
    if any(dims[i].unit not in ("m", "m/s") for i in own):
        names = [dims[i].name for i in own if dims[i].unit not in ("m", "m/s")]
        raise BadCalibration(f"{names} are rotations in {frame!r}: only positions and their changes are re-expressed")
    if not own or len(own) % 3:
        raise BadCalibration(f"{len(own)} dimensions are in frame {frame!r}: they come as x, y, z")
    for start in range(0, len(own), 3):
        at = own[start : start + 3]
        kinds, axes = {dims[i].kind for i in at}, [dims[i].name[-1] for i in at]
        if len(kinds) != 1 or axes != ["x", "y", "z"]:
            raise BadCalibration(f"{[dims[i].name for i in at]} is no x, y, z of one kind; reorder or rename them")
        # A lag is the difference of two positions: absolute by kind, yet it only turns.
        yield at, kinds == {"absolute"} and not all(dims[i].name.startswith("lag") for i in at)


def redrawing(
    now: tuple[CameraModel, Doubles], then: tuple[CameraModel, Doubles], plane_z_m: float = 0.0
) -> Callable[[Image], Image]:
    """What draws images taken `now` as the camera of `then` would have seen the plane z = `plane_z_m` of the base.

    Where each pixel comes from is computed once; drawing an image is one lookup.

    Args:
        now: the camera's lens and base_from_camera (4, 4) when the images were taken.
        then: those wanted, usually the policy's.
        plane_z_m: height of what matters: the table, or half the height of the objects on it.

    Returns:
        A function from (h, w, 3) uint8 RGB of `now`'s size to (h', w', 3) of `then`'s. Where `now` saw nothing the
        image's border goes on for `_CONTINUED` of its height, so that what is cut by it keeps about its size; farther
        out is the image's median colour, as a rule the table's.
    """
    (lens, place), (wanted_lens, wanted_place) = now, then
    x, y = np.meshgrid(np.arange(wanted_lens.width), np.arange(wanted_lens.height))
    rays = wanted_lens.normalised(np.stack([x.ravel(), y.ravel()], 1).astype(np.float64))
    directions = np.column_stack([rays, np.ones(len(rays))]) @ checked(wanted_place, "base_from_camera")[:3, :3].T
    with np.errstate(divide="ignore"):
        reach = (plane_z_m - wanted_place[2, 3]) / directions[:, 2]
    # Rays that miss the plane (walls, sky) are as good as infinitely far: only the turn counts for them.
    far = ~(np.isfinite(reach) & (reach > 0) & (reach < _FAR_M))
    points = wanted_place[:3, 3] + directions * np.where(far, _FAR_M, reach)[:, None]
    camera_from_base = inverse(checked(place, "base_from_camera"))
    seen = points @ camera_from_base[:3, :3].T + camera_from_base[:3, 3]
    pixels = lens.project(seen)
    shape = wanted_lens.height, wanted_lens.width
    known = ((seen[:, 2] > 0) & lens.sees(pixels, -_CONTINUED * lens.height)).reshape(shape)
    lookup = pixels.reshape(*shape, 2).astype(np.float32)

    def draw(image: Image) -> Image:
        if image.shape != (lens.height, lens.width, 3):
            raise BadCalibration(f"an image of shape {image.shape} is not of a camera of {lens.width} x {lens.height}")
        drawn = cv2.remap(image, lookup, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        drawn[~known] = np.median(image.reshape(-1, 3), 0)
        return np.asarray(drawn, np.uint8)

    return draw
