"""Calibration boards: what they look like, where their corners are, and finding them in an image.

The board's frame is OpenCV's: origin at the outer corner of the first square, x along the columns, y along the rows,
z away from whoever looks at it. A ChArUco board may be seen in part; a chessboard only whole.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vla.errors import BadCalibration
from vla.types import Image
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, transform
from vla_calibration.untrusted import known, label, numbers, whole

Kind = Literal["charuco", "chessboard"]
MIN_CORNERS = 8
"""Corners that make a detection: fewer are as often false as true, and barely hold a pose."""
_DICTIONARIES = {name: getattr(cv2.aruco, name) for name in dir(cv2.aruco) if name.startswith("DICT_")}
_SQUARES = 3, 50
"""Across or down."""
_WINDOW = 4
"""Half the side of the window a corner is refined in [px]: larger ones reach the neighbouring marker."""
_SUBPIXEL = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)


@dataclass(frozen=True, eq=False)
class Detection:
    """The board's corners in one image."""

    ids: npt.NDArray[np.int64]
    """(N,) which corners of the board."""
    corners: Doubles
    """(N, 2) pixels."""

    def __post_init__(self) -> None:
        shapes = (self.ids.shape, self.corners.shape)
        if self.ids.ndim != 1 or self.corners.shape != (len(self.ids), 2) or len(set(self.ids)) != len(self.ids):
            raise BadCalibration(f"a detection has ids (N,), each once, and corners (N, 2); got {shapes}")
        if not np.isfinite(self.corners).all():
            bad = self.ids[~np.isfinite(self.corners).all(1)]
            raise BadCalibration(f"corners {bad.tolist()} are NaN or infinite; take the image again")


