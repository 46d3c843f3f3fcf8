"""A checkpoint gives back the same policy, or says which file is wrong; and no file of it can run code."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_parts
import numpy as np
import pytest
import torch

from vla import checkpoint, registry
from vla.errors import BadCheckpoint, Missing, SpecMismatch
from vla.policy import TorchPolicy, load_policy

WEIGHTS = "policy.safetensors"
VERIFIER = "verifiers/privileged_advantage"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_parts.save_checkpoint(tmp_path_factory.mktemp("run") / "policy")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "policy"))


def actions(policy: TorchPolicy) -> Any:
    noise = np.random.default_rng(0).standard_normal((4, 5, 3, 2), np.float32)
    return policy.propose(policy.encode(bundle_parts.observations(4)), noise)[0]


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


MINE = '''"""A verifier of one's own, with something to learn."""
from dataclasses import dataclass
import torch
from vla.modules import Scores, Verifier as VerifierProtocol

@dataclass(frozen=True)
class Config:
    pass

class Verifier(VerifierProtocol):
    def __init__(self, config, spec, policy):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def score(self, batch, memory, actions):
        return Scores(self.weight * actions[:, :, 0, 0])
'''


@pytest.mark.parametrize("name", ["./mine.py", "mine.py", "below/mine.py", "ABSOLUTE"])
def test_a_verifier_of_ones_own_is_found_by_the_name_it_was_fitted_under(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = name.replace("ABSOLUTE", str(tmp_path / "mine.py"))
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(MINE)
    net = checkpoint.load(folder)
    verifier = registry.build("verifiers", name, {}, net.spec, net)
    torch.nn.init.ones_(verifier.weight)
    checkpoint.save_verifier(folder, name, verifier, {}, {})
    monkeypatch.setenv("VLA_TRUST", name)
    found = load_policy(str(folder)).verifier(name).module
    assert {key: float(value) for key, value in found.state_dict().items()} == {"weight": 1.0}
    checkpoint.save_scale(folder, name, {"slope": 1.0, "offset": 0.0})
    assert (folder / "verifiers" / "mine.py.json").is_file()


@pytest.mark.parametrize("head", registry.names("heads"))
def test_a_loaded_policy_is_the_one_that_was_saved(head: str, tmp_path: Path) -> None:
    net = bundle_parts.policy(head)
    checkpoint.save(tmp_path / "run", net, {"steps": 7})
    opened = load_policy(str(tmp_path / "run"))
    np.testing.assert_array_equal(actions(opened), actions(TorchPolicy(net)))
    assert opened.net.config == net.config
    assert opened.spec == net.spec
    assert opened.net.tokenizer == net.tokenizer
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["trained"] == {"steps": 7}
    assert about["revision"]
    assert not any(p.requires_grad and p.grad is not None for p in opened.net.parameters())
    assert not opened.net.training


def test_the_registry_opens_it_with_its_verifiers(saved: Path) -> None:
    opened = registry.open_policy(str(saved))
    seen = bundle_parts.observations(2)
    memory = opened.encode(seen)
    candidates, _ = opened.propose(memory, np.zeros((2, 3, 3, 2), np.float32))
    verdicts = opened.verifier("privileged_advantage").verify(seen, memory, candidates)
    assert [v.best for v in verdicts] == [0, 0], "equal candidates: the first of the best"


def truncate(name: str, cut: int = 100) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-cut])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def change(name: str, value: Any, *path: str) -> Callable[[Path], None]:
    """Set one value inside a JSON file."""

    def set_value(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return lambda folder: edit(folder / name, set_value)


def drop_camera(folder: Path) -> None:
    edit(folder / "spec.json", lambda spec: spec["cameras"].pop())


def not_a_number(folder: Path) -> None:
    tensors = checkpoint.load_tensors(folder / WEIGHTS)
    tensors["head.field.leave.weight"][0, 0] = float("nan")
    checkpoint.save_tensors(folder / WEIGHTS, tensors)


def other_head(folder: Path) -> None:
    checkpoint.save_tensors(folder / WEIGHTS, bundle_parts.policy("l1").state_dict())


DAMAGED = {
    "no weights": (remove(WEIGHTS), r"cannot read .*policy\.safetensors"),
    "no config": (remove("config.json"), r"config\.json is missing: .* is not a finished checkpoint"),
    "no spec": (remove("spec.json"), r"cannot read spec .*spec\.json"),
    "cut weights": (truncate(WEIGHTS), r"policy\.safetensors.*is it complete"),
    "empty weights": (write(WEIGHTS, b""), r"policy\.safetensors.*is it complete"),
    "NaN among the weights": (not_a_number, r"policy\.safetensors: head\.field\.leave\.weight holds NaN"),
    "endless config": (write("config.json", b"[" * 100_000), r"cannot read .*config\.json"),
    "huge config": (write("config.json", b" " * (17 << 20)), r"or more than \d+ characters"),
    "cut config": (truncate("config.json"), r"cannot read .*config\.json"),
    "cut spec": (truncate("spec.json"), r"cannot read spec"),
    "not text": (write("config.json", b"\xff\xfe\x00"), r"cannot read .*config\.json"),
    "not an object": (write("config.json", b"[1]"), r"does not hold an object"),
    "weights of another head": (other_head, r"Missing key|Unexpected key"),
    "a camera less": (drop_camera, r"Unexpected key"),
    "another chunk size": (change("spec.json", 4, "chunk_size"), r"chunk_size: 4 \| 3"),
    "another normalisation": (change("spec.json", "0" * 64, "normalisation", "digest"), r"normalisation\.digest"),
    "a dataset's spec": (change("spec.json", None, "normalisation"), r"normalisation is missing"),
    "unknown part": (change("config.json", "nope", "policy", "head"), r"no head is called 'nope'"),
    "a part that would run a file": (change("config.json", "./evil.py", "policy", "head"), r"evil\.py.*VLA_TRUST"),
    "unknown setting": (change("config.json", 1, "policy", "backbone_config", "widht"), r"widht"),
    "setting of a wrong type": (
        change("config.json", "x", "policy", "backbone_config", "width"),
        r"must be of type int",
    ),
    "setting that cannot work": (change("config.json", 15, "policy", "backbone_config", "text_width"), r"divisible"),
    "no name": (change("config.json", None, "policy", "backbone"), r"cannot be loaded"),
    "no tokenizer": (change("config.json", {}, "tokenizer"), r"not a word tokenizer"),
    "cut verifier": (truncate(f"{VERIFIER}.safetensors"), r"privileged_advantage\.safetensors.*is it complete"),
    "verifier without weights": (remove(f"{VERIFIER}.safetensors"), r"cannot read .*privileged_advantage\.saf"),
    "verifier of another size": (change(f"{VERIFIER}.json", 8, "config", "hidden"), r"size mismatch"),
    "verifier without a config": (change(f"{VERIFIER}.json", [], "config"), r"cannot be loaded"),
    "empty verifier": (write(f"{VERIFIER}.json", b""), r"cannot read .*privileged_advantage\.json"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_named(damage: Callable[[Path], None], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(BadCheckpoint, match=message) as found:
        load_policy(str(folder))
    assert str(folder) in str(found.value)


def test_a_verifier_of_another_policy_is_refused(folder: Path) -> None:
    change(f"{VERIFIER}.json", "0" * 64, "policy_spec")(folder)
    with pytest.raises(SpecMismatch, match=r"privileged_advantage\.json was fitted for a policy of another spec"):
        load_policy(str(folder))


class Bomb:
    """Opened as a pickle, it runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("name", [WEIGHTS, f"{VERIFIER}.safetensors"])
def test_a_pickle_under_a_harmless_name_is_not_run(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for disguised in (pickle.dumps(Bomb()), None):
        if disguised is None:
            torch.save({"a": Bomb()}, folder / name)
        else:
            (folder / name).write_bytes(disguised)
        with pytest.raises(BadCheckpoint, match="cannot read"):
            load_policy(str(folder))
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "ran").exists(), "the bomb works, it just was not lit"


def test_a_full_disk_keeps_what_was_there(folder: Path) -> None:
    """A limit on file size refuses a write half-way, as a full disk does."""
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    net = bundle_parts.policy("l1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(Missing, match=r"cannot write .*File too large.*free some space"):
            checkpoint.save(folder, net, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before
    checkpoint.save(folder, net, {})
    assert checkpoint.load(folder).config.head == "l1"


def test_what_a_kill_left_half_written_is_in_nobodys_way(folder: Path) -> None:
    expected = actions(load_policy(str(folder)))
    (folder / f".{WEIGHTS}.{os.getpid()}.part").write_bytes(b"half")
    checkpoint.save(folder, bundle_parts.policy(), {})
    assert not list(folder.glob(".*.part"))
    np.testing.assert_array_equal(actions(load_policy(str(folder))), expected)


def test_weights_are_as_readable_as_the_rest(tmp_path: Path) -> None:
    """A robot's own user opens what an engineer's trained."""
    checkpoint.save_tensors(tmp_path / "weights.safetensors", {"w": torch.ones(2, 3).T})
    (tmp_path / "plain").touch()
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert torch.equal(checkpoint.load_tensors(tmp_path / "weights.safetensors")["w"], torch.ones(3, 2))
