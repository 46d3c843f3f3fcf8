"""The Gymnasium wrapper passes Gymnasium's own check."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from vla import registry
from vla_sim.gym_env import SuiteEnv


@pytest.mark.filterwarnings("error")
def test_it_passes_check_env_by_its_registered_name() -> None:
    env = gymnasium.make("vla_sim.gym_env:vla/Tabletop-v0", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_every_suite_has_a_name_there() -> None:
    known = {spec.kwargs["suite"] for spec in gymnasium.registry.values() if spec.namespace == "vla"}
    assert known == set(registry.suites())
    assert "vla/LiberoObject-v0" in gymnasium.registry


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


def test_what_is_measured_is_in_the_space_however_wild_the_actions() -> None:
    env = SuiteEnv()
    seen, _ = env.reset(seed=5_000_000_000)
    for _ in range(30):
        assert env.observation_space.contains(seen)
        seen, *_ = env.step(env.action_space.high)


@pytest.mark.parametrize("suite", ["lift", "stack", "pick_place", "libero_object:decimated"])
def test_suites_of_robosuite_and_libero_pass_it_too(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = SuiteEnv(suite, render_mode="rgb_array")
    tasks = env._env._tasks  # type: ignore[attr-defined]  # Gymnasium draws seeds: one scene is enough to build
    first = tasks(0, None).id
    monkeypatch.setattr(env._env, "_tasks", lambda seed, name: tasks(seed, name or first))
    check_env(env)
    assert env.metadata["render_fps"] == 20


def test_the_expert_of_a_suite_of_robosuite_is_paid() -> None:
    env = SuiteEnv("lift")
    env.reset(seed=78_000)
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, _ = env.step(env._env.expert())
        rewards.append(reward)
        over = terminated or truncated
    assert (sum(rewards), terminated) == (1.0, True)
