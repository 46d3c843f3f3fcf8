"""Demonstrations by the scripted expert, as a LeRobotDataset.

Noise is *executed* and the expert's own wish is *recorded*: the data holds states beside the expert's path together
with the way back, which is what a policy needs when it errs. Only successful episodes are kept. Seed by seed the
result is the same however many processes work on it and however often it was interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla import registry
from vla.errors import BadConfig, BadDataset
from vla.runs import alone, revision, to_plain, versions, write_json
from vla.types import Command, Floats, Mode
from vla_sim.env import Env
from vla_sim.lerobot_writer import Episode, LeRobotWriter
from vla_sim.workers import check_seeds, check_workers, run_jobs

_SHARD, _SHARD_FRAMES = 100, 5000
"""Episodes, or frames where those are reached first, written at a time: what a kill can cost, some two minutes."""
_TRIES, _AT_LEAST = 20, 4
"""A task that was solved fewer times in its first so many tries is given up: the rest would take for ever."""
_IN_TRANSIT = 0.7
"""An expert that moves at this fraction of full speed has room around it, and may be bumped."""
_NOISE_STREAM = 3
_NOISE, _BUMP_RATE = 0.25, 0.08


@dataclass(frozen=True)
class CollectConfig:
    """What decides a dataset's content."""

    suite: str = "tabletop"
    episodes: int = 1000
    demos: int | None = None
    """Episodes of each task: then tasks take turns by seed, and this decides instead of `episodes`."""
    seed: int = 0
    """First seed tried; one seed an episode."""
    noise: float = _NOISE
    """Standard deviation of the noise on each move, as a fraction of the move."""
    bump_rate: float = _BUMP_RATE
    """Chance a step that the arm is thrown off course for 1 to 3 steps."""

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.episodes)
        if self.demos is not None and self.demos < 1:
            raise BadConfig(f"demos must be at least 1, got {self.demos}")
        if not (0 <= self.noise <= 1 and 0 <= self.bump_rate <= 1):
            raise BadConfig(f"noise and bump_rate must be within 0 and 1, got {self.noise} and {self.bump_rate}")


@dataclass(frozen=True)
class Collected:
    """How a collection went."""

    episodes: int
    frames: int
    tried: int
    """Seeds used up, the failures among them dropped."""


class _Wanted:
    """Which seeds are still worth trying: no task gets more than its share, and a hopeless one is given up."""

    def __init__(self, config: CollectConfig, tasks: Sequence[str], report: Callable[[str], None]) -> None:
        self._config, self._tasks, self._report = config, tasks, report
        self._kept, self._tried = Counter[str](), Counter[str]()

    @property
    def total(self) -> int:
        """Episodes to end up with."""
        each = self._config.demos
        if each is None:
            return self._config.episodes
        return sum(each if self._hopeful(task) else self._kept[task] for task in self._tasks)

    def wants(self, seed: int) -> bool:
        """An episode of this seed would be kept."""
        task, each = _task(self._config, self._tasks, seed), self._config.demos
        return task is None or each is None or (self._kept[task] < each and self._hopeful(task))

    def count(self, seed: int, success: bool) -> None:
        """What became of a seed. Seeds come in order."""
        if (task := _task(self._config, self._tasks, seed)) is not None and self.wants(seed):
            self._tried[task] += 1
            self._kept[task] += success
            if not self._hopeful(task):
                kept = f"{self._kept[task] or 'none'} of {_TRIES} tries"
                self._report(f"the expert solved {task} in {kept}: going on without more of it")

    def _hopeful(self, task: str) -> bool:
        return self._kept[task] >= _AT_LEAST or self._tried[task] < _TRIES


def _task(config: CollectConfig, tasks: Sequence[str], seed: int) -> str | None:
    """The task of a seed; None where the suite decides."""
    return None if config.demos is None else tasks[seed % len(tasks)]


def collect(
    config: CollectConfig,
    out: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[str], None] = print,
) -> Collected:
    """Fill a dataset folder with as many episodes as are asked for; goes on where an interrupted call left off.

    What is kept depends on the config alone, not on how many processes work or how often it was interrupted.

    Args:
        config: what to collect.
        out: the dataset folder.
        workers: processes to simulate in.
        progress: called with episodes on hand and episodes in all.
        report: told about worker processes that crash, and tasks that are left out.

    Raises:
        BadConfig: the folder was collected with another config; names the fields. Or another process is at it.
        Missing: the disk is full; what was saved is intact.
    """
    check_workers(workers)
    suite = registry.suite(config.suite)()
    with alone(out / "meta"):  # not `out` itself: who builds the training cache holds that
        try:
            writer = LeRobotWriter(out, suite.spec)
            if writer.seeds:
                _require_same_config(config, out)
        except BadConfig:
            with contextlib.suppress(OSError):  # in somebody else's folder, the one that `alone` made
                (out / "meta").rmdir()
            raise
        if not writer.seeds:  # before the first shard: killed right after it, nothing would say how it was collected
            _describe(config, out, writer, 0)
        next_seed = writer.seeds[-1] + 1 if writer.seeds else config.seed
        wanted = _Wanted(config, suite.tasks, report)
        kept = set(writer.seeds)
        for seed in range(config.seed, next_seed):
            wanted.count(seed, seed in kept)
        shard: list[Episode] = []

        def save() -> None:
            episodes = shard.copy()
            shard.clear()  # first: if writing fails, they are not to be tried again on the way out
            writer.add(episodes)
            _describe(config, out, writer, next_seed - config.seed)

        results = _in_order(config, filter(wanted.wants, itertools.count(next_seed)), workers, report)
        try:
            while len(writer.seeds) + len(shard) < wanted.total:
                seed, episode = next(results)
                next_seed = seed + 1
                if episode is not None and wanted.wants(seed):
                    shard.append(episode)
                wanted.count(seed, episode is not None)
                if len(shard) >= _SHARD or sum(len(one.action) for one in shard) >= _SHARD_FRAMES:
                    save()
                if progress is not None:
                    progress(len(writer.seeds) + len(shard), wanted.total)
        finally:
            results.close()
            if shard:
                save()
    return Collected(len(writer.seeds), writer.frames, next_seed - config.seed)


