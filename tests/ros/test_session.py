"""Real nodes in real processes over real DDS: what moves the robot, and what stops it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_policy import STEP_M
from faulty_robot import FAULTS
from scipy.spatial.transform import Rotation

from vla import zoo
from vla.spec import Spec
from vla_calibration import store
from vla_calibration.camera import pinhole
from vla_calibration.geometry import transform
from vla_calibration.store import Calibration, CameraEntry
from vla_ros.graph import POLICY, SAFETY, SIM, NodeSpec
from vla_ros.processes import Child, NodeDied
from vla_ros.session import CallFailed, Session

N_ACTION_STEPS = 4
HOLD_WITHIN_S = 0.2


def bring_up(session: Session, policy: Path, robot: NodeSpec = SIM, rate_scale: float = 2.0) -> Child:
    """Robot, safety and active policy; the policy's process."""
    session.start(robot, {"rate_scale": rate_scale} if robot is SIM else {})
    session.start(SAFETY, {"spec": str(policy / "spec.json"), "n_action_steps": N_ACTION_STEPS})
    child = session.start(POLICY, {"policy": f"fake:{policy}", "n_action_steps": N_ACTION_STEPS})
    session.call("policy/configure")
    session.call("policy/activate")
    if robot is SIM:
        session.require_ready()
    return child


def says(mode: str, after_ns: int = 0) -> Any:
    """A report of the safety node about a command of that mode."""
    return lambda line: (
        line.get("topic") == "safety"
        and line["values"].get("mode") == mode
        and int(line["values"]["published_ns"]) > after_ns
    )


def seen(policy: Path) -> list[dict[str, Any]]:
    """What the fake policy saw at each decision."""
    return [json.loads(line) for line in (policy / "seen.jsonl").read_text().splitlines()]


def test_an_episode_moves_by_each_delta_exactly_once(session: Session, policy: Path) -> None:
    bring_up(session, policy, rate_scale=4.0)
    session.call("sim/next_episode")
    tracked: list[int] = []
    row: dict[str, Any] = {}
    for line in session.take(30.0):
        if says("track")(line):
            tracked.append(line["stamp_ns"])
        if line.get("topic") == "episode" and line["values"]["event"] == "ended":
            row = line["values"]
            break
    assert (row["failure"], row["steps"]) == ("timeout", 80)
    assert len(tracked) == len(set(tracked))  # one action a period
    decisions = seen(policy)
    assert len(decisions) >= 15
    assert decisions[0]["images"] == {"agent": [64, 64, 3], "wrist": [64, 64, 3]}
    # What was commanded, not where the arm got to: the state holds the tool and how far it lags behind.
    heights = np.array([d["state"][2] + d["state"][5] for d in decisions])
    executed = np.diff(heights) / STEP_M
    assert np.allclose(executed, np.round(executed), atol=1e-3)  # whole actions only
    assert np.median(executed) == pytest.approx(N_ACTION_STEPS, abs=1e-3)
    between = [sum(a["stamp_ns"] <= t < b["stamp_ns"] for t in tracked) for a, b in itertools.pairwise(decisions)]
    # A command that comes too late for its period is lost, at full load; it is never made twice.
    assert (np.round(executed) <= between).all()
    assert np.mean(np.round(executed) == between) > 0.8


def test_kill_9_of_the_policy_holds_in_time(session: Session, policy: Path) -> None:
    # At half speed a chunk lasts 0.8 s: only the watch can hold earlier.
    child = bring_up(session, policy, rate_scale=0.5)
    session.call("sim/next_episode")
    session.wait(says("track"), 10.0, "TRACK")
    killed = session.kill(child)
    line = session.wait(says("hold", killed), 5.0, "HOLD")
    assert (int(line["values"]["published_ns"]) - killed) / 1e9 < HOLD_WITHIN_S
    assert "the policy is gone" in line["text"]


