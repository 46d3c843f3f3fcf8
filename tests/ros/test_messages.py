"""The spine's values survive the way through ROS messages, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vla.errors import BadConfig, BadObservation
from vla.spec import Spec
from vla.types import ActionChunk, Command, Mode
from vla_ros import messages

STAMP = 12 * 10**9 + 345_678_901


@pytest.fixture
def chunk(spec: Spec) -> ActionChunk:
    actions = np.random.default_rng(0).standard_normal((8, len(spec.action))).astype(np.float32)
    return ActionChunk(actions, STAMP, spec.dt_ns)


def test_image(spec: Spec) -> None:
    image = spec.fake_observation().images["agent"]
    message = messages.image_message(image, "agent", STAMP)
    assert (messages.image_of(message) == image).all()
    assert messages.to_ns(message.header.stamp) == STAMP


def test_state_bit_for_bit(spec: Spec) -> None:
    state = spec.fake_observation().state
    assert (messages.state_of(messages.state_message(state, spec.state, STAMP), spec.state) == state).all()


def test_chunk_bit_for_bit(spec: Spec, chunk: ActionChunk) -> None:
    back = messages.chunk_of(messages.chunk_message(chunk, spec), spec)
    assert (back.actions == chunk.actions).all()
    assert (back.t0_ns, back.dt_ns) == (chunk.t0_ns, chunk.dt_ns)


@pytest.mark.parametrize("mode", list(Mode))
def test_command(mode: Mode, spec: Spec, chunk: ActionChunk) -> None:
    command = Command(chunk.actions[0], STAMP, STAMP + spec.dt_ns, mode)
    message = messages.command_message(command, spec)
    back = messages.command_of(message, spec)
    assert (back.mode, back.stamp_ns, back.valid_until_ns) == (mode, STAMP, STAMP + spec.dt_ns)
    assert (back.action == (chunk.actions[0] if mode is Mode.TRACK else 0)).all()
    assert len(message.points) == (mode is Mode.TRACK)  # empty means hold to ros2_control, too


def _rename(message: Any) -> None:
    message.joint_names = ["dy", "dx", "dz", "width"]


def _shorten(message: Any) -> None:
    message.points[1].positions = message.points[1].positions[:2]


def _uneven(message: Any) -> None:
    message.points[2].time_from_start.nanosec += 1


def _single(message: Any) -> None:
    message.points = message.points[:1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_rename, "is not the spec's"),
        (_shorten, "has not 4 numbers"),
        (_uneven, "evenly spaced"),
        (_single, "does not tell its period"),
    ],
)
def test_a_chunk_that_does_not_fit(spoil: Callable[[Any], None], says: str, spec: Spec, chunk: ActionChunk) -> None:
    message = messages.chunk_message(chunk, spec)
    spoil(message)
    with pytest.raises(BadConfig, match=says):
        messages.chunk_of(message, spec)


def test_a_command_of_another_mode_or_without_its_action(spec: Spec, chunk: ActionChunk) -> None:
    message = messages.command_message(Command(chunk.actions[0], 0, spec.dt_ns, Mode.TRACK), spec)
    message.points = []
    with pytest.raises(BadConfig, match="one action, not 0"):
        messages.command_of(message, spec)
    message.header.frame_id = "go"
    with pytest.raises(BadConfig, match="'go' is none of"):
        messages.command_of(message, spec)


def test_an_image_that_lies_about_its_size(spec: Spec) -> None:
    message = messages.image_message(spec.fake_observation().images["agent"], "agent", STAMP)
    message.height = 65
    with pytest.raises(BadObservation, match="packed rgb8"):
        messages.image_of(message)
