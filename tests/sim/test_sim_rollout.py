"""The closed loop, driven by a policy that asks the expert: whole pipeline, schedule and safety in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
import pytest

from vla.errors import BadConfig, SpecMismatch, UnknownInstruction
from vla.pipeline import FirstCandidate, Pipeline
from vla.spec import Spec
from vla.types import Decision, Floats, Observation, Verdict
from vla_sim.env import Env
from vla_sim.rollout import REFUSED, SAFETY_STOP, EpisodeRow, Meanwhile, run_episodes
from vla_sim.suites.tabletop import TabletopSuite
from vla_sim.video import Recorder, save_video

SUITE = TabletopSuite()


class Oracle:
    """Proposes what the expert would do now, as chunks of one action, plus noise."""

    def __init__(self, spec: Spec = SUITE.spec, chunk_size: int = 1, noise: float = 0.0) -> None:
        self.spec = replace(spec, chunk_size=chunk_size)
        self.noise = noise
        self.envs: list[Env] = []
        self.batches: list[int] = []

    def look(self, envs: list[Env]) -> None:
        self.envs = envs

    def encode(self, observations: Sequence[Observation]) -> Floats:
        assert [o.instruction for o in observations] == [env.instruction for env in self.envs]
        self.batches.append(len(observations))
        return np.stack([env.expert() for env in self.envs])

    def propose(self, memory: Floats, noise: Floats) -> tuple[Floats, None]:
        chunks = np.broadcast_to(memory[:, None, None], noise.shape) + self.noise * noise
        return np.clip(chunks, self.spec.action_low, self.spec.action_high).astype(np.float32), None


@dataclass
class RefuseFirst:
    """Refuses every odd decision."""

    calls: int = 0

    def verify(self, observations: Sequence[Observation], memory: Any, actions: Floats) -> list[Verdict]:
        self.calls += 1
        best = None if self.calls % 2 else 0
        return [Verdict(np.zeros(actions.shape[1], np.float32), best, "odd") for _ in observations]


def test_the_expert_succeeds_through_the_whole_loop_and_batches_stay_full() -> None:
    oracle = Oracle()
    rows = run_episodes(
        Pipeline(oracle, FirstCandidate()), SUITE, range(60, 72), n_action_steps=1, batch=4, before_decide=oracle.look
    )
    assert [row.seed for row in rows] == list(range(60, 72))
    assert all(row.success and row.failure == "" for row in rows)
    assert all(row.decisions == row.steps and row.holds == 0 for row in rows)
    assert {row.skill for row in rows} == set(SUITE.skills)
    full = oracle.batches.count(4)
    assert full > 0.6 * len(oracle.batches), "a finished episode is replaced by the next one"


def test_an_episode_does_not_depend_on_what_it_is_batched_with() -> None:
    def run(seeds: list[int], batch: int) -> list[tuple[int, int, bool]]:
        oracle = Oracle(noise=0.01)
        pipeline = Pipeline(oracle, FirstCandidate(), n_candidates=2)
        rows = run_episodes(pipeline, SUITE, seeds, n_action_steps=1, batch=batch, before_decide=oracle.look)
        return [(row.seed, row.steps, row.success) for row in rows]

    assert run([80, 81, 82, 83], 4) == run([83, 81, 82, 80], 1)[::-1][:1] + run([81, 82, 83], 2)


class LowCeiling(TabletopSuite):
    """The same table, with a workspace that ends little above where the arm starts."""

    def __init__(self) -> None:
        super().__init__()
        ceiling = [replace(d, high=0.25) if d.name == "tool_z" else d for d in self.spec.state]
        self.spec = replace(self.spec, state=tuple(ceiling))


class Upward:
    """Rises, whatever it sees."""

    def __init__(self, spec: Spec) -> None:
        self.spec = replace(spec, chunk_size=1)

    def encode(self, observations: Sequence[Observation]) -> int:
        return len(observations)

    def propose(self, memory: int, noise: Floats) -> tuple[Floats, None]:
        up = np.zeros_like(noise)
        up[..., 2] = self.spec.action_high[2]
        return up, None


def test_the_measured_workspace_bounds_a_simulated_arm_too_and_a_stop_ends_the_episode() -> None:
    suite, heights = LowCeiling(), list[float]()
    rows = run_episodes(
        Pipeline(Upward(suite.spec), FirstCandidate()),
        suite,
        [60, 61],
        n_action_steps=1,
        on_step=lambda index, env: heights.append(float(env.state()[2])),
    )
    assert [(row.success, row.failure) for row in rows] == [(False, SAFETY_STOP)] * 2
    assert max(row.steps for row in rows) < 60, "a stopped robot waits for a person, not for the time to be up"
    assert min(heights) < max(heights) <= 0.25 + 0.01, "it rose, as far as it may"


def test_a_refusal_holds_for_as_long_as_a_chunk_would_run() -> None:
    oracle = Oracle(chunk_size=4)
    moved: dict[int, list[float]] = {}

    def watch(index: int, env: Env) -> None:
        moved.setdefault(env.steps, []).extend(env.observe().state[:3])

    rows = run_episodes(
        Pipeline(oracle, RefuseFirst()),
        SUITE,
        [90],
        n_action_steps=2,
        tasks=["pick_red"],
        before_decide=oracle.look,
        on_step=watch,
    )
    assert rows[0].holds == (rows[0].decisions + 1) // 2
    np.testing.assert_allclose(moved[1], moved[0], atol=2e-3)
    np.testing.assert_allclose(moved[2], moved[0], atol=2e-3)
    assert np.abs(np.subtract(moved[4], moved[2])).max() > 0.01


def test_a_swapped_instruction_is_heard_by_the_policy_and_the_goal_stays() -> None:
    oracle = Oracle()
    heard: dict[int, str] = {}

    def listen(index: int, env: Env, decision: Decision) -> None:
        heard[index] = decision.observation.instruction

    seeds = [70, 71, 72]
    pipeline = Pipeline(oracle, FirstCandidate())
    swapped = run_episodes(
        pipeline,
        SUITE,
        seeds,
        n_action_steps=1,
        swap_instruction=True,
        before_decide=oracle.look,
        on_decision=listen,
    )
    for index, (seed, row) in enumerate(zip(seeds, swapped, strict=True)):
        env = SUITE.make()
        env.reset(seed)
        assert row.task == env.task
        assert row.instruction == heard[index] == SUITE.other_instruction(env.task, seed)


def test_branches_may_be_tried_inside_a_decision() -> None:
    """Trying out candidates from a snapshot, and going back, leaves the episode as it would have been."""
    oracle = Oracle(noise=0.01)
    pipeline = Pipeline(oracle, FirstCandidate(), n_candidates=3)

    def branch(index: int, env: Env, decision: Decision) -> None:
        from vla.types import Command, Mode

        saved = env.snapshot()
        for chunk in decision.candidates.actions:
            env.step(Command(chunk[0], 0, 0, Mode.TRACK))
            env.restore(saved)

    seeds = [100, 101, 102]
    plain = run_episodes(pipeline, SUITE, seeds, n_action_steps=1, before_decide=oracle.look)
    branched = run_episodes(pipeline, SUITE, seeds, n_action_steps=1, before_decide=oracle.look, on_decision=branch)
    assert plain == branched


def test_another_robots_policy_and_a_chunk_too_short_are_refused_before_the_first_step() -> None:
    other = Oracle(replace(SUITE.spec, control_rate_hz=20.0))
    with pytest.raises(SpecMismatch, match="control_rate_hz"):
        run_episodes(Pipeline(other, FirstCandidate()), SUITE, [0], n_action_steps=1)
    with pytest.raises(BadConfig, match="n_action_steps"):
        run_episodes(Pipeline(Oracle(), FirstCandidate()), SUITE, [0], n_action_steps=2)
    assert other.batches == []


def test_a_film_shows_every_moment_of_the_chosen_episode(tmp_path: Any) -> None:
    oracle = Oracle()
    recorder = Recorder([1], "agent", size=96, stage=SUITE.stage())
    rows = run_episodes(
        Pipeline(oracle, FirstCandidate()),
        SUITE,
        [60, 61],
        n_action_steps=1,
        before_decide=oracle.look,
        on_step=recorder.frame,
        on_end=recorder.frame,
    )
    frames = recorder.frames[1]
    assert len(frames) == rows[1].steps + 1
    save_video(tmp_path / "film" / "a.mp4", frames, 10)
    with av.open(str(tmp_path / "film" / "a.mp4")) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(shown) == len(frames) + 5
    assert np.abs(shown[0].astype(int) - frames[0]).mean() < 6


def thinking(delay: int, meanwhile: Meanwhile, n_action_steps: int = 2) -> tuple[list[EpisodeRow], list[list[float]]]:
    """One episode of the expert with thinking time; its row, and where each step found the tool."""
    oracle, seen = Oracle(chunk_size=4), []
    rows = run_episodes(
        Pipeline(oracle, FirstCandidate()),
        SUITE,
        [90],
        n_action_steps=n_action_steps,
        tasks=["pick_red"],
        delay=delay,
        meanwhile=meanwhile,
        before_decide=oracle.look,
        on_step=lambda index, env: seen.append([*env.snapshot().episode.target]),
    )
    return rows, seen


def test_the_world_goes_on_while_the_policy_thinks_and_the_arm_holds() -> None:
    (at_once,), _ = thinking(0, "hold")
    (late,), targets = thinking(3, "hold")
    moved = np.abs(np.diff(targets, axis=0)).max(1) > 0
    assert not moved[[i for i in range(len(moved)) if i % 5 < 3]].any(), "three periods of thought, no motion"
    assert moved[[3, 4, 8, 9]].all(), "then two actions"
    assert late.success
    assert late.seconds > 1.8 * at_once.seconds
    assert late.decisions == pytest.approx(late.steps / 5, abs=1)


def test_going_on_with_the_last_chunk_never_stops_but_enters_the_next_one_late() -> None:
    _, targets = thinking(1, "continue")
    moved = np.abs(np.diff(targets, axis=0)).max(1) > 0
    assert not moved[0], "nothing to go on with yet"
    assert moved[1:9].all()
    oracle = Oracle(chunk_size=4)
    used: list[Any] = []

    def chunk(index: int, env: Env, decision: Decision) -> None:
        assert decision.chunk is not None
        decision.chunk.actions[:] = np.arange(4)[:, None] * [0.001, 0, 0, 0] + [0, 0, 0, 0.08]

    def step(index: int, env: Env) -> None:
        used.append(env.snapshot().episode.target[0])

    run_episodes(
        Pipeline(oracle, FirstCandidate()),
        SUITE,
        [90],
        n_action_steps=2,
        tasks=["pick_red"],
        delay=1,
        meanwhile="continue",
        before_decide=oracle.look,
        on_decision=chunk,
        on_step=step,
    )
    indices = np.diff(used[:12]).round(4) / 0.001
    np.testing.assert_allclose(indices, [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1], atol=0.01)


def test_a_chunk_that_is_over_before_it_comes_is_refused() -> None:
    with pytest.raises(BadConfig, match="needs a chunk of 5, and it has 4"):
        thinking(3, "continue")
    with pytest.raises(BadConfig, match="negative"):
        thinking(-1, "hold")


class Deaf(Oracle):
    """Knows no word but those for red cubes."""

    def encode(self, observations: Sequence[Observation]) -> Floats:
        if any("red" not in o.instruction for o in observations):
            raise UnknownInstruction("red only")
        envs = [env for env in self.envs if "red" in env.instruction]
        return np.stack([env.expert() for env in envs[: len(observations)]])


def test_a_policy_that_does_not_know_the_words_fails_that_episode_alone_where_that_is_asked() -> None:
    seeds, tasks = [60, 61, 62], ["pick_red", "pick_blue", "pick_green"]
    rows = run_episodes(
        Pipeline(deaf := Deaf(), FirstCandidate()),
        SUITE,
        seeds,
        n_action_steps=1,
        tasks=tasks,
        may_refuse=True,
        before_decide=deaf.look,
    )
    assert [row.failure for row in rows] == ["", REFUSED, REFUSED]
    assert [(row.steps, row.phase, row.target) for row in rows[1:]] == [(0, "", "")] * 2, "nobody went for anything"
    with pytest.raises(UnknownInstruction):
        run_episodes(Pipeline(deaf, FirstCandidate()), SUITE, seeds, n_action_steps=1, tasks=tasks)


def test_rows_tell_time_path_and_progress() -> None:
    oracle = Oracle()
    (row,) = run_episodes(Pipeline(oracle, FirstCandidate()), SUITE, [60], n_action_steps=1, before_decide=oracle.look)
    assert row.seconds == pytest.approx(row.steps / 10)
    assert row.path is not None
    assert 0.1 < row.path < 2
    assert row.smoothness is not None
    assert row.approached == row.target != ""
