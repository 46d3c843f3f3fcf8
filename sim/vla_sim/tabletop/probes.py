"""The tabletop with one thing changed: what does a policy depend on, and does it go wrong in what it wants or does?

After INT-ACT (Fang et al., arXiv 2506.09930): language, vision and objects are changed one at a time, on the same seeds
as the unchanged episodes; whether the robot went for the right object is scored apart from whether it finished. Every
change leaves the task feasible (the scripted expert, who reads no words and sees no pictures, is tested on each).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vla.errors import UnknownName
from vla.spec import Spec
from vla.types import Command, Image
from vla_sim.panda import Doubles
from vla_sim.rendering import mujoco
from vla_sim.suites.tabletop import Snapshot, TabletopEnv, TabletopSuite, build
from vla_sim.tabletop.tasks import COLOURS, TASKS, Task

PROBES = {
    "language_paraphrase": "a sentence it was not trained on, made of words it was trained on",
    "language_negation": "the task, and an object that is not meant",
    "language_unseen_noun": "cubes are called boxes",
    "language_swap": "the sentence of a task about another cube; the goal stays, so success must fall",
    "vision_light": "half to three quarters of the light, or a quarter more, a little coloured",
    "vision_texture": "a patterned table",
    "vision_camera": "the outer camera 2 to 4 cm and 1 to 3 degrees off",
    "vision_distractors": "three more things on the table, of other shapes and colours",
    "objects_pose": "everything up to 6 cm aside, cubes turned farther than in training",
    "objects_size": "cubes 5 to 15% smaller, or 3 to 6% larger",
    "objects_colour": "darker or paler cubes",
}
"""What each changes."""

_PARAPHRASES = {
    "pick": ("please grab the {a} block", "lift up the {a} cube", "pick the {a} cube up"),
    "push": ("push the {a} block {b}", "please slide the {a} cube to the {b}", "move the {a} block {b}"),
    "stack": ("place the {a} block on the {b} one", "put the {a} cube on {b}", "please stack the {a} block on {b}"),
    "bowl": (
        "put the {a} block into the bowl",
        "drop the {a} cube in the bowl",
        "please place the {a} block in the bowl",
    ),
}
_STREAM = 13
_TABLES = 3
_DISTRACTORS = (("cylinder", (0.9, 0.5, 0.1, 1)), ("sphere", (0.6, 0.2, 0.7, 1)), ("box", (0.9, 0.9, 0.9, 1)))
_DISTRACTOR_M = 0.018
"""Half its size."""
_CLEAR_M = 0.105
"""Least distance of a distractor from whatever the task needs room around."""
_BELOW_M = -1.0
"""Where distractors are that are not in the scene."""


@dataclass(frozen=True, eq=False)
class Scene:
    """How this episode differs; as it is drawn from the seed, and as every model of the tabletop can show it."""

    light: Doubles
    """(3,) factor on each colour of all lights."""
    table: int = -1
    """Index of the table's pattern; -1 is none."""
    camera_shift: Doubles | None = None
    """(3,) [m] in the base frame."""
    camera_turn: Doubles | None = None
    """(3,) rotation vector [rad] in the camera's frame."""
    size: float = 1.0
    """Factor on the cubes' edges."""
    shade: float = 0.0
    """Below 0 darker, down to -1, black; above 0 paler, up to 1, white."""


@dataclass(frozen=True, eq=False)
class ProbedSnapshot(Snapshot):
    """A moment of a changed episode."""

    scene: Scene


