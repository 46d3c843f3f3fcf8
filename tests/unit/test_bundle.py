"""A bundle that is damaged, incomplete or put together from parts is refused, by the name of the file and the cure."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundle_parts
import numpy as np
import onnx
import pytest

from vla.errors import BadBundle, Missing
from vla_deploy import bundle as bundles
from vla_deploy.export import export
from vla_deploy.runtime import load_policy

FILES = [*bundles.ALWAYS, bundles.VERIFY]
Change = Callable[[Path], Any]
ENDLESS = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    export(bundle_parts.save_checkpoint(folder / "policy"), folder / "bundle", "privileged_advantage")
    return folder / "bundle"


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    about = json.loads((folder / "bundle.json").read_text())
    change(about)
    (folder / "bundle.json").write_text(json.dumps(about))


def edit_golden(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    arrays = dict(np.load(folder / "golden.npz"))
    change(arrays)
    np.savez(folder / "golden.npz", **arrays)


def edit_member(folder: Path, name: str, data: bytes) -> None:
    """Put raw bytes into golden.npz in the place of an array."""
    with zipfile.ZipFile(folder / "golden.npz") as archive:
        members = {n: archive.read(n) for n in archive.namelist() if n.removesuffix(".npy") != "noise"}
    with zipfile.ZipFile(folder / "golden.npz", "w") as archive:
        for member, content in (members | {name: data}).items():
            archive.writestr(member, content)


def npy(header: str) -> bytes:
    """An array file of that header and no numbers."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def unknown_compression(folder: Path) -> None:
    data = (folder / "golden.npz").read_bytes()
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.find(mark) + at
        data = data[:start] + b"\x4d\x00" + data[start + 2 :]
    (folder / "golden.npz").write_bytes(data)


def edit_weights(path: Path) -> None:
    """Nudge one weight matrix: the graph stays valid and computes something else."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.1)).tobytes()
    onnx.save(model, path)


def test_it_reads_what_was_written(original: Path) -> None:
    read = bundles.read(original)
    net = bundle_parts.policy()
    assert read.spec == net.spec
    assert read.tokenizer == net.tokenizer
    assert set(read.graphs) == {"encode", "propose", "verify"}
    assert len(read.digest) == 64


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(name: str, bundle: Path) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BadBundle, match=rf"{name} was altered or cut short: its SHA-256 .*vla export"):
        bundles.read(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(name: str, bundle: Path) -> None:
    os.truncate(bundle / name, (bundle / name).stat().st_size // 2)
    with pytest.raises(BadBundle, match=rf"{name} was altered or cut short: its size"):
        bundles.read(bundle)


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
def test_a_missing_file_is_named(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    with pytest.raises(BadBundle, match=name):
        bundles.read(bundle)


def test_a_link_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (bundle / "card.md").rename(elsewhere)
    (bundle / "card.md").symlink_to(elsewhere)
    with pytest.raises(BadBundle, match=r"card\.md is missing or no plain file"):
        bundles.read(bundle)


def test_a_file_too_many_is_named(bundle: Path) -> None:
    (bundle / "weights.pkl").write_bytes(b"")
    with pytest.raises(BadBundle, match=r"not its own: weights\.pkl"):
        bundles.read(bundle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.update(format=2), "has format 2, this reads 1"),
        (lambda a: a["files"].update({"../spec.json": a["files"].pop("spec.json")}), "must list exactly"),
        (lambda a: a.pop("files"), "must list exactly"),
        (lambda a: a.update(verifier=None), "must list exactly"),
        (lambda a: (a.update(verifier=""), a["files"].pop("verify.onnx")), "must list exactly"),
        (lambda a: a["files"].update({"card.md": None}), r"card\.md was altered"),
        (lambda a: a.pop("revision"), "lacks 'revision'"),
        (lambda a: a.update(n_candidates=True), "wrong type"),
        (lambda a: a.update(n_candidates=10**12), r"n_candidates 1000000000000 is more than"),
        (lambda a: a.update(n_action_steps=4), r"n_action_steps 4 .* chunk_size 3"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    change: Callable[[dict[str, Any]], Any], reason: str, bundle: Path
) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BadBundle, match=reason):
        bundles.read(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_manifest_that_is_no_object_is_refused(text: str, bundle: Path) -> None:
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(BadBundle, match=r"bundle\.json"):
        bundles.read(bundle)


def weights_elsewhere(folder: Path) -> None:
    """A weight in a file beside the process, where no digest covers it."""
    model = onnx.load(folder / "encode.onnx")
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    Path("outside.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="outside.bin")
    (folder / "encode.onnx").write_bytes(model.SerializeToString())


def another_opset(folder: Path) -> None:
    model = onnx.load(folder / "encode.onnx")
    model.opset_import[0].version = 99
    onnx.save(model, folder / "encode.onnx")


def fixed_candidates(folder: Path) -> None:
    """A graph for the sizes of golden.npz and no others."""
    model = onnx.load(folder / "propose.onnx")
    (noise,) = (i for i in model.graph.input if i.name == "noise")
    for axis, size in zip(noise.type.tensor_type.shape.dim, (2, 3), strict=False):
        axis.dim_value = size
    onnx.save(model, folder / "propose.onnx")


def swap_graphs(folder: Path) -> None:
    data = (folder / "encode.onnx").read_bytes()
    (folder / "encode.onnx").write_bytes((folder / "propose.onnx").read_bytes())
    (folder / "propose.onnx").write_bytes(data)


def other_camera(folder: Path) -> None:
    spec = bundles.read(folder).spec
    wider = dataclasses.replace(spec.cameras[0], width=48)
    dataclasses.replace(spec, cameras=(wider, *spec.cameras[1:])).save(folder / "spec.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: edit_weights(f / "encode.onnx"), r"encode\.onnx computes memory_tokens that differ by"),
        (lambda f: edit_weights(f / "propose.onnx"), r"propose\.onnx computes actions that differ by"),
        (lambda f: edit_weights(f / "verify.onnx"), r"verify\.onnx computes scores that differ by"),
        (lambda f: (f / "verify.onnx").write_bytes(b"no graph"), r"cannot load verify\.onnx"),
        (weights_elsewhere, r"cannot load encode\.onnx: .*[Ee]xternal data"),
        (another_opset, r"cannot load encode\.onnx: .*opset"),
        (lambda f: edit_golden(f, lambda a: a.update({k: v[:0] for k, v in a.items()})), "records no outputs"),
        (fixed_candidates, "do not run on one observation and 16 candidates"),
        (swap_graphs, r"encode\.onnx takes memory_mask"),
        (other_camera, r"golden\.npz: image_agent is uint8"),
        (
            lambda f: (f / "tokenizer.json").write_text('{"type": "words", "words": ["a"], "max_length": 9}'),
            "golden.npz: tokens is",
        ),
        (lambda f: (f / "spec.json").write_text("{}"), r"spec\.json is not a valid spec"),
        (lambda f: edit_golden(f, lambda a: a.pop("noise")), r"golden\.npz lacks noise"),
        (lambda f: edit_golden(f, lambda a: a.update(noise=np.zeros(3))), "noise has shape"),
        (lambda f: edit_golden(f, lambda a: a.update(scores=a["scores"][:1])), "has no scores of shape"),
        (lambda f: (f / "golden.npz").write_bytes(b"PK\x05\x06 no archive"), "not an archive of plain arrays"),
        (lambda f: edit_member(f, "noise", b"no array"), "noise is no array of numbers"),
        (lambda f: edit_golden(f, lambda a: a.update(scores=np.full(a["scores"].shape, "a"))), "scores is no array"),
        (lambda f: edit_member(f, "noise.npy", npy(ENDLESS)), "not an archive of plain arrays"),
        (lambda f: edit_member(f, "noise.npy", npy("{'descr': (\n")), "not an archive of plain arrays"),
        (unknown_compression, "not an archive of plain arrays"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    change: Change, reason: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every digest is right: someone sealed the folder again after changing it."""
    monkeypatch.chdir(tmp_path)
    change(bundle)
    bundle_parts.seal(bundle)
    with pytest.raises(BadBundle, match=reason):
        load_policy(str(bundle))


