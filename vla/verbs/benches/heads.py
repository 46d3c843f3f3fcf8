"""Every head on the same demonstrations, backbone and number of steps: size, success, and what a decision costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vla import registry
from vla.comparison import rates
from vla.verbs import _stages, demo
from vla.verbs.bench import Args, Metric, of_rate

STEPS = 2500
EPISODES = 200
SEED = 8_000_000


def measure(args: Args) -> list[Metric]:
    """Train and evaluate the heads that are not there yet; four rows each."""
    from vla.policy import PolicyConfig
    from vla.training import TrainConfig

    trained = demo.Args(out=args.out / "demo", workers=args.workers)
    demo.collect(trained)
    rows = []
    for head in registry.names("heads"):
        folder = args.out / "heads" / head
        if not (folder / "policy.safetensors").exists():
            cache = _stages.open_demonstrations(trained.out / "dataset")
            config = TrainConfig(PolicyConfig(head=head), steps=STEPS)
            _stages.train(head, config, cache, folder, args.workers)
        rows += _rows(head, folder, args.workers)
    return rows


def _rows(head: str, folder: Path, workers: int) -> list[Metric]:
    from vla.policy import load_policy
    from vla_sim.evaluate import EvalConfig

    config = EvalConfig(policy=str(folder), episodes=EPISODES, seed=SEED)
    rate = rates(_stages.evaluate(head, config, folder / "eval", workers))["all"]
    opened = load_policy(str(folder))
    return [
        Metric(f"{head}, parameters", opened.net.n_parameters, ""),
        of_rate(f"{head}, success", rate),
        Metric(f"{head}, decision K=1", _decision_ms(opened, 1), "ms"),
        Metric(f"{head}, decision K=16", _decision_ms(opened, 16), "ms"),
    ]


def _decision_ms(opened: Any, candidates: int) -> float:
    """Median time of an unverified decision in torch, on one thread."""
    import numpy as np

    from vla.pipeline import FirstCandidate, Pipeline
    from vla.threads import computing_on

    pipeline = Pipeline(opened, FirstCandidate(), candidates)
    observation = opened.spec.fake_observation(opened.net.tokenizer.words[0])
    rng, took = np.random.default_rng(0), []
    with computing_on(1):
        for _ in range(30):
            start = time.perf_counter()
            pipeline.decide(observation, rng)
            took.append(1e3 * (time.perf_counter() - start))
    return float(np.median(took[5:]))
