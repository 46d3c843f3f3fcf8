"""The training cache holds exactly what was recorded, follows the data when it changes, and never half of it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.data.cache import Cache, _column, open_cache
from vla.errors import BadDataset
from vla.spec import Camera, Dim, Spec
from vla.types import Image
from vla_sim.collect import CollectConfig, demonstrate
from vla_sim.suites.tabletop import TabletopSuite

TABLE = "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.wrist/chunk-000/file-000.mp4"


@pytest.fixture
def dataset(demonstrations: Path, tmp_path: Path) -> Path:
    """A copy to damage, without a cache."""
    return Path(shutil.copytree(demonstrations, tmp_path / "d", ignore=shutil.ignore_patterns("cache")))


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def replaced(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def vectors(table: pa.Table, name: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack(table[name].to_numpy())


def test_every_frame_is_the_one_that_was_recorded(demonstrations: Path) -> None:
    cache = open_cache(demonstrations)
    first = demonstrate(TabletopSuite().make(), 40, CollectConfig())
    assert first is not None
    T = len(first.action)
    assert cache.n_episodes == 6
    assert (cache.episode[:T] == 0).all()
    assert cache.episode[T] == 1
    np.testing.assert_array_equal(cache.state[:T], first.state)
    np.testing.assert_array_equal(cache.action[:T], first.action)
    for camera in ("agent", "wrist"):
        np.testing.assert_array_equal(cache.images[camera][:T], first.images[camera])
    assert {cache.instructions[i] for i in cache.instruction[:T]} == {first.instruction}
    assert cache.spec == TabletopSuite().spec


def test_it_is_built_once_and_again_when_the_data_changed(dataset: Path) -> None:
    before = open_cache(dataset)
    stamp = (dataset / "cache" / "cache.json").stat().st_mtime_ns
    open_cache(dataset)
    assert (dataset / "cache" / "cache.json").stat().st_mtime_ns == stamp

    def shift(table: pa.Table) -> pa.Table:
        moved = vectors(table, "action") * np.float32(0.5)
        return replaced(table, "action", pa.FixedSizeListArray.from_arrays(pa.array(moved.ravel()), moved.shape[1]))

    rewrite(dataset / TABLE, shift)
    np.testing.assert_array_equal(open_cache(dataset).action, before.action * np.float32(0.5))

    def reword(table: pa.Table) -> pa.Table:
        return replaced(table, "task", pa.array([f"please {s}" for s in table["task"].to_pylist()]))

    rewrite(dataset / "meta" / "tasks.parquet", reword)
    assert open_cache(dataset).instructions == [f"please {s}" for s in before.instructions]


def test_pictures_inside_the_tables_are_read_like_videos(dataset: Path, demonstrations: Path) -> None:
    """LeRobot datasets that were recorded without video hold PNG bytes."""
    cache = open_cache(demonstrations)

    def embed(table: pa.Table) -> pa.Table:
        for camera, images in cache.images.items():
            cells = [{"bytes": png(image), "path": None} for image in images]
            table = table.append_column(f"observation.images.{camera}", pa.array(cells))
        return table

    rewrite(dataset / TABLE, embed)
    shutil.rmtree(dataset / "videos")
    for camera, images in open_cache(dataset).images.items():
        np.testing.assert_array_equal(images, cache.images[camera])


@pytest.mark.parametrize("size", [None, 0, 100])
def test_a_damaged_cache_is_named_and_how_to_be_rid_of_it(size: int | None, dataset: Path) -> None:
    open_cache(dataset)
    parts = [path for path in (dataset / "cache").iterdir() if path.name != "cache.json"]  # without that it is built
    for path in parts:
        whole = path.read_bytes()
        if size is None:
            path.unlink()
        else:
            path.write_bytes(whole[:size])
        with pytest.raises(BadDataset, match=r"cache is damaged .*remove it"):
            open_cache(dataset)
        path.write_bytes(whole)
    assert len(parts) == 8
    open_cache(dataset)


def test_a_vector_of_one_may_be_a_number() -> None:
    """As LeRobot writes it."""
    table = pa.table({"action": [1.0, 2.0]})
    np.testing.assert_array_equal(_column(Path(), [table], "action", np.float32, 1), [[1.0], [2.0]])


def png(image: Image) -> bytes:
    stream = av.CodecContext.create("png", "w")
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "rgb24"
    out = io.BytesIO()
    for packet in [*stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")), *stream.encode(None)]:
        out.write(bytes(packet))
    return out.getvalue()


def bare_pictures(folder: Path) -> None:
    """Bytes without LeRobot's struct around them."""

    def embed(table: pa.Table) -> pa.Table:
        for camera in ("agent", "wrist"):
            table = table.append_column(f"observation.images.{camera}", pa.array([b"png"] * len(table)))
        return table

    rewrite(folder / TABLE, embed)


