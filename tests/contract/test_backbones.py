"""What every backbone promises, whoever wrote it. A new backbone is tested here without a line being added."""

from __future__ import annotations

import ast
from pathlib import Path

import bundle_parts
import pytest
import torch

from vla import registry
from vla.modules import Backbone, Batch
from vla.tokenizers.words import MAX_WORDS

NAMES = registry.names("backbones")
SPEC = bundle_parts.spec()
VOCABULARY = 9


def build(name: str) -> Backbone:
    torch.manual_seed(0)
    backbone: Backbone = registry.build("backbones", name, {}, SPEC, VOCABULARY)
    return backbone.eval()


def batch(rows: int, words: int = 4) -> Batch:
    """Random observations; the second half of each sentence is padding."""
    generator = torch.Generator().manual_seed(1)
    images = tuple(
        torch.randint(0, 256, (rows, c.height, c.width, 3), generator=generator, dtype=torch.uint8)
        for c in SPEC.cameras
    )
    tokens = torch.randint(1, VOCABULARY, (rows, words), generator=generator)
    tokens[:, (words + 1) // 2 :] = 0
    return Batch(images, torch.randn(rows, len(SPEC.state), generator=generator), tokens)


def row(given: Batch, i: int) -> Batch:
    return Batch(tuple(image[i : i + 1] for image in given.images), given.state[i : i + 1], given.tokens[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_memory_is_as_wide_as_it_says(name: str) -> None:
    backbone = build(name)
    memory = backbone.encode(batch(3))
    rows, tokens, width = memory.tokens.shape
    assert (rows, width) == (3, backbone.width)
    assert memory.mask.shape == (3, tokens)
    assert memory.mask.dtype == torch.bool
    assert memory.mask.any(1).all(), "at least one real token"
    assert memory.tokens.dtype == torch.float32
    assert torch.isfinite(memory.tokens).all()


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_same_observation_gives_the_same_memory_in_any_company(name: str) -> None:
    backbone, given = build(name), batch(3)
    whole = backbone.encode(given)
    torch.manual_seed(99)
    assert torch.equal(whole.tokens, backbone.encode(given).tokens)
    alone = backbone.encode(row(given, 1))
    torch.testing.assert_close(whole.tokens[1:2], alone.tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_camera_the_state_and_the_words_are_seen(name: str) -> None:
    backbone, given = build(name), batch(2)
    before = backbone.encode(given).tokens

    def moved(changed: Batch) -> float:
        return float((backbone.encode(changed).tokens - before).abs().amax((1, 2)).min())

    for i in range(len(SPEC.cameras)):
        images = list(given.images)
        images[i] = 255 - images[i]
        assert moved(given._replace(images=tuple(images))) > 1e-4, SPEC.cameras[i].name
    assert moved(given._replace(state=given.state + 0.5)) > 1e-4
    words = given.tokens.clone()
    words[:, 0] = words[:, 0] % (VOCABULARY - 1) + 1
    assert moved(given._replace(tokens=words)) > 1e-4
    assert moved(given._replace(tokens=given.tokens[:, [1, 0, 2, 3]])) > 1e-6, "the order of the words"


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_padding_is_not_read(name: str) -> None:
    backbone, given = build(name), batch(2)
    shorter = given._replace(tokens=given.tokens[:, :2])
    torch.testing.assert_close(backbone.encode(given).tokens, backbone.encode(shorter).tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_longest_instruction_fits(name: str) -> None:
    backbone = build(name)
    full = torch.ones(2, MAX_WORDS, dtype=torch.int64)
    assert torch.isfinite(backbone.encode(batch(2)._replace(tokens=full)).tokens).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    backbone = build(name).train()
    memory = backbone.encode(batch(4))
    (memory.tokens * torch.randn_like(memory.tokens)).sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_what_it_claims_and_costs(name: str) -> None:
    lines = (registry.module("backbones", name).__doc__ or "").splitlines()
    for label in ("Claims: ", "Paper: ", "Implemented: ", "Differs: ", "Cost: ", "Measured: "):
        assert sum(line.startswith(label) for line in lines) == 1, f"{name} has no line {label!r}"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_docstring(name: str) -> None:
    tree = ast.parse(Path(registry.module("backbones", name).__file__ or "").read_text())
    config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    for field, following in zip(config.body, [*config.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"{name}: {ast.unparse(field)} has no docstring"
