"""Where rims and handles are taken: in reach at both ends, clear of what stands beside, with room for the wrist."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vla_sim.arm.osc import DOWN
from vla_sim.panda import Doubles
from vla_sim.scripted import wrist
from vla_sim.scripted.grasps import FINGERTIP_M, by_a_part, by_the_rim, facing_down, fits, yaw_of

BASE = np.array([-0.6, 0.0, 0.0])
BOWL = np.array([0.0, 0.0, 0.0])
RADIUS, HEIGHT = 0.05, 0.06
ANGLES = np.linspace(0, 2 * np.pi, 37)
RING = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
FAR = np.array([0.2, 0.0])
UPRIGHT = np.eye(3)


def cup(at: Doubles = BOWL) -> Doubles:
    return np.concatenate([np.c_[RING, np.full(37, z)] for z in (0.0, HEIGHT)]) + at


def view(
    cloud: Doubles, obstacles: Doubles | None = None, yaw: float = 0.0, base: Doubles = BASE, tilt: Doubles = UPRIGHT
) -> Any:
    """As much of a `View` as grasps look at; body 1 stands at the origin, tilted."""
    points = np.zeros((0, 3)) if obstacles is None else obstacles
    shapes = SimpleNamespace(cloud=lambda data, body: cloud, obstacles=lambda data, body: points)
    data = SimpleNamespace(xpos=np.zeros((2, 3)), xmat=np.tile(tilt.ravel(), (2, 1)))
    tool = np.array([0.0, 0.0, 0.3])
    return SimpleNamespace(
        world=SimpleNamespace(shapes=shapes, base=base), data=data, tool=tool, orientation=facing_down(yaw)
    )


def box(size: tuple[float, float, float], at: tuple[float, float, float]) -> Doubles:
    """Points 1 cm apart at most on the surface of a box."""
    lines = [np.linspace(-half, half, max(2, int(200 * half) + 1)) for half in np.array(size) / 2]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3)
    outside = (np.abs(points) > np.array(size) / 2 - 1e-9).any(1)
    surface: Doubles = points[outside] + at
    return surface


def pot(knob_m: float) -> Any:
    """A view of a pot too wide for the fingers: a knob on its lid so high, and a handle at its side."""
    parts = [
        box((0.09, 0.09, 0.15), (0.0, 0.0, 0.075)),
        box((0.012, 0.012, knob_m), (0.0, 0.0, 0.15 + knob_m / 2)),
        box((0.012, 0.05, 0.06), (0.0, 0.07, 0.11)),
    ]
    found = view(np.concatenate(parts))
    found.world.shapes.parts = lambda data, body: parts
    found.data.xipos = np.zeros((2, 3))
    return found


def test_what_is_too_wide_is_taken_by_its_knob_so_that_it_hangs_upright() -> None:
    assert fits(view(box((0.06, 0.2, 0.1), (0.0, 0.0, 0.05))), 1)
    assert not fits(pot(0.03), 1)
    grasp = by_a_part(pot(0.03), 1, BOWL[:2])
    np.testing.assert_allclose(grasp.position[:2], 0.0, atol=1e-9)
    assert 0.15 < grasp.position[2] - FINGERTIP_M < 0.17, "above the lid, and enough of the knob between the fingers"


def test_a_knob_too_low_for_the_fingers_leaves_the_handle() -> None:
    grasp = by_a_part(pot(0.01), 1, BOWL[:2])
    np.testing.assert_allclose(grasp.position[:2], [0.0, 0.07], atol=1e-9)
    assert abs(np.sin(yaw_of(grasp.orientation))) > 0.9, "across it"


def test_a_rim_is_taken_on_the_side_that_the_arm_reaches_where_the_thing_goes() -> None:
    near, far = by_the_rim(view(cup()), 1, FAR), by_the_rim(view(cup()), 1, np.array([-0.02, 0.0]))
    assert near.position[0] < -0.6 * RADIUS
    assert abs(far.position[0]) < 0.2 * RADIUS  # nothing is far: no turn of the wrist
    assert near.position[2] == pytest.approx(HEIGHT - 0.02)


def test_a_thing_close_to_the_base_is_not_taken_where_the_folded_arm_gets_stuck() -> None:
    close = by_the_rim(view(cup(), base=np.array([-0.42, 0.0, 0.0])), 1, np.array([0.33, 0.0]))
    assert close.position[0] > -0.2 * RADIUS


def test_where_a_wall_stands_close_the_fingers_come_down_farther_inside() -> None:
    wall = np.concatenate([np.c_[1.9 * RING, np.full(37, z)] for z in np.linspace(0.0, HEIGHT, 7)])
    free, walled = by_the_rim(view(cup()), 1, FAR), by_the_rim(view(cup(), wall), 1, FAR)
    inside = [RADIUS - np.hypot(*grasp.position[:2]) for grasp in (free, walled)]
    assert inside[0] == pytest.approx(0.004, abs=1e-3)
    assert inside[1] == pytest.approx(0.024, abs=1e-3)


def test_a_rim_is_taken_aslant_where_the_hand_has_no_way_to_it_straight() -> None:
    """As beside an open drawer: a wall above the table that the hand passes only if it keeps away from the middle."""
    wall = np.stack(np.meshgrid(np.linspace(-0.2, 0.2, 27), [-0.025], np.linspace(0.12, 0.2, 6)), -1).reshape(-1, 3)
    grasp = by_the_rim(view(cup(), wall), 1, np.array([0.0, 0.0]))
    assert abs(np.cos(yaw_of(grasp.orientation))) < 0.2
    assert 0.01 < grasp.position[1] < 0.03
    assert np.hypot(*grasp.position[:2]) < RADIUS


def test_the_handle_of_a_mug_moves_neither_middle_nor_radius() -> None:
    handle = np.array([[0.0, 0.09, 0.02], [0.0, 0.09, 0.04]])
    plain, mug = by_the_rim(view(cup()), 1, FAR), by_the_rim(view(np.r_[cup(), handle]), 1, FAR)
    np.testing.assert_allclose(mug.position, plain.position)


@pytest.mark.parametrize("lean", [0.3, -0.3])
def test_a_tilted_rim_is_taken_on_its_higher_side_and_below_its_edge_there(lean: float) -> None:
    """As of a bowl that slid off a ramekin: taken as if it stood upright, the fingers closed over its edge."""
    cos, sin = np.cos(lean), np.sin(lean)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    grasp = by_the_rim(view(cup() @ tilt.T, tilt=tilt), 1, np.zeros(2))
    x, y, z = tilt.T @ (grasp.position + np.array([0.0, 0.0, 0.02]))  # 2 cm above it, seen from the cup
    assert z == pytest.approx(HEIGHT, abs=1e-9)
    assert np.hypot(x, y) == pytest.approx(RADIUS, abs=0.006)
    assert y * lean > 0


def test_of_two_grasps_that_are_half_a_turn_apart_the_nearer_one_is_taken() -> None:
    """A bowl is taken with the fingers along x at +90 and at -90 degrees alike; the hand must not go to and fro."""
    for yaw in (1.5, -1.5):
        assert np.sign(yaw_of(by_the_rim(view(cup(), yaw=yaw), 1, FAR).orientation)) == np.sign(yaw)


@pytest.mark.parametrize("side", np.deg2rad(np.arange(-170, 181, 35)))
def test_a_nut_is_turned_so_that_the_arm_reaches_within_the_wrists_range(side: float) -> None:
    """Wherever the handle points, it ends towards the base, and the wrist gets there without passing its end."""
    handle = 0.055 * np.array([np.cos(side), np.sin(side), 0.0])
    seen = view(cup())
    seen.data.xmat[1] = np.array([[np.cos(side), -np.sin(side), 0], [np.sin(side), np.cos(side), 0], [0, 0, 1]]).ravel()
    quarters = tuple(np.deg2rad(np.arange(0, 360, 90)))
    grasp = wrist.by_the_handle(seen, 1, handle, FAR, quarters)
    taken = wrist._within(yaw_of(grasp.orientation))
    _, final = wrist._best(seen, taken, handle[:2], 1, FAR, quarters)
    turn = final - taken
    end = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ handle[:2]
    assert end[0] == pytest.approx(-0.055, abs=1e-6)
    assert wrist._LOW <= taken <= wrist._DIRECT
    assert wrist._LOW <= final <= wrist._HIGH


def test_a_long_turn_is_made_in_parts_that_go_the_right_way() -> None:
    seen = view(cup(), yaw=-1.9)
    seen.tool = np.array([0.0, 0.05, 0.3])
    orientation, left = wrist.turned(seen, 1, FAR, (np.pi / 2,))
    assert left == pytest.approx(np.pi / 2)
    assert yaw_of(orientation) == pytest.approx(-0.9)
    assert np.allclose(orientation[:, 2], DOWN[:, 2])
