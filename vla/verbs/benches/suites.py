"""How fast LIBERO is evaluated: the same task, image size and chunk through LeRobot's environment and through ours.

Control steps a second of one process; the policy's own time is left out of both. LeRobot's environment draws at every
step and builds the scene again at every reset; ours draws when a chunk is due and resets within milliseconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vla.spec import Camera
from vla.verbs.bench import Args, Metric

SUITE, PX, CHUNK = "libero_object", 128, 8
STEPS, REPEATS = 120, 3
SEED = 1_000_000


def measure(args: Args) -> list[Metric]:
    """Episodes an hour of the three, interleaved, and their ratios: medians of the repeats."""
    from vla_sim.lerobot_libero import lerobot_env

    del args
    rng = np.random.default_rng(0)
    actions = rng.normal(0.0, 0.3, (STEPS, 7)).clip(-1, 1).astype(np.float32)
    with contextlib.closing(lerobot_env(SUITE, 0, PX)) as theirs:
        runs: dict[str, Callable[[int], None]] = {
            "LeRobot": _lerobot(theirs, actions),
            "ours, full meshes": _ours("full", actions),
            "ours, decimated": _ours("decimated", actions),
        }
        took: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run(0)  # scenes are built and contexts made
        for repeat in range(REPEATS):
            for name, run in runs.items():
                start = time.perf_counter()
                run(repeat + 1)
                took[name].append(time.perf_counter() - start)
    hourly = {name: 3600 / float(np.median(seconds)) for name, seconds in took.items()}
    rows = [Metric(f"{name}, episodes of {STEPS} steps", rate, "per hour", REPEATS) for name, rate in hourly.items()]
    ratio = {name: rate / hourly["LeRobot"] for name, rate in hourly.items()}
    rows.append(Metric("full meshes to LeRobot", ratio["ours, full meshes"], "times", REPEATS, target=">= 5"))
    rows.append(Metric("decimated to LeRobot", ratio["ours, decimated"], "times", REPEATS, target=">= 15"))
    return rows


def _ours(visual: str, actions: Any) -> Callable[[int], None]:
    from vla import registry
    from vla.types import Command, Mode

    suite = registry.suite(f"{SUITE}:{visual}")()
    suite.spec = replace(suite.spec, cameras=(Camera("agent", PX, PX), Camera("wrist", PX, PX)))
    env = suite.make()
    unit = suite.spec.action_high

    def episode(number: int) -> None:
        env.reset(SEED + number * len(suite.tasks), suite.tasks[0])
        for step, action in enumerate(actions):
            if step % CHUNK == 0:
                env.observe()
            env.step(Command(action * unit, 0, 0, Mode.TRACK))

    return episode


def _lerobot(env: Any, actions: Any) -> Callable[[int], None]:
    def episode(number: int) -> None:
        env.reset(seed=number)
        for action in actions:
            env.step(action)

    return episode
