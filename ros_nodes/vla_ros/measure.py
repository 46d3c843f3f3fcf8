"""What a session measured, from the nodes' reports alone: success, the path's own latency, decision time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla.statistics import Rate, wilson


@dataclass(frozen=True)
class SessionResult:
    """The outcome of a session; ros.json."""

    success: Rate
    overhead_ms: tuple[float, ...]
    """[ms] one a decision: from the first image's publication to the command's, less the time `decide` took."""
    decide_ms: tuple[float, ...]
    """[ms] one a decision."""
    hold_after_kill_ms: float | None
    """[ms] from kill -9 of the policy to the safety node's HOLD; None when it was not tried."""
    held_steps: int
    """Control steps in all episodes that the robot held."""
    steps: int
    """Control steps in all episodes."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in ros.json."""
        return {
            "success": self.success.to_json(),
            "decisions": len(self.decide_ms),
            "overhead_p50_ms": _percentile(self.overhead_ms, 50),
            "overhead_p99_ms": _percentile(self.overhead_ms, 99),
            "decide_p50_ms": _percentile(self.decide_ms, 50),
            "decide_p99_ms": _percentile(self.decide_ms, 99),
            "hold_after_kill_ms": self.hold_after_kill_ms,
            "steps": self.steps,
            "held_steps": self.held_steps,
        }


@dataclass
class Measurements:
    """Collects reports; each moment is joined by the stamp of its observation [ns, robot time]."""

    _published_ns: dict[int, int] = field(default_factory=dict)
    """When the robot began to publish it, monotonic."""
    _decide_ns: dict[int, int] = field(default_factory=dict)
    """How long `decide` took on it."""
    _command_ns: dict[int, int] = field(default_factory=dict)
    """When the first command that came of it was published, monotonic."""

    def add(self, line: dict[str, Any]) -> None:
        """Take one report."""
        values, topic = line.get("values", {}), line.get("topic")
        if topic == "robot" and "published_ns" in values:
            self._published_ns[line["stamp_ns"]] = int(values["published_ns"])
        elif topic == "policy" and "decide_ns" in values:
            self._decide_ns[int(values["observed_ns"])] = int(values["decide_ns"])
        elif topic == "safety" and values.get("mode") == "track":
            self._command_ns.setdefault(int(values["observed_ns"]), int(values["published_ns"]))

    def result(self, rows: list[dict[str, Any]], hold_after_kill_ms: float | None) -> SessionResult:
        """The session's numbers."""
        whole = [o for o in self._decide_ns if o in self._published_ns and o in self._command_ns]
        overhead = [self._command_ns[o] - self._published_ns[o] - self._decide_ns[o] for o in whole]
        return SessionResult(
            success=wilson(sum(r["success"] for r in rows), len(rows)),
            overhead_ms=tuple(ns / 1e6 for ns in overhead),
            decide_ms=tuple(ns / 1e6 for ns in self._decide_ns.values()),
            hold_after_kill_ms=hold_after_kill_ms,
            held_steps=sum(r["held_steps"] for r in rows),
            steps=sum(r["steps"] for r in rows),
        )


def _percentile(values: tuple[float, ...], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values else None
