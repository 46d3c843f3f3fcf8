"""Train a policy on demonstrations.

Reads a LeRobotDataset through its training cache, writes a checkpoint folder with the learning curve, and can go on
after a kill with --resume. On several GPUs or machines run it under `accelerate launch`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Args:
    dataset: Path
    """A LeRobotDataset v3 folder, as `vla collect` writes it."""
    out: Path
    """Folder for the checkpoint."""
    backbone: str = "tiny"
    """`vla list` shows the backbones."""
    head: str = "flow"
    """`vla list` shows the heads."""
    chunk_size: int = 8
    """Actions proposed at once."""
    backbone_config: str = "{}"
    """Fields of the backbone's Config to change, as JSON."""
    head_config: str = "{}"
    """Fields of the head's Config to change, as JSON."""
    steps: int = 3000
    """Optimiser steps."""
    minutes: float | None = None
    """Stop after this long at the latest."""
    batch_size: int = 64
    """Frames a step."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    objective: str | None = "keypose"
    """Auxiliary objective; `None` for none."""
    episodes: int | None = None
    """Use only the first n episodes."""
    seed: int = 0
    threads: int = field(default=2)
    """CPU threads of torch."""
    resume: bool = False
    """Go on with an interrupted run in the same folder."""
    initial: Path | None = None
    """Start from this checkpoint's weights instead of random ones."""


def main(args: Args) -> int:
    """Train; returns 0."""
    from vla import checkpoint
    from vla.errors import BadConfig
    from vla.policy import PolicyConfig
    from vla.training import TrainConfig
    from vla.verbs._stages import open_demonstrations, train

    if args.threads < 1:
        raise BadConfig(f"--threads must be at least 1, got {args.threads}")
    parts = PolicyConfig(
        args.backbone,
        args.head,
        args.chunk_size,
        _fields(args.backbone_config, "--backbone-config"),
        _fields(args.head_config, "--head-config"),
    )
    config = TrainConfig(
        parts,
        args.steps,
        args.minutes,
        args.batch_size,
        args.learning_rate,
        objective=args.objective,
        episodes=args.episodes,
        seed=args.seed,
    )
    parts.resolved()  # a part or a field that there is not is said now, not after the cache was made
    initial = None if args.initial is None else checkpoint.load(args.initial)
    cache = open_demonstrations(args.dataset)
    net = train("train", config, cache, args.out, args.threads, resume=args.resume, initial=initial)
    print(f"{args.out}: {net.n_parameters / 1e6:.2f}M parameters, {args.episodes or cache.n_episodes} episodes")
    return 0


def _fields(text: str, option: str) -> dict[str, Any]:
    from vla.errors import BadConfig

    try:
        fields = json.loads(text)
    except ValueError as error:
        raise BadConfig(f"{option} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadConfig(f"{option} must be an object such as '{{\"depth\": 4}}', got {text}")
    return fields
