"""Evaluate a policy in simulation: success per skill, with intervals.

Every episode is a row in the run folder's episodes.jsonl. Arms that are to be compared with `vla compare` need the
same --seed and --episodes. After an interruption --resume goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    policy: str
    """A checkpoint folder (runs/x), a bundle folder (bundles/x), or scheme:path."""
    out: Path
    """The run folder to write."""
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 200
    """Episodes, one seed each."""
    seed: int = 1_000_000
    """First seed; far from those demonstrations are collected with."""
    verifier: str | None = None
    """Verifier that chooses among the candidates; without one the first is taken."""
    candidates: int = 1
    """Action chunks sampled for each observation."""
    noise_scale: float = 1.0
    """Standard deviation of the sampling noise; 0 makes the policy deterministic."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    swap_instruction: bool = False
    """Tell the policy to do another task than the one that is judged: success must fall to chance."""
    videos: int = 0
    """Also film the first n episodes into the run folder's videos/."""
    workers: int = 2
    """Processes."""
    resume: bool = False
    """Go on with the run that is there."""


def main(args: Args) -> int:
    """Evaluate and print one line a skill."""
    from vla.comparison import rates
    from vla.progress import bar
    from vla.statistics import wilson
    from vla_sim.evaluate import EvalConfig, evaluate, film

    config = EvalConfig(
        policy=args.policy,
        suite=args.suite,
        episodes=args.episodes,
        seed=args.seed,
        verifier=args.verifier,
        n_candidates=args.candidates,
        noise_scale=args.noise_scale,
        n_action_steps=args.n_action_steps,
        swap_instruction=args.swap_instruction,
    )
    with bar("episodes") as show:
        run = evaluate(
            config,
            args.out,
            args.workers,
            args.resume,
            progress=lambda done, successes, total: show(done / total, str(wilson(successes, done))),
        )
    if args.videos:
        film(config, args.videos, args.out / "videos")
    found = rates(run)
    for skill, rate in [*sorted((s, r) for s, r in found.items() if s != "all"), ("all", found["all"])]:
        print(f"{skill:8} {rate}")
    print(f"rows: {args.out / 'episodes.jsonl'}")
    return 0
