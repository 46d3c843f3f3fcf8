"""On LIBERO and robosuite each probe changes what it says and nothing else, repeats, and leaves the task feasible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vla import registry
from vla.errors import UnknownInstruction, UnknownName
from vla.tokenizers.words import WordTokenizer
from vla.types import Command, Mode
from vla_sim.arm.env import ArmEnv
from vla_sim.arm.probes import PROBES, _alone
from vla_sim.env import HasProgress, Probed
from vla_sim.suites.libero import OFFICIAL, LiberoSuite
from vla_sim.suites.robosuite import Lift, PickPlace, Stack

LIBERO = LiberoSuite("libero_object", "decimated")
SOUP, MILK = LIBERO.tasks[0], LIBERO.tasks[7]
LANGUAGE = [probe for probe in PROBES if probe.startswith("language_")]
SEEN = [probe for probe in PROBES if probe.startswith("vision_") or probe == "objects_colour"]


def solve(env: ArmEnv) -> bool:
    while not env.done:
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    return env.success


def begun(env: ArmEnv, seed: int, task: str) -> Any:
    env.reset(seed, task)
    return env.observe()


@pytest.mark.parametrize("probe", [probe for probe in PROBES if probe != "objects_size"])
def test_a_probe_changes_what_it_names_and_repeats(probe: str) -> None:
    plain, probed = LIBERO.make(), LIBERO.probed(probe).make()
    for seed in (OFFICIAL, OFFICIAL + 10):
        saw, now, again = (begun(env, seed, SOUP) for env in (plain, probed, probed))
        assert probed.task == plain.task == SOUP
        assert (now.instruction != saw.instruction) == (probe in LANGUAGE)
        np.testing.assert_array_equal(now.images["agent"], again.images["agent"])
        assert now.instruction == again.instruction
        off = np.abs(now.images["agent"].astype(int) - saw.images["agent"])
        least = 0.2 if probe == "vision_distractors" else 1.0  # three small things
        assert (off.mean() > least) == (probe not in LANGUAGE), (
            "seen where something to see was changed, and only there"
        )


def test_what_is_only_seen_leaves_the_physics_alone() -> None:
    states = []
    for env in (LIBERO.make(), *(LIBERO.probed(probe).make() for probe in SEEN)):
        env.reset(OFFICIAL, SOUP)
        for _ in range(6):
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
        states.append(env.snapshot().physics)
    for state in states[1:]:
        np.testing.assert_array_equal(state, states[0])


def test_environments_that_share_a_scene_do_not_dress_each_other() -> None:
    """Probed and not, they take turns with one compiled model."""
    envs = [
        LIBERO.make(),
        *(LIBERO.probed(probe).make() for probe in ("vision_light", "vision_camera", "objects_pose")),
    ]
    alone = [begun(env, OFFICIAL, SOUP).images["agent"] for env in envs]
    for env, image in zip(reversed(envs), reversed(alone), strict=True):
        np.testing.assert_array_equal(env.observe().images["agent"], image)


def test_a_snapshot_brings_its_change_along() -> None:
    first, second = Lift().probed("objects_size").make(), Lift().make()
    first.reset(8)
    second.reset(9)
    second.restore(first.snapshot())
    np.testing.assert_array_equal(first.observe().images["agent"], second.observe().images["agent"])
    for env in (first, second):
        for _ in range(20):
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    np.testing.assert_array_equal(first.snapshot().physics, second.snapshot().physics)


def test_distractors_stand_where_nothing_else_does() -> None:
    """On the surface, in the same place each time, clear of what can be moved; a scene without room has fewer."""
    env = LIBERO.probed("vision_distractors").make()
    for seed in range(OFFICIAL, OFFICIAL + 100, 20):
        env.reset(seed)
        layout, world = env._episode.layout, env._world
        things = layout.qpos[world.things.qpos[:, None] + np.arange(2)]
        for solid in layout.dress.solids:
            assert solid.place[2] == pytest.approx(solid.half_m, abs=1e-3)  # these scenes' surface is the floor
            assert np.hypot(*(things - solid.place[:2]).T).min() > 0.09
        assert len(layout.dress.solids) == 3
    bins = PickPlace().probed("vision_distractors").make()
    bins.reset(2_002)
    assert 0 < len(bins._episode.layout.dress.solids) <= 3


@pytest.mark.parametrize(
    ("suite", "probe"),
    [(Lift, "objects_size"), (Lift, "objects_pose"), (Stack, "objects_size"), (Stack, "objects_pose")],
)
def test_the_task_stays_feasible(suite: Callable[[], Any], probe: str) -> None:
    env = suite().probed(probe).make()
    done = []
    for seed in range(2_000, 2_004):
        env.reset(seed)
        done.append(solve(env))
    assert sum(done) == 4


def test_liberos_tasks_stay_feasible_too() -> None:
    """What is only seen leaves them alone, see above; so one that moves things."""
    env = LIBERO.probed("objects_pose").make()
    env.reset(OFFICIAL + 250, SOUP)
    assert solve(env)


def test_a_cube_of_another_size_is_felt() -> None:
    """Held between the fingers it keeps them as far apart as it is wide."""
    widths = []
    for env in (Lift().make(), Lift().probed("objects_size").make()):
        env.reset(2_000)
        assert solve(env)
        widths.append(env.observe().state[6])
    ratio = widths[1] / widths[0]
    assert 0.84 < ratio < 0.96 or 1.02 < ratio < 1.07


def test_paraphrases_are_new_sentences_of_known_words_and_the_rest_is_not_known() -> None:
    for name in ("libero_object", "libero_spatial", "libero_goal", "libero_10", "pick_place"):
        suite = registry.suite(name)()
        tokenizer = WordTokenizer.of(suite.instructions)
        changes = {probe: suite.probed(probe)._change for probe in LANGUAGE if probe != "language_swap"}
        for seed, task in enumerate(suite._tasks.values()):
            said = {probe: change(task, seed).instruction for probe, change in changes.items()}
            assert said["language_paraphrase"] not in suite.instructions
            tokenizer.encode(said["language_paraphrase"])
            for probe in ("language_negation", "language_unseen_noun"):
                with pytest.raises(UnknownInstruction):
                    tokenizer.encode(said[probe])


def test_a_swapped_sentence_is_about_something_else_in_the_scene() -> None:
    env = LIBERO.probed("language_swap").make()
    env.reset(OFFICIAL, MILK)
    assert env.instruction in LIBERO.instructions
    thing = env.progress.target
    assert thing.removesuffix("_1").replace("_", " ") in env.instruction
    assert thing != "milk_1"
    assert thing in env._world.things.names


def test_no_intention_is_scored_about_what_robosuite_put_away() -> None:
    suite = PickPlace()
    env = suite.probed("language_swap").make()
    for seed, task in enumerate(suite.tasks):
        env.reset(seed, task)
        assert env.instruction != suite.make().altered(lambda t, _: t)._tasks(seed, task).instruction
        assert env.progress.target == "", "the other three lie 14 m away"


def test_one_of_several_alike_is_no_target() -> None:
    names = ["akita_black_bowl_1", "akita_black_bowl_2", "plate_1", "cubeA"]
    assert [name for name in names if _alone(name, names)] == ["plate_1", "cubeA"]
    assert not _alone("wine_bottle_1", names), "nor what is not there"


def test_a_goal_on_the_table_moves_with_its_landmark() -> None:
    suite = LiberoSuite("libero_goal", "decimated")
    (push,) = (task for task in suite.tasks if "push_the_plate" in task)
    region, away = "main_table_stove_front_region", []
    plain, probed = suite.make(), suite.probed("objects_pose").make()
    for env in (plain, probed, plain):
        env.reset(3, push)
        env.observe()  # the two share a scene: whoever looks puts his own things into it
        data = env._data
        away.append((data.site(region).xpos - data.body("flat_stove_1_main").xpos)[:2].copy())
    np.testing.assert_allclose(away[1], away[0], atol=1e-9)
    np.testing.assert_allclose(away[2], away[0], atol=1e-9)
    probed.reset(3, push)
    assert solve(probed)


def test_the_expert_goes_for_the_right_thing_first_and_passes_every_phase() -> None:
    env = LIBERO.make()
    env.reset(77_000, MILK)
    assert isinstance(env, HasProgress)
    assert (env.progress.phase, env.progress.approached) == ("reach", "")
    phases = []
    while not env.done:
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
        if not phases or env.progress.phase != phases[-1]:
            phases.append(env.progress.phase)
    assert env.success
    assert phases == ["reach", "grasp", "carry", "place"]
    assert env.progress.approached == env.progress.target == "milk_1"


def test_going_for_another_thing_is_told() -> None:
    """The milk's expert, judged by a sentence about something else."""
    env = LIBERO.probed("language_swap").make()
    env.reset(77_000, MILK)
    for _ in range(90):
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    assert (env.progress.approached, env.progress.phase) == ("milk_1", "reach")
    assert env.progress.target != "milk_1"


def test_a_suite_has_the_probes_that_make_sense_for_it() -> None:
    for suite in (LIBERO, Lift(), PickPlace()):
        assert isinstance(suite, Probed)
    assert set(LIBERO.probes) == PROBES.keys() - {"objects_size"}
    assert set(Lift().probes) == PROBES.keys() - set(LANGUAGE), "one sentence: nothing to listen to"
    assert set(PickPlace().probes) == PROBES.keys() - {"objects_size", "objects_pose"}
    with pytest.raises(UnknownName, match="vision_light"):
        LIBERO.probed("vision_sound")
    with pytest.raises(UnknownName, match="no probe 'objects_size'"):
        LIBERO.probed("objects_size")
