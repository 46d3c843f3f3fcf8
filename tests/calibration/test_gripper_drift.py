"""A Panda drawn with its true meshes: its own gripper tells whether camera and joints are where they were."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_geometry import HOME, PANDA

from vla import registry
from vla.cli import main
from vla.errors import BadCalibration
from vla.spec import Drift
from vla.verbs._calibration_robot import LENS, places
from vla.verbs.benches._gripper_trials import FLAWS, panda_shape, scene
from vla_calibration import store
from vla_calibration.board import Board
from vla_calibration.contour import Mesh, read_stl
from vla_calibration.geometry import moved
from vla_calibration.gripper_drift import Still, check_gripper, in_sight
from vla_calibration.stills import add_still
from vla_calibration.store import Calibration, CameraEntry, Offset

PLACE, _ = places("eye_to_hand", Board())
ENTRY = CameraEntry(LENS, "base", PLACE, 1e-6 * np.eye(6), 0.1, 20)
JOINTS = HOME + np.array([[-0.15, 0.25, 0, 0, -0.1, 0, 0.4], [0.15, 0.2, 0, 0, 0, 0.1, 0.6]])
"""Of two stills, the wrist turned differently."""


@pytest.fixture(scope="module")
def stills() -> list[Still]:
    rng, away = np.random.default_rng(0), np.diag([1.0, 1, 1, 1])
    away[2, 3] = -5
    return [Still(scene().photograph(q, away, PLACE, FLAWS, rng), q) for q in JOINTS]


def test_what_drifted_is_named_and_measured(stills: list[Still]) -> None:
    arm = panda_shape()
    assert all(in_sight(q, arm, ENTRY) for q in JOINTS)
    assert check_gripper(stills, arm, ENTRY, Drift()).level == "ok"
    bumped = replace(ENTRY, mount_from_camera=moved(PLACE, np.array([0, 0.025, 0, 0, 0, 0])))
    found = check_gripper(stills, arm, bumped, Drift())
    assert (found.level, found.metres) == ("refuse", pytest.approx(0.025, abs=2e-3))
    assert "the camera had moved by 2" in found.reason
    slipped = [replace(s, joints=s.joints + np.deg2rad(1.5) * np.eye(7)[3]) for s in stills]
    found = check_gripper(slipped, arm, ENTRY, Drift())
    assert (found.level, found.radians) == ("warn", pytest.approx(np.deg2rad(1.5), abs=np.deg2rad(0.3)))


def test_what_cannot_be_checked_is_not_passed(stills: list[Still]) -> None:
    arm = panda_shape()
    with pytest.raises(BadCalibration, match="a camera on the hand"):
        check_gripper(stills, arm, replace(ENTRY, mount="hand"), Drift())
    turned = moved(PLACE, np.array([0, 0, 0, 0, 1.0, 0]))
    with pytest.raises(BadCalibration, match="in none of 2 stills"):
        check_gripper(stills, arm, replace(ENTRY, mount_from_camera=turned), Drift())
    with pytest.raises(BadCalibration, match="in none of 0 stills"):
        check_gripper([], arm, ENTRY, Drift())
    dark = [replace(s, image=np.zeros_like(s.image)) for s in stills]
    assert check_gripper(dark, arm, ENTRY, Drift()).level == "refuse"


def write_stl(path: Path, mesh: Mesh) -> None:
    corners = mesh.vertices[mesh.faces].astype("<f4")
    facets = b"".join(np.zeros(3, "<f4").tobytes() + c.tobytes() + b"\0\0" for c in corners)
    path.write_bytes(bytes(80) + struct.pack("<I", len(corners)) + facets)


def test_the_command_and_its_files(
    stills: list[Still], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arm = panda_shape()
    Path("meshes").mkdir()
    for name, mesh in zip(("base", *arm.chain.names), arm.links, strict=True):
        write_stl(Path(f"meshes/{name}.stl"), mesh)
    write_stl(Path("meshes/gripper.stl"), arm.gripper)
    spec = registry.suite("tabletop")().spec
    Path("policy").mkdir()
    replace(spec, cameras=tuple(replace(c, pose=None) for c in spec.cameras)).save(Path("policy/spec.json"))
    joints = np.array([s.joints for s in stills])
    reported = joints - [0, 0, np.deg2rad(3), 0, 0, 0, 0]  # as calibrated below
    n = [add_still(Path("stills.npz"), s.image, q) for s, q in zip(stills, reported, strict=True)]
    assert n == [1, 2]
    before = Path("stills.npz").read_bytes()
    for image, angles, says in (
        (stills[0].image[:-2], reported[0], "now came (478, 640, 3)"),
        (stills[0].image, reported[0, :6], "begin another file"),
        (stills[0].image, reported[0] * np.nan, "are not finite"),
    ):
        with pytest.raises(BadCalibration, match=re.escape(says)):
            add_still(Path("stills.npz"), image, angles)
    monkeypatch.setattr("vla_calibration.stills._LIMIT_BYTES", 5 * stills[0].image.nbytes)
    with pytest.raises(BadCalibration, match="is full with 2 stills"):
        add_still(Path("stills.npz"), stills[0].image, reported[0])
    assert Path("stills.npz").read_bytes() == before
    found = Calibration({"agent": ENTRY}, {"joint3": Offset(float(np.deg2rad(3)), 1e-4)})
    store.add(Path("calibration.yaml"), "panda_tabletop", found)
    check = ["calibrate", "check", "--policy", "policy", "--model", str(PANDA), "--hand", "hand", "--meshes", "meshes"]
    assert main([*check, "--stills", "stills.npz"]) == 0
    store.add(Path("calibration.yaml"), "panda_tabletop", replace(found, joints={}))
    assert main([*check, "--stills", "stills.npz"]) == 1
    assert "joint3 were off by" in capsys.readouterr().out
    np.savez(Path("bad.npz"), images=np.zeros((2, 8, 8, 3), np.uint8), joints=np.zeros((1, 7)))
    assert main([*check, "--stills", "bad.npz"]) == 2
    Path("bad.stl").write_bytes(b"solid ascii")
    with pytest.raises(BadCalibration, match="no binary STL"):
        read_stl(Path("bad.stl"))
