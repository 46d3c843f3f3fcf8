"""What every head promises, whoever wrote it. A new head is tested here without a line being added."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vla import registry
from vla.errors import BadConfig
from vla.modules import Head, Memory

NAMES = registry.names("heads")
WIDTH, H, A = 16, 4, 2


def build(name: str, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    head: Head = registry.build("heads", name, {}, WIDTH, H, A)
    return head.eval()


def memory(rows: int, tokens: int = 3, seed: int = 1) -> Memory:
    drawn = torch.randn(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Memory(drawn, torch.ones(rows, tokens, dtype=torch.bool))


def noise(rows: int, candidates: int, seed: int = 2) -> Tensor:
    return torch.randn(rows, candidates, H, A, generator=torch.Generator().manual_seed(seed))


def train(head: Head, given: Memory, targets: Tensor, steps: int) -> None:
    """A few steps of AdamW on one fixed batch."""
    torch.manual_seed(3)
    optimiser = torch.optim.AdamW(head.parameters(), 2e-3)
    is_pad = torch.zeros(targets.shape[:2], dtype=torch.bool)
    for _ in range(steps):
        optimiser.zero_grad()
        head.loss(given, targets, is_pad).backward()
        optimiser.step()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_finite_and_reaches_every_parameter(name: str) -> None:
    head = build(name)
    loss = head.loss(memory(5), torch.rand(5, H, A) * 2 - 1, torch.zeros(5, H, dtype=torch.bool))
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert [n for n, p in head.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    assert any(bool((p.grad != 0).any()) for p in head.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_steps_past_the_episodes_end_cost_nothing(name: str) -> None:
    head = build(name)
    assert head.loss(memory(5), torch.rand(5, H, A), torch.ones(5, H, dtype=torch.bool)) == 0


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_same_noise_gives_the_same_chunks(name: str) -> None:
    head = build(name)
    out = head.sample(memory(2), noise(2, 3))
    torch.manual_seed(99)  # a head that drew noise of its own would now differ
    again = head.sample(memory(2), noise(2, 3))
    assert out.shape == (2, 3, H, A)
    assert torch.equal(out, again)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_rows_and_candidates_do_not_depend_on_each_other(name: str) -> None:
    head = build(name)
    given, drawn = memory(3), noise(3, 4)
    whole = head.sample(given, drawn)
    row = head.sample(Memory(given.tokens[1:2], given.mask[1:2]), drawn[1:2])
    candidate = head.sample(given, drawn[:, 2:3])
    torch.testing.assert_close(whole[1:2], row, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[:, 2:3], candidate, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_masked_memory_tokens_are_not_seen(name: str) -> None:
    head = build(name)
    given = memory(2)
    given.mask[:, 2] = False
    changed = Memory(given.tokens.clone(), given.mask)
    changed.tokens[:, 2] += 10
    torch.testing.assert_close(head.sample(given, noise(2, 3)), head.sample(changed, noise(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_prefix_is_kept_or_refused(name: str) -> None:
    head = build(name)
    guide = torch.rand(2, 2, A) * 2 - 1
    try:
        out = head.sample(memory(2), noise(2, 3), guide)
    except BadConfig:
        return
    torch.testing.assert_close(out[:, :, :2], guide[:, None].expand(-1, 3, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_which_chunk_belongs_to_which_memory(name: str) -> None:
    head = build(name)
    targets = torch.tensor([[0.5, -0.7], [-0.3, 0.4]])[:, None].expand(-1, H, -1)
    given = memory(2)
    several = Memory(given.tokens.repeat(8, 1, 1), given.mask.repeat(8, 1))
    train(head, several, targets.repeat(8, 1, 1), steps=150)
    with torch.inference_mode():
        error = (head.sample(given, noise(2, 32)) - targets[:, None]).abs()
    assert error.median() < 0.1


@pytest.mark.parametrize("name", [name for name in NAMES if registry.module("heads", name).Head.several_modes])
def test_it_keeps_two_modes_apart(name: str) -> None:
    """One situation, two equally good chunks: an average of them is the one thing that must not come out."""
    head = build(name)
    given = memory(1)
    targets = torch.tensor([0.6, -0.6]).repeat(16)[:, None, None].expand(-1, H, A)
    same = Memory(given.tokens.expand(32, -1, -1), given.mask.expand(32, -1))
    train(head, same, targets, steps=250)
    with torch.inference_mode():
        chunks = head.sample(given, noise(1, 256))[0]
    left = (chunks + 0.6).abs().amax((1, 2)) < 0.3
    right = (chunks - 0.6).abs().amax((1, 2)) < 0.3
    assert (left | right).float().mean() > 0.85
    assert 0.25 < left.float().mean() < 0.75


@pytest.mark.parametrize("depth", [0, -1])
@pytest.mark.parametrize("name", [name for name in NAMES if "depth" in registry.resolved("heads", name, {})])
def test_one_without_a_layer_that_sees_the_observation_is_refused(name: str, depth: int) -> None:
    with pytest.raises(BadConfig, match="depth"):
        registry.build("heads", name, {"depth": depth}, 16, H, A)


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_what_it_claims_and_costs(name: str) -> None:
    found = registry.module("heads", name)
    lines = (found.__doc__ or "").splitlines()
    for label in ("Claims: ", "Paper: ", "Implemented: ", "Differs: ", "Cost: ", "Measured: "):
        assert sum(line.startswith(label) for line in lines) == 1, f"{name} has no line {label!r}"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name: str) -> None:
    tree = ast.parse(Path(registry.module("heads", name).__file__ or "").read_text())
    config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    for field, following in zip(config.body, [*config.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"{name}: {ast.unparse(field)} has no docstring"
