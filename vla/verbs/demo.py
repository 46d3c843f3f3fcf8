"""From nothing to a verified policy moving a simulated robot through ROS 2, with the evidence; about 10 minutes.

Collect, train, fit a verifier, evaluate, export, evaluate the export, run it as ROS 2 nodes, report. Interrupted, the
same command goes on with the stage it was in; finished, it starts anew.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.verbs import _stages

VERIFIER = "privileged_advantage"
K = 16
NOISE = 0.6
"""Standard deviation of the noise of candidates that are chosen among: a policy this good wants them close."""
ARMS = ("single", "verified", "onnx", "swapped")
MADE = {"stages.json", "dataset", "policy", *ARMS, "bundle", "ros", "summary.json", "report.html"}
"""Everything the demo writes: a demo that starts anew removes these."""


@dataclass(frozen=True)
class Args:
    out: Path = Path("runs/demo")
    """Folder for everything the demo makes."""
    suite: str = "tabletop"
    """Suite of simulated tasks."""
    demonstrations: int = 1200
    """Scripted episodes to learn from."""
    steps: int = 3000
    """Training steps, at most."""
    train_minutes: float = 4.0
    """Minutes of training, at most."""
    rollouts: int = 500
    """Episodes of the policy's own that the verifier learns from."""
    episodes: int = 400
    """Held-out episodes of each evaluation."""
    seed: int = 1_000_000
    """First seed of the held-out episodes."""
    ros_successes: int = 10
    """Episodes to bring to success through ROS 2; 0 leaves ROS out."""
    workers: int = 2
    """Processes, and threads while training."""
    setup_seconds: float = 0.0
    """What setting up took, to be counted into the total; `make demo` fills it in."""


def main(args: Args) -> int:
    """Run every stage; returns 1 when a stage that must succeed did not."""
    stages: list[tuple[str, Callable[[Args], dict[str, Any]]]] = [
        ("collect", collect),
        ("train", train),
        ("verifier", fit_verifier),
        ("evaluate", _evaluate),
        ("export", _export),
        ("onnx", _evaluate_onnx),
        *([("ros", _ros)] if args.ros_successes else []),
    ]
    record = _Record(args)
    for number, (name, work) in enumerate(stages, 1):
        if name in record.done:
            continue
        print(f"[{number}/{len(stages)}] {name}", flush=True)
        began = time.monotonic()
        found = work(args)
        record.add(name, found, time.monotonic() - began)
    return _finish(args, record)


