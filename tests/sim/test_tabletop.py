"""The tabletop environment: deterministic, restorable to the bit, honest about its limits and about success."""

from __future__ import annotations

import numpy as np
import pytest

from vla.errors import BadConfig, UnknownName
from vla.spec import check_observation
from vla.types import Command, Floats, Mode
from vla_sim.suites.tabletop import MAX_STEPS, TabletopEnv, TabletopSuite

SUITE = TabletopSuite()


@pytest.fixture(scope="module")
def env() -> TabletopEnv:
    return SUITE.make()


def track(action: Floats) -> Command:
    return Command(np.asarray(action, np.float32), 0, 0, Mode.TRACK)


def follow_expert(env: TabletopEnv, steps: int) -> list[Floats]:
    actions = []
    for _ in range(steps):
        actions.append(env.expert())
        env.step(track(actions[-1]))
    return actions


def random_action(rng: np.random.Generator) -> Floats:
    return rng.uniform(SUITE.spec.action_low, SUITE.spec.action_high).astype(np.float32)


def test_a_seed_decides_the_episode(env: TabletopEnv) -> None:
    other = SUITE.make()
    env.reset(7)
    other.reset(3)
    other.reset(7)
    assert (env.task, env.instruction) == (other.task, other.instruction)
    follow_expert(env, 5)
    follow_expert(other, 5)
    a, b = env.observe(), other.observe()
    np.testing.assert_array_equal(a.state, b.state)
    for camera in ("agent", "wrist"):
        np.testing.assert_array_equal(a.images[camera], b.images[camera])


def test_observations_satisfy_the_spec_and_are_stamped_in_simulation_time(env: TabletopEnv) -> None:
    env.reset(1)
    follow_expert(env, 3)
    seen = env.observe()
    check_observation(SUITE.spec, seen)
    assert seen.stamp_ns == 3 * SUITE.spec.dt_ns
    assert seen.instruction in SUITE.instructions


def test_every_object_is_in_view_at_the_start(env: TabletopEnv) -> None:
    """The agent camera sees at least ten pixels of each colour, in nearly every scene."""
    hidden = 0
    for seed in range(40):
        env.reset(seed)
        image = env.observe().images["agent"].astype(int)
        r, g, b = image[..., 0], image[..., 1], image[..., 2]
        red, green, blue = (r > 2 * g) & (r > 2 * b), (g > 2 * r) & (g > 2 * b), (b > 2 * r) & (b > 2 * g)
        yellow = (r > 2.5 * b) & (g > 2.5 * b)
        hidden += min(mask.sum() for mask in (red, green, blue, yellow)) < 10
    assert hidden <= 1


def test_a_restored_snapshot_continues_bit_for_bit_in_another_environment(env: TabletopEnv) -> None:
    env.reset(11)
    follow_expert(env, 8)
    saved = env.snapshot()
    env.observe()  # drawing must not matter
    actions = follow_expert(env, 8)
    physics, features, image = env.snapshot().physics, env.privileged(), env.observe().images["wrist"]
    other = SUITE.make()
    other.restore(saved)
    for action in actions:
        other.step(track(action))
    np.testing.assert_array_equal(other.snapshot().physics, physics)
    np.testing.assert_array_equal(other.privileged(), features)
    np.testing.assert_array_equal(other.observe().images["wrist"], image)
    assert (other.task, other.instruction, other.steps) == (env.task, env.instruction, env.steps)


def test_hold_and_stop_keep_the_target_whatever_the_action_says(env: TabletopEnv) -> None:
    for mode in (Mode.HOLD, Mode.STOP):
        env.reset(5)
        follow_expert(env, 3)
        for _ in range(10):
            env.step(Command(np.array([0.04, 0.04, 0.04, 0.0], np.float32), 0, 0, mode))
        before = env.observe().state
        env.step(Command(np.array([0.04, 0.04, 0.04, 0.0], np.float32), 0, 0, mode))
        after = env.observe().state
        np.testing.assert_allclose(after[:3], before[:3], atol=1e-3)
        assert after[7] == before[7]
        assert np.abs(after[3:6]).max() < 0.002, "the tool arrives where it was last commanded to be"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.041])
def test_an_action_outside_the_limits_is_refused_before_anything_moves(env: TabletopEnv, bad: float) -> None:
    env.reset(2)
    before = env.snapshot().physics
    with pytest.raises(BadConfig, match="limits"):
        env.step(track(np.array([bad, 0, 0, 0], np.float32)))
    np.testing.assert_array_equal(env.snapshot().physics, before)


