"""The folder that is deployed: graphs, contract, tokenizer and proof that they still compute what they did.

    spec.json       the contract (`vla.spec`)
    tokenizer.json  words -> ids
    encode.onnx     image_<camera>, state, tokens -> memory_tokens, memory_mask
    propose.onnx    memory_tokens, memory_mask, noise -> actions [physical units]
    verify.onnx     what it needs of all of these, actions -> scores (, p_success); only when a verifier was exported
    golden.npz      inputs and the outputs torch gave for them
    card.md         data, training, evaluation, for a person
    bundle.json     verifier, defaults, source revision, size and SHA-256 of every file above

Reading takes numpy alone: no torch, no pickle, nothing that runs code. A file is read once, its digest is checked, and
those very bytes are used. Digests find damage and mix-ups; they are no signature.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.errors import BadBundle, BadConfig, Missing
from vla.pipeline import MAX_CANDIDATES
from vla.spec import Spec
from vla.tokenizers.words import WordTokenizer

Array = npt.NDArray[Any]

FORMAT = 1
"""Raised when an older reader would misread a newer bundle."""
MANIFEST = "bundle.json"
ALWAYS = ("spec.json", "tokenizer.json", "encode.onnx", "propose.onnx", "golden.npz", "card.md")
VERIFY = "verify.onnx"
GRAPH_OUTPUTS = {"encode": ("memory_tokens", "memory_mask"), "propose": ("actions",), "verify": ("scores", "p_success")}

_TEXT_LIMIT = 16 << 20
_GRAPH_LIMIT = (2 << 30) - 1  # protobuf's own limit
_GOLDEN_LIMIT = 256 << 20
_CURE = "Export it again (`vla export`) or copy the whole folder again."


@dataclass(frozen=True)
class Manifest:
    """What bundle.json says beside the digests."""

    verifier: str | None
    """Name of the verifier in verify.onnx."""
    n_candidates: int
    """Chunks to sample for each observation unless told otherwise."""
    n_action_steps: int
    """Actions of a chunk to execute before the next decision, as the verifier was fitted for."""
    revision: str
    """Source revision that exported it."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle in memory; every file was checked."""

    folder: Path
    manifest: Manifest
    spec: Spec
    tokenizer: WordTokenizer
    graphs: Mapping[str, bytes]
    """"encode", "propose" and perhaps "verify" -> ONNX."""
    golden: Mapping[str, Array]
    """Input and output names of the graphs -> recorded arrays, batch first."""
    card: str
    digest: str
    """SHA-256 of bundle.json, and by that of every file: what a log names the bundle by."""


