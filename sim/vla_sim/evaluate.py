"""Success rate of a named policy on a suite: episodes spread over processes, one row each, on disk as they finish."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vla import registry, zoo
from vla.comparison import ALL, by_seed, compare
from vla.errors import BadConfig
from vla.pipeline import Pipeline, open_pipeline
from vla.runs import Run, alone, to_plain
from vla.spec import require_match
from vla_sim.cluster import run_on_cluster
from vla_sim.env import Env, Probed, Suite
from vla_sim.gallery import Gallery
from vla_sim.rollout import EpisodeRow, Meanwhile, run_episodes
from vla_sim.video import Recorder, save_video
from vla_sim.workers import check_seeds, check_workers, run_jobs

_AT_ONCE = 20
"""Episodes a process runs together, and then reports: enough to fill a batch, few enough to lose to a kill."""


@dataclass(frozen=True)
class EvalConfig:
    """What decides the outcome of every episode."""

    policy: str
    """A checkpoint folder, a bundle folder, or `scheme:path`."""
    suite: str = "tabletop"
    episodes: int = 200
    seed: int = 1_000_000
    """First seed; far from those demonstrations are collected with."""
    verifier: str | None = None
    """Name of the verifier that chooses; None takes the first candidate."""
    n_candidates: int = 1
    noise_scale: float = 1.0
    n_action_steps: int = 4
    swap_instruction: bool = False
    probe: str | None = None
    """Change one thing in every episode; one of the suite's `probes`."""
    latency_ms: float | None = None
    """Time from an observation to the decision on it, in which the world goes on; None: it stands still."""
    control_rate_hz: float | None = None
    """Periods a second that the latency is counted in; None: the suite's. What a period does stays the same."""
    meanwhile: Meanwhile | None = None
    """What the robot does while the policy thinks, see `run_episodes`; None holds."""
    against: str | None = None
    """A run over the same seeds: stop as soon as the difference from it is decided."""
    alpha: float | None = None
    """Chance that a difference is claimed where there is none, with `against`; None: 0.05."""

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.episodes)


def evaluate(
    config: EvalConfig,
    out: Path,
    workers: int = 2,
    resume: bool = False,
    thumbnails: int = 0,
    cluster: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    report: Callable[[str], None] = print,
) -> Run:
    """Run the episodes a run folder still lacks.

    With `against` it looks, whenever episodes are done, at all seeds up to the first that is still missing, and stops
    when the interval of `vla.sequential` excludes "no difference". Episodes that fail take longer: looking at those
    that happen to be done already would favour success.

    Args:
        config: what to evaluate.
        out: the run folder, see `vla.runs`.
        workers: processes.
        resume: go on with the run that is there; its config must be this one.
        thumbnails: failed episodes to draw for each phase they failed in, into `out/failures`.
        cluster: a Ray cluster's address for the processes to be on, see `vla_sim.cluster`; None is this machine.
        progress: called with episodes done, successes among them, and episodes in all.
        report: told about worker processes that crash; `out/crashes.log` is, too.

    Raises:
        SpecMismatch: policy and suite disagree; nothing was run or written.
        UnknownName: the suite has no such probe.
        BadConfig: there is a run already and `resume` is False, or it has another config or policy, or another process
            is at it, or `against` did not run these seeds; or settings that cannot work, and nothing was written.
        BadDataset: rows of the run that is there cannot be read.
        Missing: the disk is full, a worker crashed twice on the same episodes, or there is no cluster; the rows so far
            are intact.
    """
    check_workers(workers, here=cluster is None)
    pipeline, suite = _open(config)
    require_match(pipeline.spec, suite.spec, config.policy, f"suite {config.suite!r}")
    _run(config, pipeline, suite, ())  # no episode: settings that cannot be are refused before anything is written
    rival = _rival(config)
    with alone(out):
        run = Run.create(out, "eval", config, resume, _digest(config))
        _run_missing(config, run, rival, workers, thumbnails, cluster, progress, report)
    return run


def _run_missing(
    config: EvalConfig,
    run: Run,
    rival: Run | None,
    workers: int,
    thumbnails: int,
    cluster: str | None,
    progress: Callable[[int, int, int], None] | None,
    report: Callable[[str], None],
) -> None:
    rows = by_seed(run)
    done = set(rows)
    successes = sum(row["success"] for row in rows.values())
    todo = [seed for seed in range(config.seed, config.seed + config.episodes) if seed not in done]
    batches = [tuple(todo[i : i + _AT_ONCE]) for i in range(0, len(todo), _AT_ONCE)]
    if progress is not None:
        progress(len(done), successes, config.episodes)
    if rival is not None and rows and _decided(run, rival):
        return
    setup = functools.partial(_evaluator, config, run.path / "failures", thumbnails)
    crashed = functools.partial(_crashed, run.path, report)
    if cluster is None:
        running = run_jobs(setup, batches, min(workers, len(batches)), crashed)
    else:
        running = run_on_cluster(setup, batches, workers, crashed, cluster)
    with closing(running) as jobs:
        for _, finished in jobs:
            for row in finished:
                run.append(to_plain(row))
                done.add(row.seed)
                successes += row.success
            if progress is not None:
                progress(len(done), successes, config.episodes)
            if rival is not None and _decided(run, rival):
                break


