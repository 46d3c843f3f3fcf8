"""One trial of each calibration benchmark: a seed in, a row of errors against the known truth out."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import BadCalibration
from vla.spec import Drift
from vla.verbs._calibration_robot import LENS, panda, picture, places
from vla_calibration import synthetic
from vla_calibration.board import Board, Detection
from vla_calibration.camera import CameraModel
from vla_calibration.drift import check_scene
from vla_calibration.geometry import Doubles, difference, inverse, looking_at, moved
from vla_calibration.hand_eye import SOLVERS, calibrate_hand_eye, closed_form, refine, start_rig
from vla_calibration.intrinsics import calibrate_intrinsics
from vla_calibration.joint_offsets import calibrate_joint_offsets, fittable
from vla_calibration.least_squares import ellipse_holds
from vla_calibration.next_pose import next_pose
from vla_calibration.rig import Noise, Rig, Setup, View
from vla_calibration.session import Session, SessionConfig
from vla_calibration.store import CameraEntry
from vla_calibration.time_offset import calibrate_time_offset
from vla_sim.board_scene import BoardScene, Flaws
from vla_sim.panda import HOME

BOARD = Board()
FISHEYE = CameraModel(640, 480, 330.0, 331.0, 322.0, 238.0, (0.05, -0.01, 0.004, -0.001), "fisheye")
LENSES = {"radtan": LENS, "fisheye": FISHEYE}
CLEAN = Flaws()
NOISY = Flaws(blur_px=0.8, noise=10.0, covered=0.15)
N_VIEWS = 20
POSITION_ONLY = Noise(0.5, 1e-3, 1e-6)
POSITION_AND_TURN = Noise(0.5, 1e-3, float(np.deg2rad(0.1)))

Row = dict[str, Any]


def intrinsics_rendered(seed: int, lens: str, noisy: bool) -> Row:
    """30 rendered views of the board; errors in percent: focal lengths of themselves, centre of the image's size."""
    camera, rng = LENSES[lens], np.random.default_rng([seed, 1])
    scene = _scene(lens)
    size = (camera.width, camera.height)
    views: list[Detection] = []
    while len(views) < 30:
        T = synthetic.board_pose(camera, BOARD, rng)
        if T[:3, 2] @ T[:3, 3] <= 0 or (T[:3, :3] @ BOARD.points.T + T[:3, 3:])[2].min() < 0.05:
            continue
        place = looking_at(np.array([1.5, 0.0, 0.6]), np.array([3.0, 0.0, 0.6]))  # away from the arm
        image = scene.photograph(HOME, place @ T, place, _flaws(noisy, rng), rng)
        if (found := BOARD.detect(image)) is not None:
            views.append(found)
    result = calibrate_intrinsics(views, BOARD, size, camera.model)
    off = result.camera.parameters - camera.parameters
    return {
        "focal": 100 * float(np.abs(off[:2] / camera.parameters[:2]).max()),
        "centre": 100 * float(np.abs(off[2:4] / size).max()),
        "rms": result.rms_px,
        "sigma": result.sigma_px,
    }


def hand_eye_rendered(seed: int, setup: Setup, noisy: bool) -> Row:
    """20 rendered views by a Panda; with noise the arm reports its hand a millimetre off, per axis."""
    rng = np.random.default_rng([seed, 2])
    arm_noise = POSITION_ONLY if noisy else Noise(0.05, 1e-9, 1e-9)
    views, rig = rendered_views(setup, N_VIEWS, noisy, np.zeros(7), rng)
    views = [
        View(v.detection, moved(v.base_from_hand, np.r_[rng.normal(0, arm_noise.position_m, 3), 0, 0, 0]), v.joints)
        for v in views
    ]
    found = calibrate_hand_eye(views, BOARD, LENS, setup)
    mm, degrees = synthetic.errors(found.mount_from_camera, rig.mount_from_camera)
    return {"mm": mm, "deg": degrees, "rms": found.rms_px}


def joint_offsets_rendered(seed: int) -> Row:
    """30 rendered views of an arm whose joints 2 to 6 are off by up to 5 degrees; camera and board roughly known."""
    rng = np.random.default_rng([seed, 3])
    joints = list(fittable(panda(), "eye_to_hand", ()))
    offsets = np.zeros(7)
    offsets[joints] = np.deg2rad(rng.uniform(-5, 5, len(joints)))
    views, rig = rendered_views("eye_to_hand", 30, False, offsets, rng)
    start = _roughly(rig, rng)
    found = calibrate_joint_offsets(views, panda(), start)
    return {"deg": float(np.rad2deg(np.abs(found.offsets_rad - offsets).max())), "rms": found.rms_px}