def features_in_a_list(folder: Path) -> None:
    change_info(folder, lambda info: info.update(features=[1]))


def no_frames(folder: Path) -> None:
    rewrite(folder / TABLE, lambda table: table.slice(0, 0))


def no_tables(folder: Path) -> None:
    shutil.rmtree(folder / "data")


def truncated_table(folder: Path) -> None:
    (folder / TABLE).write_bytes((folder / TABLE).read_bytes()[:-300])


def truncated_video(folder: Path) -> None:
    (folder / VIDEO).write_bytes((folder / VIDEO).read_bytes()[:20_000])


def missing_video(folder: Path) -> None:
    (folder / VIDEO).unlink()


def shorter_video(folder: Path) -> None:
    """One of two shards is there: whole, and not enough."""

    def lengthen(table: pa.Table) -> pa.Table:
        tail = table.slice(len(table) - 5)
        return pa.concat_tables([table, replaced(tail, "episode_index", pa.array([6] * 5))])

    rewrite(folder / TABLE, lengthen)


def longer_video(folder: Path) -> None:
    rewrite(folder / TABLE, lambda table: table.slice(0, 20))


def resized_camera(folder: Path) -> None:
    change_spec(folder, lambda spec: spec["cameras"][1].update(height=32))


def not_a_number(folder: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        state = vectors(table, "observation.state").copy()
        state[7, 1] = np.nan
        flat = pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), state.shape[1])
        return replaced(table, "observation.state", flat)

    rewrite(folder / TABLE, spoil)


def millimetres(folder: Path) -> None:
    rescale(folder, "observation.state", 1000.0)


def absolute_actions(folder: Path) -> None:
    rescale(folder, "action", 10.0)


def rescale(folder: Path, name: str, factor: float) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = vectors(table, name) * np.float32(factor)
        return replaced(table, name, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]))

    rewrite(folder / TABLE, change)


