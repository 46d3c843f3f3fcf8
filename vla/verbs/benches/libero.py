"""The policies of the zoo on their suites: official initial states, official meshes, unseen layouts.

They were trained on demonstrations scripted here, so their success does not compare with that of models trained on the
official human demonstrations.
"""

from __future__ import annotations

from vla import zoo
from vla.comparison import ALL, mean_of_successes, rates
from vla.verbs import _stages
from vla.verbs.bench import Args, Metric, of_rate

EPISODES_A_TASK = 20
SEED = 1_000_000
TARGETS = {"libero_object": 0.97, "libero_spatial": 0.90, "libero_goal": 0.75, "lift": 0.98, "stack": 0.90}
_SINGLE_TASK = 200
"""Episodes of a suite of one task."""


def measure(args: Args) -> list[Metric]:
    """Success of each policy, in all and by task; what is in the folder already is not run again."""
    rows = []
    for suite in zoo.names():
        rows += _rows(suite, args)
    return rows


def _rows(suite: str, args: Args) -> list[Metric]:
    from vla import registry
    from vla_sim.evaluate import EvalConfig

    tasks = registry.suite(suite)().tasks
    episodes = EPISODES_A_TASK * len(tasks) if len(tasks) > 1 else _SINGLE_TASK
    config = EvalConfig(policy=f"zoo:{suite}", suite=suite, episodes=episodes, seed=SEED)
    run = _stages.evaluate(suite, config, args.out / "libero" / suite, args.workers)
    target = f">= {TARGETS[suite]}" if suite in TARGETS else None
    found = rates(run)
    parts = [of_rate(f"{suite}, {skill}", rate) for skill, rate in found.items() if skill != ALL]
    seconds = mean_of_successes(run, "seconds")
    time = [] if seconds is None else [Metric(f"{suite}, time to success", seconds, "s", found[ALL].k)]
    return [of_rate(suite, found[ALL], target), *time, *(parts if len(parts) > 1 else [])]
