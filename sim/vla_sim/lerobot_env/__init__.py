"""Our suites as LeRobot environments, so that LeRobot's own tools evaluate on them.

    lerobot-eval --policy.path=... --env.type=vla --env.suite=tabletop \\
        --env.discover_packages_path=vla_sim.lerobot_env --eval.n_episodes=20

`env.task` is one of the suite's tasks, or a comma-separated list; without it each episode's seed draws one. LeRobot
asks each environment for its instruction at every step, so those of a batch may differ.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from vla import registry
from vla.errors import UnknownName
from vla.types import Floats, Image
from vla_sim.env import Suite
from vla_sim.gym_env import SuiteEnv

LeRobotObservation = dict[str, Any]


class LeRobotEnv(gymnasium.Env[LeRobotObservation, Floats]):
    """A suite's environment, with LeRobot's names for what is in an observation. Images are as the policy sees them."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, suite: str, task: str | None, episode_length: int) -> None:
        self._env = SuiteEnv(suite, render_mode="rgb_array")
        self._asked = task
        self._max_episode_steps = episode_length
        self.render_mode = "rgb_array"
        inner = self._env.observation_space
        assert isinstance(inner, spaces.Dict)
        images = {name: space for name, space in inner.items() if name not in ("state", "instruction")}
        self.observation_space = spaces.Dict({"pixels": spaces.Dict(images), "agent_pos": inner["state"]})
        self.action_space = self._env.action_space
        self.task = task or "drawn"
        self.task_description = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[LeRobotObservation, dict[str, Any]]:
        """Start the episode of a seed."""
        super().reset(seed=seed)
        asked = {"task": self._asked} if self._asked else {}
        seen, info = self._env.reset(seed=seed, options=asked | (options or {}))
        self.task, self.task_description = info["task"], seen["instruction"]
        return self._renamed(seen), info | {"is_success": info["success"]}

    def step(self, action: Floats) -> tuple[LeRobotObservation, float, bool, bool, dict[str, Any]]:
        """One control period. What leaves the action's limits is cut off at them: LeRobot has no safety filter."""
        low, high = self._limits
        seen, reward, terminated, truncated, info = self._env.step(np.clip(action, low, high))
        return self._renamed(seen), reward, terminated, truncated, info | {"is_success": info["success"]}

    def render(self) -> Image | None:
        """What the first camera sees, larger."""
        return self._env.render()

    @functools.cached_property
    def _limits(self) -> tuple[Floats, Floats]:
        space = self.action_space
        assert isinstance(space, spaces.Box)
        return space.low, space.high

    def _renamed(self, seen: dict[str, Any]) -> LeRobotObservation:
        images = {name: image for name, image in seen.items() if name not in ("state", "instruction")}
        return {"pixels": images, "agent_pos": seen["state"]}


@EnvConfig.register_subclass("vla")
@dataclass
class VlaEnvConfig(EnvConfig):  # type: ignore[misc]  # LeRobot's types are not followed
    """`--env.type=vla`."""

    suite: str = "tabletop"
    task: str | None = None
    episode_length: int = 1000
    """LeRobot stops here; our environments end earlier, by their own time limit."""

    def __post_init__(self) -> None:
        spec = _suite(self.suite).spec
        self.fps = round(spec.control_rate_hz)
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (len(spec.action),)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (len(spec.state),)),
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE}
        for camera in spec.cameras:
            self.features[f"pixels/{camera.name}"] = PolicyFeature(FeatureType.VISUAL, (camera.height, camera.width, 3))
            self.features_map[f"pixels/{camera.name}"] = f"{OBS_IMAGES}.{camera.name}"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Of one environment."""
        return {"suite": self.suite, "episode_length": self.episode_length}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gymnasium.vector.VectorEnv[Any, Any, Any]]]:
        """{suite: {index of the task: n environments}}.

        Raises:
            UnknownName: the suite has no such task.
        """
        tasks = [task.strip() for task in self.task.split(",")] if self.task else [None]
        known = _suite(self.suite).tasks
        for task in tasks:
            if task is not None and task not in known:
                raise UnknownName(f"suite {self.suite!r} has no task {task!r}; there is {', '.join(known)}")
        found: dict[int, gymnasium.vector.VectorEnv[Any, Any, Any]] = {}
        for i, task in enumerate(tasks):
            makers = [functools.partial(LeRobotEnv, task=task, **self.gym_kwargs) for _ in range(n_envs)]
            mode = gymnasium.vector.AutoresetMode.SAME_STEP
            if use_async_envs and n_envs > 1:
                found[i] = gymnasium.vector.AsyncVectorEnv(makers, autoreset_mode=mode, context="forkserver")
            else:
                found[i] = gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=mode)
        return {self.suite: found}


def _suite(name: str) -> Suite:
    suite: Suite = registry.suite(name)()
    return suite
