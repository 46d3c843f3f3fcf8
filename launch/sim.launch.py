"""ros2 launch launch/sim.launch.py bundle:=runs/demo/bundle: the simulated robot, a policy and the safety node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_ros.graph import POLICY, SAFETY, SIM, launch_description

PARAMS = Path(__file__).parent / "params" / "sim.yaml"


def generate_launch_description() -> Any:
    """What `ros2 launch` asks for."""
    return launch_description([SIM, SAFETY, POLICY], PARAMS, use_sim_time=True)
