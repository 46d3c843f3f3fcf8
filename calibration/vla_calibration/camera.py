"""A camera's intrinsics: how a point in its frame becomes a pixel, and how that pixel changes with everything.

OpenCV's conventions: z forward, x right, y down; the centre of the first pixel is (0, 0); `radtan` is Brown-Conrady
(k1, k2, p1, p2, k3), `fisheye` is Kannala-Brandt (k1 to k4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles

Model = Literal["radtan", "fisheye"]
N_DISTORTION: dict[Model, int] = {"radtan": 5, "fisheye": 4}
Mask = npt.NDArray[np.bool_]
_ZERO = np.zeros(3)
MAX_PIXELS = 16384
"""Of an image, each side."""


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of one camera at one resolution; all lengths in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    model: Model = "radtan"

    def __post_init__(self) -> None:
        if self.model not in get_args(Model) or len(self.distortion) != N_DISTORTION[self.model]:
            raise BadCalibration(
                f"camera model {self.model!r} with {len(self.distortion)} distortion coefficients: want "
                + " or ".join(f"{name} with {n}" for name, n in N_DISTORTION.items())
            )
        if not all(0 < size <= MAX_PIXELS for size in (self.width, self.height)):
            raise BadCalibration(f"camera of {self.width} x {self.height} pixels: want 1 to {MAX_PIXELS} each")
        if not all(map(math.isfinite, self.parameters)) or min(self.fx, self.fy) <= 0:
            raise BadCalibration(f"camera parameters must be finite and focal lengths positive: {self.parameters}")

    @property
    def parameters(self) -> Doubles:
        """(P,) fx, fy, cx, cy, distortion."""
        return np.array([self.fx, self.fy, self.cx, self.cy, *self.distortion])

    @property
    def matrix(self) -> Doubles:
        """(3, 3) K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def with_parameters(self, values: Doubles) -> Self:
        """The same camera with other parameters (P,)."""
        fx, fy, cx, cy, *distortion = map(float, values)
        return replace(self, fx=fx, fy=fy, cx=cx, cy=cy, distortion=tuple(distortion))

    def cut(self, crop: tuple[int, int, int, int] | None, width: int, height: int) -> Self:
        """The camera of its images cropped to (top, left, height, width) and then resized.

        Raises:
            BadCalibration: the crop is not inside the image.
        """
        top, left, h, w = crop or (0, 0, self.height, self.width)
        if min(top, left) < 0 or min(h, w) < 1 or top + h > self.height or left + w > self.width:
            raise BadCalibration(f"crop {crop} is not inside an image of {self.width} x {self.height}")
        sx, sy = width / w, height / h
        # Pixel centres are whole numbers: the image begins half a pixel before the first.
        cx, cy = (self.cx - left + 0.5) * sx - 0.5, (self.cy - top + 0.5) * sy - 0.5
        return replace(self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy, cx=cx, cy=cy)

    def project(self, points: Doubles) -> Doubles:
        """Pixels (N, 2) of points (N, 3) [m] in the camera's frame."""
        return self.linearise(points)[0]

    def linearise(self, points: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Pixels (N, 2), their change with the points (N, 2, 3) and with the parameters (N, 2, P)."""
        given = points.reshape(-1, 1, 3)
        n = len(given)
        if self.model == "fisheye":
            pixels, J = cv2.fisheye.projectPoints(given, _ZERO, _ZERO, self.matrix, np.array(self.distortion))
            J = J.reshape(n, 2, -1)
            # Columns: focal 2, centre 2, distortion 4, rotation 3, translation 3, skew.
            return pixels.reshape(n, 2), J[:, :, 11:14], J[:, :, :8]
        pixels, J = cv2.projectPoints(given, _ZERO, _ZERO, self.matrix, np.array(self.distortion))
        J = J.reshape(n, 2, -1)
        # Columns: rotation 3, translation 3, focal 2, centre 2, distortion 5. Translation moves the point itself.
        return pixels.reshape(n, 2), J[:, :, 3:6], J[:, :, 6:]

    def normalised(self, pixels: Doubles) -> Doubles:
        """x/z and y/z (N, 2) of the rays through pixels (N, 2)."""
        given = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
        distortion = np.array(self.distortion)
        if self.model == "fisheye":
            found = cv2.fisheye.undistortPoints(given, self.matrix, distortion)
        else:
            criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-12)
            found = cv2.undistortPointsIter(given, self.matrix, distortion, np.eye(3), np.eye(3), criteria)
        return np.asarray(found, np.float64).reshape(-1, 2)

    def sees(self, pixels: Doubles, margin: float = 0.0) -> Mask:
        """(N,) whether pixels (N, 2) lie in the image, `margin` pixels away from its border."""
        upper = np.array([self.width, self.height]) - 1 - margin
        return np.asarray(((pixels >= margin) & (pixels <= upper)).all(1))


def pinhole(width: int, height: int, fov_y_rad: float, model: Model = "radtan") -> CameraModel:
    """A camera without distortion whose image is centred; `fov_y_rad` is its vertical field of view."""
    focal = height / 2 / math.tan(fov_y_rad / 2)
    return CameraModel(
        width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, (0.0,) * N_DISTORTION[model], model
    )
