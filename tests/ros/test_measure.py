"""The numbers in ros.json, from reports as the nodes write them."""

from __future__ import annotations

from typing import Any

from vla_ros.measure import Measurements


def robot(stamp_ns: int, published_ns: int) -> dict[str, Any]:
    return {"topic": "robot", "stamp_ns": stamp_ns, "values": {"published_ns": str(published_ns)}}


def decided(observed_ns: int, decide_ns: int) -> dict[str, Any]:
    return {"topic": "policy", "values": {"observed_ns": str(observed_ns), "decide_ns": str(decide_ns)}}


def command(observed_ns: int, published_ns: int, mode: str = "track") -> dict[str, Any]:
    values = {"mode": mode, "observed_ns": str(observed_ns), "published_ns": str(published_ns)}
    return {"topic": "safety", "values": values}


def test_overhead_is_image_to_first_command_less_the_decision() -> None:
    seen = Measurements()
    reports = [
        robot(100, 5_000_000),
        command(0, 5_500_000, "hold"),
        command(100, 25_000_000),
        command(100, 99_000_000),  # the chunk's second action
        decided(100, 12_000_000),  # its report may come after the command
        decided(200, 30_000_000),  # led to no command
        {"topic": "robot", "level": 2, "text": "command refused", "stamp_ns": 100, "values": {}},
        {"id": 3, "ok": True, "message": ""},
    ]
    for line in reports:
        seen.add(line)
    rows = [{"success": True, "steps": 20, "held_steps": 1}, {"success": False, "steps": 80, "held_steps": 3}]
    found = seen.result(rows, 118.0).to_json()
    assert found["overhead_p50_ms"] == found["overhead_p99_ms"] == 8.0
    assert found["decide_p50_ms"] == 21.0
    assert found["decisions"] == 2
    assert (found["success"]["k"], found["success"]["n"]) == (1, 2)
    assert (found["steps"], found["held_steps"], found["hold_after_kill_ms"]) == (100, 4, 118.0)


def test_without_decisions_there_is_no_number_and_no_crash() -> None:
    found = Measurements().result([], None).to_json()
    assert found["overhead_p99_ms"] is None
    assert found["hold_after_kill_ms"] is None
