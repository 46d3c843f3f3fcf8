"""The agreement verifier's distances are exact where it matters: between candidates that nearly agree."""

from __future__ import annotations

import bundle_parts
import torch

from vla import registry
from vla.modules import Verifier


def score(actions: torch.Tensor) -> torch.Tensor:
    net = bundle_parts.policy()
    verifier: Verifier = registry.build("verifiers", "agreement", {}, net.spec, net)
    return verifier.score(None, None, actions).scores  # type: ignore[arg-type]


def test_equal_candidates_are_at_no_distance() -> None:
    chunk = torch.tensor([[0.0371, 0.913]]).expand(3, 2)
    assert score(chunk.expand(2, 4, 3, 2)).tolist() == [[0.0] * 4] * 2


def test_the_one_in_the_middle_wins_by_the_smallest_margin() -> None:
    chunk = torch.tensor([[0.0371, 0.913]]).expand(3, 2)
    shift = torch.tensor([-2e-5, 0.0, 3e-5])[None, :, None, None]
    assert score(chunk + shift).argmax(-1).tolist() == [1]


def test_a_minority_on_the_gripper_loses() -> None:
    actions = torch.zeros(1, 5, 3, 2)
    actions[..., 1] = 0.5
    actions[0, 2, :, 1] = -0.5
    actions[0, 2, :, 0] = 0.0  # in every other dimension it is the medoid
    actions[0, [0, 1], :, 0] = -0.01
    actions[0, [3, 4], :, 0] = 0.01
    assert score(actions)[0].argmin() == 2
