"""What made others' LIBERO numbers wrong, one trap a test; each was sprung once to see its test fail.

    quaternion to axis-angle at the antipode (Goal 83 -> 97 when mended)   test_the_turn_does_not_jump
    the state of something else (97.8 -> 42)                               test_the_state_is_the_tools
    min/max instead of quantiles when un-normalising (-> 0%)               test_actions_come_back_by_the_quantiles...
    centre crop (3 points)                                                 test_the_policy_sees_the_rows_its_crop_names
    gripper polarity                                                       test_positive_closes
    delta or absolute                                                      test_an_action_moves_by_what_it_says
    chunk length                                                           test_of_each_chunk_the_first_n_actions...
    the first environment's instruction for all of them                    test_libero.py, ..._gets_its_own_instruction
    another control rate than it was recorded at                           test_a_control_period_is_a_twentieth...

That a policy of another contract is refused before the first step is tested in test_libero.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla.checkpoint import load, save
from vla.errors import BadCheckpoint, BadConfig
from vla.normalise import measure
from vla.pipeline import FirstCandidate, Pipeline
from vla.policy import PolicyConfig, PolicyNet
from vla.tokenizers.words import WordTokenizer
from vla.types import Command, Floats, Mode
from vla_sim.arm.env import ArmEnv
from vla_sim.arm.osc import turn_between
from vla_sim.rollout import run_episodes
from vla_sim.suites.libero import OFFICIAL, SPEC, LiberoSuite

SUITE = LiberoSuite("libero_object", "decimated")
SOUP = SUITE.tasks[0]


@pytest.fixture
def env() -> ArmEnv:
    made = SUITE.make()
    made.reset(OFFICIAL, SOUP)
    return made


def act(env: ArmEnv, *action: float, times: int = 1) -> None:
    for _ in range(times):
        env.step(Command(np.array(action, np.float32), 0, 0, Mode.TRACK))


def test_the_turn_does_not_jump(env: ArmEnv) -> None:
    """Turned a little to either side of rest, the rotation vector changes as little."""
    turns = []
    for k in range(12):
        act(env, 0, 0, 0, 0.1 * (-1) ** k, 0.1, 0, -1)
        turns.append(env.observe().state[3:6])
    assert np.abs(turns).max() < 0.5
    assert np.abs(np.diff(turns, axis=0)).max() < 0.1


def test_the_state_is_the_tools(env: ArmEnv) -> None:
    """Against MuJoCo's own site between the fingertips, after a move and a turn, and the fingers' own joints."""
    act(env, 0.03, -0.03, -0.02, 0.1, 0, 0.2, 1, times=6)
    seen, data, model = env.observe().state, env._data, env._world.model
    site = model.site("gripper0_grip_site").id
    np.testing.assert_allclose(seen[:3], data.site_xpos[site] - env._world.base, atol=1e-6)
    down = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    np.testing.assert_allclose(seen[3:6], turn_between(down, data.site_xmat[site].reshape(3, 3)), atol=1e-6)
    fingers = [data.qpos[model.joint(f"gripper0_finger_joint{i}").qposadr[0]] for i in (1, 2)]
    assert seen[6] == pytest.approx(fingers[0] - fingers[1], abs=1e-6)
    assert seen[6] < 0.06, "closing"


def net(action: Floats) -> PolicyNet:
    """A policy whose normalisation was measured on actions that hold a few outliers."""
    state = np.random.default_rng(1).uniform(-0.1, 0.1, (len(action), len(SPEC.state))).astype(np.float32)
    statistics = measure(state, action, (SPEC.state, SPEC.action), "quantile")
    torch.manual_seed(0)
    return PolicyNet(PolicyConfig(), SPEC, WordTokenizer.of(SUITE.instructions), statistics)


def test_actions_come_back_by_the_quantiles_that_training_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    action = (0.1 * rng.uniform(SPEC.action_low, SPEC.action_high, (2000, 7))).astype(np.float32)
    action[:5] = SPEC.action_high  # the largest moves are ten times the others
    made = net(action)
    save(tmp_path / "quantile", made, {})
    opened = load(tmp_path / "quantile")
    low, high = np.quantile(action, [0.01, 0.99], axis=0)
    for normalised, physical in ((-1.0, low), (0.0, (low + high) / 2), (1.0, high)):
        found = opened.normaliser.action_inverse(torch.full((7,), normalised))
        np.testing.assert_allclose(found.numpy(), physical, atol=1e-5)
    with torch.no_grad():  # the statistics of min and max in the same file
        made.normaliser.action_offset[:] = torch.as_tensor((action.max(0) + action.min(0)) / 2)
        made.normaliser.action_scale[:] = torch.as_tensor((action.max(0) - action.min(0)) / 2)
    save(tmp_path / "min_max", made, {})
    with pytest.raises(BadCheckpoint, match="normalisation"):
        load(tmp_path / "min_max")


def test_the_policy_sees_the_rows_its_crop_names(env: ArmEnv) -> None:
    whole, seen = env.render("agent", 128, 128), env.observe().images["agent"]
    assert SPEC.cameras[0].crop == (20, 0, 96, 128)
    np.testing.assert_array_equal(seen, whole[20:116])
    centre = whole[16:112]
    assert np.abs(seen.astype(int) - centre).mean() > 3


def test_positive_closes(env: ArmEnv) -> None:
    opened = env.observe().state[6]
    act(env, 0, 0, 0, 0, 0, 0, 1, times=12)
    assert opened > 0.07 > 0.01 > env.observe().state[6]
    act(env, 0, 0, 0, 0, 0, 0, -1, times=12)
    assert env.observe().state[6] > 0.07


def test_an_action_moves_by_what_it_says(env: ArmEnv) -> None:
    """Forward, left and up are the base's, and a move of 2 cm held for half a second ends up centimetres away."""
    for axis in range(3):
        before = env.observe().state[:3].copy()
        act(env, *(0.02 * np.eye(3)[axis]), 0, 0, 0, -1, times=10)
        moved = env.observe().state[:3] - before
        assert moved[axis] > 0.03
        assert np.abs(np.delete(moved, axis)).max() < 0.3 * moved[axis]


