"""How often the scripted experts succeed, task by task: 20 episodes each, on layouts nobody tuned them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vla.runs import revision, to_plain, write_json
from vla.verbs.bench import Args, Metric, share

EPISODES = 20
FIRST = 20
"""LIBERO's official initial states 20 to 39 of each task; the experts were made looking at 0 to 19."""
SEED = 1_000_000
EACH = {"libero_object": 0.98, "libero_spatial": 0.98, "lift": 0.98, "stack": 0.98, "pick_place": 0.98}
"""Suites of which every task should succeed this often."""
MOST = {"libero_goal": (0.9, 9), "libero_10": (0.9, 5)}
"""Suites of which so many tasks should succeed so often."""
SUITES = (
    *("libero_spatial", "libero_goal", "libero_10", "nut_assembly", "door", "pick_place"),
    *("lift", "stack", "libero_object"),
)
"""Those that changed last come first."""


def measure(args: Args) -> list[Metric]:
    """A row a task and one a suite; a task that was measured before at this revision is read from its file."""
    rows: list[Metric] = []
    for suite in SUITES:
        trials = _trials(suite, args.out / "experts" / suite, args.workers)
        by_task: dict[str, list[bool]] = {}
        for trial in trials:
            by_task.setdefault(trial["task"], []).append(trial["success"])
        target = f">= {EACH[suite]}" if suite in EACH else None
        rows += [share(f"{suite}, {task}", outcomes, target) for task, outcomes in by_task.items()]
        rows.append(share(suite, [won for outcomes in by_task.values() for won in outcomes]))
        if suite in MOST:
            rate, tasks = MOST[suite]
            enough = sum(sum(outcomes) >= rate * len(outcomes) for outcomes in by_task.values())
            rows.append(
                Metric(f"{suite}, tasks at {rate:.0%} or more", enough, "tasks", len(by_task), target=f">= {tasks}")
            )
    return rows


def _trials(suite: str, folder: Path, workers: int) -> list[dict[str, Any]]:
    """Every episode, in the order of the tasks; those of a task are on disk when its last one ends."""
    from vla import registry
    from vla.progress import bar
    from vla_sim.experts import try_expert

    tasks = registry.suite(suite)().tasks
    first = SEED + FIRST * len(tasks)
    seeds = range(first, first + EPISODES * len(tasks))
    todo = [(task, seeds[i :: len(tasks)]) for i, task in enumerate(tasks) if _known(folder, task) is None]
    folder.mkdir(parents=True, exist_ok=True)
    with bar(suite) as show:
        for done, trials in enumerate(try_expert(suite, todo, workers), 1):
            write_json(folder / f"{trials[0].task}.json", {"revision": revision(), "trials": to_plain(trials)})
            show(done / len(todo), f"{trials[0].task}: {sum(trial.success for trial in trials)}/{len(trials)}")
    return [trial for task in tasks for trial in _known(folder, task) or ()]


def _known(folder: Path, task: str) -> list[dict[str, Any]] | None:
    file = folder / f"{task}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    trials: list[dict[str, Any]] = found["trials"]
    return trials if found["revision"] == revision() else None
