"""Run a bundle as ROS 2 nodes: simulated robot, policy and safety in processes of their own, until it succeeded.

Prints a line an episode. The run folder gets a row an episode, a log a node, and ros.json: success, the latency the
ROS path adds to a decision, and with --kill-test how soon the safety node holds after the policy is killed.
Ctrl-C ends all nodes, the robot holding. Exit code 1 when fewer than --episodes succeeded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Args:
    bundle: str
    """The bundle folder, e.g. runs/demo/bundle; a checkpoint folder or zoo:NAME does as well."""
    suite: str = "tabletop"
    """Suite of simulated tasks; `vla list` shows them."""
    episodes: int = 10
    """Episodes to bring to success; twice as many are tried at most."""
    verifier: str | None = None
    """Verifier that chooses among the candidates; without one the first is taken."""
    candidates: int | None = None
    """Action chunks sampled for each observation; None is 16 with a verifier, 1 without."""
    noise_scale: float = 1.0
    """Standard deviation of the candidates' noise."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    rate_scale: float = 1.0
    """How many times faster than real time the simulated robot lives."""
    seed: int = 2_000_000
    """Of the first episode; each later one's is the next."""
    kill_test: bool = False
    """At the end kill -9 the policy in the middle of a chunk."""
    calibration: Path | None = None
    """The robot's calibration file; the policy node holds it to the bundle's spec. A simulator needs none."""
    out: Path | None = None
    """The run folder to write; runs/ros-DATE-TIME unless told."""


def main(args: Args) -> int:
    """Run, and print what was measured."""
    from vla.pipeline import how_many
    from vla_ros.session import SessionConfig, run

    config = SessionConfig(
        policy=args.bundle,
        suite=args.suite,
        verifier=args.verifier,
        candidates=how_many(args.candidates, args.verifier),
        noise_scale=args.noise_scale,
        n_action_steps=args.n_action_steps,
        rate_scale=args.rate_scale,
        successes=args.episodes,
        episodes=2 * args.episodes,
        seed=args.seed,
        kill_test=args.kill_test,
        calibration=str(args.calibration.absolute()) if args.calibration else "",
    )
    folder = args.out or Path("runs") / f"ros-{datetime.now():%Y%m%d-%H%M%S}"
    print("starting the robot, the policy and the safety node", flush=True)
    result = run(config, folder, _show)
    print(f"success {result.success}, {result.held_steps} of {result.steps} steps held")
    measured = result.to_json()
    if result.overhead_ms:
        print(
            f"decide {measured['decide_p50_ms']:.1f} ms (p50), ROS adds {measured['overhead_p50_ms']:.1f} ms (p50), "
            f"{measured['overhead_p99_ms']:.1f} ms (p99), n={len(result.overhead_ms)}"
        )
    if result.hold_after_kill_ms is not None:
        print(f"HOLD {result.hold_after_kill_ms:.0f} ms after kill -9 of the policy")
    print(f"rows, logs and ros.json: {folder}")
    return 0 if result.success.k >= args.episodes else 1


def _show(row: dict[str, Any], successes: int, tried: int) -> None:
    ended = "success" if row["success"] else row["failure"]
    print(f"{successes:3} of {tried:3}  {row['instruction']:36} {ended}, {row['steps']} steps", flush=True)
