"""Collected data is a LeRobotDataset that LeRobot reads, exact to the pixel, whatever interrupted its making."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from vla import registry
from vla.data.cache import open_cache
from vla.errors import BadConfig, BadDataset, SpecMismatch
from vla.runs import alone
from vla.spec import Spec
from vla_sim import collect as collecting
from vla_sim.collect import CollectConfig, collect, demonstrate
from vla_sim.lerobot_writer import LeRobotWriter
from vla_sim.suites.tabletop import TabletopEnv, TabletopSuite

CONFIG = CollectConfig(episodes=6, seed=40)
TASKS = ("pick_red", "push_blue_left")


class TwoTasks(TabletopSuite):
    """The tabletop, but for most of its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = TASKS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "d"
    collect(CONFIG, out)
    return out


def seeds(folder: Path) -> list[int]:
    files = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    return [seed for file in files for seed in pq.read_table(file)["seed"].to_pylist()]


def frames(folder: Path) -> Any:
    """Everything a policy trains on."""
    cache = open_cache(folder)
    return [cache.state, cache.action, cache.episode, cache.images["agent"], cache.images["wrist"]]


def assert_same_data(a: Path, b: Path) -> None:
    assert seeds(a) == seeds(b)
    for left, right in zip(frames(a), frames(b), strict=True):
        np.testing.assert_array_equal(left, right)


def test_lerobot_reopens_it_offline_with_the_exact_frames(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    opened = LeRobotDataset("local/tabletop", root=dataset, video_backend="pyav")
    first = demonstrate(TabletopSuite().make(), 40, CONFIG)
    assert first is not None
    assert opened.num_episodes == 6
    assert opened.meta.robot_type == "panda_tabletop"
    for i in (0, len(first.action) - 1):
        frame = opened[i]
        assert frame["task"] == first.instruction
        np.testing.assert_array_equal(frame["action"].numpy(), first.action[i])
        np.testing.assert_array_equal(frame["observation.state"].numpy(), first.state[i])
        for camera in ("agent", "wrist"):
            image = frame[f"observation.images.{camera}"].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(np.round(image * 255), first.images[camera][i])
    last = opened[len(opened) - 1]
    assert last["episode_index"].item() == 5
    for key, stats in opened.meta.stats.items():
        assert np.isfinite(stats["mean"]).all(), key
    np.testing.assert_allclose(
        opened.meta.stats["action"]["mean"], np.concatenate(opened.hf_dataset["action"]).reshape(-1, 4).mean(0), 1e-4
    )


def test_spec_config_and_seeds_lie_beside_the_data(dataset: Path) -> None:
    assert Spec.load(dataset / "spec.json") == TabletopSuite().spec
    about = json.loads((dataset / "collection.json").read_text())
    assert about["config"]["noise"] == CONFIG.noise
    assert about["seeds"] == seeds(dataset)
    assert about["revision"]
    assert about["episodes"] == 6 <= about["tried"]


def test_two_processes_make_the_same_data_as_one(dataset: Path, tmp_path: Path) -> None:
    collect(CONFIG, tmp_path / "two", workers=2)
    assert_same_data(dataset, tmp_path / "two")


def test_more_episodes_are_added_behind_those_there_are(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "_SHARD", 2)
    collect(replace(CONFIG, episodes=3), tmp_path / "grown")
    done = collect(CONFIG, tmp_path / "grown")
    assert done.episodes == 6
    assert_same_data(dataset, tmp_path / "grown")
    with pytest.raises(BadConfig, match=r"noise was 0\.25, now 0\.5"):
        collect(replace(CONFIG, noise=0.5), tmp_path / "grown")


def test_demos_are_a_number_for_each_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "suite", lambda _: TwoTasks)
    monkeypatch.setattr(collecting, "_SHARD", 3)
    config = CollectConfig(demos=3, seed=40, noise=0.4)
    said: list[str] = []
    done = collect(config, tmp_path / "d", report=said.append)
    found = seeds(tmp_path / "d")
    assert done.episodes == len(found) == 6
    assert [seed % 2 for seed in found].count(0) == 3
    assert not said
    more = collect(replace(config, demos=4), tmp_path / "d")
    assert more.episodes == 8
    with pytest.raises(BadConfig, match="demos was 4, now None"):
        collect(replace(config, demos=None), tmp_path / "d")


@pytest.mark.parametrize(("solved", "count"), [(0, "none"), (1, "1")])
def test_a_task_that_the_expert_can_hardly_do_is_given_up_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: int, count: str
) -> None:
    """Without this, `vla collect` would try one task for ever, or deliver a dataset that silently lacks it."""
    wish, begin, tries = TabletopEnv.expert, TabletopEnv.reset, []

    def reset(env: TabletopEnv, seed: int, task: str | None = None) -> None:
        begin(env, seed, task)
        tries.append(task)

    def hopeless(env: TabletopEnv) -> Any:
        return np.zeros(4, np.float32) if env.task == TASKS[0] and tries.count(TASKS[0]) > solved else wish(env)

    monkeypatch.setattr(TabletopEnv, "reset", reset)
    monkeypatch.setattr(TabletopEnv, "expert", hopeless)
    monkeypatch.setattr(collecting, "_TRIES", 3)
    monkeypatch.setattr(collecting, "_AT_LEAST", 2)
    monkeypatch.setattr(registry, "suite", lambda _: TwoTasks)
    said: list[str] = []
    done = collect(CollectConfig(demos=3, seed=40), tmp_path / "d", report=said.append)
    assert said == [f"the expert solved {TASKS[0]} in {count} of 3 tries: going on without more of it"]
    assert done.episodes == 3 + solved
    assert [seed % 2 for seed in seeds(tmp_path / "d")].count(0) == solved
    assert collect(CollectConfig(demos=3, seed=40), tmp_path / "d", report=said.append) == done


