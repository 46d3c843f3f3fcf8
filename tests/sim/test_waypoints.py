"""The grammar's rules that a whole episode would only show by failing now and then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vla_sim.arm.osc import DOWN, MOVE_M
from vla_sim.panda import Doubles
from vla_sim.scripted.waypoints import OPEN, _from_under, go, pick_and_place, push

DISH = np.array([[x, y, z] for x in (-0.06, 0.06) for y in (-0.06, 0.06) for z in (0.9, 0.92)])
GOAL = np.array([0.0, 0.3])


def view(tool: Doubles, obstacles: Doubles | None = None, elbow: float = -2.0, **gripper: Any) -> Any:
    """As much of a `View` as waypoints look at; body 1, `DISH`, stands at the origin."""
    points = np.zeros((0, 3)) if obstacles is None else obstacles
    shapes = SimpleNamespace(
        cloud=lambda data, body: DISH,
        obstacles=lambda data, body=None: points,
        fingers_on=lambda data, body: 2,
    )
    bodies = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.9]])
    data = SimpleNamespace(xpos=bodies, joint=lambda name: SimpleNamespace(qpos=[elbow]))
    hand = {"closing": True, "grip": 1.0, "width": 0.01, "width_speed": 0.0} | gripper
    world = SimpleNamespace(shapes=shapes, base=np.array([-0.66, 0.0, 0.912]))
    return SimpleNamespace(world=world, data=data, tool=tool, orientation=DOWN, **hand)


def test_a_dish_is_first_pressed_on_behind_its_middle_and_then_led() -> None:
    above = push(view(np.array([0.0, -0.006, 0.94])), 1, GOAL)
    np.testing.assert_allclose(above[:2], 0.0, atol=1e-6)
    assert above[2] < 0
    pressed = push(view(np.array([0.0, -0.006, 0.912])), 1, GOAL)
    assert pressed[1] == pytest.approx(MOVE_M)
    assert pressed[2] < 0
    slipped = push(view(np.array([0.0, 0.05, 0.912])), 1, GOAL)
    assert slipped[1] < 0
    assert slipped[2] > 0


def test_fingers_that_close_finish_closing_whatever_they_touch() -> None:
    def never() -> Any:
        raise AssertionError("asked where to take it while the fingers closed")

    action = pick_and_place(view(np.array([0.0, 0.0, 0.95]), width_speed=-0.2), 1, never, never)
    np.testing.assert_allclose(action, [0, 0, 0, 0, 0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_held_thing_leaves_what_hangs_over_it_by_the_shortest_way(side: float) -> None:
    xs, ys = np.linspace(-0.3, 0.3, 41), np.linspace(-0.3, 0.3, 41)
    grid = np.stack(np.meshgrid(xs, ys[side * ys > 0.04]), -1).reshape(-1, 2)
    board = np.c_[grid, np.full(len(grid), 1.05)]
    move = _from_under(view(np.zeros(3), board), 1, DISH)
    assert move[0] == 0.0
    assert not ((board[:, 1] < 0.06 + move[1]) & (board[:, 1] > -0.06 + move[1])).any()
    assert 0.02 < abs(move[1]) < 0.05
    beside = board - [0.0, 0.0, 0.13]
    np.testing.assert_array_equal(_from_under(view(np.zeros(3), beside), 1, DISH), 0.0)


def test_an_elbow_past_straight_is_stretched_before_it_is_bent() -> None:
    """Of the drawer's bowl: the hand that came up from its far side hung there, the elbow pressed against its limit."""
    high, near = np.array([0.115, -0.166, 1.211]), np.array([0.055, -0.121, 1.095])
    assert go(view(high, elbow=-1.0), near, OPEN)[0] < 0
    stretched = go(view(high, elbow=-0.1), near, OPEN)
    assert stretched[0] == pytest.approx(MOVE_M)
    assert stretched[2] > 0
    farther = go(view(high, elbow=-0.1), high + np.array([0.0, -0.01, -0.03]), OPEN)  # it only comes down
    assert farther[2] < 0
