"""Where something more could stand in a scene: solids that are drawn, and that nothing else knows of.

A compiled scene takes no further body. What is drawn only is enough to ask whether a policy minds things it has not
seen, and it cannot get in the way: they stand where the surface is free, clear of whatever can be moved.
"""

from __future__ import annotations

import numpy as np

from vla_sim.arm.world import Layout, World
from vla_sim.panda import Doubles
from vla_sim.rendering import Kind, Solid, mujoco

_KINDS: tuple[tuple[Kind, tuple[float, float, float]], ...] = (
    ("cylinder", (0.9, 0.5, 0.1)),
    ("sphere", (0.6, 0.2, 0.7)),
    ("box", (0.9, 0.9, 0.9)),
)
_HALF_M = 0.02
_CLEAR_M = 0.09
"""From the middle of what can be moved, and of one another."""
_AROUND_M = 0.1
"""How far beyond the outermost of what can be moved."""
_TRIES = 100
_ABOVE_M = 3.0
_SEEN = np.array([0, 1, 0, 0, 0, 0], np.uint8)
"""Groups of geoms that a ray stops at: what is seen."""


def solids(world: World, layout: Layout, rng: np.random.Generator) -> tuple[Solid, ...]:
    """A cylinder, a sphere and a box on the surface; those that find no room stay away."""
    world.enter(layout)
    data = mujoco.MjData(world.model)
    data.qpos[:] = layout.qpos
    mujoco.mj_kinematics(world.model, data)
    taken = [place[:2] for place in world.things.within_reach(layout.qpos, world.base).values()]
    if not taken:
        return ()
    low, high = np.min(taken, 0) - _AROUND_M, np.max(taken, 0) + _AROUND_M
    found = []
    for kind, colour in _KINDS:
        for _ in range(_TRIES):
            place = rng.uniform(low, high)
            height = _free(world, data, place)
            if height is not None and min(float(np.hypot(*(place - other))) for other in taken) > _CLEAR_M:
                found.append(Solid(kind, (float(place[0]), float(place[1]), height + _HALF_M), _HALF_M, colour))
                taken.append(place)
                break
    return tuple(found)


def _free(world: World, data: mujoco.MjData, place: Doubles) -> float | None:
    """Height [m] of the surface where a solid would stand; None where something is on it, or it ends."""
    heights, geom = [], np.zeros(1, np.int32)
    for x, y in ((0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        start = np.array([place[0] + x * _HALF_M, place[1] + y * _HALF_M, _ABOVE_M])
        away = mujoco.mj_ray(world.model, data, start, np.array([0.0, 0, -1]), _SEEN, 1, -1, geom)
        if int(geom[0]) not in world.wardrobe.surface:
            return None
        heights.append(_ABOVE_M - away)
    return heights[0] if np.ptp(heights) < 1e-3 else None
