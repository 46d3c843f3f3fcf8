"""Chunks become one action a period: each at its time, none twice, HOLD otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import BadConfig
from vla.schedule import ChunkSchedule
from vla.spec import Camera, Dim, Spec
from vla.types import ActionChunk, Mode

H, N = 8, 4
SPEC = Spec(
    robot="test",
    state=(Dim("x", "m", "absolute", "base", -1, 1),),
    action=(Dim("dx", "m", "delta", "base", -0.1, 0.1, moves="x"),),
    rotation="none",
    gripper="none",
    cameras=(Camera("agent", 8, 8),),
    control_rate_hz=10.0,
    chunk_size=H,
)
DT = SPEC.dt_ns


def chunk(t0_ns: int = 0, first: float = 0.0) -> ActionChunk:
    """Actions that can be told apart: first, first + 1, ..."""
    return ActionChunk((first + np.arange(H, dtype=np.float32))[:, None], t0_ns, DT)


def issued(schedule: ChunkSchedule, times: list[int]) -> list[float]:
    commands = [schedule.command(t) for t in times]
    return [float(c.action[0]) for c in commands if c.mode is Mode.TRACK]


def test_each_action_is_due_in_its_period() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk(5 * DT))
    assert issued(schedule, [t * DT for t in range(5, 9)]) == [0, 1, 2, 3]


def test_a_command_is_valid_for_one_period() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    command = schedule.command(0)
    assert (command.stamp_ns, command.valid_until_ns) == (0, DT)


def test_holds_without_a_chunk_before_it_and_after_it() -> None:
    schedule = ChunkSchedule(SPEC, N)
    assert schedule.command(0).reason == "no chunk yet"
    schedule.accept(chunk(3 * DT))
    early, late = schedule.command(0), schedule.command((3 + N) * DT)
    assert (early.mode, late.mode) == (Mode.HOLD, Mode.HOLD)
    assert "not due" in early.reason
    assert "used up" in late.reason
    assert not early.action.any()
    assert not late.action.any()


def test_an_action_missed_is_skipped_not_made_up_for() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    assert issued(schedule, [0, 2 * DT, 3 * DT]) == [0, 2, 3]


def test_ticks_that_jitter_lose_nothing() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    assert issued(schedule, [0, DT - 3_000_000, 2 * DT + 9_000_000, 3 * DT - 1]) == [0, 1, 2, 3]


def test_the_newest_chunk_wins() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk(0, first=0))
    assert issued(schedule, [0, DT]) == [0, 1]
    schedule.accept(chunk(2 * DT, first=100))
    assert issued(schedule, [2 * DT, 3 * DT]) == [100, 101]


def test_clear_holds_and_says_why() -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    schedule.clear("the policy is gone")
    assert schedule.command(0).mode is Mode.HOLD
    assert schedule.command(0).reason == "the policy is gone"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (replace(chunk(), dt_ns=DT // 2), "50 ms, the robot's is 100 ms"),
        (replace(chunk(), actions=np.zeros((H + 1, 1), np.float32)), r"shape \(9, 1\)"),
        (replace(chunk(), actions=np.full((H, 1), np.nan, np.float32)), "NaN"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_last_one_goes_on(bad: ActionChunk, says: str) -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    assert issued(schedule, [0]) == [0]
    with pytest.raises(BadConfig, match=says):
        schedule.accept(bad)
    assert issued(schedule, [DT]) == [1]


@pytest.mark.parametrize("n", [0, H + 1])
def test_n_action_steps_must_be_within_the_chunk(n: int) -> None:
    with pytest.raises(BadConfig, match="n_action_steps"):
        ChunkSchedule(SPEC, n)


@given(st.lists(st.integers(0, 2 * DT), max_size=60))
def test_no_delta_is_issued_twice_however_often_it_is_polled(gaps: list[int]) -> None:
    schedule = ChunkSchedule(SPEC, N)
    schedule.accept(chunk())
    actions = issued(schedule, [int(t) for t in np.cumsum([0, *gaps])])
    assert actions == sorted(set(actions))
    assert len(actions) <= N
