"""What every calibration stands on: derivatives that are derivatives, covariances that cover, models that agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla.errors import BadCalibration
from vla_calibration import rig as rigs
from vla_calibration.board import Board
from vla_calibration.camera import CameraModel
from vla_calibration.geometry import apply, checked, difference, inverse, looking_at, moved
from vla_calibration.kinematics import load_chain
from vla_calibration.least_squares import ellipse_holds
from vla_calibration.rig import Noise, View
from vla_calibration.synthetic import hand_eye_views

PANDA = Path(__file__).parents[2] / "sim" / "vla_sim" / "assets" / "panda.xml"
HOME = np.array([0.0, -0.2, 0.0, -2.2, 0.0, 2.0, 0.785])
RADTAN = CameraModel(640, 480, 600.0, 605.0, 325.0, 236.0, (-0.25, 0.08, 0.001, -0.0005, 0.01))
FISHEYE = CameraModel(640, 480, 330.0, 331.0, 322.0, 238.0, (0.05, -0.01, 0.004, -0.001), "fisheye")


def test_a_twist_and_back() -> None:
    rng = np.random.default_rng(0)
    T, twist = moved(np.eye(4), rng.normal(size=6)), rng.normal(0, 0.3, 6)
    np.testing.assert_allclose(difference(T, moved(T, twist)), twist, atol=1e-12)
    np.testing.assert_allclose(T @ inverse(T), np.eye(4), atol=1e-12)
    camera = looking_at(np.array([1.0, 0.2, 0.6]), np.array([0.4, 0.0, 0.1]))
    x, y, z = apply(inverse(camera), np.array([[0.4, 0.0, 0.1]]))[0]
    assert (abs(x), abs(y)) < (1e-12, 1e-12)
    assert z > 0
    assert camera[2, 1] < 0  # its y points down


@pytest.mark.parametrize("spoil", [np.diag([1.0, 1, -1, 1]), 2 * np.eye(4), np.full((4, 4), np.nan), np.eye(3)])
def test_what_is_no_transform_is_refused(spoil: np.ndarray) -> None:
    with pytest.raises(BadCalibration, match="transform"):
        checked(spoil, "base_from_hand")


@pytest.mark.parametrize("camera", [RADTAN, FISHEYE], ids=lambda c: c.model)
def test_projection_its_inverse_and_its_derivatives(camera: CameraModel) -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-0.25, 0.25, (20, 2)), rng.uniform(0.5, 1.0, 20)])
    pixels, by_point, by_camera = camera.linearise(points)
    np.testing.assert_allclose(camera.normalised(pixels), points[:, :2] / points[:, 2:], atol=1e-7)
    for i in range(3):
        step = 1e-6 * np.eye(3)[i]
        slope = (camera.project(points + step) - camera.project(points - step)) / 2e-6
        np.testing.assert_allclose(by_point[:, :, i], slope, rtol=1e-4, atol=1e-3)
    for i in range(len(camera.parameters)):
        step = 1e-6 * np.eye(len(camera.parameters))[i]
        ahead, behind = (camera.with_parameters(camera.parameters + s * step) for s in (1, -1))
        slope = (ahead.project(points) - behind.project(points)) / 2e-6
        np.testing.assert_allclose(by_camera[:, :, i], slope, rtol=1e-4, atol=1e-3)


def test_the_arms_jacobian_and_its_pose_at_home() -> None:
    chain = load_chain(PANDA, "tool")
    hand, J = chain.forward(HOME)
    assert hand[2, 2] == pytest.approx(-1, abs=1e-6)  # the tool points down
    for i in range(7):
        step = np.zeros(7)
        step[i] = 1e-6
        np.testing.assert_allclose(difference(hand, chain.forward(HOME + step)[0]) / 1e-6, J[:, i], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<robot", "not XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><robot/>", "entities"),
        ("<sdf/>", "neither a URDF"),
        ("<mujoco><worldbody/></mujoco>", "no body or site called 'tool'"),
        ("<robot><joint name='j'><child link='a'/></joint></robot>", "no joint leads to link 'tool'"),
        ("<robot><joint name='j' type='prismatic'><child link='tool'/></joint></robot>", "'prismatic', not revolute"),
        ("<robot><joint type='fixed'><child link='tool'/><origin xyz='1 x 0'/></joint></robot>", "not 3 numbers"),
        ("<robot><joint type='fixed'><child link='tool'/><origin xyz='1 nan 0'/></joint></robot>", "not 3 finite"),
    ],
)
def test_a_model_that_cannot_be_used(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "arm.xml").write_text(text)
    with pytest.raises(BadCalibration, match=says):
        load_chain(tmp_path / "arm.xml", "tool")


@pytest.mark.parametrize("setup", ["eye_in_hand", "eye_to_hand"])
def test_the_rigs_derivatives(setup: rigs.Setup) -> None:
    rng = np.random.default_rng(2)
    chain = load_chain(PANDA, "tool")
    truth = hand_eye_views(RADTAN, Board(), setup, 2, Noise(0.3), rng)
    joints = HOME + rng.normal(0, 0.2, 7)
    hand = chain.forward(joints)[0]
    swap = hand @ inverse(truth.views[0].base_from_hand)  # keep the board in sight of this arm
    rig = truth.rig
    if setup == "eye_in_hand":
        rig = replace(rig, far_from_board=swap @ rig.far_from_board)
    else:
        rig = replace(rig, mount_from_camera=swap @ rig.mount_from_camera)
    rig = replace(rig, offsets=np.full(7, 0.01), corrections=rng.normal(0, 0.01, (1, 6)))
    view = View(truth.views[0].detection, hand, joints)
    unknowns: list[rigs.Unknown] = ["camera", "mount", "board", "offsets", "corrections"]
    problem = rigs._Problem(rig, [view], unknowns, chain, range(7), None)
    pixels, J = problem._view(rig, view, rig.corrections[0])
    assert pixels is not None
    for i in range(problem.n):
        step = np.zeros(problem.n)
        step[i] = 1e-6
        changed = problem.retract(rig, step)
        ahead = problem._view(changed, view, changed.corrections[0])[0]
        assert ahead is not None
        tolerance = 0.02 * np.abs(J[:, :, i]).max() + 1e-2  # a correction's turn is linearised at zero
        np.testing.assert_allclose((ahead - pixels) / 1e-6, J[:, :, i], atol=tolerance)


def test_an_ellipse_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covariance = np.diag([1.0, 4.0, 9.0])
    draws = rng.multivariate_normal(np.zeros(3), covariance, 4000)
    assert np.mean([ellipse_holds(d, covariance) for d in draws]) == pytest.approx(0.95, abs=0.011)
    scale = rng.chisquare(10, 4000) / 10  # the noise level, estimated from ten residuals
    held = [ellipse_holds(d, s * covariance, dof=10) for d, s in zip(draws, scale, strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.011)