def test_pickled_arrays_are_not_opened(bundle: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    pickle.loads(pickle.dumps(Harmful()))
    assert (tmp_path / "ran").exists()  # it does its harm wherever pickle is used
    (tmp_path / "ran").unlink()
    edit_golden(bundle, lambda arrays: arrays.update(extra=np.array([Harmful()], dtype=object)))
    bundle_parts.seal(bundle)
    with pytest.raises(BadBundle, match=r"golden\.npz is not an archive of plain arrays"):
        bundles.read(bundle)
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_unpacks_without_end_is_refused(bundle: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("noise.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    (bundle / "golden.npz").write_bytes(packed.getvalue())
    bundle_parts.seal(bundle)
    with pytest.raises(BadBundle, match="unpacks to more than"):
        bundles.read(bundle)


def write_again(folder: Path, card: str) -> None:
    read = bundles.read(folder)
    bundles.write(folder, read.manifest, read.spec, read.tokenizer, read.graphs, read.golden, card)


def test_writing_replaces_a_bundle_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    write_again(bundle, "# another")
    assert bundles.read(bundle).card == "# another"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    precious = tmp_path / "precious"
    precious.mkdir()
    read = bundles.read(bundle)
    with pytest.raises(BadBundle, match="exists and is not a bundle"):
        bundles.write(precious, read.manifest, read.spec, read.tokenizer, read.graphs, read.golden, "")


@pytest.mark.parametrize("name", [".", ".."])
def test_a_bundle_is_not_written_over_the_folder_one_is_in(
    name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bundles.read(bundle)
    (bundle / "sub").mkdir()
    monkeypatch.chdir(bundle if name == "." else bundle / "sub")
    with pytest.raises(BadBundle, match="name its folder"):
        bundles.write(Path(name), read.manifest, read.spec, read.tokenizer, read.graphs, read.golden, "")
    assert (bundle / "bundle.json").is_file()


def test_a_full_disk_leaves_the_old_bundle(bundle: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    digest = bundles.read(bundle).digest
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(Missing, match=r"cannot write bundle .*free some space"):
            write_again(bundle, "# another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert bundles.read(bundle).digest == digest
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_kill_while_writing_leaves_a_whole_bundle_or_none(original: Path, tmp_path: Path) -> None:
    target = tmp_path / "fresh"
    program = f"""
from pathlib import Path
from vla_deploy import bundle as b
read = b.read(Path({str(original)!r}))
print("ready", flush=True)
b.write(Path({str(target)!r}), read.manifest, read.spec, read.tokenizer, read.graphs, read.golden, "card")
"""
    outcomes = set()
    for delay_s in (0.0, 0.002, 0.004, 0.008, 0.5):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
        outcomes.add(target.exists())
        if target.exists():
            assert bundles.read(target).card == "card"
    assert True in outcomes
