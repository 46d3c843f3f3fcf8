"""A session on disk that survives an interruption: one line a view, checked as it is taken and as it is read back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from vla.errors import BadCalibration, BadConfig
from vla.runs import Run, to_plain
from vla_calibration.board import MIN_CORNERS, Board, Detection
from vla_calibration.camera import MAX_PIXELS, Model
from vla_calibration.geometry import distance
from vla_calibration.rig import Setup, View
from vla_calibration.untrusted import MAX_STAMP_NS, known, label, numbers, whole

KIND = "calibration"
"""Of the run folder that is a session."""
_LIMIT_BYTES = 64 << 20
_NEW_M, _NEW_RAD = 0.01, np.deg2rad(3.0)
"""A view nearer to an earlier one than both shows nothing new."""


@dataclass(frozen=True)
class SessionConfig:
    """What is calibrated, with which board."""

    robot: str
    camera: str
    setup: Setup
    board: Board
    width: int
    height: int
    lens: Model = "radtan"

    def __post_init__(self) -> None:
        label(self.robot, "the robot's name")
        label(self.camera, "the camera's name")
        whole(self.width, 1, MAX_PIXELS, "the image's width")
        whole(self.height, 1, MAX_PIXELS, "the image's height")
        for value, choices in ((self.setup, get_args(Setup)), (self.lens, get_args(Model))):
            if value not in choices:
                raise BadCalibration(f"{value!r} is none of {', '.join(choices)}")


class Session:
    """A folder of views; each is on disk before the next is taken."""

    def __init__(self, run: Run, config: SessionConfig) -> None:
        """Raises BadCalibration: a line is no view, or one that `add` would refuse; says which."""
        self.run, self.config = run, config
        self.views: list[View] = []
        for i, row in enumerate(run.rows()):
            where = f"{run.path}, view {i}"
            view = _view(row, where, config)
            try:
                self._require_new(view)
            except BadCalibration as error:
                raise BadCalibration(f"{where}: {error}; or remove the line") from error
            self.views.append(view)

    @classmethod
    def create(cls, folder: Path, config: SessionConfig) -> Self:
        """Begin, or go on where it was interrupted.

        Raises:
            BadConfig: it was begun with another config, or the folder cannot be one.
            BadCalibration: what is in it is no session of views.
        """
        if folder.exists() and not folder.is_dir():
            raise BadConfig(f"{folder} is a file: choose a folder for the views")
        _require_own_files(folder)
        return cls(Run.create(folder, KIND, config, resume=True), config)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """One that is there. Raises UnknownName, BadDataset, BadCalibration."""
        _require_own_files(folder)
        run = Run.open(folder)
        if run.kind != KIND:
            raise BadCalibration(f"{folder} is a run of {run.kind!r}, no calibration session")
        about = dict(known(run.config, (field.name for field in fields(SessionConfig)), f"{folder}, config"))
        try:
            config = SessionConfig(**{**about, "board": Board.from_json(about["board"], f"{folder}, board")})
        except (TypeError, KeyError) as error:
            raise BadCalibration(f"{folder} is no calibration session: it lacks {error}") from error
        return cls(run, config)

    def add(self, view: View) -> None:
        """Keep a view.

        Raises:
            BadCalibration: too little of the board is seen, it is of another camera, older than the last, or the hand
                hardly moved since an earlier one.
        """
        self._require_new(view)
        row = {
            "stamp_ns": view.stamp_ns,
            "camera": view.camera,
            "ids": view.detection.ids,
            "corners": np.round(view.detection.corners, 4),
            "base_from_hand": view.base_from_hand,
            "joints": view.joints,
        }
        self.run.append(to_plain(row))
        self.views.append(view)

    def _require_new(self, view: View) -> None:
        if len(view.detection.ids) < MIN_CORNERS:
            raise BadCalibration(
                f"{len(view.detection.ids)} corners in sight, {MIN_CORNERS} are needed: move the board in"
            )
        if view.camera != self.config.camera:
            raise BadCalibration(
                f"this session is of camera {self.config.camera!r}, the view of {view.camera!r}: one camera a session"
            )
        if self.views and view.stamp_ns <= self.views[-1].stamp_ns:
            raise BadCalibration(
                f"stamped {view.stamp_ns} ns, not after the view before it at {self.views[-1].stamp_ns} ns: images and "
                "poses may be paired wrongly; take them in order, by one clock"
            )
        counts = [0 if v.joints is None else len(v.joints) for v in (*self.views[:1], view)]
        if counts[0] != counts[-1]:
            raise BadCalibration(
                f"{counts[-1]} joint angles, {counts[0]} in the views before: record them with each view, of one arm"
            )
        for i, earlier in enumerate(self.views):
            metres, radians = distance(earlier.base_from_hand, view.base_from_hand)
            if metres < _NEW_M and radians < _NEW_RAD:
                raise BadCalibration(f"the hand stands as in view {i}: move it by 1 cm or 3 degrees at least")


def _view(row: dict[str, Any], where: str, config: SessionConfig) -> View:
    """A view from an untrusted line. Raises BadCalibration."""
    try:
        seen, angles = row["ids"], row["joints"]
        ids = np.array([whole(i, 0, config.board.n_corners - 1, f"{where}, corner ids of this board") for i in seen])
        return View(
            Detection(ids.astype(np.int64), numbers(row["corners"], (len(seen), 2), f"{where}, corners")),
            numbers(row["base_from_hand"], (4, 4), f"{where}, base_from_hand"),
            None if angles is None else numbers(angles, (len(angles),), f"{where}, joints"),
            whole(row["stamp_ns"], 0, MAX_STAMP_NS, f"{where}, stamp_ns"),
            label(row["camera"], f"{where}, camera"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadCalibration(f"{where} is not a view ({error}); remove the line") from error


def _require_own_files(folder: Path) -> None:
    """What is a link or no file might be somebody else's, and would be read, or written to."""
    for file in (folder / "run.json", folder / "episodes.jsonl"):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise BadCalibration(f"{file} is a link or no plain file: put a copy of what it stands for in its place")
        if file.exists() and file.stat().st_size > _LIMIT_BYTES:
            raise BadCalibration(f"{file} is larger than {_LIMIT_BYTES} bytes: it is no session of some dozen views")
