"""Clock, tool and gripper from recordings in plain JSON, which any logger can write.

    {"kind": "gripper", "reported_m": [0.011, ...], "true_m": [0.010, ...]}
    {"kind": "tool", "base_from_hand": [[[1, 0, 0, 0.4], ... four rows], ...]}
    {"kind": "time", "camera": "agent", "setup": "eye_to_hand", "board": {"square_m": 0.0251, ...},
     "frames": [{"stamp_ns": 1, "ids": [0, 1, ...], "corners": [[312.4, 80.1], ...]}, ...],
     "states": [{"stamp_ns": 1, "joints": [0.0, ...]}, ...]}

Gripper: widths on gauges, as it reports them and as they are. Tool: poses of the hand with the tip resting in one
dimple. Time: 10 s of a swinging wrist with the board in sight; stamps by each one's own clock, corners as
`Board.detect` finds them, joints as the encoders report them. Files are read as untrusted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vla.errors import BadCalibration
from vla_calibration.board import Board, Detection
from vla_calibration.geometry import Doubles
from vla_calibration.kinematics import Chain
from vla_calibration.rig import Setup
from vla_calibration.store import Calibration, Offset, Tip
from vla_calibration.time_offset import calibrate_time_offset
from vla_calibration.tool import calibrate_tip, calibrate_width
from vla_calibration.untrusted import MAX_STAMP_NS, label, numbers, whole

KINDS = ("time", "tool", "gripper")
_LIMIT_BYTES = 64 << 20


def solve_recording(path: Path, kind: str, before: Calibration, chain: Chain | None = None) -> Calibration:
    """A robot's calibration with what a recording adds to it.

    Args:
        path: the file.
        kind: one of KINDS; the file must be of it.
        before: the robot's newest calibration; "time" takes the camera's lens and the joints' offsets from it.
        chain: the arm's nominal kinematics, for "time".

    Raises:
        BadCalibration: the file is none of that kind, or does not determine what is asked for.
    """
    data = _read(path, kind)
    note = f"{kind} from {path.name}"
    try:
        if kind == "gripper":
            width = calibrate_width(*(_column(data[key], f"{path}, {key}") for key in ("reported_m", "true_m")))
            return replace(before, gripper=(width.scale, width.offset_m), note=note)
        if kind == "tool":
            poses = [numbers(T, (4, 4), f"{path}, pose {i}") for i, T in enumerate(data["base_from_hand"])]
            tip = calibrate_tip(poses)
            return replace(before, tool=Tip(tip.tip_m, tip.covariance), note=note)
        camera = label(data["camera"], f"{path}, camera")
        return replace(before, clocks={**before.clocks, camera: _clock(data, path, camera, before, chain)}, note=note)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCalibration(f"{path} lacks or misshapes {error}: it is no recording of kind {kind!r}") from error


def _clock(data: dict[str, Any], path: Path, camera: str, before: Calibration, chain: Chain | None) -> Offset:
    if data["setup"] not in get_args(Setup):
        raise BadCalibration(f"{path}: setup {data['setup']!r} is none of {get_args(Setup)}")
    if camera not in before.cameras:
        raise BadCalibration(f"camera {camera!r} is not calibrated yet: solve a session of its views first")
    if chain is None:
        raise BadCalibration("the camera's clock is compared with the hand's turning: pass the arm's model (--model)")
    board, lens = Board.from_json(data["board"], f"{path}, board"), before.cameras[camera].intrinsics
    turns = []
    for i, frame in enumerate(data["frames"]):
        ids = np.array([whole(c, 0, board.n_corners - 1, f"{path}, frame {i}, ids") for c in frame["ids"]], np.int64)
        if not board.holds_a_pose(ids):
            raise BadCalibration(f"{path}, frame {i}: corners {ids.tolist()} hold no pose of this board; leave it out")
        corners = numbers(frame["corners"], (len(ids), 2), f"{path}, frame {i}, corners")
        turns.append(board.pose(Detection(ids, corners), lens)[:3, :3])
    offsets = np.array([before.joints[n].value if n in before.joints else 0.0 for n in chain.names])
    joints = [numbers(s["joints"], (len(offsets),), f"{path}, state {i}") for i, s in enumerate(data["states"])]
    hands = np.array([chain.forward(angles + offsets)[0][:3, :3] for angles in joints])
    stamps = [
        [whole(row["stamp_ns"], 0, MAX_STAMP_NS, f"{path}, {key} {i}, stamp_ns") for i, row in enumerate(data[key])]
        for key in ("frames", "states")
    ]
    found = calibrate_time_offset(stamps[0], np.array(turns), stamps[1], hands, data["setup"] == "eye_in_hand")
    return Offset(found.offset_s, found.std_s)


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES + 1)
        if len(text) > _LIMIT_BYTES:
            raise BadCalibration(f"{path} is larger than {_LIMIT_BYTES} bytes: record 10 s, not an hour")
        data = json.loads(text)
    except OSError as error:
        raise BadCalibration(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadCalibration(f"{path} is not JSON: {error}; record it again") from error
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise BadCalibration(f'{path} is no recording of kind {kind!r}: it wants an object with "kind": "{kind}"')
    return data


def _column(values: Sequence[Any], where: str) -> Sequence[float]:
    found: Doubles = numbers(values, (len(values),), where)
    return [float(v) for v in found]
