"""Whatever comes in, what goes out is within limits, or no motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla.errors import BadConfig
from vla.safety import SafetyConfig, SafetyFilter
from vla.spec import Camera, Dim, Kind, Spec
from vla.types import Command, Floats, Mode

SPEC = Spec(
    robot="test",
    state=(Dim("x", "m", "absolute", "base", 0.0, 1.0), Dim("joint", "rad", "absolute", "joint", -2.0, 2.0)),
    action=(
        Dim("dx", "m", "delta", "base", -0.1, 0.1, moves="x"),
        Dim("joint", "rad", "absolute", "joint", -2.0, 2.0, max_rate=5.0),
    ),
    rotation="none",
    gripper="none",
    cameras=(Camera("agent", 8, 8),),
    control_rate_hz=10.0,
)
DT = SPEC.dt_ns
STEP = 0.5
"""The joint's max_rate over one period [rad]."""


def track(*action: float, stamp: int = 0) -> Command:
    return Command(np.array(action, np.float32), stamp, stamp + DT, Mode.TRACK)


def test_a_good_command_passes_unchanged() -> None:
    out = SafetyFilter(SPEC).check(track(0.05, 1.0), 0)
    assert out.mode is Mode.TRACK
    assert out.action == pytest.approx([0.05, 1.0])
    assert out.reason == ""
    assert out.valid_until_ns == DT


def test_silence_is_hold() -> None:
    out = SafetyFilter(SPEC).check(None, 0)
    assert (out.mode, out.reason) == (Mode.HOLD, "silence")


def test_hold_does_not_move_and_keeps_absolute_dimensions_where_they_were_sent() -> None:
    safety = SafetyFilter(SPEC)
    safety.check(track(0.05, 1.0), 0)
    assert safety.check(None, DT).action == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(
    ("command", "now", "says"),
    [
        (track(0.0, 0.0), DT + 50_000_000, "50 ms out of date"),
        (track(0.0, 0.0, stamp=100_000_000), 0, "100 ms in the future"),
        (track(0.0), 0, r"float32 \(1,\)"),
        (Command(np.zeros(2, np.int64), 0, DT, Mode.TRACK), 0, "int64"),
        (track(np.nan, 0.0), 0, "NaN"),
        (track(0.2, 0.0), 0, "dx = 0.2 is outside"),
        (track(0.0, -np.inf), 0, "infinity"),
    ],
)
def test_holds_and_says_why(command: Command, now: int, says: str) -> None:
    out = SafetyFilter(SPEC).check(command, now)
    assert out.mode is Mode.HOLD
    assert not out.action.any()
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(out.reason)


def test_numerical_overshoot_is_clamped_and_said() -> None:
    out = SafetyFilter(SPEC).check(track(0.103, 0.0), 0)
    assert out.mode is Mode.TRACK
    assert out.action[0] == np.float32(0.1)
    assert "dx 0.103 -> 0.1" in out.reason


def test_an_absolute_dimension_moves_no_faster_than_its_rate() -> None:
    safety = SafetyFilter(SPEC)
    safety.check(track(0.0, 0.0), 0)
    out = safety.check(track(0.0, 2.0, stamp=DT), DT)
    assert out.action[1] == pytest.approx(STEP)
    assert "limited: joint 2 -> 0.5" in out.reason


def test_the_first_command_is_limited_from_where_the_robot_is() -> None:
    measured = np.array([0.5, 1.5], np.float32)
    safety = SafetyFilter(SPEC)
    assert safety.check(None, 0, measured).action == pytest.approx([0.0, 1.5])
    assert safety.check(track(0.0, -2.0), 0, measured).action[1] == pytest.approx(1.5 - STEP)


def test_after_hold_the_rate_counts_from_what_was_sent_last() -> None:
    safety = SafetyFilter(SPEC)
    safety.check(track(0.0, 1.0), 0)
    safety.check(None, DT)
    assert safety.check(track(0.0, -1.0, stamp=2 * DT), 2 * DT).action[1] == pytest.approx(1.0 - STEP)


def test_whoever_changes_a_command_in_place_does_not_change_where_the_next_rate_counts_from() -> None:
    safety = SafetyFilter(SPEC)
    for period, command in enumerate([track(0.0, 0.0), None]):
        out = safety.check(command, period * DT)
        out.action[1] = 2.0
    assert safety.check(track(0.0, 2.0, stamp=2 * DT), 2 * DT).action[1] == pytest.approx(STEP)


