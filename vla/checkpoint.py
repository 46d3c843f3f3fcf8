"""A policy on disk: `policy.safetensors`, `config.json`, `spec.json`, and `verifiers/NAME.safetensors` with its JSON.

Weights are safetensors and everything else is JSON: no file here runs code when it is opened. A checkpoint whose part
is a Python file (`./mine.py`) is refused unless you named that file yourself (`VLA_TRUST=./mine.py`). Each file is
written beside its place and renamed into it, so a kill leaves the old one or the new one, never half of one.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from vla import registry
from vla.errors import BadCheckpoint, BadConfig, SpecMismatch, UnknownName
from vla.modules import Verifier
from vla.normalise import Statistics
from vla.policy import PolicyConfig, PolicyNet
from vla.runs import revision, write_bytes, write_json
from vla.spec import Spec, differences
from vla.tokenizers.words import WordTokenizer
from vla.verifiers._scaled import Scaled

_MISFITS = (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError)
"""What building a network from somebody's JSON, and filling it with somebody's tensors, may raise."""


_TEXT_LIMIT = 16 << 20


def save(folder: Path, net: PolicyNet, trained: dict[str, Any]) -> None:
    """Write a policy; `trained` says how it came to be (dataset, steps, seed)."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "policy.safetensors", net.state_dict())
    write_json(folder / "spec.json", net.spec.to_json())
    config = {
        "policy": dataclasses.asdict(net.config),
        "tokenizer": net.tokenizer.to_json(),
        "trained": trained,
        "revision": revision(),
    }
    write_json(folder / "config.json", config)


def load(folder: Path) -> PolicyNet:
    """Rebuild what `save` wrote.

    Raises:
        BadCheckpoint: files are missing, truncated, or do not belong together.
    """
    config = _read_json(folder / "config.json")
    try:
        spec = Spec.load(folder / "spec.json")
        policy = PolicyConfig(**config["policy"])
        for part in (policy.backbone, policy.head):
            registry.require_trusted(part, folder / "config.json")
        tokenizer = WordTokenizer.from_json(config["tokenizer"])
        tensors = load_tensors(folder / "policy.safetensors")
        _require_finite(folder / "policy.safetensors", tensors)
        statistics = _statistics(spec, tensors)
        base = dataclasses.replace(spec, chunk_size=None, normalisation=None)
        net = PolicyNet(policy, base, tokenizer, statistics)
        net.load_state_dict(tensors)
    except (BadConfig, UnknownName, *_MISFITS) as error:
        raise BadCheckpoint(f"{folder} cannot be loaded: {error}") from error
    if found := differences(spec, net.spec):
        raise BadCheckpoint(f"{folder}: spec.json and the weights do not belong together: {'; '.join(found)}")
    return net.eval()


def save_verifier(folder: Path, name: str, verifier: Verifier, config: dict[str, Any], fitted: dict[str, Any]) -> None:
    """Put a fitted verifier beside its policy; `fitted` holds the measures of the fit."""
    path = verifier_file(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, verifier.state_dict())
    policy_spec = Spec.load(folder / "spec.json").digest()
    about = {"name": str(Path(name)), "config": config, "fitted": fitted, "policy_spec": policy_spec}
    write_json(path.with_suffix(".json"), about | {"revision": revision()})


def verifier_file(folder: Path, name: str) -> Path:
    """Where a verifier's weights are; of `some/where/mine.py` too, which is called mine.py there."""
    return folder / "verifiers" / f"{Path(name).name}.safetensors"


def save_scale(folder: Path, name: str, scale: dict[str, Any]) -> None:
    """Put a calibrated scale ("slope", "offset", and how it was measured) beside a fitted verifier's weights.

    Fitting the verifier again drops it.

    Raises:
        UnknownName: no such verifier was fitted for this policy.
    """
    path = verifier_file(folder, name).with_suffix(".json")
    if not path.is_file():
        raise UnknownName(f"no verifier {name!r} is saved beside {folder}; fit it first (`vla fit-verifier`)")
    write_json(path, _read_json(path) | {"scale": scale})


def load_verifiers(folder: Path, net: PolicyNet) -> dict[str, Verifier]:
    """Every verifier fitted for a policy.

    Raises:
        BadCheckpoint: a file is damaged.
        SpecMismatch: it was fitted for a policy of another spec.
    """
    found: dict[str, Verifier] = {}
    for path in sorted((folder / "verifiers").glob("*.json")):
        about = _read_json(path)
        if about.get("policy_spec") != net.spec.digest():
            raise SpecMismatch(f"{path} was fitted for a policy of another spec; run `vla fit-verifier` again")
        name = str(about.get("name", path.stem))
        try:
            registry.require_trusted(name, path)
            verifier: Verifier = registry.build("verifiers", name, about["config"], net.spec, net)
            tensors = load_tensors(path.with_suffix(".safetensors"))
            _require_finite(path.with_suffix(".safetensors"), tensors)
            verifier.load_state_dict(tensors)
            if about.get("scale") is not None:
                verifier = Scaled(verifier, about["scale"], str(path))
        except (BadConfig, UnknownName, *_MISFITS) as error:
            raise BadCheckpoint(f"verifier {path} cannot be loaded: {error}") from error
        found[name] = verifier.eval()
    return found


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write safetensors, the whole file or none of it. Raises Missing where the disk is full or not writable."""
    # Not save_file: what that writes nobody else on the machine may read, whatever the umask says.
    write_bytes(path, to_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors. Raises BadCheckpoint."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadCheckpoint(f"cannot read {path}: {error}; is it complete?") from error
    return tensors


def _require_finite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Raises BadCheckpoint: with NaN among its weights a policy does nothing but hold."""
    if bad := sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()):
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise BadCheckpoint(f"{path}: {', '.join(bad[:3])}{more} holds NaN or infinity; train again, or take a copy")


def _statistics(spec: Spec, tensors: dict[str, torch.Tensor]) -> Statistics:
    if spec.normalisation is None:
        raise BadConfig("spec.normalisation is missing: this is a robot's or a dataset's spec, not a policy's")
    names = ("state_offset", "state_scale", "action_offset", "action_scale")
    return Statistics(spec.normalisation.method, *(tensors[f"normaliser.{n}"].numpy() for n in names))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open() as file:
            text = file.read(_TEXT_LIMIT + 1)
        data = json.loads(text) if len(text) <= _TEXT_LIMIT else None
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path} is missing: {path.parent} is not a finished checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadCheckpoint(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise BadCheckpoint(f"{path} does not hold an object, or more than {_TEXT_LIMIT} characters")
    return data
