"""Our suites, driven as LeRobot drives its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lerobot_parts
import numpy as np
import pytest

from vla.errors import UnknownName
from vla.pipeline import open_pipeline
from vla.types import Command, Mode
from vla_sim.arm.env import ArmEnv
from vla_sim.lerobot_env import LeRobotEnv, VlaEnvConfig
from vla_sim.rollout import run_episodes
from vla_sim.suites.libero import LiberoSuite


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


@pytest.mark.parametrize(
    ("suite", "task"),
    [("lift", "Lift"), ("libero_object:decimated", "pick_up_the_milk_and_place_it_in_the_basket")],
)
def test_robosuite_and_libero_are_such_environments_too(suite: str, task: str) -> None:
    config = VlaEnvConfig(suite=suite, task=task)
    assert config.fps == 20
    assert config.features_map["pixels/agent"] == "observation.images.agent"
    vector = config.create_envs(1)[suite][0]
    seen, _ = vector.reset(seed=[78_000])
    assert seen["pixels"]["agent"].shape == (1, 96, 128, 3)
    assert seen["agent_pos"].shape == (1, 8)
    over, steps = False, 0
    while not over:
        _, reward, terminated, truncated, info = vector.step(experts(vector))
        over, steps = bool(terminated[0] or truncated[0]), steps + 1
    assert info["final_info"]["is_success"][0]
    assert reward[0] == 1
    assert 20 < steps < 280
    vector.close()


def test_a_policy_of_lerobots_acts_on_libero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained one: what counts is that every step of it passes the contract and safety, and moves the arm."""
    suite = LiberoSuite("libero_object", "decimated")
    lerobot_parts.save_act(tmp_path / "act", suite.spec)
    commands: list[Command] = []
    plain = ArmEnv.step

    def step(self: ArmEnv, command: Command) -> None:
        commands.append(command)
        plain(self, command)

    monkeypatch.setattr(ArmEnv, "step", step)
    monkeypatch.setattr(ArmEnv, "done", property(lambda self: self.steps >= 8))
    pipeline = open_pipeline(f"lerobot:{tmp_path / 'act'}")
    (row,) = run_episodes(pipeline, suite, [1_000_007], n_action_steps=4)
    assert (row.decisions, row.steps, row.holds) == (2, 8, 0)
    assert row.instruction == "pick up the milk and place it in the basket"
    assert [command.mode for command in commands] == [Mode.TRACK] * 8
    assert np.abs([command.action for command in commands]).max() > 1e-3


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
