"""How fast LIBERO is evaluated: the same task, image size and chunk through LeRobot's environment and through ours.

Without a policy the environments alone: random actions in one process. LeRobot's environment draws at every step and
builds the scene again at every reset; ours draws when a chunk is due and resets within milliseconds. With --policy that
policy through LeRobot's evaluation loop and through ours, episode by episode in turn, on the same official initial
states: success and episodes an hour, the policy's own time in both. It goes on after an interruption.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vla.spec import Camera
from vla.verbs.bench import Args, Metric, gain, share

SUITE, PX, CHUNK = "libero_object", 128, 8
STEPS, REPEATS = 120, 3
SEED = 1_000_000
EPISODES = 50
"""With a policy, each through both: every official initial state of the task."""


def measure(args: Args) -> list[Metric]:
    """Environments alone, or with a policy."""
    return _environments() if args.policy is None else _with_policy(args, args.policy)


def _environments() -> list[Metric]:
    """Episodes an hour of the three, interleaved, and their ratios: medians of the repeats."""
    from vla_sim.lerobot_libero import lerobot_env

    rng = np.random.default_rng(0)
    actions = rng.normal(0.0, 0.3, (STEPS, 7)).clip(-1, 1).astype(np.float32)
    with contextlib.closing(lerobot_env(SUITE, 0, PX, PX)) as theirs:
        runs: dict[str, Callable[[int], None]] = {
            "LeRobot": _lerobot(theirs, actions),
            "ours, full meshes": _ours("full", actions),
            "ours, decimated": _ours("decimated", actions),
        }
        took: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run(0)  # scenes are built and contexts made
        for repeat in range(REPEATS):
            for name, run in runs.items():
                start = time.perf_counter()
                run(repeat + 1)
                took[name].append(time.perf_counter() - start)
    hourly = {name: 3600 / float(np.median(seconds)) for name, seconds in took.items()}
    rows = [Metric(f"{name}, episodes of {STEPS} steps", rate, "per hour", REPEATS) for name, rate in hourly.items()]
    ratio = {name: rate / hourly["LeRobot"] for name, rate in hourly.items()}
    rows.append(Metric("full meshes to LeRobot", ratio["ours, full meshes"], "times", REPEATS, target=">= 5"))
    rows.append(Metric("decimated to LeRobot", ratio["ours, decimated"], "times", REPEATS, target=">= 15"))
    return rows


def _ours(visual: str, actions: Any) -> Callable[[int], None]:
    from vla import registry
    from vla.types import Command, Mode

    suite = registry.suite(f"{SUITE}:{visual}")()
    suite.spec = replace(suite.spec, cameras=(Camera("agent", PX, PX), Camera("wrist", PX, PX)))
    env = suite.make()
    unit = suite.spec.action_high

    def episode(number: int) -> None:
        env.reset(SEED + number * len(suite.tasks), suite.tasks[0])
        for step, action in enumerate(actions):
            if step % CHUNK == 0:
                env.observe()
            env.step(Command(action * unit, 0, 0, Mode.TRACK))

    return episode


def _lerobot(env: Any, actions: Any) -> Callable[[int], None]:
    def episode(number: int) -> None:
        env.reset(seed=number)
        for action in actions:
            env.step(action)

    return episode


@dataclass(frozen=True)
class Config:
    """What decides the episodes with a policy."""

    policy: str
    suite: str = SUITE
    task: int = 0
    seed: int = SEED
    n_action_steps: int = CHUNK


@dataclass(frozen=True)
class Row:
    """One initial state through both."""

    seed: int
    success: bool
    """Through ours."""
    success_lerobot: bool
    seconds: float
    """Of wall time, reset included."""
    seconds_lerobot: float


def _with_policy(args: Args, policy: str) -> list[Metric]:
    from vla.progress import bar
    from vla.runs import Run
    from vla.statistics import paired

    config = Config(policy)
    run = Run.create(args.out / "suites", "bench", config, resume=True)
    rows = run.rows()
    if len(rows) < EPISODES:
        with bar("both") as show, contextlib.closing(_Both(config)) as both:
            for number in range(len(rows), EPISODES):
                run.append(asdict(both.episode(number)))
                show((number + 1) / EPISODES, "")
        rows = run.rows()
    ours, theirs = (np.array([row[key] for row in rows], bool) for key in ("success", "success_lerobot"))
    hourly = [3600 * len(rows) / sum(row[key] for row in rows) for key in ("seconds", "seconds_lerobot")]
    return [
        share("the policy, success through LeRobot", theirs),
        share("the policy, success through ours", ours),
        gain("ours minus LeRobot's", paired(ours, theirs)),
        Metric("the policy through LeRobot, episodes", hourly[1], "per hour", len(rows)),
        Metric("the policy through ours, full meshes, episodes", hourly[0], "per hour", len(rows)),
        Metric("the policy, ours to LeRobot", hourly[0] / hourly[1], "times", len(rows), target=">= 5"),
    ]


class _Both:
    """LeRobot's loop and ours, warmed up, in this process."""

    def __init__(self, config: Config) -> None:
        import gymnasium

        from vla import registry
        from vla.pipeline import open_pipeline
        from vla.spec import require_match
        from vla_sim.lerobot_libero import InLeRobot, lerobot_env

        self._config = config
        self._suite = registry.suite(config.suite)()
        self._pipeline = open_pipeline(config.policy)
        require_match(self._pipeline.spec, self._suite.spec, "the policy", f"suite {config.suite!r}")
        wrist = {camera.name: camera for camera in self._suite.spec.cameras}["wrist"]
        self._theirs = lerobot_env(config.suite, config.task, PX, wrist.height)
        mode = gymnasium.vector.AutoresetMode.NEXT_STEP
        self._vector = gymnasium.vector.SyncVectorEnv([lambda: self._theirs], autoreset_mode=mode)
        self._policy = InLeRobot(self._pipeline, self._theirs, config.n_action_steps)
        self._vector.reset(seed=[0])  # builds the scene
        env = self._suite.make()
        env.reset(config.seed, self._suite.tasks[config.task])
        env.observe()

    def episode(self, number: int) -> Row:
        """The initial state of a number through both; whichever is second has warm caches, so they take turns."""
        from vla_sim.lerobot_libero import rollout
        from vla_sim.rollout import run_episodes

        config, seed = self._config, self._config.seed + number * len(self._suite.tasks)
        took, won = {}, {}
        for name in ("theirs", "ours") if number % 2 else ("ours", "theirs"):
            start = time.perf_counter()
            if name == "theirs":
                self._theirs.init_state_id, self._policy.seed = number, seed
                won[name] = rollout(self._vector, self._policy)
            else:
                tasks = [self._suite.tasks[config.task]]
                steps = config.n_action_steps
                won[name] = run_episodes(self._pipeline, self._suite, [seed], n_action_steps=steps, tasks=tasks)[
                    0
                ].success
            took[name] = time.perf_counter() - start
        return Row(seed, won["ours"], won["theirs"], took["ours"], took["theirs"])

    def close(self) -> None:
        """Before OpenGL goes away."""
        self._vector.close()
