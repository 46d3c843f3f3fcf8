"""Before anything moves: the calibration is held to the policy's spec, and a robot that drifted is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_geometry import HOME, PANDA, RADTAN

from vla import registry
from vla.cli import main
from vla.errors import BadCalibration
from vla.spec import Spec
from vla_calibration import store, synthetic
from vla_calibration.board import Board
from vla_calibration.drift import require_calibrated
from vla_calibration.geometry import Doubles, inverse, looking_at, moved, transform
from vla_calibration.kinematics import load_chain
from vla_calibration.store import Calibration, CameraEntry, Offset, robot_digest

PLACE = looking_at(np.array([1.15, 0.1, 0.55]), np.array([0.55, 0.0, 0.5]))


def tabletop() -> Spec:
    spec: Spec = registry.suite("tabletop")().spec
    return spec


def as_trained(spec: Spec, moved_m: float = 0.0) -> Calibration:
    """Every camera where the spec has it, the agent's moved."""
    cameras = {}
    for camera in spec.cameras:
        assert camera.pose is not None
        turn = Rotation.from_quat(camera.pose.quaternion_xyzw).as_matrix()
        place = transform(turn, np.array(camera.pose.position_m))
        shift = np.array([moved_m if camera.name == "agent" else 0.0, 0, 0, 0, 0, 0])
        cameras[camera.name] = CameraEntry(RADTAN, camera.pose.mount, moved(place, shift), 1e-6 * np.eye(6), 0.1, 20)
    return Calibration(cameras)


def test_what_may_run_what_a_person_is_told_and_what_is_refused(tmp_path: Path) -> None:
    spec, path = tabletop(), tmp_path / "panda.yaml"
    with pytest.raises(BadCalibration, match=r"there is no .*panda\.yaml: give its path"):
        require_calibrated(path, spec)
    store.add(path, spec.robot, as_trained(spec))
    assert require_calibrated(path, spec) == []
    store.add(path, spec.robot, as_trained(spec, 0.012))
    assert [w.partition(":")[0] for w in require_calibrated(path, spec)] == ["agent"]
    store.add(path, spec.robot, as_trained(spec, 0.03))
    with pytest.raises(BadCalibration, match=r"agent: 30\.0 mm.*Put back what moved"):
        require_calibrated(path, spec)
    one = as_trained(spec)
    store.add(path, spec.robot, replace(one, cameras={"agent": one.cameras["agent"]}))
    with pytest.raises(BadCalibration, match="wrist: the policy knows its place, and it is not calibrated"):
        require_calibrated(path, spec)
    with pytest.raises(BadCalibration, match="of robot 'panda_tabletop', not of 'other'"):
        require_calibrated(path, replace(spec, robot="other"))
    told = replace(as_trained(spec), joints={"joint2": Offset(0.05, 1e-4)}, spec="0" * 64)
    store.add(path, spec.robot, told)
    assert [w.partition(":")[0] for w in require_calibrated(path, spec)] == ["spec", "joint2"]
    store.add(path, spec.robot, replace(as_trained(spec), spec=robot_digest(replace(spec, chunk_size=8))))
    assert require_calibrated(path, spec) == []  # what a policy adds to the spec is not the robot's


def write(path: Path, **data: Any) -> str:
    path.write_text(json.dumps(data))
    return str(path)


def test_the_gripper_and_the_tool_from_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    widths = {"reported_m": [0.009, 0.029, 0.049], "true_m": [0.01, 0.03, 0.05]}
    file = write(Path("r.json"), kind="gripper", **widths)
    assert main(["calibrate", "gripper", "--recording", file]) == 0
    rng, tip, dimple = np.random.default_rng(1), np.array([0.0, 0.01, 0.12]), np.array([0.5, 0.1, 0.0])
    poses = []
    for _ in range(8):
        T = moved(np.eye(4), np.r_[0, 0, 0, rng.normal(0, 0.5, 3)])
        T[:3, 3] = dimple - T[:3, :3] @ tip
        poses.append(T.tolist())
    assert main(["calibrate", "tool", "--recording", write(Path("t.json"), kind="tool", base_from_hand=poses)]) == 0
    found = store.load(Path("calibration.yaml"), "panda_tabletop")
    assert (found.version, found.gripper) == (2, pytest.approx((1.0, 0.001)))  # what was known before is kept
    assert found.tool is not None
    np.testing.assert_allclose(found.tool.tip_m, tip, atol=1e-6)
    for action, data, says in (
        ("tool", {"kind": "gripper", **widths}, "no recording of kind 'tool'"),
        ("tool", {"kind": "tool"}, "lacks or misshapes 'base_from_hand'"),
        ("tool", {"kind": "tool", "base_from_hand": [[1, 2], [3, 4]]}, "pose 0"),
        ("gripper", {"kind": "gripper", "reported_m": [None], "true_m": [1]}, "finite numbers"),
        ("time", {"kind": "time", "camera": "agent", "setup": "eye_to_hand"}, "not calibrated yet"),
    ):
        capsys.readouterr()
        assert main(["calibrate", action, "--recording", write(Path("bad.json"), **data)]) == 2
        assert says in capsys.readouterr().err


def test_a_cameras_clock_from_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, board, chain = np.random.default_rng(2), Board(), load_chain(PANDA, "tool")
    phase, rate, late_s = rng.uniform(0, 6, (2, 7)), rng.uniform(0.2, 0.9, (2, 7)), 0.04

    def joints(t: float) -> Doubles:
        return np.asarray(HOME + [0, 0, 0, 0, 0.1, 0.1, 0.15] * np.sin(2 * np.pi * rate * t + phase).sum(0))

    hand = chain.forward(HOME)[0]
    turn = PLACE[:3, :3]
    far = inverse(hand) @ transform(turn, hand[:3, 3] + [0.05, 0, 0] - turn @ [*board.size_m / 2, 0])
    frames = []
    for t in np.arange(0.3, 5.7, 1 / 30):
        seen = synthetic.detect(RADTAN, board, inverse(PLACE) @ chain.forward(joints(t + late_s))[0] @ far, 0.3, rng)
        if seen is not None:
            frames.append({"stamp_ns": round(t * 1e9), "ids": seen.ids.tolist(), "corners": seen.corners.tolist()})
    states = [{"stamp_ns": round(t * 1e9), "joints": joints(t).tolist()} for t in np.arange(0, 6, 0.02)]
    about = {"camera": "agent", "setup": "eye_to_hand", "board": {}}
    file = write(Path("clock.json"), kind="time", **about, frames=frames, states=states)
    entry = CameraEntry(RADTAN, "base", PLACE, 1e-6 * np.eye(6), 0.1, 20)
    store.add(Path("calibration.yaml"), "panda_tabletop", Calibration({"agent": entry}))
    assert main(["calibrate", "time", "--recording", file]) == 2  # without the arm's model
    assert main(["calibrate", "time", "--recording", file, "--model", str(PANDA)]) == 0
    assert store.load(Path("calibration.yaml")).clocks["agent"].value == pytest.approx(late_s, abs=2e-3)
