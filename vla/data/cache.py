"""A memory-mapped copy of a LeRobotDataset, laid out for training.

LeRobotDataset is the format on disk; reading it frame by frame decodes a video for each sample (10 to 85 ms). The
cache decodes everything once, in order, into flat arrays the operating system pages in as batches touch them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, BadDataset
from vla.runs import write_json
from vla.safety import SafetyConfig
from vla.spec import Dim, Spec
from vla.types import Floats, Image

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Cache:
    """T frames of E episodes."""

    spec: Spec
    images: dict[str, Image]
    """Camera -> (T, h, w, 3) uint8, memory-mapped."""
    state: Floats
    """(T, S) physical units."""
    action: Floats
    """(T, A) physical units."""
    episode: npt.NDArray[np.int64]
    """(T,) non-decreasing."""
    instructions: list[str]
    """The distinct sentences."""
    instruction: npt.NDArray[np.int64]
    """(T,) index into `instructions`."""

    def __len__(self) -> int:
        """Frames."""
        return len(self.episode)

    @property
    def n_episodes(self) -> int:
        """Episodes."""
        return len(np.unique(self.episode))

    def last_of_episode(self) -> npt.NDArray[np.int64]:
        """(T,) index of the last frame of each frame's episode."""
        last: npt.NDArray[np.int64] = np.searchsorted(self.episode, self.episode, side="right") - 1
        return last

    def chunk_index(self, chunk_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Frames of the H-step chunk that starts at each frame.

        Returns:
            (T, H) indices, repeating the last frame past the episode's end, and (T, H) True where it repeats.
        """
        index = np.arange(len(self))[:, None] + np.arange(chunk_size)
        last = self.last_of_episode()[:, None]
        return np.minimum(index, last), index > last

    def first_episodes(self, n: int) -> Cache:
        """The first n episodes, as views of the same arrays.

        Raises:
            BadDataset: there are fewer, or none were asked for.
        """
        if not 1 <= n <= self.n_episodes:
            raise BadDataset(
                f"{n} episodes asked for, the dataset has {self.n_episodes}; ask for fewer or collect more"
            )
        end = int(np.searchsorted(self.episode, np.unique(self.episode)[n - 1], side="right"))
        return Cache(
            self.spec,
            {name: array[:end] for name, array in self.images.items()},
            self.state[:end],
            self.action[:end],
            self.episode[:end],
            self.instructions,
            self.instruction[:end],
        )


def open_cache(dataset: Path, progress: Callable[[int, int], None] | None = None) -> Cache:
    """Open the cache inside a dataset folder, building it when it is missing or older than the data.

    Args:
        dataset: a LeRobotDataset v3 folder with our `spec.json` beside its `meta/`.
        progress: called with frames done and frames in all while building.

    Raises:
        BadDataset: no dataset, no frames, truncated files, or values that are not finite.
    """
    folder, key = dataset / "cache", _fingerprint(dataset)
    _check_info(dataset)
    if not _is_current(folder, key):
        with _alone(dataset):
            if not _is_current(folder, key):
                _replace(dataset, folder, key, progress)
    try:
        return _load(folder)
    except (OSError, ValueError, EOFError, BadConfig) as error:
        raise BadDataset(f"the training cache {folder} is damaged ({error}); remove it: it is built again") from error


def _load(folder: Path) -> Cache:
    spec = Spec.load(folder / "spec.json")
    return Cache(
        spec,
        {c.name: np.load(folder / f"image_{c.name}.npy", mmap_mode="r") for c in spec.cameras},
        np.load(folder / "state.npy"),
        np.load(folder / "action.npy"),
        np.load(folder / "episode.npy"),
        json.loads((folder / "instructions.json").read_text()),
        np.load(folder / "instruction.npy"),
    )


def _replace(dataset: Path, folder: Path, key: str, progress: Callable[[int, int], None] | None) -> None:
    """Build beside the place and rename: there is a whole cache or none."""
    part = dataset / "cache.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        _build(dataset, part, progress)
        write_json(part / "cache.json", {"version": _VERSION, "fingerprint": key})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:  # what pyarrow and a full disk raise
        raise BadDataset(f"cannot build the training cache in {dataset}: {error}; is it complete?") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block: training on several GPUs opens the same dataset in each."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _build(dataset: Path, out: Path, progress: Callable[[int, int], None] | None) -> None:
    import pyarrow.parquet as pq

    spec = Spec.load(dataset / "spec.json")
    tables = [pq.read_table(path) for path in sorted((dataset / "data").rglob("*.parquet"))]
    state = _column(dataset, tables, "observation.state", np.float32, len(spec.state))
    action = _column(dataset, tables, "action", np.float32, len(spec.action))
    episode = _column(dataset, tables, "episode_index", np.int64)
    task = _column(dataset, tables, "task_index", np.int64)
    total = len(episode)
    if total == 0:
        raise BadDataset(f"{dataset} has no frames; collect demonstrations first")
    for name, values, dims in (("observation.state", state, spec.state), ("action", action, spec.action)):
        if not np.isfinite(values).all():
            bad = [d.name for d, ok in zip(dims, np.isfinite(values).all(axis=0).tolist(), strict=True) if not ok]
            raise BadDataset(f"{dataset}: {name} {bad} holds NaN or infinity; the recording is damaged")
        _check_range(dataset, name, values, dims)
    if (np.diff(episode) < 0).any():
        raise BadDataset(f"{dataset}: episodes are not in order; was it merged by hand?")
    _check_times(dataset, tables, episode, spec.control_rate_hz)
    tasks = pq.read_table(dataset / "meta" / "tasks.parquet").to_pandas()
    sentences = {int(index): sentence for sentence, index in tasks["task_index"].items()}
    if unsaid := sorted(i for i, text in sentences.items() if not isinstance(text, str) or not text.strip()):
        raise BadDataset(f"{dataset}: meta/tasks.parquet has no words for task_index {unsaid[0]}; say what was done")
    instructions = sorted(set(sentences.values()))
    position = {index: instructions.index(sentence) for index, sentence in sentences.items()}
    try:
        instruction = np.array([position[int(i)] for i in task], np.int64)
    except KeyError as error:
        raise BadDataset(
            f"{dataset}: task_index {error} is not in meta/tasks.parquet; the dataset is damaged"
        ) from None

    out.mkdir(parents=True)
    for number, camera in enumerate(spec.cameras):
        shape = (total, camera.height, camera.width, 3)
        done = 0
        # Written, not mapped: writing to a map on a full disk is a signal that kills, not an error.
        with (out / f"image_{camera.name}.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)  # type: ignore[no-untyped-call]
            for frame in _frames(dataset, f"observation.images.{camera.name}", tables):
                if done == total:
                    raise BadDataset(f"{dataset}: camera {camera.name!r} has more frames than the {total} of the data")
                if frame.shape != shape[1:]:
                    raise BadDataset(
                        f"{dataset}: camera {camera.name!r} frame {done} has shape {frame.shape}, the spec {shape[1:]}"
                    )
                file.write(frame.tobytes())
                done += 1
                if progress and done % 256 == 0:
                    progress(number * total + done, total * len(spec.cameras))
        if done < total:
            raise BadDataset(
                f"{dataset}: camera {camera.name!r} has {done} of {total} frames; the recording was cut short. "
                "`vla collect` with the same arguments finishes it"
            )
    for name, array in (("state", state), ("action", action), ("episode", episode), ("instruction", instruction)):
        np.save(out / f"{name}.npy", array)
    write_json(out / "instructions.json", instructions)
    spec.save(out / "spec.json")


def _check_info(dataset: Path) -> None:
    """What LeRobot's meta/info.json says is what our spec.json says. Raises BadDataset; names the field."""
    path, spec = dataset / "meta" / "info.json", Spec.load(dataset / "spec.json")
    try:
        info = json.loads(path.read_text())
        features = info["features"]
        pictures = {name for name in features if name.startswith("observation.images.")}
        pairs = [
            ("fps", info["fps"], round(spec.control_rate_hz)),
            ("cameras", pictures, {f"observation.images.{c.name}" for c in spec.cameras}),
            ("names of observation.state", features["observation.state"]["names"], [d.name for d in spec.state]),
            ("names of action", features["action"]["names"], [d.name for d in spec.action]),
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadDataset(f"{path} is not a LeRobotDataset's: {error!r}; restore it or collect again") from error
    for field, have, want in pairs:
        if have != want:
            raise BadDataset(f"{path}: {field} is {have}, spec.json says {want}; one of them is of another robot")


def _check_range(dataset: Path, name: str, values: Floats, dims: tuple[Dim, ...]) -> None:
    """Values in the spec's units and action space.

    An action that safety would refuse, or a state far outside where the robot can be, is another unit (degrees,
    millimetres), another order, or absolute where deltas were promised. Raises BadDataset; names the dimension.
    """
    slack = SafetyConfig.overshoot if name == "action" else 1.0
    for dim, column in zip(dims, values.T, strict=True):
        low, high, room = float(column.min()), float(column.max()), slack * (dim.high - dim.low)
        if low < dim.low - room or high > dim.high + room:
            raise BadDataset(
                f"{dataset}: {name} {dim.name!r} goes from {low:.4g} to {high:.4g}, the spec allows {dim.low:g} to "
                f"{dim.high:g} {dim.unit} ({dim.kind}): was it recorded in another unit, order or action space?"
            )


def _check_times(dataset: Path, tables: list[Any], episode: npt.NDArray[np.int64], rate_hz: float) -> None:
    """Frames of an episode follow each other at the control rate. Raises BadDataset."""
    times = _column(dataset, tables, "timestamp", np.float64)
    steps = np.diff(times)[np.diff(episode) == 0]
    # A tenth of a period: timestamps are float32, and some recorders write when a frame really came.
    if len(steps) and not (np.abs(steps - 1 / rate_hz) < 0.1 / rate_hz).all():
        worst = float(steps[np.abs(steps - 1 / rate_hz).argmax()])
        raise BadDataset(
            f"{dataset}: frames lie up to {worst:.4g} s apart, the spec's control_rate_hz is {rate_hz:g}: frames are "
            "missing, out of order, or were recorded at another rate"
        )


def _column(dataset: Path, tables: list[Any], name: str, dtype: type, width: int | None = None) -> npt.NDArray[Any]:
    """One column of all tables as (T,) or (T, width)."""
    parts = []
    for table in tables:
        if name not in table.column_names:
            raise BadDataset(f"{dataset} has no column {name!r}; it has {table.column_names}")
        values = table[name].combine_chunks()
        flat = values.flatten() if hasattr(values, "flatten") else values  # LeRobot writes a vector of one as a number
        array = flat.to_numpy(zero_copy_only=False).astype(dtype)
        if width is not None and array.size != len(table) * width:
            raise BadDataset(f"{dataset}: column {name!r} is not {width} wide everywhere, as the spec says")
        parts.append(array.reshape(-1, width) if width is not None else array)
    return np.concatenate(parts) if parts else np.zeros((0,) if width is None else (0, width), dtype)


def _frames(dataset: Path, key: str, tables: list[Any]) -> Iterator[Image]:
    """Every frame of a camera in order, from video files or from PNG bytes in the tables."""
    import av
    from av.error import FFmpegError

    if all(key in table.column_names for table in tables):
        for table in tables:
            for cell in table[key]:
                with av.open(io.BytesIO(cell["bytes"].as_py())) as picture:
                    yield next(picture.decode(video=0)).to_ndarray(format="rgb24")
        return
    files = sorted((dataset / "videos" / key).rglob("*.mp4"))
    if not files:
        raise BadDataset(f"{dataset} has no images of {key!r}")
    for path in files:
        try:
            with av.open(str(path)) as video:
                for frame in video.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")
        except FFmpegError as error:
            raise BadDataset(f"{path} cannot be decoded: {error}; the recording was cut short") from error


def _fingerprint(dataset: Path) -> str:
    """Names, sizes and times of the files the cache is made from."""
    if not (dataset / "meta" / "info.json").is_file() or not (dataset / "spec.json").is_file():
        raise BadDataset(f"{dataset} is not a dataset of ours: meta/info.json or spec.json is missing")
    hasher = hashlib.sha256()
    files = [dataset / "spec.json", dataset / "meta" / "tasks.parquet"]
    for path in sorted([*files, *(dataset / "data").rglob("*"), *(dataset / "videos").rglob("*")]):
        if path.is_file():
            stat = path.stat()
            hasher.update(f"{path.relative_to(dataset)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return hasher.hexdigest()


def _is_current(folder: Path, key: str) -> bool:
    try:
        about = json.loads((folder / "cache.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(about == {"version": _VERSION, "fingerprint": key})