def read(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BadBundle: naming the file that is missing, extra, altered or malformed.
    """
    own = _bytes(folder, MANIFEST, _TEXT_LIMIT)
    about = _json(own, folder / MANIFEST)
    if about.get("format") != FORMAT:
        raise BadBundle(f"{folder / MANIFEST} has format {about.get('format')!r}, this reads {FORMAT}. {_CURE}")
    manifest = _manifest(about, folder)
    expected = {*ALWAYS, *([VERIFY] if manifest.verifier is not None else [])}
    _check_names(folder, expected, about.get("files"))
    contents = {name: _checked(folder, name, about["files"][name]) for name in sorted(expected)}
    try:
        spec = Spec.from_json(_json(contents["spec.json"], folder / "spec.json"), str(folder / "spec.json"))
        tokenizer = WordTokenizer.from_json(_json(contents["tokenizer.json"], folder / "tokenizer.json"))
    except BadConfig as error:
        raise BadBundle(f"{folder}: {error}. {_CURE}") from error
    if spec.chunk_size is None or not 1 <= manifest.n_action_steps <= spec.chunk_size:
        raise BadBundle(
            f"{folder}: n_action_steps {manifest.n_action_steps} in {MANIFEST} does not fit chunk_size "
            f"{spec.chunk_size} in spec.json. {_CURE}"
        )
    graphs = {name.removesuffix(".onnx"): data for name, data in contents.items() if name.endswith(".onnx")}
    golden = _golden(contents["golden.npz"], folder / "golden.npz")
    _check_golden(spec, tokenizer, graphs, golden, folder / "golden.npz")
    card = contents["card.md"].decode(errors="replace")
    return Bundle(folder, manifest, spec, tokenizer, graphs, golden, card, hashlib.sha256(own).hexdigest())


def write(
    folder: Path,
    manifest: Manifest,
    spec: Spec,
    tokenizer: WordTokenizer,
    graphs: Mapping[str, bytes],
    golden: Mapping[str, Array],
    card: str,
) -> None:
    """Write a bundle in one piece: into a folder beside its place, then renamed; a kill leaves the old one or none.

    Raises:
        BadBundle: something that is no bundle is in the way.
        Missing: the disk is full or not writable.
    """
    if folder.name in ("", ".."):  # the folder we are in cannot be replaced by a rename
        raise BadBundle(f"{folder} has no name to write a bundle under; name its folder")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BadBundle(f"{folder} exists and is not a bundle; choose another place or remove it")
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **golden)
    contents = {
        "spec.json": _text(spec.to_json()),
        "tokenizer.json": _text(tokenizer.to_json()),
        "golden.npz": packed.getvalue(),
        "card.md": card.encode(),
        **{f"{name}.onnx": data for name, data in graphs.items()},
    }
    files = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in sorted(contents.items())}
    about = {"format": FORMAT, **vars(manifest), "files": files}
    contents[MANIFEST] = _text(about)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        part.mkdir(parents=True)
        for name, data in contents.items():
            with (part / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise Missing(f"cannot write bundle {folder}: {error.strerror}; free some space and export again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def input_shapes(spec: Spec, tokenizer: WordTokenizer) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape without the batch) of everything an observation is made of."""
    shapes = {f"image_{c.name}": ("uint8", (c.height, c.width, 3)) for c in spec.cameras}
    return shapes | {"state": ("float32", (len(spec.state),)), "tokens": ("int64", (tokenizer.max_length,))}


def _manifest(about: dict[str, Any], folder: Path) -> Manifest:
    try:
        manifest = Manifest(**{k: about[k] for k in ("verifier", "n_candidates", "n_action_steps", "revision")})
    except KeyError as error:
        raise BadBundle(f"{folder / MANIFEST} lacks {error}. {_CURE}") from error
    texts = isinstance(manifest.verifier, (str, type(None))) and isinstance(manifest.revision, str)
    if not texts or not all(type(n) is int and n > 0 for n in (manifest.n_candidates, manifest.n_action_steps)):
        raise BadBundle(f"{folder / MANIFEST}: verifier, revision, n_candidates or n_action_steps is of a wrong type")
    if manifest.n_candidates > MAX_CANDIDATES:
        raise BadBundle(f"{folder / MANIFEST}: n_candidates {manifest.n_candidates} is more than {MAX_CANDIDATES}")
    return manifest


def _check_names(folder: Path, expected: set[str], listed: Any) -> None:
    """The folder holds, and bundle.json lists, exactly the files a bundle has. No path can lead out of it."""
    if not isinstance(listed, dict) or set(listed) != expected:
        raise BadBundle(f"{folder / MANIFEST} must list exactly {sorted(expected)}. {_CURE}")
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    if missing := sorted(expected - present):
        raise BadBundle(f"{folder} is incomplete: {', '.join(missing)} missing. {_CURE}")
    if extra := sorted(present - expected):
        raise BadBundle(f"{folder} holds files that are not its own: {', '.join(extra)}. Remove them.")


def _bytes(folder: Path, name: str, limit: int) -> bytes:
    path = folder / name
    try:
        if path.is_symlink() or not path.is_file():
            raise BadBundle(f"{path} is missing or no plain file: {folder} is not a whole bundle. {_CURE}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BadBundle(f"cannot read {path}: {error.strerror}. {_CURE}") from error
    if len(data) > limit:
        raise BadBundle(f"{path} is larger than {limit} bytes, which no bundle's is. {_CURE}")
    return data


def _checked(folder: Path, name: str, entry: Any) -> bytes:
    """A file whose size and digest are those of bundle.json."""
    limit = _GRAPH_LIMIT if name.endswith(".onnx") else _GOLDEN_LIMIT if name.endswith(".npz") else _TEXT_LIMIT
    data = _bytes(folder, name, limit)
    have = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if have != entry:
        what = "size" if not isinstance(entry, dict) or have["bytes"] != entry.get("bytes") else "SHA-256"
        raise BadBundle(f"{folder / name} was altered or cut short: its {what} is not that of {MANIFEST}. {_CURE}")
    return data


def _golden(data: bytes, path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _GOLDEN_LIMIT:
                raise BadBundle(f"{path} unpacks to more than {_GOLDEN_LIMIT} bytes. {_CURE}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except BadBundle:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy's own, and MemoryError for a shape that lies
        raise BadBundle(f"{path} is not an archive of plain arrays: {error}. {_CURE}") from error
    for name, array in golden.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise BadBundle(f"{path}: {name} is no array of numbers. {_CURE}")
    return golden


def _check_golden(
    spec: Spec, tokenizer: WordTokenizer, graphs: Mapping[str, bytes], golden: Mapping[str, Array], path: Path
) -> None:
    """Recorded inputs and actions have the shapes that spec and tokenizer ask for."""
    shapes = input_shapes(spec, tokenizer)
    chunk = (spec.chunk_size or 0, len(spec.action))
    needed = {*shapes, "noise", "actions", "memory_tokens", "memory_mask", *(["scores"] if "verify" in graphs else [])}
    if missing := sorted(needed - set(golden)):
        raise BadBundle(f"{path} lacks {', '.join(missing)}. {_CURE}")
    if golden["noise"].ndim != 4:
        raise BadBundle(f"{path}: noise has shape {golden['noise'].shape}, not (B, N, H, A). {_CURE}")
    rows, candidates = golden["noise"].shape[:2]
    if rows * candidates == 0:
        raise BadBundle(f"{path} records no outputs, so it proves nothing. {_CURE}")
    shapes |= {"noise": ("float32", (candidates, *chunk)), "actions": ("float32", (candidates, *chunk))}
    for name, (dtype, shape) in shapes.items():
        array = golden[name]
        if array.dtype != dtype or array.shape != (rows, *shape):
            raise BadBundle(
                f"{path}: {name} is {array.dtype} {array.shape}, spec.json and tokenizer.json ask for {dtype} "
                f"{(rows, *shape)}; the bundle was put together from different exports. {_CURE}"
            )


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{path} is not JSON: {error}. {_CURE}") from error
    if not isinstance(parsed, dict):
        raise BadBundle(f"{path} does not hold an object. {_CURE}")
    return parsed


def _text(data: Any) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
