"""What does thinking time cost? Success with the world going on while the policy thinks, over several control rates.

The same latency is more control periods the faster the robot runs: ceil(latency x rate). What one period does to the
world stays as it was at the rate the policy was trained for, so a rate of 20 Hz is a robot twice as fast as at 10. The
frequency-averaged score is the mean success over the rates, on the same seeds. The same command goes on after an
interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Args:
    policy: str
    """A checkpoint folder (runs/x), a bundle folder (bundles/x), or scheme:path."""
    out: Path
    """Folder for one run folder a rate."""
    latency_ms: float
    """From an observation to the decision on it; `vla export` prints what a bundle takes on its machine."""
    rates: tuple[float, ...] = (5.0, 10.0, 20.0, 30.0)
    """Control rates [Hz]."""
    meanwhile: Literal["hold", "continue"] = "hold"
    """While the policy thinks: hold, as the ROS 2 nodes do, or continue with the chunk before."""
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 100
    """Episodes at each rate, one seed each."""
    seed: int = 1_000_000
    """First seed."""
    verifier: str | None = None
    """Verifier that chooses among the candidates; without one the first is taken."""
    candidates: int | None = None
    """Action chunks sampled for each observation; None is 16 with a verifier, 1 without."""
    noise_scale: float = 1.0
    """Standard deviation of the sampling noise; 0 makes the policy deterministic."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    workers: int = 2
    """Processes."""
    json: bool = False
    """Print one JSON object instead of lines."""


def main(args: Args) -> int:
    """Run what is not there yet; print a line a rate, and the score."""
    import json

    from vla.comparison import ALL, MEASURES, mean_of_successes, outcomes, rates
    from vla.errors import BadConfig
    from vla.runs import to_plain
    from vla.statistics import frequency_averaged
    from vla_sim.evaluate import delay_periods

    if not args.rates or len(set(args.rates)) < len(args.rates):
        raise BadConfig(f"--rates needs one rate or more, each once, got {args.rates}")
    delays = {rate: delay_periods(args.latency_ms, rate) for rate in args.rates}
    # The fastest first: where the policy's chunks are too short for the latency, that is where it shows.
    found_at = {rate: _run(args, rate) for rate in sorted(args.rates, reverse=True)}
    runs = {rate: found_at[rate] for rate in args.rates}
    score = frequency_averaged([outcomes(run).tolist() for run in runs.values()])
    found = [
        {
            "control_rate_hz": rate,
            "delay_periods": delays[rate],
            "success": rates(run)[ALL],
            **{name: mean_of_successes(run, name) for name in MEASURES},
        }
        for rate, run in runs.items()
    ]
    if args.json:
        print(json.dumps(to_plain({"rates": found, "frequency_averaged_score": score})))
        return 0
    for row in found:
        seconds = "" if row["seconds"] is None else f", {row['seconds']:.2f} s to success at the suite's rate"
        print(f"{row['control_rate_hz']:5g} Hz  {row['delay_periods']:2d} periods late  {row['success']}{seconds}")
    print(
        f"frequency-averaged score  {100 * score.mean:.1f}% [{100 * score.low:.1f}, {100 * score.high:.1f}] n={score.n}"
    )
    return 0


def _run(args: Args, rate: float) -> Any:
    from vla.pipeline import how_many
    from vla.verbs._stages import evaluate
    from vla_sim.evaluate import EvalConfig

    config = EvalConfig(
        policy=args.policy,
        suite=args.suite,
        episodes=args.episodes,
        seed=args.seed,
        verifier=args.verifier,
        n_candidates=how_many(args.candidates, args.verifier),
        noise_scale=args.noise_scale,
        n_action_steps=args.n_action_steps,
        latency_ms=args.latency_ms,
        control_rate_hz=rate,
        meanwhile=args.meanwhile,
    )
    return evaluate(f"{rate:g} Hz", config, args.out / f"{rate:g}hz", args.workers)
