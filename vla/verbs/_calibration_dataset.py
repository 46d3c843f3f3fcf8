"""`vla calibrate reexpress`: a recorded dataset under another calibration, written as a new one.

Either the camera was moved: its images are redrawn from where it is now. Or the base was found elsewhere, the camera
having stood still: states and actions are turned into the new base frame, and images stay. The new dataset is built
aside (OUT.part), shard by shard, and moved into place when it is whole; a killed command goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from vla.data.cache import Cache
from vla.errors import BadCalibration, BadConfig
from vla.runs import Run, write_json
from vla.spec import Camera, CameraPose, Drift, Spec, pose_distance
from vla.types import Image
from vla_calibration.camera import CameraModel, pinhole
from vla_calibration.drift import as_pose, pose_of
from vla_calibration.geometry import Doubles, inverse, transform
from vla_calibration.reexpress import redrawing, reexpress, reexpress_dims
from vla_calibration.store import Calibration, CameraEntry
from vla_sim.lerobot_writer import Episode, LeRobotWriter

Moved = Literal["camera", "base"]
_SHARD_BYTES = 256 << 20
"""Images held in memory before they are written."""
_SHARD_EPISODES = 100
_FLIPS: dict[str, Callable[[Image], Image]] = {
    "none": lambda image: image,
    "vertical": lambda image: np.ascontiguousarray(image[::-1]),
    "rotate_180": lambda image: np.ascontiguousarray(image[::-1, ::-1]),
}
"""Each undoes itself."""


@dataclass(frozen=True, eq=False)
class Change:
    """What is different under the new calibration."""

    spec: Spec
    """Of the new dataset."""
    camera: str | None = None
    """Whose images are redrawn."""
    redraw: Callable[[Image], Image] = _FLIPS["none"]
    new_from_old: Doubles | None = None
    """(4, 4) the old base in the new one."""


def camera_moved(
    spec: Spec, name: str, old: Calibration | None, new: Calibration, fov_rad: float | None, plane_z_m: float
) -> Change:
    """Images of camera `name` as it would see now. `old`: None takes its place from the spec, its lens from `new`.

    Raises:
        BadCalibration: it is on the hand, its place was or is not known, or it did not move.
    """
    camera, entry, was = _sides(spec, name, old, new)
    before = new if old is None else old
    place, lenses = _matrix(was), [_lens(camera, c.cameras[name], fov_rad) for c in (before, new)]
    draw = redrawing((lenses[0], place), (lenses[1], entry.mount_from_camera), plane_z_m)
    flip = _FLIPS[camera.flip]
    cameras = tuple(replace(c, pose=pose_of(entry)) if c.name == name else c for c in spec.cameras)
    return Change(replace(spec, cameras=cameras), name, lambda image: flip(draw(flip(image))))


def base_moved(spec: Spec, name: str, old: Calibration | None, new: Calibration) -> Change:
    """States and actions in the base frame in which the camera `name`, which stood still, is where `new` has it.

    Raises:
        BadCalibration: as `camera_moved`; or another camera says that the base is elsewhere; or states or actions
            cannot be re-expressed.
    """
    _, entry, was = _sides(spec, name, old, new)
    T = entry.mount_from_camera @ inverse(_matrix(was))
    limits, cameras = spec.drift or Drift(), []
    for camera in spec.cameras:
        pose = camera.pose
        if pose is not None and pose.mount == "base":
            pose = as_pose("base", T @ _matrix(pose))
            other = new.cameras.get(camera.name)
            metres, radians = (0.0, 0.0) if other is None else pose_distance(pose, pose_of(other))
            if metres > limits.refuse_m or radians > limits.refuse_rad:
                raise BadCalibration(
                    f"if camera {name!r} stood still, {camera.name!r} was moved by {1e3 * metres:.0f} mm and "
                    f"{np.rad2deg(radians):.1f} degrees: re-express that one with --moved camera"
                )
        cameras.append(replace(camera, pose=pose))
    state, action = reexpress_dims(spec.state, T), reexpress_dims(spec.action, T)
    return Change(replace(spec, cameras=tuple(cameras), state=state, action=action), new_from_old=T)


def write(dataset: Path, cache: Cache, change: Change, out: Path, config: dict[str, Any], show: Any) -> Path:
    """Write the new dataset; returns its folder.

    Args:
        dataset: the recorded one.
        cache: of it.
        change: what to do.
        out: the new folder; must not be there.
        config: what decides the result; a killed call is gone on with only under the same.
        show: progress bar.

    Raises:
        BadConfig: `out` is there, or what is in OUT.part was begun with another config.
        Missing: the disk is full; the same call goes on.
    """
    if out.exists():
        raise BadConfig(f"{out} is there already: choose another folder")
    part = out.with_name(f"{out.name}.part")
    run = Run.create(part, "reexpress", config, resume=True)
    writer = LeRobotWriter(part / "dataset", change.spec)
    starts = np.flatnonzero(np.diff(cache.episode, prepend=cache.episode[0] - 1))
    spans = list(zip(starts.tolist(), [*starts[1:].tolist(), len(cache)], strict=True))
    about = _about(dataset, cache, spans)
    for shard in _shards(cache, spans, len(writer.seeds)):
        writer.add([_episode(cache, change, spans[i], *about[i]) for i in shard])
        show(len(writer.seeds) / len(spans), f"{len(writer.seeds)}/{len(spans)} episodes")
    write_json(part / "dataset" / "reexpression.json", run.meta)
    (part / "dataset").rename(out)
    shutil.rmtree(part)
    return out


def _episode(cache: Cache, change: Change, span: tuple[int, int], seed: int, task: str) -> Episode:
    at = slice(*span)
    images = {name: frames[at] for name, frames in cache.images.items()}
    if change.camera is not None:
        images[change.camera] = np.stack([change.redraw(image) for image in images[change.camera]])
    state, action = cache.state[at], cache.action[at]
    if change.new_from_old is not None:
        state = reexpress(state, cache.spec.state, change.new_from_old)
        action = reexpress(action, cache.spec.action, change.new_from_old)
    return Episode(seed, task, cache.instructions[cache.instruction[span[0]]], images, state, action)


def _shards(cache: Cache, spans: Sequence[tuple[int, int]], first: int) -> Iterator[list[int]]:
    """Episodes from the first on, as many at a time as memory bears."""
    a_frame = sum(int(np.prod(frames.shape[1:])) for frames in cache.images.values())
    shard: list[int] = []
    for i in range(first, len(spans)):
        size = sum(spans[j][1] - spans[j][0] for j in [*shard, i]) * a_frame
        if shard and (size > _SHARD_BYTES or len(shard) == _SHARD_EPISODES):
            yield shard
            shard = []
        shard.append(i)
    if shard:
        yield shard


def _about(dataset: Path, cache: Cache, spans: Sequence[tuple[int, int]]) -> list[tuple[int, str]]:
    """Seed and task of each episode; its number and its words where the recording has neither."""
    import pyarrow.parquet as pq

    files = sorted((dataset / "meta" / "episodes").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    if len(rows) != len(spans):
        raise BadCalibration(f"{dataset}: {len(rows)} episodes in its meta, {len(spans)} in its data; is it whole?")
    words = [cache.instructions[cache.instruction[start]] for start, _ in spans]
    return [(int(r.get("seed", i)), str(r.get("task_id", words[i]))) for i, r in enumerate(rows)]


def _sides(spec: Spec, name: str, old: Calibration | None, new: Calibration) -> tuple[Camera, CameraEntry, CameraPose]:
    """The camera in the spec, as it is now, and where it was."""
    camera = {c.name: c for c in spec.cameras}.get(name)
    if camera is None or name not in new.cameras or (old is not None and name not in old.cameras):
        raise BadCalibration(
            f"camera {name!r} is not in the dataset ({', '.join(c.name for c in spec.cameras)}), or not calibrated "
            f"({', '.join(new.cameras) or 'none is'}): name it with --camera, and calibrate it"
        )
    was = camera.pose if old is None else pose_of(old.cameras[name])
    if was is None:
        raise BadCalibration(
            f"the dataset does not say where camera {name!r} was: name the version it was recorded under (--version)"
        )
    entry = new.cameras[name]
    if "hand" in (was.mount, entry.mount):
        raise BadCalibration(
            f"camera {name!r} is on the hand: its images cannot be redrawn without the hand's pose in each; mount it "
            "as it was, or record again"
        )
    if max(pose_distance(was, pose_of(entry))) < 1e-6:
        raise BadCalibration(f"camera {name!r} is where it was: there is nothing to re-express")
    return camera, entry, was


def _lens(camera: Camera, entry: CameraEntry, fov_rad: float | None) -> CameraModel:
    """That of the stored images, before they were flipped."""
    if fov_rad is not None:
        return pinhole(camera.width, camera.height, fov_rad)
    return entry.intrinsics.cut(camera.crop, camera.width, camera.height)


def _matrix(pose: CameraPose) -> Doubles:
    return transform(Rotation.from_quat(pose.quaternion_xyzw).as_matrix(), np.array(pose.position_m))


def fingerprint(dataset: Path) -> str:
    """Of the data, as its cache has it."""
    return str(json.loads((dataset / "cache" / "cache.json").read_text())["fingerprint"])
