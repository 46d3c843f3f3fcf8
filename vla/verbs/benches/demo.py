"""The demo's numbers: success, swapped instruction, parity, latency, ROS 2. Runs the demo if it has not finished."""

from __future__ import annotations

import json
from typing import Any

from vla.errors import BadDataset
from vla.runs import revision
from vla.statistics import Rate
from vla.verbs import demo
from vla.verbs.bench import Args, Metric, of_rate


def measure(args: Args) -> list[Metric]:
    """Rows from the demo's summary.json."""
    asked = demo.Args(out=args.out / "demo", workers=args.workers)
    summary = asked.out / "summary.json"
    if not summary.exists():
        demo.main(asked)
    try:
        found = json.loads(summary.read_text())
        if found["revision"] != revision():
            raise ValueError(f"its numbers are of revision {found['revision']}, this is {revision()}")
        return _rows(found)
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataset(f"{summary} cannot be used: {error}. Remove {asked.out} and run again") from error


def _rows(found: dict[str, Any]) -> list[Metric]:
    by_skill = found["success_by_skill"]
    targets = {"pick": ">= 0.98", "push": ">= 0.98", "stack": ">= 0.75"}
    verified, single = found["success_verified"], found["success"]
    return [
        Metric("total", found["minutes"], "min", target="<= 12"),
        Metric("training", found["train_minutes"], "min", target="<= 5"),
        Metric("parameters", found["parameters"], ""),
        _rate("success", single, ">= 0.9"),
        *(_rate(f"success, {skill}", rate, targets.get(skill)) for skill, rate in by_skill.items()),
        _rate("success, verified K=16", verified),
        Metric("verified minus single", 100 * (Rate(**verified).rate - Rate(**single).rate), "points", target=">= -1"),
        _rate("success, ONNX Runtime", found["success_onnx"], ">= 0.9"),
        _rate("success, instruction swapped", found["swapped_instruction"], "<= 0.2"),
        Metric("ONNX against torch, largest difference", found["parity_max_abs"], "", target="<= 1e-4"),
        Metric("decision time, K=16 verified to K=1", found["latency_ratio_k16"], "times", target="<= 2"),
        Metric("successes through ROS 2", found["ros_success"]["k"], "", found["ros_success"]["n"], target=">= 10"),
        Metric("ROS 2 overhead, p99", found["ros_overhead_p99_ms"], "ms", target="<= 15"),
        Metric("policy killed to HOLD", found["ros_hold_after_kill_ms"], "ms", target="<= 200"),
    ]


def _rate(name: str, value: dict[str, Any], target: str | None = None) -> Metric:
    return of_rate(name, Rate(**value), target)