def test_a_control_period_is_a_twentieth_of_a_second(env: ArmEnv) -> None:
    began = env._data.time
    act(env, 0, 0, 0, 0, 0, 0, -1, times=20)
    assert env._data.time - began == pytest.approx(1.0)
    assert env.observe().stamp_ns == 1_000_000_000 == 20 * SPEC.dt_ns


class Counting:
    """A policy of chunks of 8 whose third number tells which decision, whose second which action of the chunk."""

    def __init__(self, chunk_size: int = 8) -> None:
        self.spec = replace(SPEC, chunk_size=chunk_size)
        self.decisions = 0

    def encode(self, observations: Any) -> Any:
        return len(observations)

    def propose(self, memory: Any, noise: Floats) -> tuple[Floats, None]:
        actions = np.zeros_like(noise)
        actions[..., 1] = 0.001 * np.arange(noise.shape[2])
        actions[..., 2] = 0.001 * self.decisions
        self.decisions += 1
        return actions, None


@pytest.mark.parametrize("n", [3, 8])
def test_of_each_chunk_the_first_n_actions_are_executed_in_order(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[int, int]] = []
    plain = ArmEnv.step

    def step(self: ArmEnv, command: Command) -> None:
        assert command.mode is Mode.TRACK
        done.append((round(1000 * command.action[2]), round(1000 * command.action[1])))
        plain(self, command)

    monkeypatch.setattr(ArmEnv, "step", step)
    monkeypatch.setattr(ArmEnv, "done", property(lambda self: self.steps >= 16))
    monkeypatch.setattr(ArmEnv, "_picture", lambda self, c: np.zeros((c.height, c.width, 3), np.uint8))
    run_episodes(Pipeline(Counting(), FirstCandidate()), SUITE, [OFFICIAL], n_action_steps=n)
    assert done == [(k // n, k % n) for k in range(16)]


def test_a_chunk_of_another_length_than_the_contract_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Counting):
        def propose(self, memory: Any, noise: Floats) -> tuple[Floats, None]:
            return super().propose(memory, noise)[0][:, :, :4], None

    monkeypatch.setattr(ArmEnv, "_picture", lambda self, c: np.zeros((c.height, c.width, 3), np.uint8))
    pipeline = Pipeline(Short(), FirstCandidate())
    with pytest.raises(BadConfig, match="shape"):
        run_episodes(pipeline, SUITE, [OFFICIAL], n_action_steps=4)
    with pytest.raises(BadConfig, match="n_action_steps"):
        run_episodes(Pipeline(Counting(4), FirstCandidate()), SUITE, [OFFICIAL], n_action_steps=8)
