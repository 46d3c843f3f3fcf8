"""Rollouts for fitting verifiers: the policy's own episodes, and what every candidate would have led to.

At a share of the decisions the simulator is restored once a candidate, each candidate is executed for as long as it
would be, and the privileged features it reached are written down. Then the episode goes on as if nothing had happened.

A weak policy seldom shows what success looks like, so a share of the episodes is done by the scripted expert as well:
only for what a value can learn from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from vla import registry
from vla.data.rollouts import Rollouts
from vla.pipeline import Pipeline, open_pipeline
from vla.types import Command, Decision, Floats, Mode
from vla_sim.collect import drive
from vla_sim.env import Env, Suite
from vla_sim.oracle import try_candidate
from vla_sim.rollout import run_episodes
from vla_sim.workers import check_seeds, check_workers, run_jobs

_AT_ONCE = 25
"""Episodes a process runs together."""
_BRANCH_STREAM, _EXPERT_STREAM = 5, 6


@dataclass(frozen=True)
class BranchConfig:
    """How much to roll out."""

    policy: str
    suite: str = "tabletop"
    episodes: int = 500
    seed: int = 3_000_000
    """First seed; far from those of demonstrations and evaluation."""
    n_action_steps: int = 4
    noise_scale: float = 1.0
    """Standard deviation of the candidates' noise."""
    n_candidates: int = 8
    """M, candidates executed at a branched decision."""
    branch_share: float = 0.6
    """Share of the decisions that are branched."""
    expert_share: float = 0.5
    """Share of the episodes that the expert does too, from the same start and under the noise of demonstrations."""

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.episodes)


def collect_rollouts(
    config: BranchConfig,
    workers: int = 2,
    progress: Callable[[float, str], None] | None = None,
    report: Callable[[str], None] = print,
) -> Rollouts:
    """Roll out the policy in several processes; the result does not depend on how many.

    Raises:
        BadConfig: no workers, or more than the machine can bear.
        SpecMismatch: policy and suite disagree.
        Missing: a worker crashed twice on the same episodes.
    """
    check_workers(workers)
    seeds = range(config.seed, config.seed + config.episodes)
    jobs = [tuple(seeds[i : i + _AT_ONCE]) for i in range(0, len(seeds), _AT_ONCE)]
    done: dict[tuple[int, ...], Rollouts] = {}
    for job, part in run_jobs(functools.partial(_brancher, config), jobs, workers, report):
        done[job] = part
        if progress is not None:
            states = sum(len(p.branch_decision) for p in done.values())
            progress(len(done) / len(jobs), f"{states} branched states")
    return joined([done[job] for job in jobs])


def joined(parts: list[Rollouts]) -> Rollouts:
    """Several rollouts as one; their indices are shifted to match."""
    moved, episodes, decisions = [], 0, 0
    for p in parts:
        moved.append(
            replace(
                p,
                episode=p.episode + episodes,
                step_episode=p.step_episode + episodes,
                branch_decision=p.branch_decision + decisions,
            )
        )
        episodes, decisions = episodes + len(p.success), decisions + len(p.state)
    arrays = [name for name, value in vars(parts[0]).items() if isinstance(value, np.ndarray)]
    return replace(
        parts[0],
        images={camera: np.concatenate([p.images[camera] for p in parts]) for camera in parts[0].images},
        instruction=[sentence for p in parts for sentence in p.instruction],
        **{name: np.concatenate([getattr(p, name) for p in moved]) for name in arrays},
    )


@dataclass(eq=False)
class _Branch:
    decision: int
    actions: Floats
    before: Floats
    after: Floats
    end: Floats
    expert: Floats


@dataclass(eq=False)
class _Trace:
    """What one episode leaves behind."""

    expert: list[Floats]
    decisions: list[Decision] = field(default_factory=list)
    steps: list[Floats] = field(default_factory=list)
    branches: list[_Branch] = field(default_factory=list)


def _brancher(config: BranchConfig) -> Callable[[tuple[int, ...]], Rollouts]:
    suite: Suite = registry.suite(config.suite)()
    pipeline = open_pipeline(config.policy, None, config.n_candidates, config.noise_scale)
    return lambda seeds: _roll_out(config, suite, pipeline, seeds)