def test_a_frozen_policy_holds_in_time_and_goes_on_when_it_wakes(session: Session, policy: Path) -> None:
    child = bring_up(session, policy, rate_scale=0.5)
    session.call("sim/next_episode")
    session.wait(says("track"), 10.0, "TRACK")
    frozen = time.monotonic_ns()
    child.process.send_signal(signal.SIGSTOP)
    line = session.wait(says("hold", frozen), 5.0, "HOLD")
    assert (int(line["values"]["published_ns"]) - frozen) / 1e9 < HOLD_WITHIN_S
    assert "the policy is gone" in line["text"]
    awake = time.monotonic_ns()
    child.process.send_signal(signal.SIGCONT)
    session.wait(says("track", awake), 10.0, "TRACK")


def test_stop_is_latched_until_a_person_resets(session: Session, policy: Path) -> None:
    bring_up(session, policy)
    session.call("sim/next_episode")
    session.wait(says("track"), 10.0, "TRACK")
    session.call("safety/stop")
    stopped = time.monotonic_ns()
    modes = {line["values"].get("mode") for line in session.take(1.0) if line.get("topic") == "safety"}
    assert modes == {"stop"}
    assert "stop requested" in session.call("safety/reset")
    session.wait(says("track", stopped), 10.0, "TRACK after the reset")


def test_hold_is_the_safety_nodes_last_word(session: Session, policy: Path) -> None:
    session.start(SIM, {})
    safety = session.start(SAFETY, {"spec": str(policy / "spec.json")})
    session.wait(says("hold"), 10.0, "HOLD")
    safety.process.send_signal(signal.SIGTERM)
    last = session.wait(lambda line: line.get("text") == "the safety node is ending", 5.0, "the last word")
    assert last["values"]["mode"] == "hold"
    assert safety.process.wait(5.0) == 0


def test_a_refusal_holds(session: Session, policy: Path) -> None:
    """Brought up as the launch files do: nobody calls anything."""
    session.start(SIM, {"rate_scale": 4.0, "autostart": True})
    session.start(SAFETY, {"spec": str(policy / "spec.json")})
    refusing = {"policy": f"fake:{policy}", "verifier": "refuse_all", "candidates": 3}
    session.start(POLICY, {**refusing, "autostart": True})
    refused = tracked = 0
    for line in session.take(30.0):
        refused += line.get("topic") == "policy" and line["text"] == "none is good enough"
        tracked += says("track")(line)
        if line.get("topic") == "episode" and line["values"]["event"] == "ended":
            assert line["values"]["held_steps"] == line["values"]["steps"] == 80
            break
    assert tracked == 0
    assert refused >= 5  # it may have come up in the middle of the episode


def test_a_policy_for_another_robot_never_moves_this_one(session: Session, policy: Path, spec: Spec) -> None:
    changed = json.loads((policy / "spec.json").read_text())
    changed["action"][0]["high"] = 0.06
    (policy / "spec.json").write_text(json.dumps(changed))
    session.start(SIM, {})
    session.start(SAFETY, {"spec": str(policy / "spec.json")})
    session.start(POLICY, {"policy": f"fake:{policy}"})
    session.call("policy/configure")
    line = session.wait(says("stop"), 10.0, "STOP")
    assert "action[dx].high" in line["text"]
    for call in ("policy/activate", "safety/reset"):
        with pytest.raises(CallFailed, match=r"action\[dx\]\.high"):
            session.call(call)


def test_a_policy_that_is_not_there_can_be_configured_later(session: Session, policy: Path, spec: Spec) -> None:
    session.start(POLICY, {"policy": f"fake:{policy}/later"})
    with pytest.raises(CallFailed, match="no policy at"):
        session.call("policy/configure")
    (policy / "later").mkdir()
    spec.save(policy / "later" / "spec.json")
    for step in ("configure", "activate", "deactivate", "activate", "deactivate", "cleanup", "configure"):
        session.call(f"policy/{step}")


def test_a_transition_in_the_wrong_order_is_refused_and_survived(session: Session, policy: Path) -> None:
    node = session.start(POLICY, {"policy": f"fake:{policy}"})
    for done, wrong in (
        ("", "activate"),
        ("configure", "configure"),
        ("activate", "cleanup"),
        ("deactivate", "deactivate"),
    ):
        if done:
            session.call(f"policy/{done}")
        with pytest.raises(CallFailed, match="no such transition now"):
            session.call(f"policy/{wrong}")
    assert node.process.poll() is None


