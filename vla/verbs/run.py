"""Run a policy in simulation in this process: a line an episode, and one for each decision it refused.

The quickest look at what a policy does: nothing is written. `vla eval` measures, `vla up` goes through ROS 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    policy: str
    """A checkpoint folder (runs/x), a bundle folder (bundles/x), or scheme:path."""
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 5
    """Episodes to run."""
    verifier: str | None = None
    """Verifier that chooses among the candidates; without one the first is taken."""
    candidates: int | None = None
    """Action chunks sampled for each observation; None is 16 with a verifier, 1 without."""
    noise_scale: float = 1.0
    """Standard deviation of the candidates' noise."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    seed: int = 2_000_000
    """Of the first episode; each later one's is the next."""
    calibration: Path | None = None
    """The robot's calibration file, held to the policy's spec before anything moves; a simulator needs none."""


def main(args: Args) -> int:
    """Run, one line an episode."""
    from vla import registry
    from vla.pipeline import how_many, open_pipeline
    from vla.types import Decision
    from vla_sim.env import Env
    from vla_sim.rollout import run_episodes
    from vla_sim.workers import check_seeds

    def refused(_: int, env: Env, decision: Decision) -> None:
        if decision.chunk is None:
            print(f"  step {env.steps}: HOLD, {decision.verdict.reason}", flush=True)

    check_seeds(args.seed, args.episodes)
    pipeline = open_pipeline(args.policy, args.verifier, how_many(args.candidates, args.verifier), args.noise_scale)
    if args.calibration is not None:
        from vla_calibration.drift import require_calibrated

        for warning in require_calibrated(args.calibration, pipeline.spec):
            print(f"warning: {warning}")
    suite = registry.suite(args.suite)()
    for seed in range(args.seed, args.seed + args.episodes):
        (row,) = run_episodes(pipeline, suite, [seed], n_action_steps=args.n_action_steps, batch=1, on_decision=refused)
        ended = "success" if row.success else row.failure
        print(f"{row.instruction:36} {ended}, {row.steps} steps, {row.decisions} decisions", flush=True)
    return 0