def test_an_arm_that_was_moved_while_it_stood_still_does_not_jump_back() -> None:
    safety = SafetyFilter(SPEC)
    safety.check(track(0.0, 0.0), 0, np.array([0.5, 0.0], np.float32))
    safety.stop("the button")
    safety.check(None, DT)
    safety.reset()
    moved = np.array([0.5, 1.8], np.float32)  # by hand
    assert safety.check(track(0.0, 0.0, stamp=2 * DT), 2 * DT, moved).action[1] == pytest.approx(1.8 - STEP)


def test_a_gripper_goes_on_grasping_after_hold() -> None:
    grip = Dim("grip", "1", "absolute", "gripper", -1.0, 1.0, max_rate=1.0)
    spec = replace(SPEC, state=(SPEC.state[0], grip), action=(SPEC.action[0], grip))
    safety, at_the_cube = SafetyFilter(spec), np.array([0.5, 0.3], np.float32)
    for period in range(6):
        sent = safety.check(track(0.0, -0.2, stamp=period * DT), period * DT, at_the_cube).action[1]
    assert sent == pytest.approx(-0.2)
    safety.check(None, 6 * DT, at_the_cube)
    assert safety.check(track(0.0, -0.2, stamp=7 * DT), 7 * DT, at_the_cube).action[1] == pytest.approx(-0.2)


@pytest.mark.parametrize("kind", ["delta", "offset"])
def test_the_rate_of_a_delta_is_the_delta(kind: Kind) -> None:
    slow = replace(SPEC, action=(replace(SPEC.action[0], kind=kind, max_rate=0.5), SPEC.action[1]))
    for sign in (-1.0, 1.0):
        assert SafetyFilter(slow).check(track(sign * 0.1, 0.0), 0).action[0] == pytest.approx(sign * 0.05)


def test_the_rate_of_a_velocity_is_an_acceleration_and_hold_is_standstill() -> None:
    spec = replace(SPEC, action=(Dim("v", "m/s", "velocity", "base", -1.0, 1.0, max_rate=4.0), SPEC.action[1]))
    safety = SafetyFilter(spec)
    sent = [safety.check(track(1.0, 0.0, stamp=i * DT), i * DT).action[0] for i in range(4)]
    assert sent == pytest.approx([0.4, 0.8, 1.0, 1.0])
    safety.check(None, 4 * DT)
    assert safety.check(track(1.0, 0.0, stamp=5 * DT), 5 * DT).action[0] == pytest.approx(0.4)


ABSOLUTE = Dim("grip", "1", "absolute", "gripper", -1.0, 1.0, max_rate=1.0)


@pytest.mark.parametrize(
    ("action", "state", "asked", "sent"),
    [
        # A velocity of zero, while the position of that name is 0.8: it stood still, and stays.
        (Dim("x", "m/s", "velocity", "base", -1.0, 1.0, max_rate=1.0), SPEC.state[0], 0.0, 0.0),
        # Measured in metres and sent as -1 to 1, or not measured at all: nobody knows where it is.
        (ABSOLUTE, replace(ABSOLUTE, unit="m", low=0.0), -0.9, -0.9),
        (ABSOLUTE, replace(ABSOLUTE, name="width"), -0.9, -0.9),
        (ABSOLUTE, ABSOLUTE, -0.9, 0.7),
    ],
)
def test_the_first_rate_counts_only_from_a_measurement_of_the_same(
    action: Dim, state: Dim, asked: float, sent: float
) -> None:
    safety, measured = SafetyFilter(replace(SPEC, state=(state,), action=(action,))), np.array([0.8], np.float32)
    assert safety.check(None, 0, measured).mode is Mode.HOLD
    assert safety.check(track(asked), 0, measured).action == pytest.approx([sent])
    again = safety.check(track(-1.0, stamp=DT), DT, measured).action  # now it counts from what was sent
    assert again == pytest.approx([max(sent - 0.1, -1.0)])


