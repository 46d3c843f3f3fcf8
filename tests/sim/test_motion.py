"""Path and smoothness of commands, against what can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from vla.spec import Dim, Spec
from vla.types import Command, Mode
from vla_sim.motion import Motion
from vla_sim.suites.tabletop import TabletopSuite

SPEC = TabletopSuite().spec


def motion(moves: np.ndarray, spec: Spec = SPEC, mode: Mode = Mode.TRACK) -> Motion:  # type: ignore[type-arg]
    found = Motion(spec)
    for move in moves:
        found.add(Command(np.asarray(move, np.float32), 0, 0, mode))
    return found


def along_x(distances: list[float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([[d, 0, 0, 0.04] for d in distances])


def test_the_path_is_the_sum_of_the_moves_and_the_gripper_does_not_count() -> None:
    assert motion(along_x([0.01, 0.02, 0.03])).path == pytest.approx(0.06)
    assert motion(along_x([0.01, -0.01])).path == pytest.approx(0.02)
    assert motion(along_x([0.01, 0.02]), mode=Mode.HOLD).path == 0.0


def test_smoothness_is_the_log_dimensionless_jerk() -> None:
    distances = [0.0, 0.01, 0.03, 0.02, 0.0]
    velocity = np.array(distances) / 0.1
    jerk = np.diff(velocity, 2) / 0.01
    expected = -math.log(0.5**3 / velocity.max() ** 2 * (jerk**2).sum() * 0.1)
    assert motion(along_x(distances)).smoothness == pytest.approx(expected)


def test_smoothness_does_not_depend_on_size_and_jerking_lowers_it() -> None:
    t = np.linspace(0, 1, 30)
    bell = 0.03 * (t * (1 - t)) ** 2 * 16
    smooth, small = motion(along_x(list(bell))).smoothness, motion(along_x(list(bell / 3))).smoothness
    jerky = motion(along_x(list(bell + 0.004 * (-1) ** np.arange(30)))).smoothness
    assert smooth is not None
    assert jerky is not None
    assert smooth == pytest.approx(small)
    assert jerky < smooth - 2


def test_standing_still_has_no_smoothness() -> None:
    assert motion(along_x([0.0] * 10)).smoothness is None
    assert motion(along_x([0.01] * 10)).smoothness is None
    assert motion(along_x([0.0, 0.01])).smoothness is None


@pytest.mark.parametrize(("kind", "unit", "path"), [("absolute", "rad", 0.3), ("velocity", "rad/s", 0.06)])
def test_joint_actions_are_measured_in_rad(kind: str, unit: str, path: float) -> None:
    joints = tuple(Dim(f"j{i}", unit, kind, f"joint{i}", -2, 2) for i in range(2))  # type: ignore[arg-type]
    spec = replace(SPEC, action=joints)
    found = motion(np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.4, 0.0]])[: 4 if kind == "absolute" else 3], spec)
    assert found.path == pytest.approx(path)


def test_an_action_that_moves_nothing_has_no_path() -> None:
    spec = replace(SPEC, action=(Dim("width", "m", "absolute", "gripper", 0, 0.08),))
    found = motion(np.array([[0.01], [0.02]]), spec)
    assert (found.path, found.smoothness) == (None, None)