def _in_order(
    config: CollectConfig, seeds: Iterable[int], workers: int, report: Callable[[str], None]
) -> Generator[tuple[int, Episode | None]]:
    """Try seeds in several processes; yield what became of them in the order of the seeds."""
    begun: deque[int] = deque()
    done: dict[int, Episode | None] = {}

    def noted() -> Iterator[int]:
        for seed in seeds:
            begun.append(seed)
            yield seed

    with contextlib.closing(run_jobs(functools.partial(_demonstrator, config), noted(), workers, report)) as jobs:
        for seed, episode in jobs:
            done[seed] = episode
            while begun and begun[0] in done:
                first = begun.popleft()
                yield first, done.pop(first)


def drive(
    env: Env, seed: int, noise: float = _NOISE, bump_rate: float = _BUMP_RATE, task: str | None = None
) -> Iterator[Floats]:
    """The expert does one episode under noise; each of its wishes (A,) is yielded before it is executed, disturbed."""
    env.reset(seed, task)
    rng = np.random.default_rng([seed, _NOISE_STREAM])
    low, high = env.spec.action_low, env.spec.action_high
    # Positions are disturbed; an arm that is also twisted meets obstacles its expert cannot plan around.
    moves = np.array([dim.moves is not None for dim in env.spec.action])
    bump, bump_left = np.zeros(moves.sum()), 0
    while not env.done:
        wish = env.expert()
        yield wish
        executed = wish.copy()
        size = float(np.linalg.norm(wish[moves]))
        executed[moves] += rng.normal(0.0, noise, moves.sum()) * min(size, high[0])
        if bump_left == 0 and rng.random() < bump_rate:
            bump_left, bump = int(rng.integers(1, 4)), rng.normal(0.0, 0.6, moves.sum()) * high[moves]
        if bump_left:
            bump_left -= 1
            if size > _IN_TRANSIT * high[0]:
                executed[moves] += bump
        env.step(Command(np.clip(executed, low, high), 0, 0, Mode.TRACK))


def demonstrate(env: Env, seed: int, config: CollectConfig, task: str | None = None) -> Episode | None:
    """One demonstration, or None when the expert failed under the noise, or had nothing to do."""
    moments, actions = [], []
    for wish in drive(env, seed, config.noise, config.bump_rate, task):
        moments.append(env.snapshot())
        actions.append(wish)
    if not env.success or not actions:
        return None
    observations = []
    for moment in moments:  # drawn only now: most of the time goes into pictures, and a failed episode needs none
        env.restore(moment)
        observations.append(env.observe())
    images = {name: np.stack([o.images[name] for o in observations]) for name in observations[0].images}
    state = np.stack([o.state for o in observations])
    return Episode(seed, env.task, env.instruction, images, state, np.stack(actions))


def _require_same_config(config: CollectConfig, out: Path) -> None:
    file = out / "collection.json"
    if not file.exists():
        return
    try:
        was = dict(json.loads(file.read_text())["config"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadDataset(f"{file} cannot be read ({error}); remove {out} and collect again") from error
    now = to_plain(config)
    free = {"episodes"} | ({"demos"} if config.demos and was.get("demos") else set())  # more of the same
    changed = [f"{k} was {was.get(k)!r}, now {now[k]!r}" for k in now if k not in free and was.get(k) != now[k]]
    if changed:
        raise BadConfig(f"cannot go on collecting into {out} with another config: {'; '.join(changed)}")


def _describe(config: CollectConfig, out: Path, writer: LeRobotWriter, tried: int) -> None:
    about = {"config": config, "revision": revision(), "versions": versions()}
    counts = {"episodes": len(writer.seeds), "frames": writer.frames, "tried": tried, "seeds": writer.seeds}
    write_json(out / "collection.json", about | counts)


def _demonstrator(config: CollectConfig) -> Callable[[int], Episode | None]:
    suite = registry.suite(config.suite)()
    env, tasks = suite.draft(), suite.tasks
    return lambda seed: demonstrate(env, seed, config, _task(config, tasks, seed))
