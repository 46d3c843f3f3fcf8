"""ros2 launch launch/robot.launch.py bundle:=bundles/mine: a policy and the safety node, beside your robot's driver.

The driver publishes state, camera images, its spec and the instruction, and executes commands: docs/ros.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_ros.graph import POLICY, SAFETY, launch_description

PARAMS = Path(__file__).parent / "params" / "robot.yaml"


def generate_launch_description() -> Any:
    """What `ros2 launch` asks for."""
    return launch_description([SAFETY, POLICY], PARAMS, use_sim_time=False)
