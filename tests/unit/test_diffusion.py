"""The diffusion head samples exactly as diffusers does, and few steps are close to many."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from vla.errors import BadConfig
from vla.heads import diffusion
from vla.modules import Memory

WIDTH, H, A = 16, 4, 2


def head(config: diffusion.Config) -> diffusion.Head:
    torch.manual_seed(0)
    return diffusion.Head(config, WIDTH, H, A).eval()


def inputs() -> tuple[Memory, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 1, WIDTH, generator=drawn)
    return Memory(tokens, torch.ones(2, 1, dtype=torch.bool)), torch.randn(2, 5, H, A, generator=drawn)


@pytest.mark.parametrize("solver", ["dpm", "ddim"])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 20])
@torch.inference_mode()
def test_it_samples_as_diffusers_scheduler_does(solver: Literal["dpm", "ddim"], n_steps: int) -> None:
    config = diffusion.Config(solver=solver, n_steps=n_steps)
    ours = head(config)
    memory, noise = inputs()
    theirs = diffusion.scheduler(config)
    theirs.set_timesteps(n_steps)
    pooled, x = ours.field.pool(memory), noise
    for t in theirs.timesteps:
        velocity = ours.field(pooled, x, (t / config.train_steps).reshape(1, 1))
        x = theirs.step(velocity, t, x).prev_sample
    torch.testing.assert_close(ours.sample(memory, noise), x, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_training_sees_the_schedule_that_sampling_assumes() -> None:
    config = diffusion.Config(solver="ddim")
    ours, theirs = head(config), diffusion.scheduler(config)
    drawn = torch.Generator().manual_seed(2)
    actions, noise = torch.randn(6, H, A, generator=drawn), torch.randn(6, H, A, generator=drawn)
    step = torch.tensor([0, 5, 40, 77, 98, 99])
    alpha, sigma = ours.alpha[step][:, None, None], ours.sigma[step][:, None, None]
    torch.testing.assert_close(alpha * actions + sigma * noise, theirs.add_noise(actions, noise, step))


def test_fewer_steps_stay_close_to_many() -> None:
    """One trained net, coarser and coarser: the error against 100 steps grows, and is bounded."""
    trained = head(diffusion.Config(n_steps=100))
    memory, noise = inputs()
    given = Memory(memory.tokens.repeat(8, 1, 1), memory.mask.repeat(8, 1))
    targets = torch.tensor([0.5, -0.4]).repeat(8)[:, None, None].expand(-1, H, A)
    optimiser = torch.optim.AdamW(trained.parameters(), 2e-3)
    for _ in range(150):
        optimiser.zero_grad()
        trained.loss(given, targets, torch.zeros(16, H, dtype=torch.bool)).backward()
        optimiser.step()
    errors = {}
    with torch.inference_mode():
        reference = trained.sample(memory, noise)
        for n_steps in (2, 4, 8, 16):
            coarse = head(diffusion.Config(n_steps=n_steps))
            coarse.load_state_dict(trained.state_dict())
            errors[n_steps] = float((coarse.sample(memory, noise) - reference).abs().mean())
    assert errors[16] < errors[8] < errors[2]
    assert errors[8] < 0.03


def test_more_steps_than_levels_are_refused() -> None:
    with pytest.raises(BadConfig, match="n_steps 101"):
        head(diffusion.Config(n_steps=101))
