"""How often the scripted experts succeed, task by task: 20 episodes each, on layouts nobody tuned them on."""

from __future__ import annotations

import json
from typing import Any

from vla.runs import revision, to_plain, write_json
from vla.verbs.bench import Args, Metric, share

EPISODES = 20
FIRST = 20
"""LIBERO's official initial states 20 to 39 of each task; the experts were made looking at 0 to 9."""
SEED = 1_000_000
SUITES = {
    "libero_object": ">= 0.98",
    "libero_spatial": ">= 0.98",
    "libero_goal": ">= 0.9",
    "lift": ">= 0.98",
    "stack": ">= 0.98",
    "pick_place": ">= 0.98",
}


def measure(args: Args) -> list[Metric]:
    """A row a task and one a suite; a suite that was measured before at this revision is read from its file."""
    rows: list[Metric] = []
    for suite, target in SUITES.items():
        file = args.out / "experts" / f"{suite}.json"
        trials = _known(file) or _try(suite, args.workers)
        write_json(file, {"revision": revision(), "trials": trials})
        by_task: dict[str, list[bool]] = {}
        for trial in trials:
            by_task.setdefault(trial["task"], []).append(trial["success"])
        for task, outcomes in by_task.items():
            rows.append(share(f"{suite}, {task}", outcomes, target))
        rows.append(share(suite, [won for outcomes in by_task.values() for won in outcomes], None))
    return rows


def _try(suite: str, workers: int) -> list[dict[str, Any]]:
    from vla import registry
    from vla.progress import bar
    from vla_sim.experts import try_expert

    tasks = list(registry.suite(suite)().tasks)
    first = SEED + FIRST * len(tasks)
    seeds = range(first, first + EPISODES * len(tasks))
    with bar(suite) as show:

        def progress(done: int, total: int) -> None:
            show(done / total, f"{done}/{total}")

        trials = try_expert(suite, tasks, lambda task: seeds[tasks.index(task) :: len(tasks)], workers, progress)
    return [to_plain(trial) for trial in trials]


def _known(file: Any) -> list[dict[str, Any]] | None:
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    trials: list[dict[str, Any]] = found["trials"]
    return trials if found["revision"] == revision() else None
