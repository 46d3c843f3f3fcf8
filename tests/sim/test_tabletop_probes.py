"""Each probe changes what it says and nothing else, repeats, and leaves the task feasible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vla.errors import UnknownInstruction, UnknownName
from vla.tokenizers.words import WordTokenizer
from vla.types import Command, Image, Mode
from vla_sim.env import HasProgress, Probed
from vla_sim.suites.tabletop import TabletopSuite
from vla_sim.tabletop.probes import PROBES
from vla_sim.tabletop.tasks import TASKS

SUITE = TabletopSuite()
SEEN = [probe for probe in PROBES if probe.startswith("vision_") or probe == "objects_colour"]


def solve(env: Any) -> bool:
    while not env.done:
        env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    return bool(env.success)


def agent(env: Any) -> Image:
    image: Image = env.observe().images["agent"]
    return image


@pytest.mark.parametrize("probe", [p for p in PROBES if not p.startswith("language_")])
def test_the_task_stays_feasible(probe: str) -> None:
    env = SUITE.probed(probe).make()
    done = []
    for seed in range(16):
        env.reset(seed)
        done.append(solve(env))
    assert sum(done) >= 15


@pytest.mark.parametrize("probe", list(PROBES))
def test_a_probe_changes_what_it_names_and_repeats(probe: str) -> None:
    plain, probed, again = SUITE.make(), SUITE.probed(probe).make(), SUITE.probed(probe).make()
    for seed in (3, 4):
        for env in (plain, probed, again):
            env.reset(seed)
        assert probed.task == plain.task
        saw, now, once_more = (env.observe() for env in (plain, probed, again))
        assert (now.instruction != saw.instruction) == probe.startswith("language_")
        np.testing.assert_array_equal(now.images["agent"], once_more.images["agent"])
        assert now.instruction == once_more.instruction
        is_seen = np.abs(now.images["agent"].astype(int) - saw.images["agent"]).max() > 10
        assert is_seen == (not probe.startswith("language_"))


@pytest.mark.parametrize("probe", [p for p in SEEN if p != "vision_distractors"])  # those are solid
def test_what_is_only_seen_leaves_the_physics_alone(probe: str) -> None:
    plain, probed = SUITE.make(), SUITE.probed(probe).make()
    for env in (plain, probed):
        env.reset(5)
        for _ in range(12):
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    np.testing.assert_array_equal(plain.observe().state, probed.observe().state)


def test_probes_of_one_process_do_not_change_each_other() -> None:
    """They share one model; each environment dresses it before it is used."""
    envs = [SUITE.probed(probe).make() for probe in SEEN]
    alone = []
    for env in envs:
        env.reset(7)
        alone.append(agent(env))
    for env, image in zip(reversed(envs), reversed(alone), strict=True):
        np.testing.assert_array_equal(agent(env), image)


def test_a_snapshot_brings_its_change_along() -> None:
    first, second = SUITE.probed("objects_size").make(), SUITE.probed("objects_size").make()
    first.reset(8)
    second.reset(9)
    saved = first.snapshot()
    second.restore(saved)
    np.testing.assert_array_equal(agent(first), agent(second))
    for env in (first, second):
        for _ in range(8):
            env.step(Command(env.expert(), 0, 0, Mode.TRACK))
    np.testing.assert_array_equal(first.observe().state, second.observe().state)


def test_paraphrases_are_new_sentences_of_known_words_and_the_rest_is_not_known() -> None:
    tokenizer = WordTokenizer.of(SUITE.instructions)
    env = SUITE.probed("language_paraphrase").make()
    for seed in range(40):
        env.reset(seed)
        assert env.instruction not in SUITE.instructions
        tokenizer.encode(env.instruction)
    for probe in ("language_negation", "language_unseen_noun"):
        env = SUITE.probed(probe).make()
        env.reset(0)
        with pytest.raises(UnknownInstruction):
            tokenizer.encode(env.instruction)


def test_a_swapped_sentence_names_another_cube_and_that_is_what_the_robot_should_go_for() -> None:
    env = SUITE.probed("language_swap").make()
    for seed in range(10):
        env.reset(seed)
        assert env.instruction in SUITE.instructions
        assert env.progress.target in env.instruction
        assert env.progress.target != env.task.split("_")[1]


def test_the_expert_goes_for_the_right_cube_first_and_passes_every_phase() -> None:
    env = SUITE.make()
    last = {"pick": "lift", "push": "push", "stack": "place", "bowl": "place"}
    for task in ("pick_red", "push_blue_left", "stack_red_on_green", "bowl_green"):
        name = task.replace("_on_", "_")
        env.reset(11, name)
        assert isinstance(env, HasProgress)
        assert env.progress.phase == "reach"
        assert env.progress.approached == ""
        assert solve(env)
        assert env.progress.approached == env.progress.target == task.split("_")[1]
        assert env.progress.phase == last[env.skill]


def test_going_for_another_cube_is_told() -> None:
    """The expert of one task, judged by another: it goes for the wrong cube, and does not get past reaching."""
    env, other = SUITE.make(), SUITE.make()
    env.reset(11, "pick_red")
    while not env.done:
        now = env.snapshot()
        other.restore(replace(now, episode=replace(now.episode, task=TASKS["pick_blue"])))
        env.step(Command(other.expert(), 0, 0, Mode.TRACK))
    assert (env.failure, env.progress.approached, env.progress.phase) == ("wrong_object", "blue", "reach")


def test_an_unknown_probe_lists_those_there_are() -> None:
    assert isinstance(SUITE, Probed)
    with pytest.raises(UnknownName, match="vision_light"):
        SUITE.probed("vision_sound")


def test_a_probe_keeps_the_suites_looks() -> None:
    suite = TabletopSuite("mesh")
    plain, probed = suite.make(), suite.probed("language_paraphrase").make()
    for env in (plain, probed):
        env.reset(6, None)
    np.testing.assert_array_equal(plain.render("agent", 64, 64), probed.render("agent", 64, 64))
