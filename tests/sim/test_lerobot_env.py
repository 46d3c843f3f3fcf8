"""Our suites, driven as LeRobot drives its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vla.errors import UnknownName
from vla_sim.lerobot_env import LeRobotEnv, VlaEnvConfig


def experts(vector: Any) -> Any:
    return np.stack([env.unwrapped._env._env.expert() for env in vector.envs])


def test_lerobot_makes_it_from_a_config_and_counts_the_experts_success() -> None:
    from lerobot.envs.factory import make_env, make_env_config

    config = make_env_config("vla", suite="tabletop", task="pick_red, push_blue_left")
    assert config.fps == 10
    found = make_env(config, n_envs=2)["tabletop"]
    assert list(found) == [0, 1]
    for index, task in enumerate(("pick_red", "push_blue_left")):
        vector = found[index]
        seen, _ = vector.reset(seed=[60, 61])
        assert seen["pixels"]["agent"].shape == (2, 64, 64, 3)
        assert seen["agent_pos"].shape == (2, 8)
        assert vector.call("task") == (task, task)
        assert task.split("_")[1] in vector.call("task_description")[0]
        done = np.zeros(2, bool)
        for _ in range(vector.call("_max_episode_steps")[0]):
            _, reward, terminated, truncated, info = vector.step(experts(vector))
            ended = terminated | truncated
            if (ended & ~done).any():
                assert info["final_info"]["is_success"][ended & ~done].all()
                assert (reward[ended & ~done] == 1).all()
            done |= ended
            if done.all():
                break
        assert done.all()
        vector.close()


def test_lerobot_preprocesses_its_observation() -> None:
    from lerobot.envs.utils import preprocess_observation

    env = LeRobotEnv("tabletop", None, 100)
    seen, _ = env.reset(seed=3)
    ready = preprocess_observation(seen)
    assert {"observation.images.agent", "observation.images.wrist", "observation.state"} <= set(ready)
    assert ready["observation.images.agent"].shape == (1, 3, 64, 64)
    assert env.observation_space.contains(seen)
    assert env.task_description


def test_an_action_beyond_the_limits_is_cut_off_at_them() -> None:
    env, cut = LeRobotEnv("tabletop", "pick_red", 100), LeRobotEnv("tabletop", "pick_red", 100)
    for one in (env, cut):
        one.reset(seed=3)
    low, high = env._limits
    seen, *_ = env.step(np.full(4, 9.0, np.float32))
    same, *_ = cut.step(high)
    np.testing.assert_array_equal(seen["agent_pos"], same["agent_pos"])
    assert (low < high).all()


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UnknownName, match="no task 'juggle'"):
        VlaEnvConfig(task="juggle").create_envs(1)
