"""Which pose the node names next, and what it says when it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_geometry import HOME, PANDA, RADTAN

from vla.errors import BadCalibration
from vla_calibration import synthetic
from vla_calibration.board import Board
from vla_calibration.geometry import inverse, looking_at, transform
from vla_calibration.kinematics import load_chain
from vla_calibration.next_pose import MIN_VIEWS, next_pose
from vla_calibration.rig import Noise, Rig
from vla_calibration.session import Session, SessionConfig
from vla_calibration.store import CameraEntry

PLACE = looking_at(np.array([1.15, 0.1, 0.55]), np.array([0.55, 0.0, 0.5]))


@pytest.mark.parametrize("modelled", [True, False], ids=["joints", "hand"])
def test_the_next_pose_is_in_sight_and_within_reach(modelled: bool, tmp_path: Path) -> None:
    chain, board, rng = load_chain(PANDA, "tool"), Board(), np.random.default_rng(3)
    hand = chain.forward(HOME)[0]
    far = inverse(hand) @ transform(PLACE[:3, :3], hand[:3, 3] - PLACE[:3, :3] @ [*board.size_m / 2, 0])
    truth = Rig("eye_to_hand", board, RADTAN, PLACE, far, np.zeros(7), np.zeros((0, 6)))
    views = synthetic.arm_views(truth, chain, HOME, 24, Noise(0.3, 5e-4, 1e-3), rng, spread_rad=0.3).views
    session = Session.create(tmp_path / "s", SessionConfig("r", "agent", "eye_to_hand", board, 640, 480))
    with pytest.raises(BadCalibration, match="after 5 views the next pose can be named"):
        next_pose(session, None, None, rng)
    for view in views[:MIN_VIEWS]:
        session.add(replace(view, camera="agent", joints=view.joints if modelled else None))
    found = next_pose(session, chain if modelled else None, None, rng)
    assert found is not None
    seen = synthetic.detect(RADTAN, board, inverse(PLACE) @ found.base_from_hand @ far, 0.0, rng)
    assert seen is not None
    assert found.expected.views == MIN_VIEWS + 1
    assert "hand to (" in found.words(hand)
    if modelled:
        assert found.joints is not None
        np.testing.assert_allclose(chain.forward(found.joints)[0], found.base_from_hand)
        assert all(j.low <= q <= j.high for j, q in zip(chain.joints, found.joints, strict=True))
        assert "degrees; then 6 views" in found.words(hand)
    else:
        assert found.joints is None
    known = CameraEntry(RADTAN, "base", PLACE, 1e-6 * np.eye(6), 0.1, 20)
    first = Session.create(tmp_path / "t", session.config)
    first.add(session.views[0])
    assert next_pose(first, None, known, rng) is not None  # an earlier calibration places the board at once


def test_no_pose_is_named_where_there_are_enough_or_none_moves(tmp_path: Path) -> None:
    board, rng = Board(), np.random.default_rng(4)
    truth = synthetic.hand_eye_views(RADTAN, board, "eye_in_hand", 30, Noise(0.1, 1e-5, 1e-5), rng)
    session = Session.create(tmp_path / "s", SessionConfig("r", "agent", "eye_in_hand", board, 640, 480))
    for view in truth.views:
        session.add(replace(view, camera="agent"))
    known = CameraEntry(RADTAN, "hand", truth.rig.mount_from_camera, 1e-6 * np.eye(6), 0.1, 20)
    assert next_pose(session, None, known, rng) is None
    turned = Session.create(tmp_path / "t", session.config)
    for i, view in enumerate(session.views[:6]):
        T = session.views[0].base_from_hand.copy()
        T[:3, 3] += [0.02 * i, 0, 0]
        turned.add(replace(view, base_from_hand=T))
    with pytest.raises(BadCalibration, match="only travelled and hardly turned"):
        next_pose(turned, None, None, rng)
