"""LIBERO's scripted expert: a problem's goal predicates, one after another, in the grammar of `waypoints`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.types import Floats
from vla_sim.arm.env import View
from vla_sim.arm.osc import DOWN, turn_between
from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco
from vla_sim.scripted.articulated import drawer_of, pull_open, push_shut, turn_knob
from vla_sim.scripted.doors import swing
from vla_sim.scripted.grasps import Grasp, by_a_part, by_the_rim, fits, from_above
from vla_sim.scripted.waypoints import OPEN, Place, holds, pick_and_place, push, stay

_LIMIT = 6.0
_ORDER = {"open": 0, "turnon": 1, "close": 3}
"""What is done first; putting comes third."""
_OPENED_M, _SLACK_M = 0.12, 0.03
"""A drawer this far open takes a bowl, and leaves room beside it; how much it may lose when the hand lets go."""
_BESIDE_M = 0.008
"""Half of what is left between two things that share a region."""
_RIMMED = ("bowl", "plate", "mug")


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
        moving = {one[1] for one in unmet if len(one) == 3}
        goal = min(unmet, key=lambda one: (_ORDER.get(one[0], 2), one[-1] in moving))  # what others stand on first
        if goal[0] in ("open", "close"):
            return _move(view, goal[1], goal[0] == "open")
        if goal[0] in ("turnon", "turnoff"):
            return turn_knob(view, view.world.env.get_object(goal[1]).joints[0], 1.0 if goal[0] == "turnon" else -1.0)
        if len(goal) < 3:
            return stay(view, OPEN)  # not in this grammar
        return _put(view, goal[1], goal[2], self._side(goal))

    def _side(self, goal: Sequence[str]) -> float:
        """Of a region that two things are to stand on, side by side: -1 or 1, and 0 where it is for one alone."""
        sharing = [one for one in self.goals if one[0] == "on" and one[2:] == goal[2:]]
        return 2.0 * sharing.index(goal) - 1.0 if len(sharing) == 2 else 0.0

    def features(self, view: View) -> Floats:
        """(26,) distances in units that matter to the task, what the gripper holds, progress, time."""
        unmet = view.world.unmet(view.data, self.goals)
        goal = (unmet or self.goals)[0]
        thing = _at(view, goal[1])
        to = _at(view, goal[2]) if len(goal) == 3 else thing
        body = view.world.env.obj_body_id.get(goal[1], 0)
        touching = view.world.shapes.fingers_on(view.data, body) if body else 0
        hand, way = view.tool - thing, thing - to
        features = np.concatenate(
            [
                hand / 0.05,
                way / 0.05,
                way / 0.3,
                turn_between(DOWN, view.orientation),
                [
                    float(np.linalg.norm(hand)) / 0.05,
                    float(np.hypot(*way[:2])) / 0.05,
                    np.exp(-float(hand @ hand) / 0.02**2),
                    np.exp(-float(way[:2] @ way[:2]) / 0.03**2),
                    view.width / 0.04 - 1.0,
                    view.width_speed / 0.1,
                    view.grip,
                    float(view.closing),
                    touching / 2.0,
                    float(holds(view, body)) if body else 0.0,
                    view.data.cvel[body][5] / 0.2,
                    _joint(view, goal[1]) / 0.1,
                    float(len(unmet)),
                    1.0 - 2.0 * view.steps / view.max_steps,
                ],
            ]
        )
        return np.clip(features, -_LIMIT, _LIMIT).astype(np.float32)


def _move(view: View, name: str, opening: bool) -> Floats:
    """Open or close a drawer or a door."""
    joint = _slide(view, name)
    if joint:
        drawer = drawer_of(view, joint)
        return pull_open(view, drawer) if opening else push_shut(view, drawer)
    return swing(view, view.world.env.get_object(name).joints[0], opening)


def _put(view: View, thing: str, to: str, side: float) -> Floats:
    body = body_of(view, thing)
    joint = _slide(view, to)
    if joint and not holds(view, body):
        drawer = drawer_of(view, joint)
        pulled = view.closing and view.world.shapes.fingers_on(view.data, drawer.body)
        if drawer.opened < _OPENED_M - (0.0 if pulled else _SLACK_M):
            return pull_open(view, drawer)
    if "plate" in thing and "table" in to:  # its rim slopes: fingers that close on it slip off
        return push(view, body, _at(view, to)[:2])
    return pick_and_place(view, body, lambda: grasp_of(view, thing, to), lambda: place_of(view, thing, to, side))


def body_of(view: View, name: str) -> int:
    """MuJoCo's number of a LIBERO object's root body."""
    return int(view.world.env.obj_body_id[name])


def grasp_of(view: View, thing: str, to: str) -> Grasp:
    """Bowls by the rim, plates by the rim from below it, pots and pans by a part, the rest from above."""
    body = body_of(view, thing)
    goal = place_of(view, thing, to).position[:2]
    if any(word in thing for word in _RIMMED):
        return by_the_rim(view, body, goal, 0.012 if "plate" in thing else None)
    return from_above(view, body) if fits(view, body) else by_a_part(view, body, goal)


def _slide(view: View, region: str) -> str:
    """The sliding joint of a drawer's region; "" for what is no drawer."""
    site = view.world.env.object_sites_dict.get(region)
    joints = () if site is None or site.joints is None else site.joints
    sliding = [j for j in joints if view.world.model.joint(j).type[0] == mujoco.mjtJoint.mjJNT_SLIDE]
    return sliding[0] if sliding else ""


def place_of(view: View, thing: str, to: str, side: float = 0.0) -> Place:
    """Where an "in" or "on" wants a thing; with a `side`, -1 or 1, that half of it."""
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
    if side:
        sizes = np.ptp(view.world.shapes.cloud(view.data, body_of(view, thing))[:, :2], 0)
        narrow = int(sizes.argmin())
        target[narrow] += side * (sizes[narrow] / 2 + _BESIDE_M)
    # A stretched arm cannot lift far: carry low, come down early.
    near = 0.006 if side else 0.035
    return Place(np.array([*target[:2], height]), height + (0.03 if "plate" in thing else 0.06), near)


def _at(view: View, name: str) -> Doubles:
    """(3,) position of an object or of a region."""
    if name in view.world.env.obj_body_id:
        return np.array(view.data.xpos[body_of(view, name)])
    return np.array(view.data.site(name).xpos)


def _joint(view: View, name: str) -> float:
    """How far the drawer, door or knob of that name is from where it rests; 0 for what has none [m or rad]."""
    joints = getattr(view.world.env.get_object(name), "joints", ())
    hinges = [view.world.model.joint(joint) for joint in joints]
    return float(sum(view.data.qpos[hinge.qposadr[0]] for hinge in hinges if hinge.type[0] != 0))