def joint_offsets_projected(seed: int) -> Row:
    """The same, corners projected with 0.3 px of noise, the arm repeatable to 0.1 mm and 0.005 degrees."""
    rng = np.random.default_rng([seed, 4])
    joints = list(fittable(panda(), "eye_to_hand", ()))
    offsets = np.zeros(7)
    offsets[joints] = np.deg2rad(rng.uniform(-5, 5, len(joints)))
    place, far = places("eye_to_hand", BOARD)
    rig = Rig("eye_to_hand", BOARD, LENS, place, far, offsets, np.zeros((0, 6)))
    truth = synthetic.arm_views(rig, panda(), HOME, 30, Noise(0.3, 1e-4, 1e-4), rng)
    found = calibrate_joint_offsets(truth.views, panda(), _roughly(rig, rng))
    return {"deg": float(np.rad2deg(np.abs(found.offsets_rad - offsets).max()))}


def hand_eye_projected(seed: int, setup: Setup, turning: bool) -> Row:
    """20 projected views with 0.5 px and 1 mm of noise (and 0.1 degrees): this refinement and OpenCV's five solvers."""
    rng = np.random.default_rng([seed, 5])
    noise = POSITION_AND_TURN if turning else POSITION_ONLY
    truth = synthetic.hand_eye_views(LENS, BOARD, setup, N_VIEWS, noise, rng)
    X = truth.rig.mount_from_camera
    found = calibrate_hand_eye(truth.views, BOARD, LENS, setup)
    poses = [BOARD.pose(v.detection, LENS) for v in truth.views]
    row = dict(zip(("mm", "deg"), synthetic.errors(found.mount_from_camera, X), strict=True))
    for name in SOLVERS:
        mm, degrees = synthetic.errors(closed_form(truth.views, poses, setup, name), X)
        row |= {f"{name}_mm": mm, f"{name}_deg": degrees}
    return row


def coverage_projected(seed: int) -> Row:
    """Does the 95% ellipsoid of the camera's place, the noise estimated from the same views, contain the truth?"""
    rng = np.random.default_rng([seed, 6])
    setup: Setup = "eye_in_hand" if seed % 2 else "eye_to_hand"
    truth = synthetic.hand_eye_views(LENS, BOARD, setup, N_VIEWS, POSITION_AND_TURN, rng)
    found = refine(start_rig(truth.views, BOARD, LENS, setup), truth.views)
    error = difference(found.rig.mount_from_camera, truth.rig.mount_from_camera)
    return {"held": ellipse_holds(error, found.covariance_of("mount"), found.dof)}


def guided_projected(seed: int) -> Row:
    """14 views, the arm 1 mm and 0.06 degrees off: 5 at random, then as `next_pose` says; or all at random."""
    rng = np.random.default_rng([seed, 10])
    noise = Noise(0.5, 1e-3, 1e-3)
    place, far = places("eye_to_hand", BOARD)
    rig = Rig("eye_to_hand", BOARD, LENS, place, far, np.zeros(7), np.zeros((0, 6)))
    at_random = synthetic.arm_views(rig, panda(), HOME, 14, noise, rng, spread_rad=0.3).views
    config = SessionConfig("panda_tabletop", "agent", "eye_to_hand", BOARD, LENS.width, LENS.height)
    named = in_sight = 0
    with tempfile.TemporaryDirectory() as folder:
        session = Session.create(Path(folder) / "session", config)
        for view in at_random[:5]:
            session.add(replace(view, camera="agent"))
        while len(session.views) < len(at_random):
            try:
                best = next_pose(session, panda(), None, rng)
            except BadCalibration:  # these five tell too little: one more at random, as the node advises
                session.add(replace(at_random[len(session.views)], camera="agent"))
                continue
            if best is None or best.joints is None:
                raise BadCalibration("no pose with joint angles was named, although there are few views")
            there = arm_view(rig, best.joints, noise, session.views[-1].stamp_ns + 10**9, rng)
            named += 1
            if there is not None:
                in_sight += 1
                session.add(replace(there, camera="agent"))
    row: Row = {"named": named, "in_sight": in_sight}
    for prefix, views in (("", session.views), ("random_", at_random)):
        found = calibrate_hand_eye(views, BOARD, LENS, "eye_to_hand").mount_from_camera
        row[f"{prefix}mm"], row[f"{prefix}deg"] = synthetic.errors(found, place)
    return row


def arm_view(rig: Rig, joints: Doubles, noise: Noise, stamp_ns: int, rng: np.random.Generator) -> View | None:
    """What the camera sees when the arm reports `joints` (7,), and stands beside it by its noise."""
    hand = panda().forward(joints)[0]
    true = moved(hand, np.r_[rng.normal(0, noise.position_m, 3), rng.normal(0, noise.rotation_rad, 3)])
    board = inverse(rig.mount_from_camera) @ true @ rig.far_from_board
    seen = synthetic.detect(rig.camera, rig.board, board, noise.pixel, rng)
    return None if seen is None else View(seen, hand, joints, stamp_ns)


