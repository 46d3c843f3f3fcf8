"""Without a way to draw, the error says what to do; with one, the process ends quietly."""

from __future__ import annotations

import os
import subprocess
import sys

DRAW = """
from vla_sim.suites.tabletop import TabletopSuite
e = TabletopSuite().make()
e.observe()
print(e.steps)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_drawing_ends_without_complaints_from_the_driver() -> None:
    done = run(DRAW)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_it_does_so_when_robosuite_drew_in_between() -> None:
    """Each opens the same display, and whoever opened it closes it at exit: it must not be before ours are freed."""
    theirs = """
from vla_sim.arm.world import quiet
from vla_sim.rendering import share_display
with quiet():
    import robosuite
    share_display()
    env = robosuite.make("Lift", robots="Panda", use_camera_obs=True, camera_names="agentview", has_renderer=False)
    env.reset()
    env.close()
"""
    done = run(DRAW + theirs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_ours_and_robosuites_are_drawn_in_turn_and_neither_touches_the_others() -> None:
    """robosuite frees a scene's buffers in whichever context is current: in ours, a policy then saw noise."""
    code = """
import numpy as np
from vla_sim.suites.tabletop import TabletopSuite
from vla_sim.arm.world import quiet
from vla_sim.rendering import share_display
ours = TabletopSuite().make()
first = ours.observe().images["agent"]
with quiet():
    import robosuite
    share_display()
    env = robosuite.make("Lift", robots="Panda", use_camera_obs=True, camera_names="agentview", has_renderer=False)
    def look():
        np.random.seed(0)
        return env.reset()["agentview_image"]
    theirs = look()
    for _ in range(3):
        assert (ours.observe().images["agent"] == first).all()
        assert (look() == theirs).all()
print(first.std() > 5, theirs.std() > 5)
"""
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def test_memory_does_not_grow_with_models_that_come_and_go() -> None:
    code = """
import mujoco
from vla_sim.rendering import Look, _canvases, render
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
xml = "<mujoco><worldbody><camera name='c' pos='0 0 2'/><geom size='0.5'/></worldbody></mujoco>"
def draw():
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return render(model, data, "c", 32, 32).max()
began = [draw() for _ in range(3)] and resident_mb()
assert min(draw() for _ in range(30)) > 50
print(len(_canvases), resident_mb() - began < 30)
"""
    assert run(code).stdout == "0 True\n"


def test_a_gl_backend_that_cannot_work_is_named_with_the_remedy() -> None:
    done = run(DRAW, MUJOCO_GL="glfw")  # no display
    assert done.returncode == 1
    assert "vla.errors.Missing" in done.stderr
    assert "MUJOCO_GL='glfw'" in done.stderr
    assert "vla doctor" in done.stderr


def test_physics_needs_no_gl_context() -> None:
    code = "from vla_sim.suites.tabletop import TabletopSuite; e = TabletopSuite().make(); e.expert(); print('ok')"
    assert run(code, MUJOCO_GL="glfw").stdout == "ok\n"
