"""The same nodes from a launch file and as plain processes, with parameters that exist, in their own environment."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_recorder import calls_of

from vla.errors import BadConfig
from vla.safety import SafetyConfig
from vla_ros.env import child_environment, own_domain
from vla_ros.graph import OPERATOR, POLICY, SAFETY, SIM
from vla_ros.session import Session

LAUNCH = Path(__file__).parents[2] / "launch"
NODES = {"sim.launch.py": {SIM, SAFETY, POLICY}, "robot.launch.py": {SAFETY, POLICY}}


def parameters() -> dict[str, set[str]]:
    """Node -> the parameters it declares, from the dataclasses."""
    from vla_ros.policy_node import PolicyNodeConfig
    from vla_ros.safety_node import SafetyNodeConfig
    from vla_ros.sim_node import SimNodeConfig

    configs = {SIM: [SimNodeConfig], POLICY: [PolicyNodeConfig], SAFETY: [SafetyNodeConfig, SafetyConfig]}
    return {node.name: {f.name for c in types for f in dataclasses.fields(c)} for node, types in configs.items()}


@pytest.mark.parametrize("name", NODES)
def test_a_launch_file_starts_its_nodes_with_the_usual_arguments(name: str) -> None:
    calls = calls_of(LAUNCH / name)
    nodes = {kwargs["name"]: kwargs for call, _, kwargs in calls if call == "Node"}
    assert {n: kwargs["arguments"] for n, kwargs in nodes.items()} == {n.name: ["-m", n.module] for n in NODES[name]}
    for node, kwargs in nodes.items():
        assert kwargs["executable"] == sys.executable
        assert kwargs["on_exit"][0] == "Shutdown"
        file, own = kwargs["parameters"]
        assert file == ("LaunchConfiguration", ("params_file",), {})
        assert set(own) - {"use_sim_time"} <= parameters()[node]
    arguments = {args[0]: kwargs["default_value"] for call, args, kwargs in calls if call == "DeclareLaunchArgument"}
    usual = {"bundle", "params_file", "use_sim_time", "autostart"}
    assert set(arguments) == usual | ({"calibration"} if SIM not in NODES[name] else set())  # a robot has one, always
    assert Path(arguments["params_file"]).is_file()


@pytest.mark.parametrize("setting", [{"rate_scale": 0.4}, {"rate_scale": 1000.0}, {"seed": -1}])
def test_a_simulator_that_could_not_be_driven_is_refused(setting: dict[str, Any]) -> None:
    from vla_ros.sim_node import SimNodeConfig

    with pytest.raises(BadConfig, match=next(iter(setting))):
        SimNodeConfig(**setting)


@pytest.mark.parametrize("file", sorted((LAUNCH / "params").glob("*.yaml")), ids=lambda f: f.name)
def test_parameter_files_name_parameters_there_are(file: Path) -> None:
    known = parameters()
    for pattern, content in yaml.safe_load(file.read_text()).items():
        node = pattern.rpartition("/")[2]
        wanted = set(content["ros__parameters"])
        assert wanted <= (known[node] if node != "**" else known["policy"] & known["safety"])


def test_modules_of_the_graph_exist() -> None:
    for node in (SIM, POLICY, SAFETY, OPERATOR):
        assert importlib.util.find_spec(node.module) is not None


@pytest.mark.parametrize(
    ("parameter", "value", "says"),
    [
        ("violations_to_stop", 0, "violations_to_stop must be at least 1"),
        ("max_age_s", 1, "parameter max_age_s: want float, as 1.0"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_its_reason(
    parameter: str, value: object, says: str, session: Session, policy: Path
) -> None:
    node = session.start(SAFETY, {"spec": str(policy / "spec.json"), parameter: value})
    assert node.process.wait(30) == 2
    log = (policy.parent / "safety.log").read_text()
    assert says in log
    assert "Traceback" not in log


def test_text_stays_text_on_the_command_line() -> None:
    assert SAFETY.argv({"spec": "1", "overshoot": 0.1})[-3:] == ['spec:="1"', "-p", "overshoot:=0.1"]


def test_no_two_sessions_share_a_domain() -> None:
    with own_domain() as one, own_domain() as two, own_domain() as three:
        assert len({one, two, three}) == 3


def test_the_environment_is_the_same_every_time_and_local() -> None:
    first, second = child_environment(7, {"AMENT_PREFIX_PATH": "elsewhere"}), child_environment(7, {})
    assert first == second
    assert first["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(first["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


@pytest.mark.parametrize("module", [POLICY.module, SAFETY.module])
def test_what_runs_on_a_robot_loads_neither_torch_nor_a_simulator(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps([m for m in ('torch', 'mujoco') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_parameters_are_described_by_the_docstrings_of_their_fields() -> None:
    from vla_ros.node import _docstrings

    described: dict[str, Any] = _docstrings(SafetyConfig)
    assert set(described) == {f.name for f in dataclasses.fields(SafetyConfig)}
    assert "latch STOP" in described["violations_to_stop"]