class ProbedEnv(TabletopEnv):
    """A tabletop whose every episode is changed. Environments share the model, so each dresses it before use."""

    def __init__(self, visual: str, spec: Spec, probe: str) -> None:
        self._probe = probe
        self._scene = Scene(np.ones(3))
        self._plain = _plain(visual)
        super().__init__(self._plain.model, spec)

    def reset(self, seed: int, task: str | None = None) -> None:
        """The episode of this seed, changed; without the change it is bit for bit the unprobed suite's."""
        super().reset(seed, task)
        rng = np.random.default_rng([seed, _STREAM])
        self._scene = _draw(self._probe, rng)
        goal = TASKS[self.task]
        if self._probe.startswith("language_"):
            self.set_instruction(_sentence(self._probe, goal, seed, rng))
        if self._probe == "objects_pose":
            self._move_everything(rng)
        if self._probe == "vision_distractors":
            self._place_distractors(goal, rng)
        self._settle_view()

    def step(self, command: Command) -> None:
        """Run one control period."""
        self._dress()
        super().step(command)

    def render(self, camera: str, height: int, width: int) -> Image:
        """One image from "agent", "wrist" or "film"."""
        self._dress()
        return super().render(camera, height, width)

    def snapshot(self) -> ProbedSnapshot:
        """The unprobed snapshot, and the change."""
        plain = super().snapshot()
        return ProbedSnapshot(plain.physics, plain.episode, self._scene)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this or another environment of this suite."""
        if isinstance(snapshot, ProbedSnapshot):
            self._scene = snapshot.scene
        super().restore(snapshot)

    def _settle_view(self) -> None:
        """What `reset` moved is where the episode begins."""
        mujoco.mj_kinematics(self._model, self._data)
        self._episode = replace(self._episode, start=self._data.qpos[self._cubes])
        self._view = self._look()

    def _move_everything(self, rng: np.random.Generator) -> None:
        data, shift = self._data, rng.uniform((-0.03, -0.06), (0.04, 0.06))
        for address in self._cubes[:, 0]:
            yaw = rng.uniform(0.35, 0.6) * rng.choice((-1, 1))
            data.qpos[address : address + 2] += shift
            data.qpos[address + 3 : address + 7] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        data.mocap_pos[0, :2] += shift

    def _place_distractors(self, task: Task, rng: np.random.Generator) -> None:
        """Where nothing of the task comes by; one that finds no room stays away."""
        needed = [*self._data.qpos[self._cubes][:, :2], self._data.mocap_pos[0, :2].copy()]
        if task.skill == "push":
            along = np.array([0.0, task.direction])
            needed += [needed[task.cube] + along * step for step in (-0.1, -0.05, 0.05, 0.1, 0.15)]
        for i in range(len(_DISTRACTORS)):
            for _ in range(50):
                place = rng.uniform((0.38, -0.19), (0.66, 0.19))
                if min(float(np.hypot(*(place - other))) for other in needed) > _CLEAR_M:
                    self._data.mocap_pos[1 + i] = *place, _DISTRACTOR_M
                    needed.append(place)
                    break

    def _dress(self) -> None:
        """Make the shared model this episode's."""
        model, scene, base = self._model, self._scene, self._plain.fields
        for name, value in base.items():
            getattr(model, name)[:] = value
        model.light_diffuse[:] *= scene.light
        for name, value in self._plain.headlight.items():
            getattr(model.vis.headlight, name)[:] = value * scene.light
        if scene.table >= 0:
            table = model.geom("table").id
            model.geom_matid[table] = model.material(f"pattern{scene.table}").id
            model.geom_rgba[table] = 1.0
        camera = model.camera("agent").id
        if scene.camera_shift is not None and scene.camera_turn is not None:
            model.cam_pos[camera] += scene.camera_shift
            turn, angle = np.empty(4), float(np.linalg.norm(scene.camera_turn))
            mujoco.mju_axisAngle2Quat(turn, scene.camera_turn / angle, angle)
            mujoco.mju_mulQuat(model.cam_quat[camera], base["cam_quat"][camera], turn)
        for colour in COLOURS:
            body = model.body(colour).id
            geom, box = model.body_geomadr[body], model.body_bvhadr[body]
            model.geom_rgba[geom, :3] *= 1 - abs(scene.shade)
            model.geom_rgba[geom, :3] += max(scene.shade, 0.0)
            model.geom_size[geom] *= scene.size
            model.geom_rbound[geom] *= scene.size
            model.geom_aabb[geom, 3:] *= scene.size
            model.bvh_aabb[box, 3:] *= scene.size
            model.body_mass[body] *= scene.size**3
            model.body_inertia[body] *= scene.size**5


_FIELDS = (
    "light_diffuse",
    "geom_matid",
    "geom_rgba",
    "cam_pos",
    "cam_quat",
    "geom_size",
    "geom_rbound",
    "geom_aabb",
    "bvh_aabb",
    "body_mass",
    "body_inertia",
)
"""What a scene may change of a model."""


