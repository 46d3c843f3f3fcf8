"""The expert does every task, also when thrown off course; it is what all training data comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vla.types import Command, Mode
from vla_sim.collect import CollectConfig, demonstrate
from vla_sim.suites.tabletop import TabletopSuite
from vla_sim.tabletop.tasks import TASKS, judge

SUITE = TabletopSuite()


@pytest.mark.parametrize("task", SUITE.tasks)
def test_it_succeeds_on_every_task(task: str) -> None:
    env = SUITE.make()
    for seed in range(6):
        env.reset(500 + seed, task)
        while not env.done:
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
        assert env.success, (task, 500 + seed, env.failure)
        assert env.steps < 45


def test_it_recovers_from_wherever_a_stranger_left_the_arm() -> None:
    env, rng, recovered = SUITE.make(), np.random.default_rng(0), 0
    for seed in range(24):
        env.reset(seed)
        for _ in range(8):
            action = rng.uniform(SUITE.spec.action_low, SUITE.spec.action_high).astype(np.float32)
            env.step(Command(action, 0, 0, Mode.TRACK))
        while not env.done:
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
        recovered += env.success
    assert recovered >= 22


def test_it_depends_on_the_present_state_alone() -> None:
    env, other = SUITE.make(), SUITE.make()
    env.reset(9)
    for _ in range(12):
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    other.restore(env.snapshot())
    np.testing.assert_array_equal(other.expert(), env.expert())
    np.testing.assert_array_equal(env.expert(), env.expert())


def test_demonstrations_execute_noise_and_record_the_wish() -> None:
    env, config = SUITE.make(), CollectConfig()
    noisy = demonstrate(env, 21, config)
    clean = demonstrate(env, 21, replace(config, noise=0.0, bump_rate=0.0))
    assert noisy is not None
    assert clean is not None
    np.testing.assert_array_equal(noisy.action[0], clean.action[0])
    assert not np.array_equal(noisy.state[1], clean.state[1]), "the noise was executed"
    again = demonstrate(env, 21, config)
    assert again is not None
    np.testing.assert_array_equal(noisy.images["wrist"], again.images["wrist"])


def test_a_dropped_or_missed_cube_is_no_success() -> None:
    """A cube above the goal that is still held, or moving, or to one side, does not count."""
    env = SUITE.make()
    env.reset(30, "stack_red_green")
    while not env.done:
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    done = env._view
    assert judge(done) == (True, "")
    assert judge(replace(done, width=0.044)) == (False, "")
    assert judge(replace(done, speed=np.full(3, 0.2))) == (False, "")
    aside = done.cubes.copy()
    aside[0, 0] += 0.035
    assert judge(replace(done, cubes=aside)) == (False, "")
    assert judge(replace(done, task=TASKS["stack_blue_green"])) == (False, "moved_other")
