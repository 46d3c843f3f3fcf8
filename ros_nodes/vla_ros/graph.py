"""The nodes and how they are started, once, for both ways: `ros2 launch` and plain processes.

Nodes are run as Python modules, so that nothing has to be built or sourced beyond this package and ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.env import FASTDDS_PROFILE, FASTDDS_VARIABLES

NAMESPACE = "vla"


@dataclass(frozen=True)
class NodeSpec:
    """One node of the graph."""

    name: str
    module: str

    def argv(self, parameters: Mapping[str, object]) -> list[str]:
        """The command line of a plain process."""
        argv = [sys.executable, "-m", self.module, "--ros-args", "--disable-external-lib-logs"]
        argv += ["-r", f"__node:={self.name}", "-r", f"__ns:=/{NAMESPACE}"]
        for key, value in parameters.items():
            argv += ["-p", f"{key}:={_yaml(value)}"]
        return argv


SIM = NodeSpec("sim", "vla_ros.sim_node")
POLICY = NodeSpec("policy", "vla_ros.policy_node")
SAFETY = NodeSpec("safety", "vla_ros.safety_node")
OPERATOR = NodeSpec("operator", "vla_ros.operator_node")
CALIBRATION = NodeSpec("calibration", "vla_ros.calibration_node")


def launch_description(nodes: Sequence[NodeSpec], params_file: Path, use_sim_time: bool) -> Any:
    """The same nodes for `ros2 launch`, with the usual arguments; when one ends, all end.

    Args:
        nodes: which of them.
        params_file: the parameters unless the argument of that name says otherwise.
        use_sim_time: the default of the argument of that name.
    """
    from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable, Shutdown
    from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
    from launch_ros.actions import Node
    from launch_ros.parameter_descriptions import ParameterValue

    from launch import LaunchDescription

    arguments = {
        "bundle": ("runs/demo/bundle", "folder of the bundle"),
        "params_file": (str(params_file), "parameters of the nodes"),
        "use_sim_time": (str(use_sim_time).lower(), "take the time from /clock"),
        "autostart": ("true", "configure and activate the policy, and begin episodes in simulation, at once"),
    }
    simulated = SIM in nodes
    if not simulated:
        about = "the robot's calibration file; without one that fits the bundle the policy is not activated"
        arguments["calibration"] = ("calibration.yaml", about)
    bundle = LaunchConfiguration("bundle")
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    own: dict[str, dict[str, object]] = {
        SIM.name: {"autostart": autostart},
        POLICY.name: {"policy": ParameterValue(bundle, value_type=str), "autostart": autostart},
        SAFETY.name: {"spec": ParameterValue(PathJoinSubstitution([bundle, "spec.json"]), value_type=str)},
    }
    if not simulated:
        own[POLICY.name]["calibration"] = ParameterValue(LaunchConfiguration("calibration"), value_type=str)
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(k, default_value=v, description=about) for k, (v, about) in arguments.items()),
            *(SetEnvironmentVariable(name, str(FASTDDS_PROFILE)) for name in FASTDDS_VARIABLES),
            *(
                Node(
                    name=node.name,
                    namespace=NAMESPACE,
                    exec_name=node.name,
                    executable=sys.executable,
                    arguments=["-m", node.module],
                    parameters=[LaunchConfiguration("params_file"), {**own[node.name], **sim_time}],
                    output="screen",
                    on_exit=Shutdown(reason=f"{node.name} ended"),
                )
                for node in nodes
            ),
        ]
    )


def _yaml(value: object) -> str:
    """A parameter value as rcl reads it: text is quoted, so that "1" stays text."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)
