"""A suite as a Gymnasium environment, for code that speaks only that.

`gymnasium.make("vla_sim.gym_env:vla/Tabletop-v0")` imports this module, which registers every installed suite:
`libero_object` is `vla/LiberoObject-v0`. The action is physical and goes to the simulator as it is: no pipeline,
schedule or safety filter is in between.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vla import registry
from vla.types import Command, Floats, Image, Mode
from vla_sim.env import Env, Suite

GymObservation = dict[str, Any]


class SuiteEnv(gymnasium.Env[GymObservation, Floats]):
    """Reward 1 on success. Failing otherwise than by time terminates, running out of time truncates."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, suite: str = "tabletop", render_mode: str | None = None) -> None:
        found: Suite = registry.suite(suite)()
        self._env: Env = found.make()
        self.render_mode = render_mode
        spec = found.spec
        self.metadata = SuiteEnv.metadata | {"render_fps": round(spec.control_rate_hz)}
        # A measurement may leave its limits; as far out as they are apart, safety takes it for a broken sensor.
        low = np.array([2 * d.low - d.high for d in spec.state], np.float32)
        high = np.array([2 * d.high - d.low for d in spec.state], np.float32)
        images = {c.name: spaces.Box(0, 255, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
        longest, letters = max(map(len, found.instructions)), "".join(sorted(set("".join(found.instructions))))
        sentence = spaces.Text(longest, charset=letters)
        self.observation_space = spaces.Dict(images | {"state": spaces.Box(low, high), "instruction": sentence})
        self.action_space = spaces.Box(spec.action_low, spec.action_high)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GymObservation, dict[str, Any]]:
        """Start the episode of a seed; `options={"task": ...}` chooses the task."""
        super().reset(seed=seed)
        scene = int(self.np_random.integers(2**31)) if seed is None else seed % (1 << 32)
        self._env.reset(scene, (options or {}).get("task"))
        return self._observe(), self._info()

    def step(self, action: Floats) -> tuple[GymObservation, float, bool, bool, dict[str, Any]]:
        """One control period."""
        env = self._env
        env.step(Command(np.asarray(action, np.float32), 0, 0, Mode.TRACK))
        truncated = env.failure == "timeout"
        return self._observe(), float(env.success), env.done and not truncated, truncated, self._info()

    def render(self) -> Image | None:
        """What the first camera sees, larger."""
        if self.render_mode is None:
            return None
        return self._env.render(self._env.spec.cameras[0].name, 256, 256)

    def _observe(self) -> GymObservation:
        seen = self._env.observe()
        return {**seen.images, "state": seen.state, "instruction": seen.instruction}

    def _info(self) -> dict[str, Any]:
        return {"task": self._env.task, "success": self._env.success, "failure": self._env.failure}


for _name in registry.suites():
    _id = f"vla/{_name.title().replace('_', '')}-v0"
    gymnasium.register(_id, entry_point="vla_sim.gym_env:SuiteEnv", kwargs={"suite": _name})
