"""The doctor finds what is wrong with a machine, and its cure names what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla.verbs import doctor


def test_a_machine_that_runs_these_tests_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vla.cli", "doctor", "--json"], capture_output=True, text=True, timeout=120
    )
    findings = {f["check"]: f for f in json.loads(done.stdout)}
    failing = [f for f in findings.values() if f["status"] == "fail"]
    assert done.returncode == (1 if failing else 0)
    assert all(f["cure"] for f in failing)
    assert findings["python"]["status"] == findings["onnxruntime"]["status"] == findings["opencv"]["status"] == "ok"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 11), "ok"), ((3, 12), "ok"), ((3, 10), "fail"), ((3, 13), "fail")]
)
def test_python(version: tuple[int, int], status: str) -> None:
    assert doctor.python(version).status == status


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# made by a tool\nnumpy==2.2.6\nTyping_Extensions==4.0 ; python_version < '4'\n")
    same = {"numpy": "2.2.6", "typing-extensions": "4.0", "other": "1"}
    assert doctor.packages(same, lock).status == "ok"
    drifted = doctor.packages({**same, "numpy": "1.26"}, lock)
    assert (drifted.status, drifted.found) == ("warn", "another version than locked: numpy 1.26 (locked 2.2.6)")
    absent = doctor.packages({"numpy": "2.2.6"}, lock)
    assert (absent.status, absent.found) == ("fail", "not installed: typing-extensions")
    assert doctor.packages({}, tmp_path / "nothing").status == "ok"


def test_two_owners_of_cv2_are_a_clash() -> None:
    finding = doctor.opencv(["opencv-python 4.1", "opencv-python-headless 4.2"])
    assert finding.status == "fail"
    assert finding.cure.startswith("uv pip uninstall opencv-python opencv-python-headless &&")
    assert doctor.opencv([]).status == "fail"


def test_rendering_that_cannot_work_is_found_and_cured() -> None:
    finding = doctor.rendering("no-such-backend")
    assert finding.status == "fail"
    assert "no-such-backend" in finding.found
    assert "unset MUJOCO_GL" in finding.cure


def test_another_ros_beside_the_wheels_is_a_clash() -> None:
    if "ros-jazzy-rclpy" not in doctor.installed():
        pytest.skip("this environment has no ROS wheels")
    finding = doctor.ros({"AMENT_PREFIX_PATH": "/opt/ros/humble"}, sys.prefix)
    assert finding.status == "fail"
    assert "/opt/ros/humble is sourced" in finding.found


def test_too_many_threads_are_warned_about() -> None:
    assert doctor.processor({"OMP_NUM_THREADS": str((os.cpu_count() or 1) + 1)}).status == "warn"
    assert doctor.processor({"OMP_NUM_THREADS": "1"}).status == doctor.processor({}).status == "ok"


def test_little_memory_is_warned_about(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n")
    assert doctor.memory(meminfo).found == "1.0 GiB available"
    assert doctor.memory(meminfo).status == "warn"
    assert doctor.memory(tmp_path / "nothing").status == "ok"


def test_no_shared_memory_is_warned_about(tmp_path: Path) -> None:
    assert doctor.shared_memory(tmp_path / "nothing").status == "warn"
