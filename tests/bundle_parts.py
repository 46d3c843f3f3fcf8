"""Small untrained policies and their bundles, for the tests of deployment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from vla import checkpoint, registry
from vla.normalise import Statistics
from vla.policy import PolicyConfig, PolicyNet, fresh
from vla.spec import Camera, Dim, Spec
from vla.tokenizers.words import WordTokenizer
from vla.types import Observation

SENTENCE = "push the red cube left"
SMALL = {
    "flow": {"hidden": 32, "n_steps": 3},
    "diffusion": {"hidden": 32, "n_steps": 3},
    "bins": {"hidden": 16, "bins": 32},
    "l1": {"hidden": 32},
}
"""Settings that make a head quick to export; a head that is not here has its own."""


def spec() -> Spec:
    """Two cameras of different sizes, three states, two actions."""
    state = tuple(Dim(name, "m", "absolute", "base", -0.5, 0.5) for name in ("x", "y", "z"))
    action = (
        Dim("dx", "m", "delta", "base", -0.05, 0.05),
        Dim("gripper", "1", "absolute", "gripper", -1.0, 1.0),
    )
    cameras = (Camera("agent", 24, 32), Camera("wrist", 16, 16))
    return Spec("panda", state, action, "none", "positive_open", cameras, 10.0)


def policy(head: str = "flow") -> PolicyNet:
    """A policy with random weights."""
    statistics = Statistics(
        "quantile",
        np.array([0.1, 0.0, -0.1], np.float32),
        np.array([0.3, 0.4, 0.5], np.float32),
        np.array([0.01, 0.0], np.float32),
        np.array([0.03, 1.0], np.float32),
    )
    backbone = {"width": 32, "channels": 8, "keypoints": 4, "text_width": 16}
    config = PolicyConfig("tiny", head, 3, backbone, SMALL.get(head, {}))
    words = WordTokenizer.of([SENTENCE, "pick up the blue cube"])
    return fresh(config, spec(), words, statistics, seed=0).eval()


def save_checkpoint(folder: Path, head: str = "flow", verifiers: tuple[str, ...] = ("privileged_advantage",)) -> Path:
    """A checkpoint as training and fitting leave it, with random verifiers."""
    net = policy(head)
    checkpoint.save(folder, net, {"steps": 0, "seed": 0})
    for name in verifiers:
        config = {"n_action_steps": 2}
        with torch.random.fork_rng():
            torch.manual_seed(1)
            judge = registry.build("verifiers", name, config, net.spec, net)
        checkpoint.save_verifier(folder, name, judge, config, {"value_auc": 0.5})
    return folder


def observations(n: int) -> list[Observation]:
    """Random observations with two different instructions."""
    return [spec().fake_observation(SENTENCE if i % 2 else "pick up the blue cube", seed=i) for i in range(n)]


def seal(folder: Path) -> None:
    """Write the digests of what is in the folder now: an attacker, or a tool that went wrong, did the same."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "bundle.json").write_text(json.dumps(manifest))