def test_killed_between_the_first_shard_and_its_description_another_config_is_still_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = collecting._describe

    def cut_off(config: CollectConfig, out: Path, writer: LeRobotWriter, tried: int) -> None:
        if writer.seeds:
            raise KeyboardInterrupt
        described(config, out, writer, tried)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_describe", cut_off)
        with pytest.raises(KeyboardInterrupt):
            collect(replace(CONFIG, episodes=1), tmp_path / "d")
    assert len(seeds(tmp_path / "d")) == 1
    with pytest.raises(BadConfig, match=r"noise was 0\.25, now 0\.5"):
        collect(replace(CONFIG, noise=0.5), tmp_path / "d")
    assert collect(replace(CONFIG, episodes=2), tmp_path / "d").episodes == 2


def test_an_episode_that_begins_solved_is_no_demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("success", "done"):
        monkeypatch.setattr(TabletopEnv, name, True)
    assert collecting.demonstrate(TabletopSuite().make(), 40, CONFIG) is None


def test_a_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle, twice; then the same command to the end gives what one undisturbed run gives."""
    command = [sys.executable, "-c", "import sys; from vla_sim import collect as c; c._SHARD = 5; "]
    command[-1] += "c.collect(c.CollectConfig(episodes=30, seed=40), __import__('pathlib').Path(sys.argv[1]))"
    for at_least in (5, 15):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=os.environ | {"OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while len(seeds(tmp_path / "killed")) < at_least and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was still at work"
    collect(replace(CONFIG, episodes=30), tmp_path / "killed")
    collect(replace(CONFIG, episodes=30), tmp_path / "whole")
    assert_same_data(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("file", ["episodes", "tasks.parquet", "stats.json", "spec.json", "info.json"])
def test_cut_off_before_any_file_of_a_shard_it_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, shard: int
) -> None:
    """The process ends right before it puts `file` of the first or second shard in its place."""
    monkeypatch.setattr(collecting, "_SHARD", 3)
    code = f"""
import os, pathlib, sys
from vla_sim import collect as c
c._SHARD, replace, spare = 3, pathlib.Path.replace, {shard}
def cut(path, target):
    global spare
    if {file!r} in pathlib.Path(target).parts:
        spare -= 1
        if spare < 0:
            os._exit(9)
    return replace(path, target)
pathlib.Path.replace = cut
c.collect(c.CollectConfig(episodes=6, seed=40), pathlib.Path(sys.argv[1]))
"""
    folder = tmp_path / "cut"
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 9
    collect(CONFIG, folder)
    assert_same_data(folder, dataset)
    one, other = (json.loads((place / "meta" / "stats.json").read_text()) for place in (folder, dataset))
    for key, measures in one.items():
        for name, value in measures.items():
            np.testing.assert_allclose(value, other[key][name], rtol=1e-6, atol=1e-9, err_msg=f"{key} {name}")


def test_a_full_disk_is_a_clear_error_and_what_was_saved_stays_loadable(dataset: Path, tmp_path: Path) -> None:
    """A limit on file size makes the operating system refuse writes half-way, as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from vla.errors import Missing
from vla_sim import collect as c
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
c._SHARD = 6
out = Path(sys.argv[1])
c.collect(c.CollectConfig(episodes=6, seed=40), out)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    c.collect(c.CollectConfig(episodes=30, seed=40), out)
except Missing as error:
    sys.exit(str(error))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "full")], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert "6 episodes saved before are intact" in run.stderr
    assert_same_data(dataset, tmp_path / "full")
    assert not (tmp_path / "full" / ".part").exists()


def test_two_collections_into_one_folder_keep_apart(dataset: Path) -> None:
    before = sorted(path for path in dataset.rglob("*") if path.is_file())
    with alone(dataset / "meta"), pytest.raises(BadConfig, match="another process is writing into"):
        collect(replace(CONFIG, episodes=7), dataset)
    assert sorted(path for path in dataset.rglob("*") if path.is_file()) == before


def test_a_foreign_folder_and_a_foreign_robot_are_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadConfig, match="not empty"):
        collect(CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(SpecMismatch, match="robot"):
        LeRobotWriter(dataset, replace(TabletopSuite().spec, robot="other"))


@pytest.mark.parametrize("name", ["meta/info.json", "collection.json"])
@pytest.mark.parametrize("text", ["", "[]", "null", '{"config": null, "total_episodes": "x"}', "[" * 100_000])
def test_a_record_that_cannot_be_read_is_named(name: str, text: str, dataset: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(dataset, tmp_path / "d"))
    (damaged / name).write_text(text)
    with pytest.raises(BadDataset, match="collect again"):
        collect(CONFIG, damaged)
