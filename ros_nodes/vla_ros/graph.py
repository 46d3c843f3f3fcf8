"""The nodes and how they are started, once, for both ways: `ros2 launch` and plain processes.

Nodes are run as Python modules, so that nothing has to be built or sourced beyond this package and ROS.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMESPACE = "vla"


@dataclass(frozen=True)
class NodeSpec:
    """One node of the graph."""

    name: str
    module: str
    lifecycle: bool = False
    """It is configured and activated from outside."""

    def argv(self, parameters: Mapping[str, object]) -> list[str]:
        """The command line of a plain process."""
        argv = [sys.executable, "-m", self.module, "--ros-args", "--disable-external-lib-logs"]
        argv += ["-r", f"__node:={self.name}", "-r", f"__ns:=/{NAMESPACE}"]
        for key, value in parameters.items():
            argv += ["-p", f"{key}:={_yaml(value)}"]
        return argv

    def action(self, parameters: Sequence[object], autostart: object) -> Any:
        """The same as an action of ROS's launch system; all end when one does."""
        from launch.actions import Shutdown
        from launch_ros.actions import LifecycleNode, Node

        common = {
            "name": self.name,
            "namespace": NAMESPACE,
            "executable": sys.executable,
            "arguments": ["-m", self.module],
            "parameters": list(parameters),
            "output": "screen",
            "on_exit": Shutdown(reason=f"{self.name} ended"),
        }
        return LifecycleNode(**common, autostart=autostart) if self.lifecycle else Node(**common)


SIM = NodeSpec("sim", "vla_ros.sim_node")
POLICY = NodeSpec("policy", "vla_ros.policy_node", lifecycle=True)
SAFETY = NodeSpec("safety", "vla_ros.safety_node")
OPERATOR = NodeSpec("operator", "vla_ros.operator_node")


def _yaml(value: object) -> str:
    """A parameter value as rcl reads it: text is quoted, so that "1" stays text."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)
