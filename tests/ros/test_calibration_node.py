"""The calibration node as a process: views from topics into a session, a stored calibration out as latched messages."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_calibration import store
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import distance, inverse, looking_at, transform
from vla_calibration.kinematics import load_chain
from vla_calibration.session import Session as Views
from vla_calibration.stills import read_stills
from vla_calibration.store import Calibration, CameraEntry
from vla_calibration.synthetic import detect
from vla_ros.graph import CALIBRATION, NodeSpec
from vla_ros.session import CallFailed, Session
from vla_sim.board_scene import BoardScene, Picture
from vla_sim.panda import ASSETS, HOME

LENS = CameraModel(640, 480, 600.0, 605.0, 325.0, 236.0)
PLACE = looking_at(np.array([1.15, 0.0, 0.55]), np.array([0.5, 0.0, 0.35]))
ROBOT = NodeSpec("sim", "board_robot")


@pytest.fixture
def views(tmp_path: Path) -> Path:
    """Three recorded views: a board, the same one 5 degrees on, and none."""
    board, chain = Board(), load_chain(ASSETS / "panda.xml", "tool")
    scene = BoardScene(Picture(board.draw(80), board.size_m, board.square_m), (640, 480), LENS.normalised)
    joints = np.array([HOME, HOME + 0.09 * np.eye(7)[4], HOME])
    poses = np.array([chain.forward(q)[0] for q in joints])
    middle = PLACE[:3, :3] @ [*board.size_m / 2, 0]
    sheets = [transform(PLACE[:3, :3], T[:3, 3] + [0.05, 0, 0] - middle) for T in poses[:2]]
    images = [scene.photograph(q, T, PLACE) for q, T in zip(joints, sheets, strict=False)]
    path = tmp_path / "views.npz"
    np.savez_compressed(path, images=[*images, np.zeros_like(images[0])], poses=poses, joints=joints)
    return path


def the_next_pose_shows_the_board(session: Session, views: Path) -> None:
    """Its words are on /diagnostics, the pose and the joints that take the hand there on topics of their own."""
    told: dict[str, Any] = {}
    for line in session.take(30.0):
        if line.get("topic") == "calibration":
            told["words"] = line["text"]
        elif line.get("topic") == "heard":
            told[line["text"]] = line["values"]
        if {"words", "next pose", "next joints"} <= told.keys():
            break
    assert "most would tell: hand to (" in told["words"]
    assert told["next pose"]["frame"] == "base"
    x, y, z, *quaternion = json.loads(told["next pose"]["pose"])
    hand = transform(Rotation.from_quat(quaternion).as_matrix(), np.array([x, y, z]))
    joints = json.loads(told["next joints"]["joints"])
    chain = load_chain(ASSETS / "panda.xml", "tool")
    np.testing.assert_allclose(chain.forward(np.array([joints[n] for n in chain.names]))[0], hand, atol=1e-6)
    with np.load(views) as recorded:
        first = recorded["poses"][0]
    middle = PLACE[:3, :3] @ [*Board().size_m / 2, 0]
    far = inverse(first) @ transform(PLACE[:3, :3], first[:3, 3] + [0.05, 0, 0] - middle)
    assert detect(LENS, Board(), inverse(PLACE) @ hand @ far, 0.0, np.random.default_rng(0)) is not None
    assert max(distance(first, hand)) > 0.05  # and not as it stands


def test_views_are_captured_or_refused_and_a_calibration_is_told(session: Session, views: Path, tmp_path: Path) -> None:
    file = tmp_path / "panda.yaml"
    store.add(file, "panda_tabletop", Calibration({"agent": CameraEntry(LENS, "base", PLACE, np.eye(6), 0.1, 20)}))
    model = {"model": str(ASSETS / "panda.xml")}
    folders = {"session": str(tmp_path / "captured"), "stills": str(tmp_path / "stills.npz")}
    session.start(CALIBRATION, {"store": str(file), **folders, **model})
    with pytest.raises(CallFailed, match="nothing came yet from agent and hand_pose"):
        session.call("calibration/capture")
    session.start(ROBOT, {"views": str(views)})
    heard = {}
    for line in session.take(30.0):
        if line.get("topic") == "heard":
            heard[line["text"]] = line["values"]
        if len(heard) == 2:
            break
    assert heard["info"] == {"fx": "600.0", "model": "plumb_bob", "width": "640"}
    assert heard["transform"] == {"parent": "base", "x": str(PLACE[0, 3])}
    answers = []
    for step in ("next", "stay", "next", "next"):
        if step == "next":
            session.call("sim/next_episode")
            time.sleep(0.5)
        try:
            answers.append(session.call("calibration/capture"))
        except CallFailed as error:
            answers.append(str(error))
    assert re.match(r"view 1: 5\d of 54 corners; next: move the board to the .* image; most would tell: ", answers[0])
    assert "the hand stands as in view 0" in answers[1]
    assert answers[2].startswith("view 2: 5")
    assert "the board is not found" in answers[3]
    the_next_pose_shows_the_board(session, views)
    assert session.call("calibration/still").startswith("still 1 in ")
    assert session.call("calibration/still").startswith("still 2 in ")
    stills = read_stills(tmp_path / "stills.npz", load_chain(ASSETS / "panda.xml", "tool"), store.load(file))
    assert stills[1].image.shape == (480, 640, 3)
    assert stills[1].joints == pytest.approx(HOME)
    kept = Views.open(tmp_path / "captured")
    assert [v.camera for v in kept.views] == ["agent", "agent"]
    assert kept.views[0].joints == pytest.approx(HOME)


def test_a_node_that_cannot_work_says_why(session: Session, tmp_path: Path) -> None:
    child = session.start(CALIBRATION, {"session": str(tmp_path / "s"), "lens": "pinhole"})
    assert child.process.wait(30) == 2
    assert "lens 'pinhole'" in (tmp_path / "calibration.log").read_text()