class _Record:
    """What the finished stages found: the demo's memory across a kill."""

    def __init__(self, args: Args) -> None:
        from vla.runs import revision, to_plain

        self.path = args.out / "stages.json"
        asked = {k: v for k, v in to_plain(args).items() if k != "setup_seconds"}
        self.key = {"args": asked, "revision": revision()}
        self.done: dict[str, dict[str, Any]] = {}
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        if before.get("key") == self.key and not before.get("finished"):
            self.done = before["done"]
            print(f"going on after {', '.join(self.done) or 'an interruption'}")
        else:
            _clear(args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        self._write(False)

    def add(self, stage: str, found: dict[str, Any], seconds: float) -> None:
        """A stage is finished."""
        self.done[stage] = found | {"seconds": round(seconds, 1)}
        self._write(False)

    def finish(self) -> None:
        """All are: the next demo starts anew."""
        self._write(True)

    def found(self) -> dict[str, Any]:
        """What all stages found, as one."""
        return {k: v for stage in self.done.values() for k, v in stage.items() if k != "seconds"}

    def _write(self, finished: bool) -> None:
        from vla.runs import write_json

        write_json(self.path, {"key": self.key, "done": self.done, "finished": finished})


def _clear(out: Path) -> None:
    """Remove what an earlier demo made, and nothing else.

    Raises:
        BadConfig: there is something no demo makes; nothing was removed.
    """
    from vla.errors import BadConfig

    found = list(out.iterdir()) if out.exists() else []
    foreign = sorted(path.name for path in found if path.name not in MADE and path.suffix != ".part")
    if foreign:
        raise BadConfig(f"{out} holds {', '.join(foreign[:5])}, which no demo made; choose another folder for --out")
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def collect(args: Args) -> dict[str, Any]:
    """Demonstrations into `out/dataset`."""
    from vla.progress import bar
    from vla_sim.collect import CollectConfig
    from vla_sim.collect import collect as demonstrate

    config = CollectConfig(args.suite, args.demonstrations)
    with bar("demonstrations") as show:
        demonstrate(
            config, args.out / "dataset", args.workers, lambda done, total: show(done / total, f"{done} episodes")
        )
    return {}


def train(args: Args) -> dict[str, Any]:
    """A policy into `out/policy`."""
    from vla.training import TrainConfig

    cache = _stages.open_demonstrations(args.out / "dataset")
    began = time.monotonic()
    config = TrainConfig(steps=args.steps, minutes=args.train_minutes)
    net = _stages.train("train", config, cache, args.out / "policy", args.workers)
    return {"train_minutes": (time.monotonic() - began) / 60, "parameters": net.n_parameters}


def fit_verifier(args: Args) -> dict[str, Any]:
    """A verifier beside the policy."""
    from vla.fitting import fit_and_save
    from vla.oracle_error import oracle_error
    from vla.policy import load_policy
    from vla.progress import bar
    from vla.runs import write_json
    from vla_sim.branch import BranchConfig, collect_rollouts

    policy = args.out / "policy"
    with bar("rollouts") as show:
        rollouts = collect_rollouts(BranchConfig(str(policy), args.suite, args.rollouts), args.workers, show)
    with bar(VERIFIER) as show:
        measures = fit_and_save(policy, VERIFIER, rollouts, 0, args.workers, show)
    write_json(policy / "oracle_error.json", oracle_error(load_policy(str(policy)), rollouts))
    return {"verifier_fit": measures}


def _evaluate(args: Args) -> dict[str, Any]:
    from vla.comparison import outcomes
    from vla.runs import Run
    from vla.statistics import paired

    single = _arm(args, "single")
    verified = _arm(args, "verified", verifier=VERIFIER, n_candidates=K, noise_scale=NOISE)
    swapped = _arm(args, "swapped", swap_instruction=True)
    a, b = (outcomes(Run.open(args.out / arm)) for arm in ("verified", "single"))
    skills = {k: v for k, v in single.items() if k != "all"}
    return {
        "success": single["all"],
        "success_by_skill": skills,
        "success_verified": verified["all"],
        "verified_by_skill": {k: v for k, v in verified.items() if k != "all"},
        "swapped_instruction": swapped["all"],
        "verified_against_single": dataclasses.asdict(paired(a, b)),
    }


def _export(args: Args) -> dict[str, Any]:
    from vla import registry
    from vla_deploy.export import export
    from vla_deploy.latency import latency
    from vla_deploy.parity import parity

    reference = export(args.out / "policy", args.out / "bundle", VERIFIER, K)
    exported = registry.open_policy(str(args.out / "bundle"))
    suite = registry.suite(args.suite)()
    env = suite.make()
    seen = []
    for seed in range(args.seed, args.seed + 20):
        env.reset(seed)
        seen.append(env.observe())
    same = parity(reference, exported, seen, VERIFIER, K)
    cost = latency(exported, VERIFIER, seen[0], K)
    return {
        "parity_max_abs": same.actions_max_abs,
        "latency_ratio_k16": cost.ratio,
        "decide_k1_ms": cost.single_ms,
        "decide_k16_ms": cost.verified_ms,
    }


def _evaluate_onnx(args: Args) -> dict[str, Any]:
    bundle = args.out / "bundle"
    found = _arm(args, "onnx", policy=bundle, verifier=VERIFIER, n_candidates=K, noise_scale=NOISE)
    return {"success_onnx": found["all"]}


def _ros(args: Args) -> dict[str, Any]:
    from vla_ros.session import SessionConfig, run

    config = SessionConfig(
        policy=str(args.out / "bundle"),
        suite=args.suite,
        verifier=VERIFIER,
        candidates=K,
        noise_scale=NOISE,
        successes=args.ros_successes,
        episodes=2 * args.ros_successes,
        rate_scale=2.0,
        kill_test=True,
    )
    result = run(config, args.out / "ros")
    found = result.to_json()
    return {
        "ros_success": found["success"],
        "ros_overhead_p99_ms": found["overhead_p99_ms"],
        "ros_hold_after_kill_ms": found["hold_after_kill_ms"],
    }


def _arm(args: Args, name: str, policy: Path | None = None, **settings: Any) -> dict[str, Any]:
    """Evaluate one arm into its run folder, with a few videos; rates by skill as JSON values."""
    from vla.comparison import rates
    from vla_sim.evaluate import EvalConfig, film

    config = EvalConfig(
        policy=str(policy or args.out / "policy"), suite=args.suite, episodes=args.episodes, seed=args.seed, **settings
    )
    run = _stages.evaluate(name, config, args.out / name, args.workers)
    if name == "verified":
        film(config, 4, args.out / name / "videos")
    return {group: rate.to_json() for group, rate in rates(run).items()}


def _finish(args: Args, record: _Record) -> int:
    """summary.json, report.html, and the table people read."""
    from rich.console import Console
    from rich.table import Table

    from vla import report
    from vla.runs import machine, revision, write_json

    seconds = args.setup_seconds + sum(stage["seconds"] for stage in record.done.values())
    found = record.found()
    summary = {"minutes": seconds / 60, "setup_minutes": args.setup_seconds / 60, **found}
    summary |= {"revision": revision(), "machine": machine()}
    write_json(args.out / "summary.json", summary)
    runs = [args.out / name for name in (*ARMS, "policy", "ros")]
    title = f"Demo: {args.suite}, verified by {VERIFIER}"
    report.write(args.out / "report.html", [run for run in runs if run.exists()], title, summary)
    table = Table(title=title, show_header=False)
    for label, value in _lines(summary, args):
        table.add_row(label, value)
    console = Console()
    console.print(table)
    console.print(f"report  {args.out / 'report.html'}\nnumbers {args.out / 'summary.json'}", highlight=False)
    record.finish()
    enough = not args.ros_successes or summary["ros_success"]["k"] >= args.ros_successes
    if not enough:
        console.print(f"[red]only {summary['ros_success']['k']} episodes succeeded through ROS 2")
    return 0 if enough else 1


def _lines(summary: dict[str, Any], args: Args) -> list[tuple[str, str]]:
    from vla.statistics import Rate

    def rate(value: dict[str, Any]) -> str:
        return str(Rate(**value))

    lines = [
        ("total", f"{summary['minutes']:.1f} min, of which training {summary['train_minutes']:.1f}"),
        ("parameters", f"{summary['parameters'] / 1e6:.2f} M"),
        ("success, single sample", rate(summary["success"])),
        *((f"  {skill}", rate(value)) for skill, value in summary["success_by_skill"].items()),
        (f"success, verified K={K}", rate(summary["success_verified"])),
        ("success, on ONNX Runtime", rate(summary["success_onnx"])),
        ("success, instruction swapped", rate(summary["swapped_instruction"])),
        ("ONNX against torch", f"{summary['parity_max_abs']:.1e} largest difference"),
        (
            f"decision, K={K} verified",
            f"{summary['latency_ratio_k16']:.2f} times K=1 ({summary['decide_k1_ms']:.1f} ms)",
        ),
    ]
    if args.ros_successes:
        lines += [
            ("success through ROS 2", rate(summary["ros_success"])),
            ("ROS 2 overhead, p99", f"{summary['ros_overhead_p99_ms']:.1f} ms"),
            ("policy killed to HOLD", f"{summary['ros_hold_after_kill_ms']:.0f} ms"),
        ]
    return lines
