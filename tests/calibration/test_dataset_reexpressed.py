"""`vla calibrate reexpress` on real demonstrations: a camera that was moved, a base that was found elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_before_a_run import as_trained, tabletop

from vla.cli import main
from vla.data.cache import open_cache
from vla.errors import BadCalibration
from vla.spec import Camera, Spec, differences
from vla.verbs import _calibration_dataset
from vla_calibration import store
from vla_calibration.camera import CameraModel
from vla_calibration.drift import pose_of
from vla_calibration.geometry import Doubles, apply, inverse, moved, transform
from vla_calibration.reexpress import reexpress_dims
from vla_calibration.store import Calibration
from vla_sim.collect import CollectConfig, demonstrate
from vla_sim.tabletop.faults import Faults, FaultySuite, nominal_camera

TWIST = np.array([0.03, -0.04, 0.02, 0.02, -0.05, 0.04])


def placed(agent: Doubles) -> Calibration:
    """The tabletop as trained, but for where its agent camera is."""
    known = as_trained(tabletop())
    return replace(known, cameras={**known.cameras, "agent": replace(known.cameras["agent"], mount_from_camera=agent)})


def run(dataset: Path, file: Path, out: Path, *more: str) -> int:
    fov = ("--fov-deg", str(np.rad2deg(nominal_camera()[1])))
    argv = ("--dataset", str(dataset), "--store", str(file), "--out", str(out), *fov, *more)
    return main(["calibrate", "reexpress", *argv])


def test_a_moved_cameras_images_are_redrawn(demonstrations: Path, tmp_path: Path, monkeypatch: Any) -> None:
    now = moved(nominal_camera()[0], TWIST)
    file, out = tmp_path / "panda.yaml", tmp_path / "new"
    store.add(file, "panda_tabletop", placed(now))
    whole = _calibration_dataset.LeRobotWriter.add
    monkeypatch.setattr(_calibration_dataset, "_SHARD_EPISODES", 2)

    def killed(self: Any, episodes: Any) -> None:
        if self.seeds:
            raise KeyboardInterrupt
        whole(self, episodes)

    monkeypatch.setattr(_calibration_dataset.LeRobotWriter, "add", killed)
    assert run(demonstrations, file, out) == 130
    assert not out.exists()
    monkeypatch.setattr(_calibration_dataset.LeRobotWriter, "add", whole)
    assert run(demonstrations, file, out, "--plane-z-m", "0.1") == 2  # what is there was begun otherwise
    assert run(demonstrations, file, out) == 0
    assert run(demonstrations, file, out) == 2  # it is there
    assert not out.with_name("new.part").exists()
    assert json.loads((out / "reexpression.json").read_text())["config"]["moved"] == "camera"

    before, after = open_cache(demonstrations), open_cache(out)
    for part in ("state", "action", "episode", "instruction"):
        np.testing.assert_array_equal(getattr(after, part), getattr(before, part))
    np.testing.assert_array_equal(after.images["wrist"], before.images["wrist"])
    assert after.spec.cameras[0].pose == pose_of(store.load(file).cameras["agent"])
    assert [line.partition(":")[0] for line in differences(before.spec, after.spec)] == ["cameras[agent].pose"]
    truth = demonstrate(FaultySuite(Faults(np.zeros(7), now)).make(), 40, CollectConfig(episodes=6, seed=40))
    assert truth is not None
    n = len(truth.action)
    true = truth.images["agent"].astype(float)
    apart = [np.abs(true - cache.images["agent"][:n]).mean() for cache in (before, after)]
    assert apart[1] < apart[0] / 2  # what stands above the plane, the arm above all, is not where it would be


def test_lerobot_reopens_it(demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.datasets import LeRobotDataset

    base = transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([0.1, 0.2, 0.0]))
    file, out = tmp_path / "panda.yaml", tmp_path / "new"
    found = placed(base @ nominal_camera()[0])
    store.add(file, "panda_tabletop", replace(found, cameras={"agent": found.cameras["agent"]}))
    assert run(demonstrations, file, out, "--moved", "base") == 0
    old, new = open_cache(demonstrations), open_cache(out)
    np.testing.assert_array_equal(new.images["agent"], old.images["agent"])
    np.testing.assert_allclose(new.state[:, :3], apply(base, old.state[:, :3].astype(float)), atol=1e-6)
    np.testing.assert_allclose(new.state[:, 3:6], old.state[:, 3:6] @ base[:3, :3].T, atol=1e-6)
    np.testing.assert_allclose(new.action[:, :3], old.action[:, :3] @ base[:3, :3].T, atol=1e-6)
    np.testing.assert_array_equal(new.action[:, 3], old.action[:, 3])
    low, high = (np.array([getattr(d, side) for d in new.spec.state[:3]]) for side in ("low", "high"))
    was = np.array([[d.low, d.high] for d in old.spec.state[:3]])
    np.testing.assert_allclose(low, [0.1 - was[1, 1], 0.2 + was[0, 0], was[2, 0]])
    assert ((new.state[:, :3] >= low) & (new.state[:, :3] <= high)).all()
    again = LeRobotDataset("local/new", root=out, video_backend="pyav")
    assert again.num_episodes == old.n_episodes
    np.testing.assert_allclose(again[3]["observation.state"].numpy(), new.state[3])


def test_what_cannot_be_reexpressed(demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "panda.yaml", tmp_path / "new"
    store.add(file, "panda_tabletop", placed(nominal_camera()[0]))

    def says(*more: str) -> str:
        assert run(demonstrations, file, out, *more) == 2
        return capsys.readouterr().err

    assert "is where it was" in says("--version", "1")
    assert "on the hand" in says("--camera", "wrist")
    assert "'top' is not in the dataset (agent, wrist)" in says("--camera", "top")
    assert "1 to 170 degrees" in says("--fov-deg", "0")
    store.add(file, "panda_tabletop", placed(moved(nominal_camera()[0], TWIST)))
    other = placed(moved(nominal_camera()[0], TWIST))
    wrist = replace(other.cameras["wrist"], mount="base", mount_from_camera=nominal_camera()[0])
    spec = tabletop()
    both = replace(spec, cameras=tuple(replace(c, pose=spec.cameras[0].pose) for c in spec.cameras))
    with pytest.raises(BadCalibration, match="if camera 'agent' stood still, 'wrist' was moved by"):
        _calibration_dataset.base_moved(both, "agent", None, replace(other, cameras={**other.cameras, "wrist": wrist}))
    (tmp_path / "not").mkdir()
    assert main(["calibrate", "reexpress", "--dataset", str(tmp_path / "not"), "--out", str(out)]) == 2
    assert not out.exists()
    assert not out.with_name("new.part").exists()


def test_a_flipped_and_cropped_camera_is_redrawn_as_its_sensor_sees() -> None:
    spec, lens = tabletop(), CameraModel(640, 480, 600.0, 605.0, 325.0, 236.0)
    flipped = Camera("agent", 120, 160, crop=(60, 80, 360, 480), flip="vertical", pose=spec.cameras[0].pose)
    own: Spec = replace(spec, cameras=(flipped, *spec.cameras[1:]))
    now = moved(nominal_camera()[0], TWIST)
    agent = replace(as_trained(tabletop()).cameras["agent"], intrinsics=lens, mount_from_camera=now)
    change = _calibration_dataset.camera_moved(own, "agent", None, Calibration({"agent": agent}), None, 0.0)
    point = np.array([[0.5, 0.05, 0.0]])  # on the table

    def stored(place: Doubles) -> tuple[int, int]:
        x, y = lens.project(apply(inverse(place), point))[0]  # in the sensor's image
        return 119 - round((y - 60 + 0.5) / 3 - 0.5), round((x - 80 + 0.5) / 3 - 0.5)

    row, column = stored(nominal_camera()[0])
    image = np.zeros((120, 160, 3), np.uint8)
    image[row - 1 : row + 2, column - 1 : column + 2] = 255
    seen = np.argwhere(change.redraw(image)[:, :, 0] > 100).mean(0)
    np.testing.assert_allclose(seen, stored(now), atol=1.0)
    assert np.abs(np.subtract(stored(now), (row, column))).max() > 5


def test_rates_turn_with_the_limits() -> None:
    dims = tuple(replace(d, max_rate=0.3 if d.frame == "base" else None) for d in tabletop().action)
    quarter = transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([9.0, 9.0, 9.0]))
    turned = reexpress_dims(dims, quarter)
    assert [d.max_rate for d in turned] == [pytest.approx(0.3)] * 3 + [None]
    assert [(d.low, d.high) for d in turned] == [pytest.approx((d.low, d.high)) for d in dims]
