"""LIBERO as we run it is LIBERO: its physics, images, initial states; and the traps others fell into stay shut."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vla.errors import BadConfig, Missing, SpecMismatch, UnknownName
from vla.pipeline import FirstCandidate, Pipeline
from vla.spec import Spec, check_observation
from vla.types import Command, Floats, Mode
from vla_sim.arm.env import ArmEnv
from vla_sim.collect import CollectConfig, demonstrate
from vla_sim.rollout import run_episodes
from vla_sim.suites import libero
from vla_sim.suites.libero import OFFICIAL, SPEC, LiberoSuite

SUITE = LiberoSuite("libero_object", "decimated")
SOUP, MILK = SUITE.tasks[0], SUITE.tasks[7]


@pytest.fixture(scope="module")
def env() -> ArmEnv:
    return SUITE.make()


def track(action: Any) -> Command:
    return Command(np.asarray(action, np.float32), 0, 0, Mode.TRACK)


def random_action(rng: np.random.Generator) -> Floats:
    action = 0.5 * rng.uniform(SPEC.action_low, SPEC.action_high)
    return action.astype(np.float32)


@pytest.fixture(scope="module")
def official() -> Any:
    """LIBERO's own environment, with its own cameras and controller."""
    from pathlib import Path

    from vla_sim.arm.world import quiet
    from vla_sim.rendering import share_display

    with quiet():
        share_display()
        from libero.libero import get_libero_path
        from libero.libero.envs import OffScreenRenderEnv

        file = Path(get_libero_path("bddl_files")) / "libero_object" / f"{SOUP}.bddl"
        made = OffScreenRenderEnv(bddl_file_name=str(file), camera_heights=128, camera_widths=128)
        made.seed(0)
        made.reset()
    yield made
    made.close()


def test_a_scene_that_left_the_cache_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a gigabyte each: libero_90 has ninety, and a benchmark goes from suite to suite in one process."""
    monkeypatch.setattr(libero, "_world", functools.lru_cache(maxsize=1)(libero._world.__wrapped__))
    libero._tasks.cache_clear()
    try:
        env = LiberoSuite("libero_object", "decimated").make()
    finally:
        libero._tasks.cache_clear()
    gc.disable()  # it comes by in time only where many objects are made
    try:
        env.reset(0, SOUP)
        gone = weakref.ref(env._world.model)
        for task in SUITE.tasks[1:3]:
            env.reset(0, task)
        assert gone() is None
    finally:
        gc.enable()


def test_a_step_is_the_official_step(official: Any) -> None:
    """The same actions from the same initial state: fingertips within 1 mm of the official environment's, all along."""
    env = LiberoSuite("libero_object").make()
    env.reset(OFFICIAL, SOUP)
    states = env._episode.task.layout(env._world, OFFICIAL)
    official.set_init_state(np.r_[0.0, states.qpos, states.qvel])
    for _ in range(10):
        official.step(np.r_[np.zeros(6), -1.0])
    rng = np.random.default_rng(0)
    for _ in range(10):
        action = random_action(rng)
        env.step(track(action))
        observed = official.step(np.r_[action[:3] / 0.05, action[3:6] / 0.5, action[6]])[0]
        np.testing.assert_allclose(env.observe().state[:3] + env._world.base, observed["robot0_eef_pos"], atol=1e-3)
    image = official.env._get_observations(force_update=True)["agentview_image"]
    ours = env.render("agent", 128, 128)
    assert np.abs(ours.astype(int) - image[::-1]).mean() < 3, "robosuite's images are upside down, ours are not"
    assert np.abs(ours.astype(int) - image).mean() > 15