@dataclass(frozen=True)
class Board:
    """A printed board. Measure the squares of the print: printers scale."""

    kind: Kind = "charuco"
    columns: int = 10
    """Squares across."""
    rows: int = 7
    """Squares down."""
    square_m: float = 0.025
    """Side of a square [m]."""
    marker_m: float = 0.018
    """Side of a marker [m]; ChArUco only."""
    dictionary: str = "DICT_5X5_100"

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        """From untrusted JSON. Raises BadCalibration."""
        about = known(data, (field.name for field in fields(cls)), where)
        for side in {"columns", "rows"} & about.keys():
            whole(about[side], *_SQUARES, f"{where}, {side}")
        for side in {"square_m", "marker_m"} & about.keys():
            numbers(about[side], (), f"{where}, {side}")
        for word in {"kind", "dictionary"} & about.keys():
            label(about[word], f"{where}, {word}")
        return cls(**about)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise BadCalibration(f"board kind {self.kind!r} is none of {get_args(Kind)}")
        low, high = _SQUARES
        if not (low <= self.columns <= high and low <= self.rows <= high and 0.001 <= self.square_m <= 1):
            raise BadCalibration(f"{self}: want 3 to 50 columns and rows, and squares of 1 mm to 1 m")
        if self.kind == "charuco" and (self.dictionary not in _DICTIONARIES or not 0 < self.marker_m < self.square_m):
            raise BadCalibration(f"{self}: the dictionary must be one of OpenCV's, markers smaller than squares")
        if self.kind == "chessboard" and (self.columns + self.rows) % 2 == 0:
            raise BadCalibration(
                f"a chessboard of {self.columns} x {self.rows} squares looks the same upside down: use an even number "
                "of columns and an odd number of rows, or a ChArUco board"
            )

    @property
    def n_corners(self) -> int:
        """Inner corners."""
        return (self.columns - 1) * (self.rows - 1)

    @property
    def size_m(self) -> Doubles:
        """(2,) width and height of all squares [m]."""
        return np.array([self.columns, self.rows]) * self.square_m

    @cached_property
    def points(self) -> Doubles:
        """(n_corners, 3) inner corners [m] in the board's frame, row by row."""
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1) * self.square_m

    def detect(self, image: Image) -> Detection | None:
        """Find the board in an (h, w, 3) uint8 RGB image; None when it is not there or too little of it.

        Raises:
            BadCalibration: the image is mirrored.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if self.kind == "chessboard":
            return self._chessboard(grey)
        found = self._charuco(grey)
        if found is None and self._charuco(cv2.flip(grey, 1)) is not None:
            raise BadCalibration(
                "the image is mirrored: the board is found in its mirror image only. Switch off mirroring in the "
                "camera's driver, or set its flip in the spec, and take the image again"
            )
        return found

    def holds_a_pose(self, ids: npt.NDArray[np.int64]) -> bool:
        """Are corners `ids` (N,) enough, and more than one row or column of the board?"""
        row, column = np.divmod(ids, self.columns - 1)
        return len(ids) >= MIN_CORNERS and min(np.ptp(row), np.ptp(column)) >= 2

    def draw(self, pixels_per_square: int) -> Image:
        """An (h, w, 3) RGB picture of the board without margin, to print or to render."""
        w, h = self.columns * pixels_per_square, self.rows * pixels_per_square
        if self.kind == "charuco":
            grey = self._opencv.generateImage((w, h), marginSize=0)
        else:
            x, y = np.meshgrid(np.arange(w) // pixels_per_square, np.arange(h) // pixels_per_square)
            grey = np.where((x + y) % 2 == 0, 0, 255).astype(np.uint8)
        return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, 2)

    def pose(self, detection: Detection, camera: CameraModel) -> Doubles:
        """camera_from_board (4, 4) that fits a detection best.

        Raises:
            BadCalibration: no pose fits.
        """
        rays = camera.normalised(detection.corners)
        points = self.points[detection.ids]
        ok, turn, shift = cv2.solvePnP(points, rays, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
        if not ok or not np.isfinite(shift).all():
            raise BadCalibration("no pose of the board fits its corners; take the image again from the front")
        turn, shift = cv2.solvePnPRefineLM(points, rays, np.eye(3), np.zeros(5), turn, shift)
        return transform(np.asarray(cv2.Rodrigues(turn)[0]), np.asarray(shift).ravel())

    @cached_property
    def _opencv(self) -> Any:
        dictionary = cv2.aruco.getPredefinedDictionary(_DICTIONARIES[self.dictionary])
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)

    @cached_property
    def _detector(self) -> Any:
        return cv2.aruco.CharucoDetector(self._opencv)

    def _charuco(self, grey: Any) -> Detection | None:
        corners, ids, _, _ = self._detector.detectBoard(grey)
        if ids is None or not self.holds_a_pose(ids.ravel()):
            return None
        return Detection(ids.ravel().astype(np.int64), _refined(grey, corners.reshape(-1, 2)))

    def _chessboard(self, grey: Any) -> Detection | None:
        across, down = self.columns - 1, self.rows - 1
        found, corners = cv2.findChessboardCornersSB(grey, (across, down), flags=cv2.CALIB_CB_ACCURACY)
        if not found:
            return None
        grid: Doubles = np.asarray(corners, np.float64).reshape(down, across, 2)
        if not _first_square_is_black(grey, grid):
            grid = grid[::-1, ::-1]
        return Detection(np.arange(self.n_corners), _refined(grey, grid.reshape(-1, 2)))


def _refined(grey: Any, corners: Any) -> Doubles:
    """Corners (N, 2) where the gradients meet.

    OpenCV 4.13's ChArUco detector puts them half a pixel right and below of where its own projection has them, its
    chessboard detector does not; both are the starting points here.
    """
    start = np.ascontiguousarray(corners, np.float32).reshape(-1, 1, 2).copy()
    found = cv2.cornerSubPix(grey, start, (_WINDOW, _WINDOW), (-1, -1), _SUBPIXEL)
    return np.asarray(found, np.float64).reshape(-1, 2)


def _first_square_is_black(grey: Any, grid: Doubles) -> bool:
    """Is the board the right way round? Its first square is black, the one beside it white."""
    first, right, below = grid[0, 0], grid[0, 1] - grid[0, 0], grid[1, 0] - grid[0, 0]
    own, beside = (first - below / 2 + side * right / 2 for side in (-1, 1))
    values = [float(cv2.getRectSubPix(grey, (3, 3), (float(p[0]), float(p[1]))).mean()) for p in (own, beside)]
    return values[0] < values[1]