def test_the_state_stays_within_the_limits_the_spec_claims(env: TabletopEnv) -> None:
    low = np.array([d.low for d in SUITE.spec.state])
    high = np.array([d.high for d in SUITE.spec.state])
    rng = np.random.default_rng(0)
    downwards = np.array([0, 0, -0.03, 0], np.float32)
    for seed in range(8):
        env.reset(seed)
        for _ in range(50):
            action = random_action(rng)
            action = np.clip(action + downwards, SUITE.spec.action_low, SUITE.spec.action_high)
            env.step(track(action))
            view = env._view
            state = np.array([*view.tool, *(view.target - view.tool), view.width, view.target_width])
            assert ((state >= low) & (state <= high)).all(), state


def test_fingers_and_hand_collide_with_the_cubes(env: TabletopEnv) -> None:
    """Lowering the closed gripper onto a cube stops on top of it."""
    env.reset(0, "pick_red")
    for _ in range(25):
        view = env._view
        above = view.cubes[0] + [0, 0, 0.10]
        env.step(track(np.array([*np.clip((above - view.target) * 0.5, -0.04, 0.04), 0.0], np.float32)))
    for _ in range(10):
        env.step(track(np.array([0, 0, -0.02, 0.0], np.float32)))
    tool = env._view.tool
    assert tool[2] > 0.04, "the fingertips are 1 cm below the tool point, the cube is 4.4 cm high"
    assert env._view.target[2] < tool[2] - 0.01, "and it does press"


def test_episodes_end_by_timeout_and_by_disturbing_another_cube(env: TabletopEnv) -> None:
    env.reset(4)
    while not env.done:
        env.step(Command(np.zeros(4, np.float32), 0, 0, Mode.HOLD))
    assert (env.success, env.failure, env.steps) == (False, "timeout", MAX_STEPS)
    env.reset(4, "pick_red")
    wrong = SUITE.make()
    wrong.reset(4, "pick_red")
    episode = wrong._episode
    from dataclasses import replace

    from vla_sim.tabletop.tasks import TASKS

    while not env.done:  # the expert of another goal, executed here
        wrong._episode = replace(episode, task=TASKS["pick_blue"])
        wrong._view = replace(env._view, task=TASKS["pick_blue"])
        env.step(track(wrong.expert()))
    assert (env.success, env.failure) == (False, "wrong_object")


def test_tasks_are_drawn_evenly_by_skill_and_all_occur() -> None:
    env = SUITE.make()
    tasks = []
    for seed in range(300):
        env.reset(seed)
        tasks.append(env.task)
    assert set(tasks) == set(SUITE.tasks)
    skills = [task.split("_")[0] for task in tasks]
    for skill in SUITE.skills:
        assert 50 < skills.count(skill) < 100


def test_another_instruction_is_about_another_cube() -> None:
    env = SUITE.make()
    for seed in range(50):
        env.reset(seed)
        goal, told = env.task, SUITE.other_instruction(env.task, seed)
        assert told in SUITE.instructions
        cube = goal.split("_")[1]
        assert next(w for w in told.split() if w in ("red", "green", "blue")) != cube
        env.set_instruction(told)
        assert (env.task, env.instruction, env.observe().instruction) == (goal, told, told)


def test_an_unknown_task_is_refused_with_the_tasks_there_are(env: TabletopEnv) -> None:
    with pytest.raises(UnknownName, match="stack_red_green"):
        env.reset(0, "juggle")


def test_privileged_features_tell_success_from_a_bad_start(env: TabletopEnv) -> None:
    """Mirrored pushes look alike, and features move when the task advances."""
    env.reset(3, "push_red_left")
    first = env.privileged()
    assert first.shape == (33,)
    assert first.dtype == np.float32
    while not env.done:
        env.step(track(env.expert()))
    assert env.success
    last = env.privileged()
    progress_along_push = 7
    assert last[progress_along_push] > first[progress_along_push] + 1


def test_meshes_change_the_picture_and_nothing_else() -> None:
    stage, env = SUITE.stage(), SUITE.make()
    stage.reset(6)
    env.reset(6)
    follow_expert(env, 10)
    follow_expert(stage, 10)
    np.testing.assert_array_equal(stage.snapshot().physics, env.snapshot().physics)
    assert (stage.render("agent", 64, 64) != env.render("agent", 64, 64)).any()
