"""Measurements with a known truth, without a renderer: boards projected by a known rig, with known noise.

The benchmark's hundreds of trials and the tests run on these; whole rendered images are in `vla_sim.board_scene`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla_calibration.board import Board, Detection
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import Doubles, apply, inverse, looking_at, moved, transform
from vla_calibration.kinematics import Chain
from vla_calibration.rig import Noise, Rig, Setup, View

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Truth:
    """What a calibration is to find."""

    rig: Rig
    views: tuple[View, ...]


def detect(
    camera: CameraModel, board: Board, camera_from_board: Doubles, sigma_px: float, rng: Rng
) -> Detection | None:
    """The corners that lie in the image, with noise; None when they are too few or the board is seen from behind."""
    points = apply(camera_from_board, board.points)
    facing = camera_from_board[:3, 2] @ camera_from_board[:3, 3]
    if points[:, 2].min() < 0.05 or facing <= 0:
        return None
    pixels = camera.project(points)
    seen = camera.sees(pixels, 4.0)
    if not board.holds_a_pose(np.flatnonzero(seen)):
        return None
    return Detection(np.flatnonzero(seen), pixels[seen] + rng.normal(0, sigma_px, (int(seen.sum()), 2)))


def intrinsics_views(camera: CameraModel, board: Board, n: int, sigma_px: float, rng: Rng) -> list[Detection]:
    """n views as a person would take them: all over the image, near and far, tilted up to 40 degrees."""
    views: list[Detection] = []
    while len(views) < n:
        if (view := detect(camera, board, board_pose(camera, board, rng), sigma_px, rng)) is not None:
            views.append(view)
    return views


def board_pose(camera: CameraModel, board: Board, rng: Rng) -> Doubles:
    """camera_from_board (4, 4) of one such view."""
    distance = rng.uniform(0.7, 1.6) * board.size_m[0] * camera.fx / camera.width
    ray = camera.normalised(rng.uniform(0.1, 0.9, (1, 2)) * [camera.width, camera.height])[0]
    centre = distance * np.array([*ray, 1.0])
    turn = Rotation.from_euler("xyz", rng.uniform([-40, -40, -30], [40, 40, 30]), degrees=True).as_matrix()
    return transform(turn, centre - turn @ [*board.size_m / 2, 0])


def hand_eye_views(
    camera: CameraModel, board: Board, setup: Setup, n: int, noise: Noise, rng: Rng, *, tilt_deg: float = 35.0
) -> Truth:
    """n views of a rig drawn at random. Noise of the arm is Gaussian, per axis, independent from view to view."""
    angle = np.deg2rad(tilt_deg)
    if setup == "eye_in_hand":
        mount = moved(np.eye(4), np.concatenate([rng.uniform(-0.1, 0.1, 3), rng.uniform(-0.6, 0.6, 3)]))
        far = moved(transform(np.diag([1.0, -1, -1]), np.array([0.5, 0.0, 0.0])), rng.uniform(-0.05, 0.05, 6))
    else:
        mount = looking_at(np.array([1.2, rng.uniform(-0.3, 0.3), 0.6]), np.array([0.5, 0, 0.3]))
        far = moved(np.eye(4), np.concatenate([rng.uniform(-0.1, 0.1, 3), rng.uniform(-0.6, 0.6, 3)]))
    middle = transform(np.eye(3), np.array([*board.size_m / 2, 0]))
    views: list[View] = []
    while len(views) < n:
        # Where the camera should be, seen from the board's middle; its z looks at the board.
        turn = Rotation.from_euler("xyz", [*rng.uniform(-angle, angle, 2), rng.uniform(-1.5, 1.5)]).as_matrix()
        reach = rng.uniform(1.1, 1.8) * board.size_m[0] * camera.fx / camera.width
        shift = np.array([*rng.uniform(-0.05, 0.05, 2), -reach])
        board_from_camera = middle @ transform(turn, turn @ shift)
        if setup == "eye_in_hand":
            hand = far @ board_from_camera @ inverse(mount)
        else:
            hand = mount @ inverse(far @ board_from_camera)
        view = detect(camera, board, inverse(board_from_camera), noise.pixel, rng)
        if view is not None:
            views.append(View(view, moved(hand, _twist(noise, rng)), stamp_ns=(len(views) + 1) * 10**9))
    rig = Rig(setup, board, camera, mount, far, np.empty(0), np.zeros((n, 6)))
    return Truth(rig, tuple(views))


def arm_views(
    rig: Rig, chain: Chain, home: Doubles, n: int, noise: Noise, rng: Rng, *, spread_rad: float = 0.45
) -> Truth:
    """n views of an arm whose joints are off by `rig.offsets`: it believes what it reports, and stands elsewhere."""
    views: list[View] = []
    low, high = np.array([[j.low, j.high] for j in chain.joints]).T
    tries = 0
    while len(views) < n:
        tries += 1
        if tries > 20000 * n:
            raise ValueError("the board is never in sight from around this home")
        reported = np.clip(home + rng.uniform(-spread_rad, spread_rad, len(home)), low, high)
        true_hand = moved(chain.forward(reported + rig.offsets)[0], _twist(noise, rng))
        across = inverse(true_hand) if rig.setup == "eye_in_hand" else true_hand
        T = inverse(rig.mount_from_camera) @ across @ rig.far_from_board
        view = detect(rig.camera, rig.board, T, noise.pixel, rng)
        if view is not None and len(view.ids) >= rig.board.n_corners // 2:
            hand = chain.forward(reported)[0]
            views.append(View(view, hand, reported, stamp_ns=(len(views) + 1) * 10**9))
    return Truth(rig, tuple(views))


def _twist(noise: Noise, rng: Rng) -> Doubles:
    return np.concatenate([rng.normal(0, noise.position_m, 3), rng.normal(0, noise.rotation_rad, 3)])


def errors(found: Doubles, truth: Doubles) -> tuple[float, float]:
    """Millimetres and degrees between two places of a camera."""
    step = inverse(truth) @ found
    turn = Rotation.from_matrix(step[:3, :3]).magnitude()
    return 1e3 * float(np.linalg.norm(step[:3, 3])), float(np.rad2deg(turn))