def change_info(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    info = json.loads((folder / "meta" / "info.json").read_text())
    change(info)
    (folder / "meta" / "info.json").write_text(json.dumps(info))


def another_rate(folder: Path) -> None:
    change_info(folder, lambda info: info.update(fps=30))


def another_rate_everywhere_but_in_the_frames(folder: Path) -> None:
    another_rate(folder)
    change_spec(folder, lambda spec: spec.update(control_rate_hz=30.0))


def frames_backwards(folder: Path) -> None:
    rewrite(folder / TABLE, lambda table: replaced(table, "timestamp", table["timestamp"].take(backwards(table))))


def other_joints(folder: Path) -> None:
    change_info(folder, lambda info: info["features"]["action"]["names"].reverse())


def unnamed_camera(folder: Path) -> None:
    change_spec(folder, lambda spec: spec["cameras"].pop())


def garbled_info(folder: Path) -> None:
    (folder / "meta" / "info.json").write_text("{")


def nothing_said(folder: Path) -> None:
    def silence(table: pa.Table) -> pa.Table:
        return replaced(table, "task", pa.array([None, " ", *table["task"].to_pylist()[2:]]))

    rewrite(folder / "meta" / "tasks.parquet", silence)


def wrong_width(folder: Path) -> None:
    change_spec(folder, lambda spec: spec["action"].pop())


def missing_column(folder: Path) -> None:
    rewrite(folder / TABLE, lambda table: table.drop_columns(["action"]))


def unordered_episodes(folder: Path) -> None:
    rewrite(
        folder / TABLE, lambda table: replaced(table, "episode_index", table["episode_index"].take(backwards(table)))
    )


def backwards(table: pa.Table) -> pa.Array:
    return pa.array(range(len(table) - 1, -1, -1))


def unknown_task(folder: Path) -> None:
    rewrite(folder / "meta" / "tasks.parquet", lambda table: table.slice(1))


def missing_tasks(folder: Path) -> None:
    (folder / "meta" / "tasks.parquet").unlink()


def missing_spec(folder: Path) -> None:
    (folder / "spec.json").unlink()


def change_spec(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    spec = json.loads((folder / "spec.json").read_text())
    change(spec)
    (folder / "spec.json").write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_frames, "has no frames; collect demonstrations first"),
        (no_tables, "has no frames; collect demonstrations first"),
        (truncated_table, "cannot build the training cache .*is it complete"),
        (truncated_video, r"file-000\.mp4 cannot be decoded: .*cut short"),
        (missing_video, "has no images of 'observation.images.wrist'"),
        (shorter_video, r"camera 'agent' has \d+ of \d+ frames; the recording was cut short.*`vla collect`"),
        (longer_video, "camera 'agent' has more frames than the 20 of the data"),
        (resized_camera, r"camera 'wrist' frame 0 has shape \(64, 64, 3\), the spec \(32, 64, 3\)"),
        (not_a_number, r"observation.state \['tool_y'\] holds NaN"),
        (wrong_width, r"names of action is \['dx', 'dy', 'dz', 'width'\], spec\.json says \['dx', 'dy', 'dz'\]"),
        (millimetres, "observation.state 'tool_x' goes from .* another unit"),
        (absolute_actions, "action 'dx' goes from .* the spec allows -0.04 to 0.04 m .delta.*action space"),
        (another_rate, r"info\.json: fps is 30, spec\.json says 10"),
        (another_rate_everywhere_but_in_the_frames, "0.1 s apart, the spec's control_rate_hz is 30"),
        (frames_backwards, "s apart, the spec's control_rate_hz is 10"),
        (other_joints, r"names of action is \['width', 'dz', 'dy', 'dx'\]"),
        (unnamed_camera, r"cameras is .*wrist"),
        (garbled_info, r"info\.json is not a LeRobotDataset's"),
        (features_in_a_list, r"info\.json is not a LeRobotDataset's"),
        (bare_pictures, "cannot build the training cache"),
        (nothing_said, r"no words for task_index 0"),
        (missing_column, "no column 'action'; it has"),
        (unordered_episodes, "episodes are not in order"),
        (unknown_task, r"task_index 0 is not in meta/tasks\.parquet"),
        (missing_tasks, r"cannot build .*tasks\.parquet"),
        (missing_spec, r"spec\.json is missing"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damaged_data_is_named_and_leaves_nothing_half_built(
    damage: Callable[[Path], None], message: str, dataset: Path
) -> None:
    damage(dataset)
    with pytest.raises(BadDataset, match=message) as found:
        open_cache(dataset)
    assert str(dataset) in str(found.value)
    assert not list(dataset.glob("cache*"))


def test_a_full_disk_while_building_is_an_error_and_leaves_nothing(dataset: Path) -> None:
    """A limit on file size refuses a write half-way, as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from vla.data.cache import open_cache
from vla.errors import BadDataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    open_cache(Path(sys.argv[1]))
except BadDataset as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", code, str(dataset)], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert "File too large" in run.stderr
    assert not list(dataset.glob("cache*"))
    open_cache(dataset)


def synthetic(lengths: list[int]) -> Cache:
    """Episodes of given lengths; images and states number the frames."""
    dim = Dim("x", "m", "absolute", "base", -1.0, 1.0)
    spec = Spec("r", (dim,), (dim,), "none", "none", (Camera("c", 1, 1),), 10.0)
    T = sum(lengths)
    numbers = np.arange(T, dtype=np.float32)[:, None]
    images = {"c": np.zeros((T, 1, 1, 3), np.uint8)}
    # Episodes need not be numbered from zero: a dataset may be a part of another.
    episode = np.repeat(3 + 2 * np.arange(len(lengths)), lengths)
    return Cache(spec, images, numbers, numbers, episode, ["go"], np.zeros(T, np.int64))


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 12))
def test_a_chunk_stays_in_its_episode_and_repeats_its_last_frame(lengths: list[int], H: int) -> None:
    cache = synthetic(lengths)
    index, is_pad = cache.chunk_index(H)
    assert index.shape == is_pad.shape == (sum(lengths), H)
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    for t in range(len(cache)):
        real = list(range(t, min(t + H, ends[t])))
        assert index[t, ~is_pad[t]].tolist() == real
        assert (index[t, is_pad[t]] == ends[t] - 1).all()
        assert index[t].min() >= starts[t]


@given(LENGTHS, st.data())
def test_the_first_episodes_are_whole(lengths: list[int], data: st.DataObject) -> None:
    cache = synthetic(lengths)
    n = data.draw(st.integers(1, len(lengths)))
    part = cache.first_episodes(n)
    assert part.n_episodes == n
    assert len(part) == sum(lengths[:n])
    np.testing.assert_array_equal(part.state, cache.state[: len(part)])
    assert len(part.images["c"]) == len(part.instruction) == len(part)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_more_episodes_than_there_are_or_none_are_refused(n: int) -> None:
    with pytest.raises(BadDataset, match=f"{n} episodes asked for, the dataset has 3"):
        synthetic([2, 3, 4]).first_episodes(n)
