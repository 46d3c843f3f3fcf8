"""What a stranger may hand to `vla calibrate`: refused with the reason, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_geometry import HOME, PANDA, RADTAN

from vla.cli import main
from vla_calibration import store, synthetic
from vla_calibration.board import Board
from vla_calibration.geometry import inverse, looking_at, transform
from vla_calibration.kinematics import load_chain
from vla_calibration.rig import Noise, Rig
from vla_calibration.session import Session, SessionConfig
from vla_calibration.store import Calibration, CameraEntry, Offset

Rows = list[dict[str, Any]]
PLACE = looking_at(np.array([1.15, 0.1, 0.55]), np.array([0.55, 0.0, 0.5]))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 views of an arm whose joint 4 is 3 degrees off, as a session on disk."""
    chain, board = load_chain(PANDA, "tool"), Board()
    hand = chain.forward(HOME)[0]
    far = inverse(hand) @ transform(PLACE[:3, :3], hand[:3, 3] - PLACE[:3, :3] @ [*board.size_m / 2, 0])
    off = np.deg2rad(3.0) * np.eye(7)[3]
    rig = Rig("eye_to_hand", board, RADTAN, PLACE, far, off, np.zeros((0, 6)))
    views = synthetic.arm_views(rig, chain, HOME, 20, Noise(0.2, 1e-4, 1e-4), np.random.default_rng(5)).views
    config = SessionConfig("panda_tabletop", "agent", "eye_to_hand", board, 640, 480)
    session = Session.create(tmp_path_factory.mktemp("good") / "session", config)
    for view in views:
        session.add(replace(view, camera="agent"))
    return session.run.path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `vla calibrate`, which must refuse; what it said."""

    def run(*argv: object) -> str:
        assert main(["calibrate", *map(str, argv)]) == 2
        return capsys.readouterr().err

    return run


def test_an_option_of_another_action_is_refused_not_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["solve", "--camera", "wrist"], ["capture", "--policy", "p"], ["check", "--store", "s.yaml"], []):
        with pytest.raises(SystemExit, match="2"):
            main(["calibrate", *argv])
    assert "--policy" in capsys.readouterr().err, "a check without a policy to check says so"


def copied(good: Path, folder: Path, spoil: Callable[[dict[str, Any], Rows], object]) -> Path:
    """The session, its config and rows spoiled."""
    meta = json.loads((good / "run.json").read_text())
    rows = [json.loads(line) for line in (good / "episodes.jsonl").read_text().splitlines()]
    spoil(meta["config"], rows)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(meta))
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mirror(_: Any, rows: Rows) -> None:
    for row in rows:
        row["corners"] = [[640 - x, y] for x, y in row["corners"]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c, r: c["board"].update(square_m=0.0275, marker_m=0.0198), "squares measure 2[45]"),
        (mirror, "images are mirrored"),
        (lambda c, r: c.update(setup="eye_in_hand"), "the setup is the other one"),
        (lambda c, r: [row.update(joints=row["joints"][:6]) for row in r], "6 joint angles, the model's arm 7"),
    ],
    ids=["wrong size", "mirrored", "other setup", "six joints"],
)
def test_views_that_contradict_the_arm(
    spoil: Any, says: str, good: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    session, file = copied(good, tmp_path / "s", spoil), tmp_path / "panda.yaml"
    assert re.search(says, refused("solve", "--session", session, "--store", file, "--model", PANDA))
    assert not file.exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c, r: c.update(setup="eye_on_foot"), "'eye_on_foot' is none of"),
        (lambda c, r: c.update(lens="pinhole"), "'pinhole' is none of"),
        (lambda c, r: c.update(width="640"), "image's width: want a whole number"),
        (lambda c, r: c.update(camera="../../x"), "camera's name: want letters"),
        (lambda c, r: c.update(robot=["a"]), "robot's name: want letters"),
        (lambda c, r: c.update(colour="red"), "['colour'], which this version does not know"),
        (lambda c, r: c["board"].update(square_m="big"), "board, square_m: want finite numbers"),
        (lambda c, r: c["board"].update(columns=1000), "board, columns: want a whole number from 3 to 50"),
        (lambda c, r: r[4].update(stamp_ns=float("inf")), "view 4, stamp_ns: want a whole number"),
        (lambda c, r: r.insert(3, r.pop()), "view 4: stamped"),
        (lambda c, r: r[2].update(corners=[[float("nan")] * 2] * len(r[2]["ids"])), "view 2, corners: want finite"),
        (lambda c, r: r[2].update(ids=r[2]["ids"][:1], corners=r[2]["corners"][:1]), "view 2: 1 corners in sight"),
        (lambda c, r: r[4].update(joints=[[1, 2], [3, 4]]), "view 4, joints: want finite numbers"),
        (lambda c, r: r[4].update(joints=None), "view 4: 0 joint angles, 7 in the views before"),
        (lambda c, r: r[4].update(camera="wrist"), "of camera 'agent', the view of 'wrist'"),
        (lambda c, r: r.insert(1, {**r[0], "stamp_ns": r[0]["stamp_ns"] + 1}), "view 1: the hand stands as in view 0"),
    ],
)
def test_a_session_that_is_none(spoil: Any, says: str, good: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    session = copied(good, tmp_path / "s", spoil)
    assert says in refused("solve", "--session", session, "--store", tmp_path / "panda.yaml")


def test_a_session_that_points_elsewhere(good: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    session = copied(good, tmp_path / "s", lambda c, r: None)
    outside = tmp_path / "outside"
    (session / "episodes.jsonl").rename(outside)
    before = outside.read_bytes()
    (session / "episodes.jsonl").symlink_to(outside)
    for action in ("solve", "capture"):
        assert "is a link or no plain file" in refused(action, "--session", session)
    assert outside.read_bytes() == before
    (session / "episodes.jsonl").unlink()
    (session / "episodes.jsonl").write_text("[" * 100_000 + "\n")
    assert "line 1 is not JSON" in refused("solve", "--session", session)
    assert "is a file: choose a folder" in refused("capture", "--session", outside)


def entry() -> dict[str, Any]:
    """A store's content with all there may be."""
    camera = CameraEntry(RADTAN, "base", PLACE, 1e-7 * np.eye(6), 0.1, 20)
    calibration = Calibration({"agent": camera}, {"joint2": Offset(0.05, 1e-4)}, {"agent": Offset(0.01, 1e-3)})
    return store._plain(calibration) | {"version": 1, "date": "2026-01-02T03:04:05+00:00", "revision": "abc"}