def test_a_broken_sensor_holds_says_so_and_is_survived(session: Session, policy: Path) -> None:
    expected = {
        "nan_state": "['tool_x'] is NaN",
        "renamed_state": "publish these, in this order",
        "short_state": "publish these, in this order",
        "no_stamp": "the robot's clock stands still at 0.000 s",
        "small_image": "resize it first",
        "bgr_image": "publish packed rgb8",
        "cut_image": "publish packed rgb8",
        "empty_image": "resize it first",
        "no_wrist": "waiting for wrist",
        "late_agent": "waiting for agent",
        "two_robots": "2 robots publish the state: end all but one",
        "two_policies": "2 policies send chunks: end all but one",
        "unknown_words": "never trained on it",
        "endless_words": "has 50000 characters",
        "no_words": "there is no instruction",
        "engine_breaks": "the engine broke",
    }
    assert [*expected, "none"] == list(FAULTS)
    bring_up(session, policy, NodeSpec("sim", "faulty_robot"))
    for fault, text in expected.items():
        session.call("sim/next_episode")
        for line in session.take(10.0):
            assert fault.startswith("two_") or not says("track")(line), fault  # a second one must first be discovered
            if line.get("topic") in ("policy", "safety") and text in line["text"]:
                break
        else:
            pytest.fail(f"{fault}: nobody said {text!r}")
        assert not any(says("track")(line) for line in session.take(0.2)), fault
    session.call("sim/next_episode")
    session.wait(says("track"), 10.0, "TRACK once all is well")


def test_a_node_that_dies_on_its_own_ends_the_session(session: Session) -> None:
    robot = session.start(SIM, {"suite": "kitchen"})
    robot.process.wait(30)
    with pytest.raises(NodeDied, match="'kitchen'"):
        session.call("sim/next_episode")


@pytest.mark.parametrize("form", ["{}", "bundle:{}", "zoo:lift"])
def test_the_safety_node_is_given_the_spec_of_the_policy(form: str, policy: Path) -> None:
    assert Spec.load(zoo.folder(form.format(policy)) / "spec.json").chunk_size == 8


def test_an_arm_of_another_suite_is_there_before_its_first_episode(session: Session) -> None:
    session.start(SIM, {"suite": "lift"})
    session.wait(lambda line: line.get("topic") == "robot", 60.0, "a state")


def test_what_a_node_prints_is_in_its_log_and_never_halts_it(tmp_path: Path) -> None:
    log = tmp_path / "chatty.log"  # some suite's or policy's own prints, more of them than a pipe holds
    child = Child("chatty", [sys.executable, "-c", "print('step\\n' * 50_000)"], os.environ, log)
    try:
        assert child.process.wait(10) == 0
    finally:
        child.end()
    assert log.read_text().count("step") == 50_000


def test_a_robot_that_drifted_is_not_driven(session: Session, policy: Path, spec: Spec, tmp_path: Path) -> None:
    file, lens = tmp_path / "panda.yaml", pinhole(64, 64, 0.5)
    session.start(POLICY, {"policy": f"fake:{policy}", "calibration": str(file)})
    session.call("policy/configure")
    with pytest.raises(CallFailed, match="there is no"):
        session.call("policy/activate")
    for shift_m, says in ((0.03, r"agent: 30\.0 mm"), (0.0, None)):
        cameras = {}
        for camera in spec.cameras:
            assert camera.pose is not None
            turn = Rotation.from_quat(camera.pose.quaternion_xyzw).as_matrix()
            place = transform(turn, np.add(camera.pose.position_m, [shift_m, 0, 0]))
            cameras[camera.name] = CameraEntry(lens, camera.pose.mount, place, np.eye(6), 0.1, 20)
        store.add(file, spec.robot, Calibration(cameras))
        if says is None:
            session.call("policy/activate")  # the file is read anew
        else:
            with pytest.raises(CallFailed, match=says):
                session.call("policy/activate")
