"""Intrinsics, hand-eye, joint and time offsets find the truth they were made from, and refuse what shows none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_geometry import FISHEYE, HOME, PANDA, RADTAN

from vla.errors import BadCalibration
from vla_calibration.board import Board, Detection
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, inverse, looking_at, moved, transform
from vla_calibration.hand_eye import SOLVERS, calibrate_hand_eye, closed_form
from vla_calibration.intrinsics import calibrate_intrinsics
from vla_calibration.joint_offsets import Known, calibrate_joint_offsets, fittable
from vla_calibration.kinematics import load_chain
from vla_calibration.rig import Noise, Rig, Setup, View
from vla_calibration.synthetic import Truth, arm_views, errors, hand_eye_views, intrinsics_views
from vla_calibration.time_offset import calibrate_time_offset
from vla_calibration.tool import calibrate_tip, calibrate_width

BOARD = Board()
SIZE = (640, 480)
NOISY = Noise(0.5, 1e-3, np.deg2rad(0.1))


@pytest.mark.parametrize("camera", [RADTAN, FISHEYE], ids=lambda c: c.model)
def test_intrinsics(camera: CameraModel) -> None:
    views = intrinsics_views(camera, BOARD, 20, 0.1, np.random.default_rng(0))
    spoiled = replace_corners(
        views[4], views[4].corners + np.random.default_rng(1).normal(0, 4, views[4].corners.shape)
    )
    found = calibrate_intrinsics([*views[:4], spoiled, *views[5:]], BOARD, SIZE, camera.model)
    assert found.used == (*range(4), *range(5, 20))
    assert found.sigma_px == pytest.approx(0.1, rel=0.1)
    off = found.camera.parameters - camera.parameters
    assert np.abs(off[:2] / camera.parameters[:2]).max() < 0.003
    assert np.abs(off[2:4] / SIZE).max() < 0.003
    assert np.abs(off / found.std).max() < 4.5


def replace_corners(view: Detection, corners: Doubles) -> Detection:
    return Detection(view.ids, corners)


def from_the_front(rng: np.random.Generator) -> list[Detection]:
    """Squarely facing views all over the image."""
    middle = np.array([*BOARD.size_m / 2, 0])
    found = []
    for _ in range(12):
        T = transform(np.eye(3), np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.35, 0.5)]) - middle)
        pixels = RADTAN.project(BOARD.points @ T[:3, :3].T + T[:3, 3])
        seen = RADTAN.sees(pixels)
        found.append(Detection(np.flatnonzero(seen), pixels[seen]))
    return found


def mixed(rng: np.random.Generator) -> list[Detection]:
    """Half the views from another camera."""
    other = replace(RADTAN, fx=500.0, fy=500.0, cx=300.0)
    return [v for c in (RADTAN, other) for v in intrinsics_views(c, BOARD, 10, 0.1, rng)]


def in_one_corner(rng: np.random.Generator) -> list[Detection]:
    views = intrinsics_views(RADTAN, BOARD, 12, 0.1, rng)
    return [replace_corners(v, v.corners / 3) for v in views]


@pytest.mark.parametrize(
    ("views", "says"),
    [
        (lambda rng: intrinsics_views(RADTAN, BOARD, 5, 0.1, rng), r"5 view\(s\).*at least 8"),
        (from_the_front, "squarely"),
        (mixed, "several cameras|another camera"),
        (in_one_corner, "move it to the .*right"),
        (lambda rng: intrinsics_views(replace(RADTAN, width=1280, cx=640.0), BOARD, 10, 0.1, rng), "outside an image"),
    ],
)
def test_views_that_show_no_camera(views: object, says: str) -> None:
    with pytest.raises(BadCalibration, match=says):
        calibrate_intrinsics(views(np.random.default_rng(5)), BOARD, SIZE)  # type: ignore[operator]


def test_a_nan_corner_is_refused() -> None:
    with pytest.raises(BadCalibration, match=r"corners \[1\] are NaN"):
        Detection(np.arange(2), np.array([[1.0, 2.0], [np.nan, 3.0]]))


@pytest.mark.parametrize("setup", ["eye_in_hand", "eye_to_hand"])
def test_hand_eye(setup: Setup) -> None:
    rng = np.random.default_rng(6)
    truth = hand_eye_views(RADTAN, BOARD, setup, 18, NOISY, rng)
    found = calibrate_hand_eye(truth.views, BOARD, RADTAN, setup)
    mm, degrees = errors(found.mount_from_camera, truth.rig.mount_from_camera)
    assert (mm, degrees) < (3.0, 0.3)
    assert found.noise.pixel == pytest.approx(0.5, rel=0.1)
    assert found.noise.position_m == pytest.approx(1e-3, rel=0.5)
    clean = hand_eye_views(RADTAN, BOARD, setup, 12, Noise(0.05, 1e-5, 1e-5), rng)
    mm, degrees = errors(
        calibrate_hand_eye(clean.views, BOARD, RADTAN, setup).mount_from_camera, clean.rig.mount_from_camera
    )
    assert mm < 0.1
    assert degrees < 0.02


def test_hand_eye_beats_every_closed_form_where_they_are_weak() -> None:
    """Poses that turn little, and an arm that knows its orientation better than its position."""
    rng, ours, theirs = np.random.default_rng(7), [], {name: [] for name in SOLVERS}
    noise = Noise(0.5, 1e-3, 1e-5)
    for _ in range(9):
        truth = hand_eye_views(RADTAN, BOARD, "eye_in_hand", 12, noise, rng, tilt_deg=15)
        found = calibrate_hand_eye(truth.views, BOARD, RADTAN, "eye_in_hand", noise=noise)
        ours.append(errors(found.mount_from_camera, truth.rig.mount_from_camera)[0])
        poses = [BOARD.pose(v.detection, RADTAN) for v in truth.views]
        for name in SOLVERS:
            X = closed_form(truth.views, poses, "eye_in_hand", name)
            theirs[name].append(errors(X, truth.rig.mount_from_camera)[0])
    assert np.median(ours) < min(np.median(mm) for mm in theirs.values())


def test_hand_eye_leaves_out_a_view_whose_pose_is_wrong() -> None:
    truth = hand_eye_views(RADTAN, BOARD, "eye_in_hand", 16, NOISY, np.random.default_rng(8))
    views = list(truth.views)
    views[3] = replace(views[3], base_from_hand=moved(views[3].base_from_hand, np.array([0.03, 0, 0, 0, 0.05, 0])))
    found = calibrate_hand_eye(views, BOARD, RADTAN, "eye_in_hand")
    assert 3 not in found.used
    assert errors(found.mount_from_camera, truth.rig.mount_from_camera)[0] < 3


def only_travel(views: list[View], rng: np.random.Generator) -> list[View]:
    first = views[0].base_from_hand
    return [replace(v, base_from_hand=moved(first, np.r_[rng.normal(0, 0.1, 3), 0, 0, 0])) for v in views]


def one_axis(views: list[View], rng: np.random.Generator) -> list[View]:
    first = views[0].base_from_hand
    return [replace(v, base_from_hand=moved(first, np.r_[rng.normal(0, 0.1, 3), 0, 0, rng.normal()])) for v in views]


def only_turn(views: list[View], rng: np.random.Generator) -> list[View]:
    first = views[0].base_from_hand
    return [replace(v, base_from_hand=moved(first, np.r_[0, 0, 0, rng.normal(0, 0.4, 3)])) for v in views]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda views, _: views[:4], r"4 view\(s\)"),
        (only_travel, "hardly turned"),
        (one_axis, "one axis only"),
        (only_turn, "size of the board cannot be checked"),
        (lambda views, _: [replace(v, camera=f"cam{i % 2}") for i, v in enumerate(views)], "cam0, cam1"),
        (lambda views, _: [*views[:2], views[3], views[2], *views[4:]], "not after view"),
    ],
)
def test_views_that_show_no_mount(spoil: object, says: str) -> None:
    rng = np.random.default_rng(9)
    views = list(hand_eye_views(RADTAN, BOARD, "eye_in_hand", 12, NOISY, rng).views)
    with pytest.raises(BadCalibration, match=says):
        calibrate_hand_eye(spoil(views, rng), BOARD, RADTAN, "eye_in_hand")  # type: ignore[operator]


@pytest.mark.parametrize("setup", ["eye_in_hand", "eye_to_hand"])
def test_a_board_of_another_size_and_the_wrong_setup(setup: Setup) -> None:
    views = hand_eye_views(RADTAN, BOARD, setup, 15, NOISY, np.random.default_rng(10)).views
    with pytest.raises(BadCalibration, match=r"squares measure 2[45]\.\d\d mm, not 27.50 mm"):
        calibrate_hand_eye(views, replace(BOARD, square_m=0.0275), RADTAN, setup)
    other: Setup = "eye_to_hand" if setup == "eye_in_hand" else "eye_in_hand"
    with pytest.raises(BadCalibration, match=r"squares measure|another arm|contradict"):
        calibrate_hand_eye(views, BOARD, RADTAN, other)


def arm(known: Sequence[Known], noise: Noise, n: int, rng: np.random.Generator) -> tuple[Truth, Rig]:
    """A Panda with offsets, a board on its hand, a camera looking on; and the rig to start from."""
    chain = load_chain(PANDA, "tool")
    hand = chain.forward(HOME)[0]
    place = looking_at(np.array([1.3, 0, 0.5]), hand[:3, 3])
    middle = place[:3, :3] @ [*BOARD.size_m / 2, 0]
    far = inverse(hand) @ transform(place[:3, :3], hand[:3, 3] - middle)
    offsets = np.zeros(7)
    joints = list(fittable(chain, "eye_to_hand", known))
    offsets[joints] = np.deg2rad(rng.uniform(-5, 5, len(joints)))
    rig = Rig("eye_to_hand", BOARD, RADTAN, place, far, offsets, np.zeros((0, 6)))
    truth = arm_views(rig, chain, HOME, n, noise, rng)
    start = replace(
        rig,
        mount_from_camera=place if "mount" in known else moved(place, rng.normal(0, 0.02, 6)),
        far_from_board=far if "board" in known else moved(far, rng.normal(0, 0.02, 6)),
    )
    return truth, start


@pytest.mark.parametrize("known", [(), ("mount",), ("mount", "board")])
def test_joint_offsets(known: Sequence[Known]) -> None:
    truth, start = arm(known, Noise(0.3, 1e-4, 1e-4), 20, np.random.default_rng(11))
    found = calibrate_joint_offsets(truth.views, load_chain(PANDA, "tool"), start, known)
    assert found.fitted == {(): (1, 2, 3, 4, 5), ("mount",): tuple(range(6))}.get(tuple(known), tuple(range(7)))
    off = np.rad2deg(found.offsets_rad - truth.rig.offsets)
    assert np.abs(off).max() < 0.1
    fitted = list(found.fitted)
    assert np.abs(np.deg2rad(off[fitted]) / found.std_rad).max() < 4.5


def test_joints_that_stand_still_or_are_off_too_far() -> None:
    truth, start = arm((), NOISY, 14, np.random.default_rng(12))
    chain = load_chain(PANDA, "tool")
    still = [replace(v, joints=np.r_[v.joints[:3], -2.2, v.joints[4:]]) for v in truth.views if v.joints is not None]
    with pytest.raises(BadCalibration, match=r"joint4 \(0\.0\)"):
        calibrate_joint_offsets(still, chain, start)
    with pytest.raises(BadCalibration, match="no joint angles"):
        calibrate_joint_offsets([replace(v, joints=None) for v in truth.views], chain, start)
    far = [replace(v, joints=v.joints + np.eye(7)[3] * 0.3) for v in truth.views if v.joints is not None]
    with pytest.raises(BadCalibration, match=r"joint4 is off by -(1[3-9]|2[0-3])"):
        calibrate_joint_offsets(far, chain, start)


def recording(offset_s: float, eye_in_hand: bool, rng: np.random.Generator, speed: float = 0.25) -> tuple[object, ...]:
    """Camera frames at 30 Hz that are `offset_s` early, joint states at 100 Hz, of a wrist that swings."""
    phase, rate = rng.uniform(0, 6, (3, 3)), rng.uniform(0.2, 1.2, (3, 3))
    left, right = Rotation.random(rng=rng), Rotation.random(rng=rng)

    def hand(t: Doubles) -> Rotation:
        swing = sum(np.sin(2 * np.pi * rate[k] * t[:, None] + phase[k]) for k in range(2))
        return Rotation.from_rotvec(speed * np.asarray(swing))

    frames, states = np.arange(0.5, 9.5, 1 / 30), np.arange(0, 10, 0.01)
    seen = left.inv() * hand(frames + offset_s) * right
    noisy = (seen.inv() if eye_in_hand else seen) * Rotation.from_rotvec(rng.normal(0, 0.003, (len(frames), 3)))
    stamps = [(t * 1e9).astype(np.int64) for t in (frames, states)]
    return stamps[0], noisy.as_matrix(), stamps[1], hand(states).as_matrix(), eye_in_hand


@pytest.mark.parametrize("eye_in_hand", [True, False])
@pytest.mark.parametrize("offset_s", [-0.1, 0.0, 0.033, 0.1])
def test_time_offset(offset_s: float, eye_in_hand: bool) -> None:
    found = calibrate_time_offset(*recording(offset_s, eye_in_hand, np.random.default_rng(13)))  # type: ignore[arg-type]
    assert abs(found.offset_s - offset_s) < min(0.002, 4.5 * found.std_s)


def test_a_recording_that_shows_no_offset() -> None:
    rng = np.random.default_rng(14)
    frames, seen, states, hands, _ = recording(0.02, True, rng)
    swapped = np.array(frames)
    swapped[[7, 8]] = swapped[[8, 7]]
    with pytest.raises(BadCalibration, match="camera stamps are not in order at number 8"):
        calibrate_time_offset(swapped, seen, states, hands, True)  # type: ignore[arg-type]
    with pytest.raises(BadCalibration, match="clocks differ by seconds"):
        calibrate_time_offset(np.array(frames) + 60 * 10**9, seen, states, hands, True)  # type: ignore[arg-type]
    with pytest.raises(BadCalibration, match="different motions"):
        calibrate_time_offset(frames, recording(0.02, True, rng)[1], states, hands, True)  # type: ignore[arg-type]
    with pytest.raises(BadCalibration, match="any offset fits"):
        calibrate_time_offset(*recording(0.02, True, rng, speed=1e-3))  # type: ignore[arg-type]


def test_the_tip_and_the_grippers_width() -> None:
    rng = np.random.default_rng(15)
    tip, dimple = np.array([0.01, -0.02, 0.15]), np.array([0.5, 0.1, 0.02])
    turns = Rotation.from_rotvec(rng.normal(0, 0.5, (12, 3))).as_matrix()
    poses = [transform(R, dimple - R @ tip + rng.normal(0, 3e-4, 3)) for R in turns]
    found = calibrate_tip(poses)
    assert np.abs(found.tip_m - tip).max() < 1e-3
    with pytest.raises(BadCalibration, match="hardly turned"):
        calibrate_tip([transform(np.eye(3), dimple + 0.001 * i) for i in range(6)])
    with pytest.raises(BadCalibration, match="slipped"):
        calibrate_tip([*poses[:6], moved(poses[6], np.array([0, 0.05, 0, 0, 0, 0]))])
    true = np.linspace(0.01, 0.08, 6)
    width = calibrate_width((true - 0.001) / 1.05, true)
    assert (width.scale, width.offset_m) == pytest.approx((1.05, 0.001))
    with pytest.raises(BadCalibration, match="both fingers together"):
        calibrate_width(true / 2.5, true)
    with pytest.raises(BadCalibration, match="at least 3 gauges"):
        calibrate_width(true[:2], true[:2])
