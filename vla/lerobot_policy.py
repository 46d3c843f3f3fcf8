"""A policy that LeRobot trained, as one of ours: `lerobot:path/to/pretrained_model`.

It gains the spec check, safety, evaluation and reports. LeRobot's checkpoints do not say what their numbers mean, so
the contract comes from `spec.json`, in the checkpoint's folder or in that of the dataset it was trained on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.errors import BadCheckpoint, BadConfig, Missing, UnknownName
from vla.pipeline import Verifier
from vla.spec import Spec
from vla.types import Floats, Observation


class LeRobotPolicy:
    """One forward pass an observation, over all its candidates. A policy without randomness gives equal candidates."""

    def __init__(self, folder: Path) -> None:
        """Raises BadCheckpoint, BadConfig or Missing."""
        try:
            from lerobot.configs.policies import PreTrainedConfig
            from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        except ImportError as error:
            raise Missing("LeRobot's policies need lerobot: uv pip install 'vla-stack[train]'") from error
        try:
            config = PreTrainedConfig.from_pretrained(folder, local_files_only=True)
            config.device = "cpu"
            self._net = get_policy_class(config.type).from_pretrained(folder, config=config, local_files_only=True)
            self._before, self._after = make_pre_post_processors(
                config,
                pretrained_path=str(folder),
                preprocessor_overrides={"device_processor": {"device": "cpu"}},
            )
        except Exception as error:  # draccus, safetensors and each policy raise their own
            raise BadCheckpoint(f"LeRobot cannot load {folder}: {type(error).__name__}: {error}") from error
        self._net.eval()
        self.spec = _spec(folder, config)

    def encode(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        """The observations in LeRobot's layout; what a policy shares between candidates is its own affair."""
        return [_in_its_layout(observation) for observation in observations]

    def propose(self, memory: list[dict[str, Any]], noise: Floats) -> tuple[Floats, None]:
        """Actions (B, N, H, A). LeRobot draws its own noise: ours (B, N, H, A) seeds it, whatever its scale."""
        n_candidates, chunk_size = noise.shape[1:3]
        proposed = []
        for observed, mine in zip(memory, noise, strict=True):
            # A policy may keep a queue of observations; ours decides on each afresh. The same goes for its processors:
            # with relative actions, the one behind adds the state that the one in front saw last.
            self._net.reset()
            copies = {key: _repeated(value, n_candidates) for key, value in self._before(observed).items()}
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(zlib.crc32(np.ascontiguousarray(mine).tobytes()))
                chunk = self._after(self._net.predict_action_chunk(copies))
            proposed.append(chunk[:, :chunk_size].float().numpy())
        return np.stack(proposed), None

    def verifier(self, name: str) -> Verifier:
        """None is fitted for a LeRobot policy. Raises UnknownName."""
        raise UnknownName(f"no verifier {name!r} was fitted for this policy: LeRobot's checkpoints have none")


def load_policy(path: str) -> LeRobotPolicy:
    """Open `lerobot:path`.

    Raises:
        UnknownName: no LeRobot checkpoint is there.
        BadCheckpoint: it cannot be loaded, or its contract is missing or contradicts it.
        BadConfig: it needs what this stack does not give it.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise UnknownName(f"no LeRobot policy at {path!r}: it has no config.json; give the pretrained_model folder")
    return LeRobotPolicy(folder)


def _spec(folder: Path, config: Any) -> Spec:
    """The contract, held against what LeRobot says of its inputs and outputs."""
    if config.n_obs_steps != 1:
        raise BadConfig(f"{folder} looks at {config.n_obs_steps} observations at once; a decision here is about one")
    chunk_size = getattr(config, "chunk_size", None) or config.n_action_steps
    spec = replace(Spec.load(_spec_file(folder)), chunk_size=chunk_size)
    cameras = {f"observation.images.{c.name}": (3, c.height, c.width) for c in spec.cameras}
    expected = {"observation.state": (len(spec.state),), **cameras}
    found = {name: tuple(feature.shape) for name, feature in config.input_features.items()}
    action = tuple(config.output_features["action"].shape)
    if found != expected or action != (len(spec.action),):
        raise BadCheckpoint(
            f"{folder} takes {found} and gives actions {action}; its spec.json says {expected} and {len(spec.action)}"
        )
    return spec


def _spec_file(folder: Path) -> Path:
    if (folder / "spec.json").is_file():
        return folder / "spec.json"
    try:
        trained_on = json.loads((folder / "train_config.json").read_text())["dataset"]["root"]
        file = Path(trained_on) / "spec.json"
    except (OSError, ValueError, KeyError, TypeError):
        file = Path()
    if not file.is_file():
        raise BadCheckpoint(
            f"{folder} does not say what its numbers mean: copy the spec.json of the dataset it was trained on into it"
        )
    return file


def _in_its_layout(observation: Observation) -> dict[str, Any]:
    batch: dict[str, Any] = {
        "observation.state": torch.from_numpy(observation.state)[None],
        "task": [observation.instruction],
    }
    for camera, image in observation.images.items():
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        batch[f"observation.images.{camera}"] = pixels[None].float() / 255
    return batch


def _repeated(value: Any, n: int) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == 1:
        return value.expand(n, *value.shape[1:]).contiguous()
    return value * n if isinstance(value, list) and len(value) == 1 else value
