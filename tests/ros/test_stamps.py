"""What the policy and the safety node make of stamps, message by message in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from std_msgs.msg import String

from vla.pipeline import FirstCandidate, Pipeline
from vla.spec import Spec
from vla.types import ActionChunk
from vla_ros import messages, policy_node
from vla_ros.env import child_environment, own_domain
from vla_ros.policy_node import PolicyNode
from vla_ros.safety_node import SafetyNode

N_ACTION_STEPS = 4


@pytest.fixture(autouse=True)
def ros(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ROS in this process, alone on its domain."""
    spec.save(tmp_path / "spec.json")
    with own_domain() as domain:
        for name, value in child_environment(domain).items():
            monkeypatch.setenv(name, value)
        own = {"spec": tmp_path / "spec.json", "n_action_steps": N_ACTION_STEPS}
        rclpy.init(args=["--ros-args", *(part for k, v in own.items() for part in ("-p", f"{k}:={v}"))])
        yield
        rclpy.shutdown()


class Lifts:
    """Notes what it decides on."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.seen = spec, list[int]()

    def encode(self, observations: Any) -> None:
        self.seen.append(observations[0].stamp_ns)

    def propose(self, memory: None, noise: Any) -> tuple[Any, None]:
        return np.zeros_like(noise), None


class Robot:
    """What a robot publishes, given to an active policy node."""

    def __init__(self, spec: Spec, policy: Lifts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(policy_node, "open_pipeline", lambda *_: Pipeline(policy, FirstCandidate()))
        self.node, self._spec, self._observation = PolicyNode(), spec, spec.fake_observation()
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.node._on_spec(String(data=json.dumps(spec.to_json())))
        self.node._on_instruction(String(data="lift"))

    def state(self, stamp_ns: int) -> None:
        self.node._on_state(messages.state_message(self._observation.state, self._spec.state, stamp_ns))

    def images(self, stamp_ns: int, *cameras: str) -> None:
        for camera in cameras or self._observation.images:
            image = messages.image_message(self._observation.images[camera], camera, stamp_ns)
            self.node._image_taker(camera)(image)

    def decided(self) -> None:
        """Wait for the decision that was begun, if one was."""
        if self.node._deciding is not None:
            self.node._deciding.result()

    def end(self) -> None:
        self.node.close()
        self.node.destroy_node()


@pytest.mark.parametrize("state_first", [True, False])
@pytest.mark.parametrize(("image_ms", "jitter_ms"), [(0, 0), (5, 0), (-5, 0), (0, 3), (5, 3)])
def test_a_decision_for_every_so_many_states_whatever_the_sensors_stamps(
    image_ms: int, jitter_ms: int, state_first: bool, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cameras are not exposed at the very moment the joints are read, and no driver's period is exact."""
    policy, rng = Lifts(spec), np.random.default_rng(0)
    robot = Robot(spec, policy, monkeypatch)
    for period in range(1, 14):
        stamp = period * spec.dt_ns + int(rng.integers(-jitter_ms, jitter_ms + 1)) * 10**6
        if state_first:
            robot.state(stamp)
        robot.images(stamp + image_ms * 10**6)
        if not state_first:
            robot.state(stamp)
        robot.decided()
    robot.end()
    assert [round(stamp / spec.dt_ns) for stamp in policy.seen] == [1, 5, 9, 13]


def test_a_picture_from_before_the_robot_was_started_again_is_not_decided_on(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its camera is dead by now, and the new clock comes to the old one's time."""
    policy = Lifts(spec)
    robot = Robot(spec, policy, monkeypatch)
    robot.images(5 * spec.dt_ns)
    robot.state(6 * spec.dt_ns)
    for period in range(1, 8):
        robot.state(period * spec.dt_ns)
        robot.images(period * spec.dt_ns, "agent")
        robot.decided()
    assert robot.node._inputs.missing() == ["wrist"]
    robot.end()
    assert policy.seen == []


def test_a_chunk_from_before_the_robot_was_started_again_is_refused(spec: Spec) -> None:
    node, observation, sent = SafetyNode(), spec.fake_observation(), list[str]()
    node._command.publish = lambda message: sent.append(message.header.frame_id)

    def state(period: int) -> None:
        node._on_state(messages.state_message(observation.state, spec.state, period * spec.dt_ns))

    def chunk(period: int) -> None:
        actions = np.zeros((8, len(spec.action)), np.float32)
        node._on_chunk(messages.chunk_message(ActionChunk(actions, period * spec.dt_ns, spec.dt_ns), spec))

    node._on_spec(String(data=json.dumps(spec.to_json())))
    node._on_instruction(String(data="lift"))
    state(100)
    state(5)
    chunk(100)
    state(6)
    assert set(sent) == {"hold"}
    chunk(7)  # made of a state that is on its way here
    state(7)
    assert sent[-2:] == ["track", "track"]
    node.destroy_node()
