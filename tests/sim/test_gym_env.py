"""The Gymnasium wrapper passes Gymnasium's own check."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from vla_sim.gym_env import SuiteEnv


@pytest.mark.filterwarnings("error")
def test_it_passes_check_env_by_its_registered_name() -> None:
    env = gymnasium.make("vla_sim.gym_env:vla/Tabletop-v0", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_the_expert_earns_the_reward_and_waiting_truncates() -> None:
    env = SuiteEnv()
    env.reset(seed=3, options={"task": "push_blue_left"})
    rewards, terminated, truncated = [], False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(env._env.expert())
        rewards.append(reward)
    assert (sum(rewards), terminated, truncated, info["success"]) == (1.0, True, False, True)
    env.reset(seed=3)
    while not truncated:
        _, reward, terminated, truncated, info = env.step(env.action_space.low * 0)
        assert not terminated
    assert info["failure"] == "timeout"


def test_a_suite_of_robosuite_passes_it_too_and_its_expert_is_paid() -> None:
    env = SuiteEnv("lift", render_mode="rgb_array")
    check_env(env)
    env.reset(seed=78_000)
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, _ = env.step(env._env.expert())
        rewards.append(reward)
        over = terminated or truncated
    assert (sum(rewards), terminated) == (1.0, True)
    assert env.metadata["render_fps"] == 20
