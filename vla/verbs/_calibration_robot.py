"""A simulated Panda for `vla calibrate capture` and the benchmarks: it drives itself; its faults are known."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla.errors import BadCalibration
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel
from vla_calibration.capture import progress, suggest
from vla_calibration.geometry import Doubles, inverse, looking_at, moved, transform
from vla_calibration.kinematics import Chain, load_chain
from vla_calibration.rig import Noise, Rig, Setup, View
from vla_calibration.session import Session
from vla_sim.board_scene import BoardScene, Flaws, Picture
from vla_sim.panda import ASSETS, HOME

PANDA = ASSETS / "panda.xml"
HAND = "tool"
LENS = CameraModel(640, 480, 600.0, 605.0, 325.0, 236.0, (-0.25, 0.08, 0.001, -0.0005, 0.01))
_NOISE = Noise(0.3, 5e-4, 1e-3)
_REACH_RAD = np.array([0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.6])
_CANDIDATES = 40


@dataclass(frozen=True, eq=False)
class Robot:
    """The arm as it is, and as a person with a ruler would describe it."""

    scene: BoardScene
    chain: Chain
    truth: Rig
    rough: Rig


@functools.cache
def panda() -> Chain:
    """The arm the simulator moves, as the calibration reads it."""
    return load_chain(PANDA, HAND)


def picture(board: Board) -> Picture:
    """The board's print."""
    return Picture(board.draw(80), board.size_m, board.square_m)


def places(setup: Setup, board: Board, mount: Doubles | None = None) -> tuple[Doubles, Doubles]:
    """mount_from_camera and far_from_board (4, 4), the board in sight at HOME.

    eye_to_hand: a stand before the arm (or `mount`), the board on the hand. eye_in_hand: 9 cm in front of the hand,
    looking along the fingers, the board on the table.
    """
    middle = np.array([*board.size_m / 2, 0])
    if setup == "eye_in_hand":
        wrist = transform(Rotation.from_euler("xyz", [0.1, -0.25, 1.5]).as_matrix(), np.array([0.09, 0.0, -0.06]))
        down = np.diag([1.0, -1.0, -1.0])
        return wrist, transform(down, np.array([0.5, 0.0, 0.03]) - down @ middle)
    hand = panda().forward(HOME)[0]
    if mount is None:
        mount = looking_at(np.array([1.15, 0.1, 0.55]), hand[:3, 3])
    turn = mount[:3, :3] @ Rotation.from_euler("xyz", [0.2, -0.2, 0.1]).as_matrix()
    return mount, inverse(hand) @ transform(turn, hand[:3, 3] + [0.05, 0, -0.02] - turn @ middle)


def simulated(setup: Setup, board: Board, offsets: Doubles, seed: int, mount: Doubles | None = None) -> Robot:
    """A Panda with joint offsets (7,) [rad], a camera on a stand and the board on its hand, or the other way round.

    `mount` (4, 4) puts the camera on the stand elsewhere, in the base frame.
    """
    scene = BoardScene(picture(board), (LENS.width, LENS.height), LENS.normalised, offsets)
    mount, far = places(setup, board, mount)
    truth = Rig(setup, board, LENS, mount, far, offsets, np.zeros((0, 6)))
    rng = np.random.default_rng(seed)
    guess = [moved(T, rng.normal(0, [0.015] * 3 + [0.03] * 3)) for T in (mount, far)]
    return Robot(scene, panda(), truth, Rig(setup, board, LENS, guess[0], guess[1], np.zeros(7), np.zeros((0, 6))))


def drive(robot: Robot, session: Session, views: int, seed: int, show: Any) -> None:
    """Take the most informative pose again and again until there are `views`; a session that has some goes on."""
    rng = np.random.default_rng([seed, len(session.views)])
    misses = 0
    while len(session.views) < views:
        joints = HOME + rng.uniform(-1, 1, (_CANDIDATES, 7)) * _REACH_RAD
        poses = [robot.chain.forward(q)[0] for q in joints]
        choice = suggest(robot.rough, session.views, poses, _NOISE)
        stamp = (session.views[-1].stamp_ns if session.views else 0) + 10**9
        view = photograph(robot, joints[choice], session.config.camera, stamp, rng)
        if view is None:
            misses += 1
            if misses > 5 * views:
                raise BadCalibration("the board is found in none of the images: light, focus, or another board?")
            continue
        session.add(view)
        show(len(session.views) / views, str(progress(robot.rough, session.views, _NOISE)))


def photograph(robot: Robot, joints: Doubles, camera: str, stamp_ns: int, rng: np.random.Generator) -> View | None:
    """Go there, look, and detect; None when the board is not found."""
    hand, rig = robot.scene.base_from_hand(joints), robot.truth
    on_hand, in_base = rig.mount_from_camera, rig.far_from_board
    board, place = (in_base, hand @ on_hand) if rig.setup == "eye_in_hand" else (hand @ in_base, on_hand)
    found = rig.board.detect(robot.scene.photograph(joints, board, place, Flaws(0.5, 4.0), rng))
    return None if found is None else View(found, robot.chain.forward(joints)[0], joints, stamp_ns, camera)
