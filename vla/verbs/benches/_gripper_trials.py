"""One trial of the drift check without a board: a Panda with its true meshes, its own gripper in three stills."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import BadCalibration, Missing
from vla.spec import Drift
from vla.verbs._calibration_robot import LENS, picture, places
from vla.verbs.benches._calibration_trials import BOARD, N_VIEWS
from vla_calibration.contour import Mesh, read_stl
from vla_calibration.geometry import moved, transform
from vla_calibration.gripper_drift import ArmShape, Still, check_gripper, in_sight
from vla_calibration.kinematics import load_chain
from vla_calibration.store import CameraEntry
from vla_sim.board_scene import BoardScene, Flaws
from vla_sim.panda import ASSETS, HOME

STILLS = 3
FLAWS = Flaws(blur_px=0.5, noise=4.0)
_SPREAD_RAD = np.array([0.25, 0.25, 0.25, 0.25, 0.4, 0.4, 0.8])
"""The wrist is turned from still to still: from one side a turn of it hardly moves the outline."""
_FINGERS_M = 0.0584
"""From the hand's frame to the fingers', closed."""
_AWAY = transform(np.eye(3), np.array([0.0, 0.0, -5.0]))
"""No board in sight."""


@functools.cache
def panda_shape() -> ArmShape:
    """Hand and closed fingers as robosuite draws them; of the links the coarser meshes that collide."""
    found = importlib.util.find_spec("robosuite")
    if found is None or not found.submodule_search_locations:
        raise Missing("the Panda's meshes come with robosuite: pip install robosuite==1.4.0")
    assets = Path(found.submodule_search_locations[0]) / "models" / "assets"
    gripper = assets / "grippers" / "meshes" / "panda_gripper"
    hand, finger = read_stl(gripper / "hand_vis.stl"), read_stl(gripper / "finger_vis.stl")
    for turn in (np.eye(3), np.diag([-1.0, -1.0, 1.0])):
        hand = hand.joined(finger, transform(turn, np.array([0, 0, _FINGERS_M])))
    links: tuple[Mesh, ...] = tuple(read_stl(assets / f"robots/panda/meshes/link{i}.stl") for i in range(8))
    return ArmShape(load_chain(ASSETS / "panda.xml", "hand"), hand, links)


def gripper_rendered(seed: int) -> dict[str, Any]:
    """The same three stills under a calibration that is right, one 2 cm off, and joints of which one is 2 degrees off.

    The calibration is off by half a millimetre and 0.05 degrees besides, the joints by 0.01 degrees.
    """
    rng, arm = np.random.default_rng([seed, 9]), panda_shape()
    place, _ = places("eye_to_hand", BOARD)
    known = moved(place, rng.normal(0, [3e-4] * 3 + [5e-4] * 3))
    entry = CameraEntry(LENS, "base", known, np.eye(6), 0.3, N_VIEWS)
    stills: list[Still] = []
    while len(stills) < STILLS:
        joints = HOME + rng.uniform(-_SPREAD_RAD, _SPREAD_RAD, 7)
        if in_sight(joints, arm, entry):
            image = scene().photograph(joints, _AWAY, place, FLAWS, rng)
            stills.append(Still(image, joints + rng.normal(0, 2e-4, 7)))
    joint, sign, direction = int(rng.integers(7)), float(rng.choice([-1, 1])), rng.normal(size=3)
    slip = sign * np.deg2rad(2) * np.eye(7)[joint]
    shift = np.r_[0.02 * direction / np.linalg.norm(direction), 0, 0, 0]
    elsewhere = CameraEntry(LENS, "base", moved(known, shift), np.eye(6), 0.3, N_VIEWS)
    return {
        "joint": joint + 1,
        **_outcome("nothing", stills, arm, entry),
        **_outcome("camera_2cm", stills, arm, elsewhere),
        **_outcome("joint_2deg", [Still(s.image, s.joints - slip) for s in stills], arm, entry),
    }


def _outcome(what: str, stills: list[Still], arm: ArmShape, entry: CameraEntry) -> dict[str, Any]:
    """A check that cannot be made is neither an alarm nor its absence: it counts against each target."""
    try:
        found = check_gripper(stills, arm, entry, Drift())
    except BadCalibration as error:
        return {f"{what}_alarm": None, f"{what}_reason": str(error)}
    return {f"{what}_alarm": found.level != "ok", f"{what}_reason": found.reason}


@functools.cache
def scene() -> BoardScene:
    """The arm with its meshes over a table, before a pale sky."""
    return BoardScene(picture(BOARD), (LENS.width, LENS.height), LENS.normalised, None, True)