def test_the_second_million_of_seeds_are_the_official_initial_states_and_no_other_seed_is(env: ArmEnv) -> None:
    from vla_sim.suites import libero

    world = env._tasks(0, SOUP).world()
    layout = env._tasks(0, SOUP).layout
    starts = [layout(world, OFFICIAL + 10 * k).qpos for k in range(51)]
    assert not np.array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts[0], starts[50])
    drawn = [layout(world, seed).qpos for seed in (3, 3_000_000, 3)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert min(np.abs(new - start).max() for start in starts for new in drawn) > 1e-3
    assert [env._tasks(OFFICIAL + k, None).id for k in range(10)] == list(SUITE.tasks)
    assert libero._MAX_STEPS["libero_object"] == 280


def test_a_restored_snapshot_continues_bit_for_bit_in_another_environment(env: ArmEnv) -> None:
    env.reset(5, SOUP)
    rng = np.random.default_rng(1)
    for _ in range(6):
        env.step(track(env.expert()))
    saved = env.snapshot()
    env.observe()
    actions = [random_action(rng) for _ in range(6)]
    for action in actions:
        env.step(track(action))
    other = SUITE.make()
    other.reset(9, MILK)
    other.restore(saved)
    assert (other.task, other.steps) == (SOUP, 6)
    for action in actions:
        other.step(track(action))
    np.testing.assert_array_equal(env.snapshot().physics, other.snapshot().physics)
    np.testing.assert_array_equal(env.privileged(), other.privileged())
    np.testing.assert_array_equal(env.observe().images["agent"], other.observe().images["agent"])


def test_decimated_meshes_change_pictures_and_not_physics(env: ArmEnv) -> None:
    full = LiberoSuite("libero_object").make()
    for one in (env, full):
        one.reset(OFFICIAL + 20, SOUP)
        for _ in range(4):
            one.step(track(np.array([0.02, 0.01, -0.04, 0, 0, 0.1, 1])))
    np.testing.assert_array_equal(env.snapshot().physics, full.snapshot().physics)
    drawn = [np.abs(e.observe().images["agent"].astype(int)) for e in (env, full)]
    assert 0.5 < np.abs(drawn[0] - drawn[1]).mean() < 25


def test_observations_satisfy_the_spec_and_the_resting_tool_is_far_from_the_antipode(env: ArmEnv) -> None:
    """As an axis and angle from the identity the resting tool would flip its sign with the slightest tremor."""
    env.reset(OFFICIAL, SOUP)
    turns = []
    for k in range(12):
        env.step(track(np.array([0, 0, 0, 0.1 * (-1) ** k, 0.1, 0, -1])))
        seen = env.observe()
        check_observation(SPEC, seen)
        turns.append(seen.state[3:6])
    assert np.abs(turns).max() < 0.5
    assert np.abs(np.diff(turns, axis=0)).max() < 0.1
    _, orientation = env._world.osc.tool(env._data)
    assert np.arccos((np.trace(orientation) - 1) / 2) > 2.8
    assert seen.stamp_ns == 12 * SPEC.dt_ns


def test_positive_closes_and_holding_keeps_everything(env: ArmEnv) -> None:
    env.reset(OFFICIAL, SOUP)
    opened = env.observe().state[6]
    for _ in range(12):
        env.step(track(np.array([0, 0, 0, 0, 0, 0, 1])))
    closed, tool = env.observe().state[6], env.observe().state[:3]
    assert opened > 0.07 > 0.01 > closed
    for _ in range(6):
        env.step(Command(np.zeros(7, np.float32), 0, 0, Mode.HOLD))
    np.testing.assert_allclose(env.observe().state[:3], tool, atol=3e-3)
    assert env.observe().state[7] == 1.0
    with pytest.raises(BadConfig, match=r"vla\.safety"):
        env.step(track(np.array([0.06, 0, 0, 0, 0, 0, 0])))


class Still:
    """A policy that does nothing and remembers what it was told."""

    def __init__(self, spec: Spec) -> None:
        self.spec = replace(spec, chunk_size=1)
        self.told: list[str] = []

    def encode(self, observations: Any) -> Any:
        self.told += [o.instruction for o in observations]
        return len(observations)

    def propose(self, memory: Any, noise: Any) -> Any:
        return np.zeros_like(noise), None


def changed(field: str, **values: Any) -> Spec:
    first, *rest = getattr(SPEC, field)
    return replace(SPEC, **{field: (replace(first, **values), *rest)})


WRONG: dict[str, Callable[[], Spec]] = {
    "absolute instead of delta": lambda: changed("action", kind="absolute", moves=None),
    "relative to the command instead of the tool": lambda: changed("action", kind="delta"),
    "normalised units": lambda: changed("action", low=-1.0, high=1.0),
    "gripper sign": lambda: replace(SPEC, gripper="positive_open"),
    "rotation": lambda: replace(SPEC, rotation="quaternion_xyzw"),
    "control rate": lambda: replace(SPEC, control_rate_hz=10.0),
    "another crop": lambda: changed("cameras", crop=None),
    "turned images": lambda: changed("cameras", flip="rotate_180"),
    "state of something else": lambda: changed("state", frame="world"),
}


@pytest.mark.parametrize("trap", WRONG)
def test_a_policy_of_another_contract_is_refused_before_the_first_step(trap: str) -> None:
    with pytest.raises(SpecMismatch):
        run_episodes(Pipeline(Still(WRONG[trap]()), FirstCandidate()), SUITE, [0], n_action_steps=1)


def test_every_environment_of_a_batch_gets_its_own_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArmEnv, "_picture", lambda self, c: np.zeros((c.height, c.width, 3), np.uint8))
    monkeypatch.setattr(ArmEnv, "done", property(lambda self: self.steps >= 2))
    policy = Still(SPEC)
    rows = run_episodes(Pipeline(policy, FirstCandidate()), SUITE, [OFFICIAL, OFFICIAL + 7], n_action_steps=1)
    words = [row.instruction for row in rows]
    assert policy.told == words * 2
    assert "soup" in words[0]
    assert "milk" in words[1]


