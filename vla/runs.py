"""A run folder: what was asked, on what code and machine, and one row an episode as it finished.

`runs/<name>/run.json` holds the resolved config and the provenance; `runs/<name>/episodes.jsonl` holds the rows.
Whatever kills the process, the rows written before it are read back: a row is on disk when `append` returns, and a
line that was cut in half is dropped. Only the standard library, so that any part of the project can write one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from vla.errors import BadConfig, BadDataset, Missing, UnknownName

VERSIONED = ("vla-stack", "numpy", "torch", "mujoco", "onnxruntime", "lerobot")
"""Distributions whose versions are written into every run."""


@dataclass(frozen=True)
class Run:
    """A run folder that is there, opened for reading and appending."""

    path: Path
    meta: dict[str, Any]
    """What run.json holds: kind, config, revision, machine, command, created, versions."""

    @classmethod
    def create(cls, path: Path, kind: str, config: Any, resume: bool = False, digest: str = "") -> Self:
        """Make a run folder, or go on with one.

        Args:
            path: the folder; parents are made.
            kind: what made it: "train", "eval", "ros"...
            config: the resolved config, a dataclass or plain JSON values.
            resume: go on with the run that is there, if there is one; its config must be this one. Where the code is
                another revision by now, run.json names both.
            digest: SHA-256 of what the config only names, such as a policy's weights; a resumed run's must be the same.

        Raises:
            BadConfig: a run is already there, or it was started with another config or digest; names the field. Or
                there are rows that no run.json accounts for.
            Missing: the disk is full.
        """
        plain = to_plain(config)
        if (path / "run.json").exists():
            if not resume:
                raise BadConfig(f"{path} already holds a run; resume it, remove it, or choose another name")
            run = cls.open(path)
            run._require_same(kind, plain)
            if digest != run.meta.get("digest", digest):
                raise BadConfig(
                    f"cannot resume {path}: what it names in its config has changed since; choose another name"
                )
            run._drop_torn_line()
            known = str(run.meta.get("revision")).split("+")
            if revision() not in known:
                run.meta["revision"] = "+".join([*known, revision()])
                write_json(path / "run.json", run.meta)
            return run
        if (path / "episodes.jsonl").exists():
            raise BadConfig(f"{path} holds episodes but no run.json to say whose; remove it, or choose another name")
        meta = {
            "kind": kind,
            "config": plain,
            **({"digest": digest} if digest else {}),
            "revision": revision(),
            "machine": machine(),
            "command": command(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "run.json", meta)
        return cls(path, meta)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run.

        Raises:
            UnknownName: no run is there.
            BadDataset: its run.json cannot be read.
        """
        file = path / "run.json"
        if not file.is_file():
            raise UnknownName(f"no run at {path}: it has no run.json. `vla list` shows the runs there are.")
        try:
            meta = json.loads(file.read_text())
            if not isinstance(meta["config"], dict) or not isinstance(meta["kind"], str):
                raise TypeError("`config` must be an object and `kind` a string")
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadDataset(f"{file} is not the record of a run ({error}); remove the folder or restore it") from error
        return cls(path, meta)

    @property
    def kind(self) -> str:
        """What made this run."""
        return str(self.meta["kind"])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as plain JSON values."""
        config: dict[str, Any] = self.meta["config"]
        return config

    def append(self, row: dict[str, Any]) -> None:
        """Write one episode; on return it is on the disk. One process at a time may append.

        Raises:
            Missing: the disk is full or unwritable. The rows before this one are intact and the run can be resumed.
        """
        line = (json.dumps(to_plain(row)) + "\n").encode()
        handle = os.open(self._episodes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(handle).st_size
        try:
            written = os.write(handle, line)
            while written < len(line):
                written += os.write(handle, line[written:])
            os.fsync(handle)
        except OSError as error:
            _truncate(handle, size)
            raise _unwritable(self._episodes, error) from error
        finally:
            os.close(handle)

    def rows(self) -> list[dict[str, Any]]:
        """Every episode, in the order written; a last line that a kill cut short is left out.

        Raises:
            BadDataset: a line other than the last is broken; names it.
        """
        if not self._episodes.exists():
            return []
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(self._whole().splitlines(), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadDataset(f"{self._episodes}, line {number} is not JSON; remove it or restore it") from error
            if not isinstance(row, dict):
                raise BadDataset(f"{self._episodes}, line {number} is not an object; remove it or restore it")
            rows.append(row)
        return rows

    @property
    def _episodes(self) -> Path:
        return self.path / "episodes.jsonl"

    def _whole(self) -> bytes:
        """The file up to its last line end."""
        data = self._episodes.read_bytes()
        return data[: data.rfind(b"\n") + 1]

    def _drop_torn_line(self) -> None:
        """Cut off what a kill left unfinished, so that the next row does not continue it."""
        if self._episodes.exists():
            os.truncate(self._episodes, len(self._whole()))

    def _require_same(self, kind: str, config: dict[str, Any]) -> None:
        if kind != self.kind:
            raise BadConfig(f"{self.path} holds a run of {self.kind!r}, not {kind!r}; choose another name")
        was = self.config
        changed = [k for k in sorted({*was, *config}) if was.get(k) != config.get(k)]
        if changed:
            fields = "; ".join(f"{k} was {was.get(k)!r}, now {config.get(k)!r}" for k in changed)
            raise BadConfig(f"cannot resume {self.path} with another config: {fields}. Choose another name.")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder, and be the only process that writes into it while the block runs.

    Raises:
        BadConfig: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadConfig(
                f"another process is writing into {folder}; wait for it or end it, or choose another"
            ) from error
        yield
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, as `write_bytes` does."""
    write_text(path, json.dumps(to_plain(data), indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, never half of it.

    Raises:
        Missing: the disk is full or unwritable; the old file is intact.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def to_plain(value: Any) -> Any:
    """Dataclasses, paths, tuples and numpy values as plain JSON values; what is not finite is null, as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, without importing numpy
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@functools.cache
def revision() -> str:
    """The git commit this code runs from, "-dirty" when tracked files differ from it; "unknown" outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


@functools.cache
def machine() -> str:
    """The CPU and how many of its cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{model}, {cores()} core{'s' * (cores() != 1)}"


def cores() -> int:
    """Of the CPU, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command() -> str:
    """The command line of this process, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of the installed distributions that results depend on."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _truncate(handle: int, size: int) -> None:
    """Undo a partial write. Where that fails too, `rows` still drops the torn line."""
    try:
        os.ftruncate(handle, size)
    except OSError:
        return


def _unwritable(path: Path, error: OSError) -> Missing:
    return Missing(
        f"cannot write {path}: {error.strerror}. What was written before is intact: free some space and resume."
    )
