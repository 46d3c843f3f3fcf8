"""Topics and their quality of service: the table in docs/ros.md, as code.

Names are relative, so that a namespace holds one robot. Stamps are the robot's clock: a chunk carries the stamp of the
observation it was made from, a command the stamp of the state it answers.
"""

from __future__ import annotations

from typing import Any

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

STATE = "state"
SPEC = "spec"
INSTRUCTION = "instruction"
CHUNK = "chunk"
COMMAND = "command"
EPISODE = "episode"
DIAGNOSTICS = "/diagnostics"

HEARTBEAT_S = 0.02
"""How often the policy node says that it is alive."""
LEASE_S = 0.12
"""How long the safety node believes it: six heartbeats, and well within the 200 ms in which it has to HOLD."""

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Only the newest counts; one that is late is useless."""
IMAGES = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Whoever comes later still gets the last one."""
EVENTS = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
"""None is lost."""
WATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
    liveliness_lease_duration=Duration(seconds=LEASE_S),
)
"""The chunk topic. MANUAL_BY_TOPIC, because under AUTOMATIC a process whose Python stands still passes for alive."""


def image_topic(camera: str) -> str:
    """The topic of one camera's images."""
    return f"camera/{camera}/image"


def watched_by(on_change: Any) -> Any:
    """Event callbacks of a subscription that is told when its publisher lives or dies."""
    from rclpy.event_handler import SubscriptionEventCallbacks

    return SubscriptionEventCallbacks(liveliness=on_change)