@pytest.mark.parametrize(
    ("suite", "index"),
    [("libero_object", 0), ("libero_object", 7), ("libero_spatial", 7), ("libero_goal", 3), ("libero_goal", 5)],
)
def test_the_expert_solves_a_layout_nobody_tuned_it_on(suite: str, index: int) -> None:
    found = LiberoSuite(suite, "decimated")
    env = found.make()
    env.reset(77_000, found.tasks[index])
    while not env.done:
        env.step(track(env.expert()))
    assert env.success
    assert env.failure == ""


def test_what_stands_on_a_fixture_is_drawn_where_the_official_states_have_it() -> None:
    """LIBERO places it relative to a fixture as compiled: drawn twice in one model, a bowl missed its stove."""
    suite = LiberoSuite("libero_spatial", "decimated")
    env, places = suite.make(), []
    for seed in (OFFICIAL + 7, 7, 17):
        env.reset(seed, suite.tasks[7])
        bowls = [env._world.things.body(f"akita_black_bowl_{i}") for i in (1, 2)]  # on the stove, on the cabinet
        places.append(env._data.xpos[bowls].copy())
    np.testing.assert_allclose(places[1:], [places[0]] * 2, atol=0.05)


def test_a_demonstration_that_fails_costs_no_picture(env: ArmEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_picture(*_: Any) -> Any:
        raise AssertionError("drew a failed episode")

    monkeypatch.setattr(ArmEnv, "_picture", no_picture)
    monkeypatch.setattr(ArmEnv, "done", property(lambda self: self.steps >= 3))
    assert demonstrate(env, 0, CollectConfig(suite="libero_object")) is None


def test_perturbations_change_words_places_or_goals() -> None:
    plain, words, goal = (LiberoSuite("libero_object", *v)._tasks[MILK] for v in ((), ("language",), ("task",)))
    assert plain.instruction == "pick up the milk and place it in the basket"
    assert words.instruction == "grab milk and put into basket"
    assert words.expert == plain.expert
    assert "milk" in str(plain.expert)
    assert "butter" in str(goal.expert)


def test_a_perturbation_that_leaves_the_words_alone_says_the_official_sentence() -> None:
    """Files say "pick the milk", LIBERO "pick up the milk": a policy would be told what it never was."""
    told = {
        v: [t.instruction for t in LiberoSuite("libero_object", v)._tasks.values()] for v in ("swap", "x0.1", "task")
    }
    assert told["swap"] == told["x0.1"] == list(SUITE.instructions)
    assert sorted(told["task"]) == sorted(SUITE.instructions)
    assert told["task"] != told["swap"]


def test_a_graded_shift_moves_what_is_asked_for_and_nothing_else(env: ArmEnv) -> None:
    shifted = LiberoSuite("libero_object", "decimated", "y0.2").make()
    env.reset(OFFICIAL, MILK)
    shifted.reset(OFFICIAL, MILK)
    things = env._world.things
    moved = shifted._data.xpos[things.bodies] - env._data.xpos[things.bodies]
    milk = things.names.index("milk_1")
    np.testing.assert_allclose(moved[milk, :2], (0.0, 0.14), atol=0.06)
    assert np.abs(np.delete(moved, milk, 0)).max() < 0.06
    with pytest.raises(UnknownName, match="swap"):
        LiberoSuite("libero_spatial", "y0.2")


def test_shuffled_things_exchange_their_places_and_the_basket_stays() -> None:
    plain, shuffled = SUITE.make(), LiberoSuite("libero_object", "decimated", "shuffled").make()
    found = []
    for seed in (3, OFFICIAL, OFFICIAL + 10, OFFICIAL + 20):
        spots = []
        for env in (plain, shuffled):
            env.reset(seed, SOUP)
            things = env._world.things
            places = {name: env._data.xpos[body][:2] for name, body in zip(things.names, things.bodies, strict=True)}
            np.testing.assert_allclose(places.pop("basket_1"), (0.0, 0.26), atol=0.02)
            spots.append(np.array(sorted(places.items(), key=lambda item: item[0]), dtype=object)[:, 1].tolist())
        was, now = np.array(spots)
        away = np.linalg.norm(was[:, None] - now[None], axis=2)
        assert away.min(0).max() < 0.01, "a thing lies where none lay"
        assert sorted(away.argmin(0)) == list(range(len(was)))
        found.append(tuple(away.argmin(0)))
    assert len(set(found)) > 1
    with pytest.raises(UnknownName, match="shuffled"):
        LiberoSuite("libero_goal", "shuffled")


def test_unknown_names_say_what_there_is(env: ArmEnv) -> None:
    with pytest.raises(UnknownName, match="pick_up_the_milk"):
        env.reset(0, "fly")
    with pytest.raises(UnknownName, match="decimated"):
        LiberoSuite("libero_object", "pretty")
    with pytest.raises(Missing, match="perturbed"):
        LiberoSuite("libero_90", "swap")