def test_deltas_cannot_leave_the_workspace_but_can_come_back() -> None:
    safety = SafetyFilter(SPEC)
    edge = np.array([0.98, 0.0], np.float32)
    out = safety.check(track(0.05, 0.0), 0, edge)
    assert out.mode is Mode.HOLD
    assert "out of the workspace" in out.reason
    assert safety.check(track(-0.05, 0.0), 0, edge).mode is Mode.TRACK
    outside = np.array([1.2, 0.0], np.float32)
    assert safety.check(track(-0.05, 0.0), 0, outside).mode is Mode.TRACK


@pytest.mark.parametrize(
    "state",
    [
        np.zeros(3, np.float32),
        np.full(2, np.nan, np.float32),
        np.array([1e30, 0.0], np.float32),
        np.array([0.5, 57.3], np.float32),  # degrees
    ],
)
def test_a_broken_state_holds(state: Floats) -> None:
    assert SafetyFilter(SPEC).check(track(0.0, 0.0), 0, state).mode is Mode.HOLD


def test_repeated_violations_latch_stop_until_a_reset() -> None:
    safety = SafetyFilter(SPEC, SafetyConfig(violations_to_stop=3))
    assert [safety.check(track(9.0, 0.0), 0).mode for _ in range(3)] == [Mode.HOLD, Mode.HOLD, Mode.STOP]
    assert "3 commands in a row" in safety.stopped
    assert safety.check(track(0.0, 0.0), 0).mode is Mode.STOP
    safety.reset()
    assert safety.check(track(0.0, 0.0), 0).mode is Mode.TRACK


def test_a_good_command_forgives_what_was_before() -> None:
    safety = SafetyFilter(SPEC, SafetyConfig(violations_to_stop=2))
    for _ in range(3):
        assert safety.check(track(9.0, 0.0), 0).mode is Mode.HOLD
        assert safety.check(track(0.0, 0.0), 0).mode is Mode.TRACK


def test_stop_is_latched_by_a_person_and_by_a_stop_command() -> None:
    by_person, by_command = SafetyFilter(SPEC), SafetyFilter(SPEC)
    by_person.stop("the button")
    by_command.check(Command(np.zeros(2, np.float32), 0, DT, Mode.STOP, "told to"), 0)
    for safety, why in ((by_person, "the button"), (by_command, "told to")):
        out = safety.check(track(0.05, 1.0), 0)
        assert (out.mode, out.reason) == (Mode.STOP, why)
        assert not out.action.any()


@pytest.mark.parametrize("bad", [{"overshoot": 0.5}, {"violations_to_stop": 0}, {"clock_tolerance_ns": -1}])
def test_settings_that_would_disarm_it_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match="safety"):
        SafetyConfig(**bad)


anything = st.one_of(
    hnp.arrays(np.float32, st.integers(0, 4), elements=st.floats(width=32)),
    hnp.arrays(np.float32, 2, elements=st.floats(-0.125, 0.125, width=32)),
    st.binary(min_size=8, max_size=8).map(lambda raw: np.frombuffer(raw, np.float32)),
    hnp.arrays(np.float64, 2),
)
commands = st.one_of(
    st.none(),
    st.builds(Command, anything, st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40), st.sampled_from(Mode)),
)
states = st.one_of(st.none(), hnp.arrays(np.float32, st.integers(1, 3), elements=st.floats(width=32)))


@given(st.lists(st.tuples(commands, states), max_size=12))
def test_what_goes_out_is_within_limits_and_rate_or_no_motion(arrivals: list[tuple[Command | None, Any]]) -> None:
    safety = SafetyFilter(SPEC)
    sent: Floats | None = None
    still = True
    for period, (command, state) in enumerate(arrivals):
        now = period * DT
        out = safety.check(command, now, state)
        assert out.action.shape == (2,)
        assert np.isfinite(out.action).all()
        assert (out.action >= SPEC.action_low).all()
        assert (out.action <= SPEC.action_high).all()
        assert now <= out.valid_until_ns <= now + DT
        if out.mode is Mode.TRACK:
            if still and state is not None:  # the arm may have been moved by hand: from where it is measured
                sent = np.array([0.0, np.clip(state[1], -2.0, 2.0)], np.float32)
            assert sent is None or abs(out.action[1] - sent[1]) <= STEP + 1e-6
            sent, still = out.action, False
        else:
            assert out.action[0] == 0
            assert out.reason or command is None or command.mode is not Mode.TRACK
            assert sent is None or out.action[1] == sent[1]
            still = True
