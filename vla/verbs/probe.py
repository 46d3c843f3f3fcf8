"""Change one thing at a time and see what a policy depends on: language, vision, objects.

Every probe runs the same seeds as the unchanged episodes, each into a run folder of its own below --out, and is
compared with them by a paired test. Whether the robot went for the right object first (intention) is counted apart from
whether it finished. The same command goes on after an interruption; `vla report OUT` makes a page of the folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLAIN = "unchanged"


@dataclass(frozen=True)
class Args:
    policy: str
    """A checkpoint folder (runs/x), a bundle folder (bundles/x), or scheme:path."""
    out: Path
    """Folder for one run folder a probe."""
    probes: tuple[str, ...] = ()
    """Which; all that the suite has when empty."""
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 100
    """Episodes of each probe, one seed each."""
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
    """Print one JSON object a probe instead of lines."""


def main(args: Args) -> int:
    """Run what is not there yet, and print a row a probe."""
    import json

    from vla import registry
    from vla.errors import BadConfig
    from vla.runs import to_plain
    from vla_sim.env import Probed

    suite = registry.suite(args.suite)()
    if not isinstance(suite, Probed):
        raise BadConfig(f"suite {args.suite!r} has no probes")
    for probe in args.probes:
        suite.probed(probe)  # an unknown name is an error now, not after the first hour
    probes = args.probes or tuple(suite.probes)
    plain = _run(args, None)
    rows = [_row(PLAIN, plain, plain)] + [_row(probe, _run(args, probe), plain) for probe in probes]
    if args.json:
        for row in rows:
            print(json.dumps(to_plain(row)))
    else:
        _print(rows, suite.probes)
    return 0


def _run(args: Args, probe: str | None) -> Any:
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
        probe=probe,
    )
    name = probe or PLAIN
    return evaluate(name, config, args.out / name, args.workers, thumbnails=3)


def _row(probe: str, run: Any, plain: Any) -> dict[str, Any]:
    from vla.comparison import ALL, compare, intention
    from vla_sim.rollout import REFUSED

    found = compare(run, plain)[ALL]
    refused = sum(row["failure"] == REFUSED for row in run.rows())
    return {
        "probe": probe,
        "success": found.a,
        "intention": intention(run),
        "refused": refused,
        "difference": found.paired,
    }


def _print(rows: list[dict[str, Any]], what: Mapping[str, str]) -> None:
    for row in rows:
        refused = f", {row['refused']} refused" if row["refused"] else ""
        print(f"{row['probe']:21} {row['success']}{refused}  {what.get(row['probe'], '')}".rstrip())
        if row["intention"] is not None:
            print(f"{'':21} {row['intention']} went for the right object first")
        if row["probe"] != PLAIN:
            print(f"{'':21} {row['difference']}")
