"""LeRobot's own LIBERO environment and evaluation loop on the packaged task files: what ours are measured against."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla.pipeline import Pipeline
from vla.safety import SafetyFilter
from vla.schedule import ChunkSchedule
from vla.types import Floats, Image, Mode, Observation
from vla_sim.arm.env import SENSOR_PX
from vla_sim.arm.osc import DOWN, MOVE_M, TURN_RAD, turn_between
from vla_sim.arm.world import quiet
from vla_sim.panda import Doubles
from vla_sim.rendering import share_display

_CAMERAS = {"agent": "image", "wrist": "image2"}
_GRIP_PER_STEP = 0.25
"""How far a control period closes the commanded gripper, out of 2: robosuite's rule; LeRobot does not tell."""


def lerobot_env(suite: str, task: int, agent_px: int, wrist_px: int) -> Any:
    """One environment as `lerobot-eval` makes it: a Gymnasium environment that draws both cameras at every step.

    Its images are square; LeRobot's own have one size, and here each camera has that of the policy.
    """
    with quiet():
        from gymnasium import spaces
        from lerobot.envs import libero as theirs
        from libero.libero import benchmark

        # Theirs unpickles the upstream files of initial states; the package ships the same numbers as npz.
        theirs.get_task_init_states = lambda suite, index, is_libero_plus=False: suite.get_task_init_states(index)
        share_display()
        problems = benchmark.get_benchmark(suite)(task_order_index=0)
        env = theirs.LiberoEnv(
            problems,
            task,
            suite,
            obs_type="pixels_agent_pos",
            observation_width=agent_px,
            observation_height=agent_px,
        )
    # The scene is built at the first reset, with what stands here then; robosuite takes a size a camera.
    env.observation_height = env.observation_width = [agent_px, wrist_px]
    env.observation_space["pixels"][_CAMERAS["wrist"]] = spaces.Box(0, 255, (wrist_px, wrist_px, 3), np.uint8)
    return env


class InLeRobot(nn.Module):
    """A pipeline of ours as LeRobot's evaluation loop drives policies: pipeline, schedule and safety as in ours."""

    def __init__(self, pipeline: Pipeline, env: Any, n_action_steps: int) -> None:
        """`env` is the one environment that it acts in; from there comes where the robot's base stands."""
        super().__init__()
        self._pipeline, self._env, self._n = pipeline, env, n_action_steps
        self.seed = 0
        """Of the next episode's noise."""
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        spec = self._pipeline.spec
        self._schedule, self._safety = ChunkSchedule(spec, self._n), SafetyFilter(spec)
        self._rng = np.random.default_rng(self.seed)
        self._steps, self._grip = 0, -1.0

    def select_action(self, batch: dict[str, Any]) -> Tensor:
        """(1, 7) the next action, in LeRobot's units of -1 to 1, for a batch of one as LeRobot prepares it."""
        spec = self._pipeline.spec
        now_ns, state = self._steps * spec.dt_ns, self._state(batch["observation.robot_state"])
        if self._steps % self._n == 0:
            seen = Observation(
                {c.name: _image(batch, c.name, c.crop) for c in spec.cameras},
                state,
                batch["task"][0],
                now_ns,
            )
            chunk = self._pipeline.decide(seen, self._rng).chunk
            if chunk is None:
                self._schedule.clear("refused")
            else:
                self._schedule.accept(chunk)
        command = self._safety.check(self._schedule.command(now_ns), now_ns, state)
        action = command.action if command.mode is Mode.TRACK else np.zeros(7, np.float32)
        self._steps += 1
        self._grip = float(np.clip(self._grip + _GRIP_PER_STEP * np.sign(action[6]), -1.0, 1.0))
        scaled = np.concatenate([action[:3] / MOVE_M, action[3:6] / TURN_RAD, action[6:]]).astype(np.float32)
        return torch.from_numpy(scaled)[None]

    def _state(self, robot: Any) -> Floats:
        """(8,) as our environments give it."""
        hand, fingers = robot["eef"], robot["gripper"]["qpos"][0]
        base: Doubles = np.array(self._env._env.robots[0].base_pos)
        position, turn = hand["pos"][0].numpy() - base, turn_between(DOWN, hand["mat"][0].numpy().astype(np.float64))
        return np.array([*position, *turn, float(fingers[0] - fingers[1]), self._grip], np.float32)


def _image(batch: dict[str, Any], camera: str, crop: tuple[int, int, int, int] | None) -> Image:
    """Upright, uint8, and cut as the policy wants it."""
    pixels = batch[f"observation.images.{_CAMERAS[camera]}"][0].permute(1, 2, 0).numpy()
    image = np.rint(255 * pixels[::-1]).astype(np.uint8)
    if crop is None:
        return np.ascontiguousarray(image)
    assert image.shape[0] == SENSOR_PX
    top, left, height, width = crop
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def rollout(vector: Any, policy: InLeRobot) -> bool:
    """Whether one episode of LeRobot's evaluation loop, in a vector of one environment, succeeded."""
    from lerobot.scripts import lerobot_eval

    def as_it_is(value: Any) -> Any:
        return value

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its own bar would be drawn over ours
        found = lerobot_eval.rollout(vector, policy, as_it_is, as_it_is, as_it_is, as_it_is)
    return bool(found["success"].any())
