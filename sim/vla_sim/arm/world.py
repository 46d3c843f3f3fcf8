"""One robosuite scene, compiled once and shared: it draws layouts and judges any number of `mjData`.

robosuite and LIBERO tie one environment to one simulation and compile it again at each reset. Here their environment is
kept for what only it knows (where things may lie, what success means) and is shown the data it is asked about.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_sim.arm.dress import PLAIN, Dress, Wardrobe
from vla_sim.arm.osc import OSC, Goal
from vla_sim.arm.shapes import Shapes
from vla_sim.arm.things import Things
from vla_sim.panda import Doubles

CONTROL_RATE_HZ = 20.0
_LARGEST_IMAGE = 640


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is when an episode begins."""

    qpos: Doubles
    qvel: Doubles
    fixtures: Doubles
    """(F, 7) position [m] and quaternion (w, x, y, z) of each fixture's body: part of the model, not of the state."""
    dress: Dress = PLAIN
    """What looks different; part of the model, too."""
    regions: Doubles = field(default_factory=lambda: np.zeros(2))
    """(2,) [m] how far the table's regions, which goals may name, are from where the scene has them; so are these."""


class World:
    """A scene with one Panda. Environments of a process share it and take turns: `enter` before anything else."""

    def __init__(self, build: Callable[[], Any], seed: int = 0) -> None:
        """`build` makes robosuite's environment, without cameras; `seed` decides what a reset of it draws."""
        with quiet(), _numpy_seed(seed):
            self.env = build()
            self.env.reset()
            self.env.hard_reset = False
        self.model = self.env.sim.model._model
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = _LARGEST_IMAGE
        arm = self.env.robots[0].controller
        self.osc = OSC(self.model, np.array(arm.initial_joint))
        self.rest = Goal(np.array(arm.ee_pos), np.array(arm.goal_ori))
        """Where the tool is after robosuite's reset: its controller's first goal."""
        self.base = np.array(self.env.robots[0].base_pos)
        """(3,) [m] the robot's base in the world; its axes are the world's."""
        self.substeps = round(1.0 / CONTROL_RATE_HZ / self.model.opt.timestep)
        self.shapes = Shapes(self.model)
        self.things = Things(self.model)
        self.wardrobe, self._worn = Wardrobe(self.model, self.things), PLAIN
        door = [self.env.door] if hasattr(self.env, "door") else []
        fixtures = [*getattr(self.env, "fixtures_dict", {}).values(), *door]
        self._fixtures = [self.model.body(fixture.root_body).id for fixture in fixtures]
        self._compiled = [_compiled_pose(fixture.get_obj()) for fixture in fixtures]
        apart = {int(self.model.body_rootid[body]) for body in (*self.things.bodies, *self._fixtures)}
        self._regions = [
            site
            for site in range(self.model.nsite)
            if self.model.site(site).name.endswith("_region")
            and int(self.model.body_rootid[self.model.site_bodyid[site]]) not in apart
        ]
        self._region_places = self.model.site_pos[self._regions, :2].copy()
        self.first = self._read()
        """The layout that the first reset drew."""
        self._entered: Doubles | None = None
        self.enter(self.first)

    def draw(self, seed: int) -> Layout:
        """A layout from the scene's own placement rules."""
        self._entered = None  # fixtures are drawn into the model
        # What stands on a fixture or in it is placed relative to where the fixture was compiled, so it must be there.
        for body, pose in zip(self._fixtures, self._compiled, strict=True):
            self.model.body_pos[body], self.model.body_quat[body] = pose[:3], pose[3:]
        self.model.site_pos[self._regions, :2] = self._region_places
        with quiet(), _numpy_seed(seed):
            self.env.reset()
        return self._read()

    def enter(self, layout: Layout) -> None:
        """Put an episode's fixtures and dress into the shared model; nothing to do when they are there."""
        if self._entered is not layout.fixtures:
            for body, pose in zip(self._fixtures, layout.fixtures, strict=True):
                self.model.body_pos[body], self.model.body_quat[body] = pose[:3], pose[3:]
            self.model.site_pos[self._regions, :2] = self._region_places + layout.regions
            self._entered = layout.fixtures
        if self._worn is not layout.dress:
            self.wardrobe.wear(layout.dress)
            if self._worn.size != layout.dress.size:
                self.shapes = Shapes(self.model)
            self._worn = layout.dress

    def success(self, data: Any) -> bool:
        """What the official environment says of this state; its positions and contacts must be up to date."""
        with self.shown(data):
            return bool(self.env._check_success())

    def unmet(self, data: Any, goals: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Those of a LIBERO problem's goal predicates that do not hold."""
        with self.shown(data):
            return [goal for goal in goals if not self.env._eval_predicate(goal)]

    def show_switches(self, data: Any) -> None:
        """Colour what shows that something is on, such as a stove's plate: part of the model, not of the state."""
        if hasattr(self.env, "_post_process"):
            with self.shown(data):
                self.env._post_process()

    @contextlib.contextmanager
    def shown(self, data: Any) -> Iterator[None]:
        """Within the block, robosuite's environment is about this data."""
        holder = self.env.sim.data
        own, holder._data = holder._data, data
        try:
            yield
        finally:
            holder._data = own

    def _read(self) -> Layout:
        data = self.env.sim.data
        pose = [np.r_[self.model.body_pos[body], self.model.body_quat[body]] for body in self._fixtures]
        return Layout(data.qpos.copy(), data.qvel.copy(), np.array(pose).reshape(-1, 7))


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """robosuite and LIBERO print, log and warn as they import and build."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _compiled_pose(body: Any) -> Doubles:
    """(7,) position and quaternion that the XML gives a body."""
    return np.array(f"{body.get('pos', '0 0 0')} {body.get('quat', '1 0 0 0')}".split(), float)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Generator[None]:
    """robosuite draws from numpy's global generator; what was in it before is put back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
