"""Without a way to draw, the error says what to do; with one, the process ends quietly."""

from __future__ import annotations

import os
import subprocess
import sys

DRAW = "from vla_sim.suites.tabletop import TabletopSuite; e = TabletopSuite().make(); e.observe(); print(e.steps)"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_drawing_ends_without_complaints_from_the_driver() -> None:
    done = run(DRAW)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_gl_backend_that_cannot_work_is_named_with_the_remedy() -> None:
    done = run(DRAW, MUJOCO_GL="glfw")  # no display
    assert done.returncode == 1
    assert "vla.errors.Missing" in done.stderr
    assert "MUJOCO_GL='glfw'" in done.stderr
    assert "vla doctor" in done.stderr


def test_physics_needs_no_gl_context() -> None:
    code = "from vla_sim.suites.tabletop import TabletopSuite; e = TabletopSuite().make(); e.expert(); print('ok')"
    assert run(code, MUJOCO_GL="glfw").stdout == "ok\n"
