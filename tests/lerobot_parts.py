"""A policy as LeRobot saves one, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vla.spec import Spec


def save_act(folder: Path, spec: Spec) -> None:
    """A small ACT, untrained, as `lerobot-train` saves one, with the contract beside it; moves a little around rest."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    inputs = {
        f"observation.images.{c.name}": PolicyFeature(FeatureType.VISUAL, (3, c.height, c.width)) for c in spec.cameras
    }
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (len(spec.state),))
    config = ACTConfig(
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(spec.action),))},
        chunk_size=4,
        n_action_steps=4,
        pretrained_backbone_weights=None,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        device="cpu",
    )
    low, high = spec.action_low, spec.action_high
    stats = {"action": {"mean": (low + high) / 2, "std": (high - low) / 8}}
    stats["observation.state"] = {"mean": np.zeros(len(spec.state)), "std": np.ones(len(spec.state))}
    stats |= {
        name: {"mean": np.full((3, 1, 1), 0.5), "std": np.full((3, 1, 1), 0.3)} for name in inputs if "image" in name
    }
    stats = {name: {k: torch.as_tensor(v, dtype=torch.float32) for k, v in s.items()} for name, s in stats.items()}
    ACTPolicy(config).save_pretrained(folder)
    for pipeline in make_pre_post_processors(config, dataset_stats=stats):
        pipeline.save_pretrained(folder)
    spec.save(folder / "spec.json")