def _roll_out(config: BranchConfig, suite: Suite, pipeline: Pipeline, seeds: tuple[int, ...]) -> Rollouts:
    env = suite.make()
    traces = [_Trace(_expert_steps(env, seed, config.expert_share)) for seed in seeds]
    rngs = [np.random.default_rng([seed, _BRANCH_STREAM]) for seed in seeds]

    def on_decision(index: int, env: Env, decision: Decision) -> None:
        trace = traces[index]
        if rngs[index].random() < config.branch_share:
            trace.branches.append(_branch(len(trace.decisions), env, decision, pipeline, config.n_action_steps))
        trace.decisions.append(decision)

    rows = run_episodes(
        pipeline,
        suite,
        seeds,
        n_action_steps=config.n_action_steps,
        batch=len(seeds),
        on_decision=on_decision,
        on_step=lambda index, env: traces[index].steps.append(env.privileged()),
    )
    return _assemble(traces, np.array([row.success for row in rows]), config)


def _expert_steps(env: Env, seed: int, share: float) -> list[Floats]:
    """(P,) features before every control step of the expert's own episode; none where it fails or is not asked."""
    if np.random.default_rng([seed, _EXPERT_STREAM]).random() >= share:
        return []
    steps = [env.privileged() for _ in drive(env, seed)]
    return steps if env.success else []


def _branch(number: int, env: Env, decision: Decision, pipeline: Pipeline, n_action_steps: int) -> _Branch:
    """Execute each candidate, then what the expert would do, from where the environment is; put it back."""
    start, before = env.snapshot(), env.privileged()
    after, end = [], []
    for actions in decision.candidates.actions:
        reached, ended = try_candidate(env, pipeline.spec, actions, n_action_steps)
        after.append(reached)
        end.append(ended)
        env.restore(start)
    expert = np.zeros((n_action_steps, len(pipeline.spec.action)), np.float32)
    for i in range(n_action_steps):
        expert[i:] = env.expert() if not env.done else expert[i - 1]
        if not env.done:
            env.step(Command(expert[i], 0, 0, Mode.TRACK))
    env.restore(start)
    return _Branch(number, decision.candidates.actions, before, np.stack(after), np.array(end, np.float32), expert)


def _assemble(traces: list[_Trace], success: np.ndarray, config: BranchConfig) -> Rollouts:  # type: ignore[type-arg]
    decisions = [d for trace in traces for d in trace.decisions]
    counts = [len(trace.decisions) for trace in traces]
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    branches = [(offset, b) for offset, trace in zip(offsets, traces, strict=True) for b in trace.branches]
    lengths = [len(trace.steps) for trace in traces]
    actions = decisions[0].candidates.actions.shape
    n_features = len(traces[0].steps[0])
    expert = [np.stack(trace.expert) for trace in traces if trace.expert]

    def of_branches(name: str, *shape: int) -> Floats:
        empty = np.zeros((0, *shape), np.float32)
        return np.stack([getattr(b, name) for _, b in branches]) if branches else empty

    return Rollouts(
        images={c: np.stack([d.observation.images[c] for d in decisions]) for c in decisions[0].observation.images},
        state=np.stack([d.observation.state for d in decisions]),
        instruction=[d.observation.instruction for d in decisions],
        chosen=np.stack([d.candidates.actions[0] for d in decisions]),
        episode=np.repeat(np.arange(len(traces)), counts),
        n_action_steps=config.n_action_steps,
        success=success,
        step_privileged=np.stack([s for trace in traces for s in trace.steps]),
        step_episode=np.repeat(np.arange(len(traces)), lengths),
        steps_to_end=np.concatenate([np.arange(n, 0, -1) for n in lengths]),
        expert_privileged=np.concatenate([np.zeros((0, n_features), np.float32), *expert]),
        expert_steps_to_end=np.concatenate([np.zeros(0, np.int64), *(np.arange(len(e), 0, -1) for e in expert)]),
        branch_decision=np.array([offset + b.decision for offset, b in branches], np.int64),
        branch_actions=of_branches("actions", *actions),
        branch_before=of_branches("before", n_features),
        branch_after=of_branches("after", actions[0], n_features),
        branch_end=of_branches("end", actions[0]),
        branch_expert=of_branches("expert", config.n_action_steps, actions[2]),
    )
