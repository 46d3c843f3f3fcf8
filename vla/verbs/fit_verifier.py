"""Fit a verifier to a policy, on the policy's own rollouts in simulation.

The fitted verifier is saved beside the policy; `vla eval --verifier NAME` and `vla export --verifier NAME` find it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    policy: Path
    """Checkpoint folder of the policy."""
    verifier: str = "privileged_advantage"
    """`vla list` shows the verifiers."""
    suite: str = "tabletop"
    """Suite of simulated tasks to roll out in."""
    episodes: int = 500
    """Episodes to roll out."""
    n_action_steps: int = 4
    """Actions of a chunk that will be executed before the next decision."""
    noise_scale: float = 1.0
    """Standard deviation of the candidates' noise, as in `vla eval`: above 1 where a policy's are all alike."""
    seed: int = 3_000_000
    """First seed of the rollouts; also seeds the fit."""
    workers: int = 2
    """Processes for the rollouts, threads for the fit."""


def main(args: Args) -> int:
    """Roll out, fit, save, and print the held-out measures."""
    from vla import checkpoint, registry, zoo
    from vla.errors import BadConfig
    from vla.fitting import fit_and_save
    from vla.progress import bar
    from vla_sim.branch import BranchConfig, collect_rollouts

    if str(args.policy).startswith("zoo:"):
        raise BadConfig(
            f"{args.policy} comes with the package, which is not written to: copy {zoo.folder(str(args.policy))} to a "
            "folder of your own, and name that"
        )
    config = BranchConfig(str(args.policy), args.suite, args.episodes, args.seed, args.n_action_steps, args.noise_scale)
    # What cannot be fitted, or has nowhere to go, is an error now and not after the rollouts.
    registry.module("verifiers", args.verifier)
    checkpoint.load(args.policy)
    with bar("rollouts") as show:
        rollouts = collect_rollouts(config, args.workers, show)
    with bar(args.verifier) as show:
        measures = fit_and_save(args.policy, args.verifier, rollouts, args.seed, args.workers, show)
    for name, value in measures.items():
        print(f"{name:>18}  {value:.3f}" if isinstance(value, float) else f"{name:>18}  {value}")
    return 0