class ProbedTabletop(TabletopSuite):
    """The tabletop with one probe."""

    def __init__(self, probe: str, visual: Literal["primitive", "mesh"] = "primitive") -> None:
        """Raises UnknownName."""
        super().__init__(visual)
        if probe not in PROBES:
            raise UnknownName(f"the tabletop has no probe {probe!r}; there is {', '.join(PROBES)}")
        self._probe = probe

    def make(self) -> ProbedEnv:
        """A new environment, already reset to seed 0."""
        return ProbedEnv(self._visual, self.spec, self._probe)

    def stage(self) -> ProbedEnv:
        """One with the Panda's meshes, for videos. Raises Missing without robosuite."""
        return ProbedEnv("mesh", self.spec, self._probe)


def _draw(probe: str, rng: np.random.Generator) -> Scene:
    """How this episode looks. Language and what lies where are not part of it."""
    scene = Scene(np.ones(3))
    if probe == "vision_light":
        level = rng.uniform(0.5, 0.75) if rng.random() < 0.5 else 1.25
        return replace(scene, light=level * rng.uniform(0.9, 1.1, 3))
    if probe == "vision_texture":
        return replace(scene, table=int(rng.integers(_TABLES)))
    if probe == "vision_camera":
        shift, turn = (_direction(rng) for _ in range(2))
        return replace(
            scene,
            camera_shift=shift * rng.uniform(0.02, 0.04),
            camera_turn=turn * np.deg2rad(rng.uniform(1.0, 3.0)),
        )
    if probe == "objects_size":
        return replace(scene, size=rng.uniform(0.85, 0.95) if rng.random() < 0.5 else rng.uniform(1.03, 1.06))
    if probe == "objects_colour":
        return replace(scene, shade=-rng.uniform(0.3, 0.5) if rng.random() < 0.5 else rng.uniform(0.25, 0.4))
    return scene


def _direction(rng: np.random.Generator) -> Doubles:
    direction = rng.standard_normal(3)
    unit: Doubles = direction / np.linalg.norm(direction)
    return unit


def _sentence(probe: str, goal: Task, seed: int, rng: np.random.Generator) -> str:
    """What the policy is told."""
    wordings = goal.wordings()
    plain = wordings[rng.integers(len(wordings))]
    if probe == "language_paraphrase":
        paraphrases = _PARAPHRASES[goal.skill]
        return paraphrases[rng.integers(len(paraphrases))].format(a=COLOURS[goal.cube], b=goal.to)
    if probe == "language_negation":
        others = [colour for colour in COLOURS if colour not in (COLOURS[goal.cube], goal.to)]
        return f"{plain}, not the {others[rng.integers(len(others))]} one"
    if probe == "language_unseen_noun":
        return plain.replace("cube", "box").replace("block", "box")
    return TabletopSuite().other_instruction(goal.id, seed)


@dataclass(frozen=True, eq=False)
class _Plain:
    """The model that all probed environments of a process share, and what it was before any of them dressed it."""

    model: Any
    fields: dict[str, Any]
    headlight: dict[str, Any]


@functools.cache
def _plain(visual: str) -> _Plain:
    model = _compile(visual)
    headlight = {name: np.array(getattr(model.vis.headlight, name)) for name in ("ambient", "diffuse")}
    return _Plain(model, {name: getattr(model, name).copy() for name in _FIELDS}, headlight)


def _compile(visual: str) -> Any:
    """The tabletop with what probes need: patterns for the table, and distractors below it."""
    scene = build(visual)
    for i, repeat in zip(range(_TABLES), (6, 10, 16), strict=True):
        scene.add_texture(
            name=f"pattern{i}",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            rgb1=((0.75, 0.7, 0.6), (0.45, 0.5, 0.6), (0.85, 0.85, 0.85))[i],
            rgb2=((0.45, 0.38, 0.3), (0.6, 0.65, 0.7), (0.35, 0.4, 0.35))[i],
            width=64,
            height=64,
        )
        material = scene.add_material(name=f"pattern{i}", texrepeat=(repeat, repeat))
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"pattern{i}"
    for kind, rgba in _DISTRACTORS:
        body = scene.worldbody.add_body(name=kind, mocap=True, pos=(0, 0, _BELOW_M))
        shape = getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}")
        body.add_geom(type=shape, size=(_DISTRACTOR_M, _DISTRACTOR_M, _DISTRACTOR_M), rgba=rgba, conaffinity=3)
    return scene.compile()
