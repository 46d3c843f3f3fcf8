"""The bins head: its cache changes nothing but the time, and its draws follow its distribution."""

from __future__ import annotations

import math

import pytest
import torch

from vla.errors import BadConfig
from vla.heads import bins
from vla.modules import Memory

WIDTH, H, A = 16, 3, 2


def head(**config: float) -> bins.Head:
    torch.manual_seed(0)
    made = bins.Head(bins.Config(bins=32, **config), WIDTH, H, A).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        made.leave.weight *= 8  # an untrained head is nearly uniform; make its choices matter
    return made


def inputs(candidates: int = 7) -> tuple[Memory, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    memory = Memory(torch.randn(3, 5, WIDTH, generator=drawn), mask)
    return memory, torch.randn(3, candidates, H, A, generator=drawn)


@torch.inference_mode()
def test_the_cache_changes_nothing() -> None:
    made = head()
    memory, noise = inputs(candidates=1)
    tokens = made.tokens(made.sample(memory, noise)[:, 0])
    cache, bias = made._begin(memory, 1)
    before = torch.cat([torch.full((3, 1), 32), tokens[:, :-1]], 1)
    steps = []
    for i in range(H * A):
        bias = torch.cat([bias, torch.zeros(3, 1, 1, 1)], -1)
        steps.append(made._decode(before[:, i : i + 1], range(i, i + 1), cache, bias))
    torch.testing.assert_close(torch.cat(steps, 1), made.logits(memory, tokens), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_logits_do_not_see_the_token_they_predict() -> None:
    made = head()
    memory, _ = inputs()
    tokens = torch.zeros(3, H * A, dtype=torch.int64)
    changed = tokens.clone()
    changed[:, 3:] = 9
    was, now = made.logits(memory, tokens), made.logits(memory, changed)
    torch.testing.assert_close(was[:, :4], now[:, :4])
    assert (was[:, 4:] - now[:, 4:]).abs().max() > 1e-3


@torch.inference_mode()
def test_temperature_zero_ignores_the_noise_and_takes_the_likeliest() -> None:
    made = head(temperature=0)
    memory, noise = inputs()
    chunks = made.sample(memory, noise)
    assert torch.equal(chunks, made.sample(memory, -noise))
    tokens = made.tokens(chunks[:, 0])
    assert torch.equal(made.logits(memory, tokens).argmax(-1), tokens)


@torch.inference_mode()
def test_the_first_token_is_drawn_from_its_distribution() -> None:
    made = head()
    memory, _ = inputs()
    one = Memory(memory.tokens[:1], memory.mask[:1])
    expected = made.logits(one, torch.zeros(1, 1, dtype=torch.int64))[0, 0].softmax(-1)
    noise = torch.randn(1, 4000, H, A, generator=torch.Generator().manual_seed(5))
    drawn = made.tokens(made.sample(one, noise)[0])[:, 0]
    measured = torch.bincount(drawn, minlength=32) / len(drawn)
    # Six standard deviations of a multinomial frequency, and it is not simply flat.
    assert ((measured - expected).abs() < 6 * (expected * (1 - expected) / len(drawn)).sqrt() + 1e-4).all()
    assert expected.max() > 0.08


def test_tokens_and_bin_centres_are_inverse_up_to_half_a_bin() -> None:
    made = head()
    actions = torch.linspace(-1, 1, 3 * H * A).reshape(3, H, A)
    centres = (made.tokens(actions) + 0.5) / 16 - 1
    assert (centres - actions.flatten(1)).abs().max() <= 1 / 32 + 1e-6
    assert made.tokens(torch.full((1, 1, A), 9.0)).tolist() == [[31, 31]]


@pytest.mark.parametrize(
    "config", [{"n_heads": 3}, {"n_heads": 0}, {"hidden": 0}, {"temperature": -1.0}, {"temperature": math.nan}]
)
def test_settings_that_cannot_work_are_named(config: dict[str, float]) -> None:
    with pytest.raises(BadConfig, match=next(iter(config))):
        head(**config)
