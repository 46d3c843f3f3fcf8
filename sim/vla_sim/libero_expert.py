"""LIBERO's scripted expert: a problem's goal predicates, one after another, in the grammar of `waypoints`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.types import Floats
from vla_sim.arm_env import View
from vla_sim.grasps import Grasp, by_the_rim, from_above
from vla_sim.panda import Doubles
from vla_sim.waypoints import OPEN, Place, pick_and_place, stay

_RIMMED = ("bowl", "plate")


@dataclass(frozen=True)
class PredicateExpert:
    """Does what does not hold yet."""

    goals: Sequence[Sequence[str]]
    """As LIBERO parses them, such as ("in", "milk_1", "basket_1_contain_region")."""

    def action(self, view: View) -> Floats:
        """(7,) towards the first goal that is unmet."""
        unmet = view.world.unmet(view.data, self.goals)
        if not unmet:
            return stay(view, OPEN)
        goal = unmet[0]
        return _put(view, goal[1], goal[2])

    def features(self, view: View) -> Floats:
        """(P,)."""
        return np.zeros(1, np.float32)


def _put(view: View, thing: str, to: str) -> Floats:
    body = body_of(view, thing)
    return pick_and_place(view, body, lambda: grasp_of(view, thing), lambda: place_of(view, thing, to))


def body_of(view: View, name: str) -> int:
    """MuJoCo's number of a LIBERO object's root body."""
    return int(view.world.env.obj_body_id[name])


def grasp_of(view: View, thing: str) -> Grasp:
    """Bowls by the rim, plates by the rim from below it, the rest from above."""
    body = body_of(view, thing)
    if "plate" in thing:
        return by_the_rim(view, body, 0.012)
    return by_the_rim(view, body) if any(word in thing for word in _RIMMED) else from_above(view, body)


def place_of(view: View, thing: str, to: str) -> Place:
    """Where an "in" or "on" wants a thing."""
    if "basket" in to:
        basket = body_of(view, to.removesuffix("_contain_region"))
        rim = float(view.world.shapes.cloud(view.data, basket)[:, 2].max())
        return Place(np.array([*_at(view, to)[:2], rim - 0.04]), rim + 0.035)
    target = _at(view, to)
    if to not in view.world.env.obj_body_id:
        height = float(target[2]) + 0.01
    else:
        cloud = view.world.shapes.cloud(view.data, body_of(view, to))
        height = float(cloud[:, 2].min()) + 0.03 if "bowl" in to else float(cloud[:, 2].max())
    # A stretched arm cannot lift far: carry low, come down early.
    return Place(np.array([*target[:2], height]), height + (0.03 if "plate" in thing else 0.06), near=0.035)


def _at(view: View, name: str) -> Doubles:
    """(3,) position of an object or of a region."""
    if name in view.world.env.obj_body_id:
        return np.array(view.data.xpos[body_of(view, name)])
    return np.array(view.data.site(name).xpos)
