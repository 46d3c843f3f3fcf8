"""LeRobot's own LIBERO environment on the packaged task files: what ours is measured against."""

from __future__ import annotations

from typing import Any

from vla_sim.world import quiet


def lerobot_env(suite: str, task: int, size_px: int) -> Any:
    """One environment as `lerobot-eval` makes it: a Gymnasium environment that draws both cameras at every step."""
    with quiet():
        from lerobot.envs import libero as theirs
        from libero.libero import benchmark

        # Theirs unpickles the upstream files of initial states; the package ships the same numbers as npz.
        theirs.get_task_init_states = lambda suite, index, is_libero_plus=False: suite.get_task_init_states(index)
        problems = benchmark.get_benchmark(suite)(task_order_index=0)
        return theirs.LiberoEnv(
            problems,
            task,
            suite,
            obs_type="pixels_agent_pos",
            observation_width=size_px,
            observation_height=size_px,
        )