def time_offset_projected(seed: int) -> Row:
    """10 s of a swinging wrist, seen at 30 Hz with 0.5 px of noise, joint states at 100 Hz, up to 100 ms apart."""
    rng = np.random.default_rng([seed, 7])
    offset = rng.uniform(-0.1, 0.1)
    phase, rate = rng.uniform(0, 6, (2, 7)), rng.uniform(0.2, 0.9, (2, 7))

    def joints(t: Any) -> Doubles:
        swing = np.sin(2 * np.pi * rate * t + phase).sum(0)
        return np.asarray(HOME + np.array([0.02, 0.02, 0.02, 0.02, 0.1, 0.1, 0.15]) * swing)

    place, far = places("eye_to_hand", BOARD)
    states = np.arange(0, 10, 0.01)
    hands = np.array([panda().forward(joints(t))[0][:3, :3] for t in states])
    stamps, seen = [], []
    for t in np.arange(0.3, 9.7, 1 / 30):
        T = inverse(place) @ panda().forward(joints(t + offset))[0] @ far
        view = synthetic.detect(LENS, BOARD, T, 0.5, rng)
        if view is not None:
            stamps.append(round(t * 1e9))
            seen.append(BOARD.pose(view, LENS)[:3, :3])
    found = calibrate_time_offset(stamps, np.array(seen), [round(t * 1e9) for t in states], hands, eye_in_hand=False)
    return {"ms": 1e3 * abs(found.offset_s - offset), "std_ms": 1e3 * found.std_s}


def drift_projected(seed: int, what: str) -> Row:
    """Three stills of a rig whose camera moved by 2 cm, whose joint slipped by 2 degrees, or neither.

    The calibration is off by half a millimetre and 0.05 degrees, the corners by 0.5 px, the arm by 0.2 mm.
    """
    rng = np.random.default_rng([seed, 8])
    noise = Noise(0.5, 2e-4, 2e-4)
    place, far = places("eye_to_hand", BOARD)
    known = [moved(T, rng.normal(0, [3e-4] * 3 + [5e-4] * 3)) for T in (place, far)]
    offsets = np.zeros(7)
    if what == "joint":
        offsets[rng.integers(7)] = np.deg2rad(2) * rng.choice([-1, 1])
    if what == "camera":
        direction = rng.normal(size=3)
        place = moved(place, np.r_[0.02 * direction / np.linalg.norm(direction), 0, 0, 0])
    rig = Rig("eye_to_hand", BOARD, LENS, place, far, offsets, np.zeros((0, 6)))
    views = synthetic.arm_views(rig, panda(), HOME, 3, noise, rng, spread_rad=0.25).views
    entry = CameraEntry(LENS, "base", known[0], np.eye(6), 0.3, N_VIEWS)
    found = check_scene(views, BOARD, entry, Drift(), known[1])
    return {"level": found.level, "mm": 1e3 * found.metres, "deg": float(np.rad2deg(found.radians))}


def rendered_views(
    setup: Setup, n: int, noisy: bool, offsets: Doubles, rng: np.random.Generator
) -> tuple[list[View], Rig]:
    """n images of a Panda moved at random about its home, and the true rig."""
    scene = _scene("radtan")
    mount, far = places(setup, BOARD)
    views: list[View] = []
    while len(views) < n:
        reported = HOME + rng.uniform(-1, 1, 7) * np.array([0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.6])
        hand = scene.base_from_hand(reported + offsets)
        on_hand, in_base = (far, mount) if setup == "eye_to_hand" else (mount, far)
        board, camera = (hand @ on_hand, in_base) if setup == "eye_to_hand" else (in_base, hand @ on_hand)
        if synthetic.detect(LENS, BOARD, inverse(camera) @ board, 0.0, rng) is None:
            continue  # not in sight; saves drawing it
        found = BOARD.detect(scene.photograph(reported + offsets, board, camera, _flaws(noisy, rng), rng))
        if found is not None:
            views.append(View(found, panda().forward(reported)[0], reported, (len(views) + 1) * 10**9))
    return views, Rig(setup, BOARD, LENS, mount, far, offsets, np.zeros((n, 6)))


@functools.cache
def _scene(lens: str) -> BoardScene:
    camera = LENSES[lens]
    return BoardScene(picture(BOARD), (camera.width, camera.height), camera.normalised)


def _flaws(noisy: bool, rng: np.random.Generator) -> Flaws:
    """Of one image; something is in front of the lens in every third."""
    if not noisy:
        return CLEAN
    return Flaws(NOISY.blur_px, NOISY.noise, NOISY.covered if rng.random() < 1 / 3 else 0.0)


def _roughly(rig: Rig, rng: np.random.Generator) -> Rig:
    """What a person with a ruler knows: both places to 3 cm and 3 degrees."""
    sigma = np.array([0.03] * 3 + [0.05] * 3) / np.sqrt(3)
    return Rig(
        rig.setup,
        rig.board,
        rig.camera,
        moved(rig.mount_from_camera, rng.normal(0, sigma)),
        moved(rig.far_from_board, rng.normal(0, sigma)),
        np.zeros(7),
        np.zeros((0, 6)),
    )