def film(config: EvalConfig, n: int, folder: Path) -> list[EpisodeRow]:
    """Run the first n episodes once more, and write one video each; its name says how it ended."""
    pipeline, suite = _open(config)
    seeds = range(config.seed, config.seed + min(n, config.episodes))
    recorder = Recorder(range(len(seeds)), suite.film_camera, size=320, stage=suite.stage())
    rows = _run(config, pipeline, suite, seeds, on_step=recorder.frame, on_end=recorder.frame)
    for index, row in enumerate(rows):
        name = "_".join([str(row.seed), *row.instruction.split(), "success" if row.success else row.failure])
        save_video(folder / f"{name}.mp4", recorder.frames[index], suite.spec.control_rate_hz)
    return rows


def _evaluator(config: EvalConfig, folder: Path, thumbnails: int) -> Callable[[tuple[int, ...]], list[EpisodeRow]]:
    pipeline, suite = _open(config)

    def run(seeds: tuple[int, ...]) -> list[EpisodeRow]:
        if not thumbnails:
            return _run(config, pipeline, suite, seeds)
        gallery = Gallery(folder, seeds, suite.film_camera, thumbnails)
        return _run(config, pipeline, suite, seeds, on_step=gallery.step, on_end=gallery.end)

    return run


def _open(config: EvalConfig) -> tuple[Pipeline, Suite]:
    suite: Suite = registry.suite(config.suite)()
    if config.probe is not None:
        if not isinstance(suite, Probed):
            raise BadConfig(f"suite {config.suite!r} has no probes; leave probe={config.probe!r} out")
        suite = suite.probed(config.probe)
    return open_pipeline(config.policy, config.verifier, config.n_candidates, config.noise_scale), suite


def _run(
    config: EvalConfig,
    pipeline: Pipeline,
    suite: Suite,
    seeds: Sequence[int],
    on_step: Callable[[int, Env], None] | None = None,
    on_end: Callable[[int, Env], None] | None = None,
) -> list[EpisodeRow]:
    return run_episodes(
        pipeline,
        suite,
        seeds,
        n_action_steps=config.n_action_steps,
        batch=_AT_ONCE,
        swap_instruction=config.swap_instruction,
        delay=delay_periods(
            config.latency_ms or 0.0,
            suite.spec.control_rate_hz if config.control_rate_hz is None else config.control_rate_hz,
        ),
        meanwhile=config.meanwhile or "hold",
        may_refuse=True,
        on_step=on_step,
        on_end=on_end,
    )


def delay_periods(latency_ms: float, control_rate_hz: float) -> int:
    """Whole control periods that a latency costs: an action is due at the next one. Raises BadConfig."""
    if not (0 <= latency_ms < math.inf and 0 < control_rate_hz < math.inf):
        raise BadConfig(f"a latency of {latency_ms} ms at {control_rate_hz} Hz cannot be: give it in ms, 0 or more")
    return math.ceil(latency_ms * control_rate_hz / 1000 - 1e-9)


def _digest(config: EvalConfig) -> str:
    """SHA-256 of the weights or graphs that are evaluated and of what scales them; "" where the policy is no folder."""
    folder = zoo.folder(config.policy)
    names = ["policy.safetensors", "model.safetensors", "encode.onnx", "propose.onnx"]
    if config.verifier:
        beside = f"verifiers/{Path(config.verifier).name}"
        names += [f"{beside}.safetensors", f"{beside}.json", "verify.onnx"]
    found = [folder / name for name in names if (folder / name).is_file()]
    found += sorted(folder.glob("policy_*processor*"))  # LeRobot's: its scales and limits
    hasher = hashlib.sha256()
    for path in found:
        hasher.update(path.read_bytes())
    return hasher.hexdigest() if found else ""


def _rival(config: EvalConfig) -> Run | None:
    """The run to stop against, checked. Raises BadConfig."""
    if config.against is None:
        if config.alpha is not None:
            raise BadConfig("alpha is the error rate of stopping early; say against which run")
        return None
    if config.alpha is not None and not 0 < config.alpha < 1:
        raise BadConfig(f"alpha must be between 0 and 1, got {config.alpha}")
    rival = Run.open(Path(config.against))
    if rival.config.get("suite") != config.suite:
        raise BadConfig(f"{rival.path} ran suite {rival.config.get('suite')!r}, this is {config.suite!r}")
    lacking = set(range(config.seed, config.seed + config.episodes)) - by_seed(rival).keys()
    if lacking:
        raise BadConfig(
            f"{rival.path} lacks {len(lacking)} of the {config.episodes} seeds, {min(lacking)} for one: "
            "use its --seed and no more than its --episodes"
        )
    return rival


def _decided(run: Run, rival: Run) -> bool:
    """The seeds from the first on without a gap already tell the two apart."""
    if run.config["seed"] not in by_seed(run):
        return False
    found = compare(run, rival)[ALL].paired
    return not found.low <= 0 <= found.high


def _crashed(out: Path, report: Callable[[str], None], line: str) -> None:
    report(line)
    with (out / "crashes.log").open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n")