def variances(a: float, b: float) -> list[list[float]]:
    """(6, 6) with an off-diagonal pair."""
    matrix = 1e-7 * np.eye(6)
    matrix[0, 1], matrix[1, 0] = a, b
    return matrix.tolist()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda v: v.update(lidars={}), "['lidars'], which this version does not know and would lose"),
        (lambda v: v.update(version=True), "version: want a whole number"),
        (lambda v: v.update(date="yesterday"), "Invalid isoformat"),
        (lambda v: v["cameras"].update({"../evil": v["cameras"].pop("agent")}), "want letters, digits"),
        (lambda v: v["cameras"]["agent"].update(exposure=3), "['exposure'], which this version does not know"),
        (lambda v: v["cameras"]["agent"].update(covariance=variances(1e-6, 1e-6)), "has a negative variance"),
        (lambda v: v["cameras"]["agent"].update(covariance=variances(5e-8, 0.0)), "is not symmetric"),
        (lambda v: v["cameras"]["agent"].update(covariance=(-1e-12 * np.eye(6)).tolist()), "negative variances"),
        (lambda v: v["cameras"]["agent"].update(covariance=(1e3 * np.eye(6)).tolist()), "is known to 77.5 m"),
        (lambda v: v["cameras"]["agent"]["mount_from_camera"][0].__setitem__(3, 1000.0), "no camera's of this arm"),
        (lambda v: v["cameras"]["agent"].update(views=-3), "views: want a whole number"),
        (lambda v: v["cameras"]["agent"]["intrinsics"].update(fx=True), "want finite numbers"),
        (lambda v: v["cameras"]["agent"]["intrinsics"].update(width=640.5), "width: want a whole number"),
    ],
)
def test_a_version_that_is_none(spoil: Any, says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    data, file = entry(), tmp_path / "panda.yaml"
    spoil(data)
    text = yaml.safe_dump({"format": 1, "robot": "panda_tabletop", "versions": [data]})
    file.write_text(text)
    assert says in refused("show", "--store", file)
    recording = tmp_path / "r.json"
    widths = {"reported_m": [0.009, 0.029, 0.049], "true_m": [0.01, 0.03, 0.05]}
    recording.write_text(json.dumps({"kind": "gripper", **widths}))
    assert says in refused("gripper", "--store", file, "--recording", recording)
    assert file.read_text() == text  # not overwritten by what was understood of it


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: "", "does not hold an object"),
        (lambda t: t[: len(t) // 2], "Restore the file from a copy"),
        (lambda t: t + "robot: other\n", "['robot'] come twice"),
        (lambda t: t + "---\nrobot: other\n", "not plain YAML"),
        (lambda t: t.replace("format: 1", "format: 2"), "of format 2, this version reads format 1: update"),
        (lambda t: t.replace("robot: panda_tabletop", "robot: [a]"), "robot: want letters"),
        (lambda t: "[" * 5000, "levels deep"),
        (lambda t: "x: 1" + "0" * 5000, "not plain YAML"),
    ],
)
def test_a_store_that_is_none(spoil: Any, says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    text = yaml.safe_dump({"format": 1, "robot": "panda_tabletop", "versions": [entry()]}, sort_keys=False)
    file = tmp_path / "panda.yaml"
    file.write_text(text)
    assert main(["calibrate", "show", "--store", str(file)]) == 0
    file.write_text(spoil(text))
    assert says in refused("show", "--store", file)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("<robot><link name='a'/></robot>", "no joint leads to link 'tool'"),
        (
            "<robot><joint type='revolute'><parent link='tool'/><child link='a'/></joint>"
            "<joint type='revolute'><parent link='a'/><child link='tool'/></joint></robot>",
            "go round in a circle",
        ),
        (
            "<robot><joint type='revolute'><parent link='a'/><child link='tool'/><limit lower='x'/></joint></robot>",
            "'x 0' is not 2 numbers",
        ),
        ("<mujoco><worldbody><body name='tool' euler='90 0 0'/></worldbody></mujoco>", "'tool' is turned by euler"),
        ("<mujoco><worldbody><body name='tool' quat='0 0 0 0'/></worldbody></mujoco>", "quaternion of 'tool' is zero"),
        (
            "<mujoco><default><joint type='slide'/></default>"
            "<worldbody><body name='tool'><joint name='a'/></body></worldbody></mujoco>",
            "joint 'a' is no hinge",
        ),
    ],
)
def test_a_model_that_is_none(model: str, says: str, good: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "arm.xml").write_text(model)
    assert says in refused("solve", "--session", good, "--model", tmp_path / "arm.xml")


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        ("gripper", {"reported_m": [0.03] * 3, "true_m": [0.01, 0.03, 0.05]}, "3 widths over 0 mm"),
        ("gripper", {"reported_m": [True, 0.03, 0.05], "true_m": [0.01, 0.03, 0.05]}, "want finite numbers"),
        ("time", {"board": [], "frames": [], "states": []}, "board: want an object"),
        ("time", {"board": {"columns": None}, "frames": [], "states": []}, "columns: want a whole number"),
        ("time", {"board": {}, "frames": [], "states": []}, "0 camera stamps: record 10 s"),
        (
            "time",
            {"board": {}, "frames": [], "states": [{"stamp_ns": 1.5, "joints": [0] * 7}]},
            "stamp_ns: want a whole",
        ),
        ("time", {"board": {}, "frames": [], "states": [{"stamp_ns": 1, "joints": [0] * 6}]}, "of shape (7,)"),
        ("time", {"board": {}, "frames": [None], "states": []}, "is no recording of kind 'time'"),
    ],
)
def test_a_recording_that_is_none(
    kind: str, data: dict[str, Any], says: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    file, recording = tmp_path / "panda.yaml", tmp_path / "r.json"
    text = yaml.safe_dump({"format": 1, "robot": "panda_tabletop", "versions": [entry()]})
    file.write_text(text)
    recording.write_text(json.dumps({"kind": kind, "camera": "agent", "setup": "eye_to_hand"} | data))
    assert says in refused(kind, "--store", file, "--recording", recording, "--model", PANDA)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("capture", "--views", 0), "at least one view"),
        (("capture", "--seed", -1), "no negative seed"),
        (("capture", "--offsets-deg", *["nan"] * 7), "of 10 at most"),
        (("diff", "--version", 0), "versions 1 to 1, not 0"),
        (("diff",), "has one version only"),
        (("export", "--out", __file__), "is a file: choose a folder"),
    ],
)
def test_options_that_cannot_be(
    argv: tuple[object, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("calibration.yaml").write_text(yaml.safe_dump({"format": 1, "robot": "r", "versions": [entry()]}))
    assert says in refused(*argv)
    assert not Path("runs").exists()
