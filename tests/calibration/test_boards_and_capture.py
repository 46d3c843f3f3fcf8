"""Rendered boards are found where they are; a simulated arm calibrates itself, interrupted or not, from the command."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_geometry import HOME, PANDA, RADTAN

from vla import registry
from vla.cli import main
from vla.errors import BadCalibration, BadConfig
from vla.spec import Drift, Spec
from vla_calibration import store
from vla_calibration.board import Board
from vla_calibration.capture import predicted, progress, suggest
from vla_calibration.drift import check_scene
from vla_calibration.geometry import Doubles, apply, inverse, looking_at, moved, transform
from vla_calibration.rig import Noise
from vla_calibration.session import Session, SessionConfig
from vla_calibration.store import CameraEntry
from vla_calibration.synthetic import hand_eye_views
from vla_sim.board_scene import BoardScene, Flaws, Picture

CHARUCO = Board()
CHESSBOARD = Board("chessboard", columns=10, rows=7)
PLACE = looking_at(np.array([1.3, 0.0, 0.5]), np.array([0.5, 0.0, 0.45]))


@functools.cache
def scene(board: Board) -> BoardScene:
    return BoardScene(Picture(board.draw(80), board.size_m, board.square_m), (640, 480), RADTAN.normalised)


def placed(board: Board, turn_deg: tuple[float, float, float]) -> Doubles:
    turn = PLACE[:3, :3] @ Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    return transform(turn, np.array([0.8, 0, 0.45]) - turn @ [*board.size_m / 2, 0])


@pytest.mark.parametrize("board", [CHARUCO, CHESSBOARD], ids=lambda b: b.kind)
@pytest.mark.parametrize("turn_deg", [(17, -11, 23), (-20, 15, 160)])
def test_corners_are_where_the_truth_is(board: Board, turn_deg: tuple[float, float, float]) -> None:
    T = placed(board, turn_deg)
    found = board.detect(scene(board).photograph(HOME, T, PLACE))
    assert found is not None
    off = found.corners - RADTAN.project(apply(inverse(PLACE) @ T, board.points[found.ids]))
    assert np.abs(off.mean(0)).max() < 0.03  # OpenCV's own ChArUco corners are half a pixel off
    assert np.abs(off).max() < 0.25


def test_a_part_a_mirror_image_and_nothing() -> None:
    T = placed(CHARUCO, (17, -11, 23))
    rng = np.random.default_rng(0)
    part = CHARUCO.detect(scene(CHARUCO).photograph(HOME, T, PLACE, Flaws(0.5, 5.0, covered=0.5), rng))
    assert part is not None
    assert 8 <= len(part.ids) < CHARUCO.n_corners
    with pytest.raises(BadCalibration, match="mirrored"):
        CHARUCO.detect(np.ascontiguousarray(scene(CHARUCO).photograph(HOME, T, PLACE)[:, ::-1]))
    assert CHARUCO.detect(np.full((480, 640, 3), 127, np.uint8)) is None
    assert not CHARUCO.holds_a_pose(np.arange(9))  # one row


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "chessboard", "columns": 8, "rows": 6}, "upside down"),
        ({"marker_m": 0.03}, "smaller than squares"),
        ({"dictionary": "DICT_NONE"}, "dictionary"),
        ({"square_m": 25.0}, "1 mm to 1 m"),
        ({"kind": "circles"}, "none of"),
    ],
)
def test_a_board_that_cannot_be(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadCalibration, match=says):
        Board(**settings)  # type: ignore[arg-type]


def test_guided_views_teach_more_than_views_at_random() -> None:
    rng = np.random.default_rng(1)
    noise = Noise(0.5, 1e-3, 1e-3)
    truth = hand_eye_views(RADTAN, CHARUCO, "eye_in_hand", 40, noise, rng)
    candidates = [v.base_from_hand for v in truth.views]
    guided = []
    for _ in range(8):
        chosen = candidates[suggest(truth.rig, guided, candidates, noise)]
        view = predicted(truth.rig, chosen)
        assert view is not None
        guided.append(view)
    at_random = [v for v in (predicted(truth.rig, T) for T in candidates[:9]) if v is not None][:8]
    assert progress(truth.rig, guided, noise).std_m < 0.9 * progress(truth.rig, at_random, noise).std_m
    away = [moved(T, np.array([0, 0, 0, np.pi, 0, 0])) for T in candidates[:3]]
    with pytest.raises(BadCalibration, match="in sight from none"):
        suggest(truth.rig, [], away, noise)


def test_a_session_goes_on_and_refuses_what_teaches_nothing(tmp_path: Path) -> None:
    config = SessionConfig("panda", "cam", "eye_in_hand", CHARUCO, 640, 480)
    views = hand_eye_views(RADTAN, CHARUCO, "eye_in_hand", 4, Noise(), np.random.default_rng(2)).views
    named = [replace(v, camera="cam") for v in views]
    session = Session.create(tmp_path / "s", config)
    session.add(named[0])
    session.add(named[1])
    with (tmp_path / "s" / "episodes.jsonl").open("a") as file:
        file.write('{"stamp_ns": 3000')  # killed while writing
    again = Session.create(tmp_path / "s", config)
    assert len(again.views) == 2
    np.testing.assert_array_equal(again.views[1].base_from_hand, named[1].base_from_hand)
    for view, says in (
        (replace(named[1], stamp_ns=10**12), "stands as in view 1"),
        (named[0], "not after the view before it"),
        (replace(named[2], camera="other"), "'cam', the view of 'other'"),
    ):
        with pytest.raises(BadCalibration, match=says):
            again.add(view)
    with pytest.raises(BadConfig, match="width was 640, now 320"):
        Session.create(tmp_path / "s", replace(config, width=320))
    text = (tmp_path / "s" / "episodes.jsonl").read_text()
    (tmp_path / "s" / "episodes.jsonl").write_text(text.replace('"ids": [', '"ids": [999, ', 1))
    with pytest.raises(BadCalibration, match=r"view 0, corner ids of this board.*999"):
        Session.open(tmp_path / "s")


@pytest.mark.parametrize(("metres", "level"), [(0.0, "ok"), (0.012, "warn"), (0.03, "refuse")])
def test_a_camera_that_was_bumped(metres: float, level: str) -> None:
    truth = hand_eye_views(RADTAN, CHARUCO, "eye_in_hand", 3, Noise(0.3, 1e-4, 1e-4), np.random.default_rng(3))
    was = moved(truth.rig.mount_from_camera, np.array([metres, 0, 0, 0, 0, 0]))
    entry = CameraEntry(RADTAN, "hand", was, np.eye(6), 0.1, 20)
    found = check_scene(truth.views, CHARUCO, entry, Drift(), truth.rig.far_from_board)
    assert found.level == level
    assert found.metres == pytest.approx(metres, abs=2e-3)
    with pytest.raises(BadCalibration, match="no view"):
        check_scene([], CHARUCO, entry, Drift(), truth.rig.far_from_board)


def check_the_live_robot(offsets: list[str]) -> None:
    """The same robot passes; one whose joint 4 slipped by 3 degrees does not; without the model none is judged."""
    spec = registry.suite("tabletop")().spec
    cameras = tuple(replace(c, pose=None) for c in spec.cameras)  # this camera stands where no policy's does
    Path("policy").mkdir()
    replace(spec, cameras=cameras).save(Path("policy/spec.json"))
    slipped = [*offsets[:3], "7", *offsets[4:]]
    for name, now, code in (("same", offsets, 0), ("slipped", slipped, 1)):
        capture = ["calibrate", "capture", "--session", name, "--views", "3", "--offsets-deg", *now, "--seed", "1"]
        assert main(capture) == 0
        check = ["calibrate", "check", "--policy", "policy", "--live", name]
        assert main([*check, "--model", str(PANDA)]) == code
        assert main(check) == 2


def test_the_command_from_capture_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Panda with joints off, its own views, its offsets back; then shown, compared and exported."""
    monkeypatch.chdir(tmp_path)
    offsets = ["0", "3", "-2", "4", "-1", "2", "0"]
    capture = ["calibrate", "capture", "--session", "s", "--offsets-deg", *offsets]
    assert main([*capture, "--views", "8"]) == 0  # and an interruption
    assert main([*capture, "--views", "14"]) == 0
    assert len(Session.open(Path("s")).views) == 14
    assert main(["calibrate", "solve", "--session", "s"]) == 2  # such an arm's poses contradict the board
    assert "joints are off" in capsys.readouterr().err
    assert main(["calibrate", "solve", "--session", "s", "--model", str(PANDA)]) == 0
    found = store.load(Path("calibration.yaml"), "panda_tabletop")
    for i, offset in enumerate(offsets[1:6], 2):
        assert np.rad2deg(found.joints[f"joint{i}"].value) == pytest.approx(float(offset), abs=0.1)
    assert found.cameras["agent"].mount_from_camera[:3, 3] == pytest.approx([1.15, 0.1, 0.55], abs=3e-3)
    check_the_live_robot(offsets)
    assert main(["calibrate", "solve", "--session", "s", "--model", str(PANDA), "--policy", "policy"]) == 0
    again = store.load(Path("calibration.yaml"))
    assert again.spec == store.robot_digest(Spec.load(Path("policy/spec.json")))
    assert again.cameras["agent"].intrinsics_covariance is not None
    assert main(["calibrate", "show"]) == 0
    assert main(["calibrate", "diff"]) == 0
    assert main(["calibrate", "export", "--model", str(PANDA)]) == 0
    shown = capsys.readouterr().out
    assert "nothing changed" in shown
    assert {p.name for p in Path("calibration_export").iterdir()} == {
        "agent.camera_info.yaml",
        "agent.handeye.yaml",
        "panda.xml",
    }
