"""Evaluate a policy in simulation: success per skill, with intervals.

Every episode is a row in the run folder's episodes.jsonl. Arms that are to be compared with `vla compare` need the
same --seed and --episodes. After an interruption --resume goes on. Before it runs it says which gain so many episodes
can show; with --against RUN it stops as soon as the difference from that run is decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
    candidates: int | None = None
    """Action chunks sampled for each observation; None is 16 with a verifier, 1 without."""
    noise_scale: float = 1.0
    """Standard deviation of the sampling noise; 0 makes the policy deterministic."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    swap_instruction: bool = False
    """Tell the policy to do another task than the one that is judged: success must fall to chance."""
    probe: str | None = None
    """Change one thing in every episode, e.g. vision_light; `vla probe` runs all there are."""
    latency_ms: float | None = None
    """Let the world go on for so long while the policy thinks."""
    control_rate_hz: float | None = None
    """Count the latency in periods of this rate instead of the suite's; `vla latency` runs several."""
    meanwhile: Literal["hold", "continue"] | None = None
    """While the policy thinks: hold (None too), or continue with the chunk before."""
    against: str | None = None
    """A run folder with the same seeds: stop as soon as the difference from it is decided."""
    alpha: float | None = None
    """With --against: the chance of claiming a difference where there is none; None is 0.05."""
    thumbnails: int = 6
    """Failed episodes to draw for each phase in which they failed, into the run folder's failures/."""
    videos: int = 0
    """Also film the first n episodes into the run folder's videos/."""
    workers: int = 2
    """Processes."""
    cluster: str | None = None
    """Run them on a Ray cluster: its head's host:port, auto, or local; all machines must see the same paths."""
    resume: bool = False
    """Go on with the run that is there."""


def main(args: Args) -> int:
    """Evaluate and print one line a skill."""
    from vla.comparison import MEASURES, compare, intention, mean_of_successes, rates
    from vla.errors import UnknownInstruction
    from vla.pipeline import how_many
    from vla.runs import Run
    from vla.verbs._stages import evaluate
    from vla_sim.evaluate import EvalConfig, film
    from vla_sim.rollout import REFUSED

    config = EvalConfig(
        policy=args.policy,
        suite=args.suite,
        episodes=args.episodes,
        seed=args.seed,
        verifier=args.verifier,
        n_candidates=how_many(args.candidates, args.verifier),
        noise_scale=args.noise_scale,
        n_action_steps=args.n_action_steps,
        swap_instruction=args.swap_instruction,
        probe=args.probe,
        latency_ms=args.latency_ms,
        control_rate_hz=args.control_rate_hz,
        meanwhile=args.meanwhile,
        against=args.against,
        alpha=args.alpha,
    )
    print(detectable(args.episodes, args.against))
    settings = {"resume": args.resume, "thumbnails": args.thumbnails, "cluster": args.cluster}
    run = evaluate("episodes", config, args.out, args.workers, **settings)
    rows = run.rows()
    if refused := [row["instruction"] for row in rows if row["failure"] == REFUSED]:
        told = f"{len(refused)} of {len(rows)} episodes refused, for words it was never trained on: {refused[0]!r}"
        if len(refused) == len(rows) and args.probe is None and not args.swap_instruction:
            raise UnknownInstruction(f"{args.policy} is not for {args.suite}: {told}")
        print(told)
    decisions, holds = (sum(row.get(count, 0) for row in rows) for count in ("decisions", "holds"))
    if holds:
        print(f"in {holds} of {decisions} decisions no candidate was taken: the robot held")
    if args.videos:
        film(config, args.videos, args.out / "videos")
    found = rates(run)
    for skill, rate in [*sorted((s, r) for s, r in found.items() if s != "all"), ("all", found["all"])]:
        print(f"{skill:8} {rate}")
    if (right := intention(run)) is not None:
        print(f"went for the right object first: {right}")
    means = {name: mean_of_successes(run, key) for key, name in MEASURES.items()}
    if known := [f"{name} {mean:.3g}" for name, mean in means.items() if mean is not None]:
        print(f"mean where it succeeded: {', '.join(known)}")
    if args.against is not None:
        print(f"against {args.against}: {compare(run, Run.open(Path(args.against)))['all'].paired}")
    print(f"rows: {args.out / 'episodes.jsonl'}")
    return 0


def detectable(episodes: int, against: str | None) -> str:
    """Which gain so many paired episodes can show, over a run or over a few rates; for before they are run."""
    from vla.comparison import rates
    from vla.runs import Run
    from vla.statistics import smallest_detectable

    over = {f"{100 * p:.0f}%": p for p in (0.5, 0.8, 0.95)}
    if against is not None:
        rate = rates(Run.open(Path(against)))["all"].rate
        over = {f"{against}'s {100 * rate:.0f}%": rate}
    gains = {name: smallest_detectable(episodes, p) for name, p in over.items()}
    said = [f"{100 * gain:.1f} points over {name}" if gain else f"nothing over {name}" for name, gain in gains.items()]
    early = "" if against is None else "; stopping early finds them half as often"
    return f"{episodes} paired episodes find, 4 times in 5 at p < 0.05: {', '.join(said)}{early}"
