"""`vla calibrate verifier`: rollouts on seeds that no fit has seen, and from them score -> p_success."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import BadConfig
from vla.runs import Run, to_plain

SEED = 6_000_000
"""Far from the seeds of demonstrations, of verifiers' rollouts and of evaluations."""
_BATCH = 20


@dataclass(frozen=True)
class ScaleConfig:
    """What is rolled out."""

    policy: str
    verifier: str
    suite: str
    candidates: int
    noise_scale: float
    seed: int
    """Of the first episode."""


def calibrate(config: ScaleConfig, episodes: int, out: Path) -> dict[str, Any]:
    """Roll out, fit the scale to every other episode, judge it on the rest, and save it beside the verifier.

    Of each episode one decision counts, drawn at random: all of an episode share its outcome.

    Returns:
        The scale and its measures, as they are saved.

    Raises:
        BadConfig: the verifier is not saved beside the policy.
        BadCalibration: too few episodes of either outcome, or a verifier that ranks backwards.
    """
    from vla import checkpoint
    from vla_calibration.verifier import fit_scale, plot, reliability

    policy, name = Path(config.policy), config.verifier
    if not checkpoint.verifier_file(policy, name).is_file():
        raise BadConfig(f"{policy} has no fitted verifier {name!r}: run `vla fit-verifier --verifier {name}`")
    run = _rollouts(config, episodes, out)
    rows = sorted(run.rows(), key=lambda row: int(row["seed"]))[:episodes]
    scores = np.array([np.random.default_rng(row["seed"]).choice(row["scores"]) for row in rows])
    success = np.array([row["success"] for row in rows], bool)
    fitted, held = np.arange(len(rows)) % 2 == 0, np.arange(len(rows)) % 2 == 1
    scale = fit_scale(scores[fitted], success[fitted])
    result = reliability(scale.p_success(scores[held]), success[held])
    guess = success[fitted].mean()
    plot(result, out / "reliability.png")
    saved = {
        **asdict(scale),
        "calibration_error": result.calibration_error,
        "brier": result.brier,
        "brier_of_the_mean": float(np.square(guess - success[held]).mean()),
        "episodes_fitted": int(fitted.sum()),
        "episodes_held_out": int(held.sum()),
        "candidates": config.candidates,
        "noise_scale": config.noise_scale,
        "seed": config.seed,
    }
    checkpoint.save_scale(policy, name, saved)
    return saved


def _rollouts(config: ScaleConfig, episodes: int, out: Path) -> Run:
    """One row an episode: its outcome, and the score of each candidate that was chosen."""
    from vla import registry
    from vla.pipeline import open_pipeline
    from vla.progress import bar
    from vla.types import Decision
    from vla_sim.rollout import run_episodes

    pipeline = open_pipeline(config.policy, config.verifier, config.candidates, config.noise_scale)
    steps = getattr(pipeline.verifier, "n_action_steps", None) or min(4, pipeline.spec.chunk_size or 4)
    run = Run.create(out, "calibration", config, resume=True)
    done = {row["seed"] for row in run.rows()}
    todo = [seed for seed in range(config.seed, config.seed + episodes) if seed not in done]
    world = registry.suite(config.suite)()
    with bar("episodes") as show:
        for start in range(0, len(todo), _BATCH):
            seeds = todo[start : start + _BATCH]
            chosen: list[list[float]] = [[] for _ in seeds]

            def note(i: int, _: Any, decision: Decision, chosen: list[list[float]] = chosen) -> None:
                if decision.verdict.best is not None:
                    chosen[i].append(float(decision.verdict.scores[decision.verdict.best]))

            rows = run_episodes(pipeline, world, seeds, n_action_steps=steps, batch=_BATCH, on_decision=note)
            for row, scores in zip(rows, chosen, strict=True):
                if scores:  # one that was refused throughout has none
                    run.append(to_plain(asdict(row) | {"scores": scores}))
            show((start + len(seeds)) / len(todo), "")
    return run
