"""Training learns, repeats itself, survives being killed, and refuses what it cannot do before it writes anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from vla import checkpoint, training
from vla.cli import main
from vla.data.cache import Cache, open_cache
from vla.errors import BadCheckpoint, BadConfig, BadDataset, SpecMismatch
from vla.policy import PolicyConfig, PolicyNet
from vla.runs import alone
from vla.training import Step, TrainConfig, train

BACKBONE = {"width": 32, "channels": 8, "keypoints": 4, "text_width": 16}
PARTS = PolicyConfig(head="l1", backbone_config=BACKBONE, head_config={"hidden": 32})
CONFIG = TrainConfig(PARTS, steps=40, batch_size=8)


@pytest.fixture
def cache(demonstrations: Path) -> Cache:
    return open_cache(demonstrations)


def weights(net: PolicyNet) -> dict[str, Any]:
    return {k: v.tolist() for k, v in net.state_dict().items()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def test_the_loss_falls_and_the_curve_is_on_disk(cache: Cache, tmp_path: Path) -> None:
    seen: list[Step] = []
    train(replace(CONFIG, steps=100, learning_rate=5e-3), cache, tmp_path / "run", on_step=seen.append)
    assert [s.step for s in seen] == list(range(1, 101))
    assert seen[-1].loss < 0.7 * seen[0].loss
    assert seen[-1].objective < 0.9 * seen[0].objective
    assert [row["step"] for row in rows(tmp_path / "run")] == [20, 40, 60, 80, 100]
    trained = json.loads((tmp_path / "run" / "config.json").read_text())["trained"]
    assert trained["steps"] == 100
    assert trained["episodes"] == 6
    assert trained["frames"] == len(cache)
    assert trained["config"]["learning_rate"] == 5e-3


def test_the_seed_decides_the_weights(cache: Cache, tmp_path: Path) -> None:
    config = replace(CONFIG, policy=replace(PARTS, head="flow"), steps=6)  # a head that draws noise while it trains
    one, same = (train(config, cache, tmp_path / name) for name in "ab")
    other = train(replace(config, seed=1), cache, tmp_path / "c")
    assert weights(one) == weights(same)
    assert weights(one)["backbone.fuse.0.weight"] != weights(other)["backbone.fuse.0.weight"]


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", 0.0)

    def interrupt(now: Step) -> None:
        if now.step == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, cache, tmp_path / "cut", on_step=interrupt)
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 24, "loss": 0.1}\n{"step": 4')  # written after the last state was saved, and cut short
    seen: list[int] = []
    resumed = train(CONFIG, cache, tmp_path / "cut", resume=True, on_step=lambda now: seen.append(now.step))
    assert seen == list(range(24, 41))
    assert weights(resumed) == weights(train(CONFIG, cache, tmp_path / "whole"))
    assert [row["step"] for row in rows(tmp_path / "cut")] == [20, 40]


def test_a_killed_command_goes_on_from_its_last_state(demonstrations: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "run", tmp_path / "run" / "training.safetensors"
    arguments = ["train", "--dataset", str(demonstrations), "--out", str(out), "--head", "l1", "--threads", "1"]
    arguments += ["--backbone-config", json.dumps(BACKBONE), "--batch-size", "8", "--steps", "160"]
    often = (
        "import sys, vla.training as t; t._SAVE_EVERY_S = 0.2; from vla.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", often, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "policy.safetensors").exists(), "it was still at work"
    saved = int(checkpoint.load_tensors(state)["step"][0])
    assert 0 < saved < 160
    assert main([*arguments, "--resume"]) == 0
    assert [row["step"] for row in rows(out)] == list(range(20, 161, 20))
    assert json.loads((out / "config.json").read_text())["trained"]["steps"] == 160
    assert checkpoint.load(out).config.head == "l1"


def test_a_run_killed_before_its_first_state_starts_over(cache: Cache, tmp_path: Path) -> None:
    def interrupt(now: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, cache, tmp_path / "cut", on_step=interrupt)
    resumed = train(CONFIG, cache, tmp_path / "cut", resume=True)
    assert weights(resumed) == weights(train(CONFIG, cache, tmp_path / "whole"))


def test_a_run_is_gone_on_with_only_as_it_was_started(cache: Cache, tmp_path: Path) -> None:
    out, config = tmp_path / "run", replace(CONFIG, steps=2)
    train(config, cache, out)
    before = contents(out)
    with pytest.raises(BadCheckpoint, match="already holds a training run; pass --resume"):
        train(config, cache, out)
    with pytest.raises(BadCheckpoint, match=r"learning_rate was 0\.001, now 0\.1; seed was 0, now 3\)"):
        train(replace(config, learning_rate=0.1, seed=3), cache, out, resume=True)
    with pytest.raises(BadCheckpoint, match=r"policy was .*'l1'.* now .*'flow'"):
        train(replace(config, policy=replace(PARTS, head="flow")), cache, out, resume=True)
    assert contents(out) == before
    train(config, cache, out, resume=True)
    assert contents(out)["policy.safetensors"] == before["policy.safetensors"], "it was finished already"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 3}', '{"config": {"steps": 2'])
def test_a_record_that_cannot_be_read_is_refused(text: str, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=r"no training run to resume|other settings"):
        train(CONFIG, cache, tmp_path, resume=True)


def test_a_damaged_state_is_refused(cache: Cache, tmp_path: Path) -> None:
    config, out = replace(CONFIG, steps=2), tmp_path / "run"
    with pytest.raises(BadCheckpoint, match="holds no training run to resume"):
        train(config, cache, out, resume=True)
    train(config, cache, out)
    state = out / "training.safetensors"
    whole = checkpoint.load_tensors(state)
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match=r"training\.safetensors.*is it complete"):
        train(config, cache, out, resume=True)
    whole.pop(next(k for k in whole if k.startswith("module.net.head")))
    checkpoint.save_tensors(state, whole)
    with pytest.raises(BadCheckpoint, match="does not fit this run"):
        train(config, cache, out, resume=True)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"not finite at step \d+; lower --learning-rate"):
        train(replace(CONFIG, learning_rate=1e38), cache, tmp_path / "run")
    assert not (tmp_path / "run" / "policy.safetensors").exists()
    assert not (tmp_path / "run" / "training.safetensors").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"minutes": 0.0},
        {"minutes": -1.0},
        {"minutes": float("nan")},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    wrong: dict[str, Any], cache: Cache, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        train(replace(CONFIG, **wrong), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_trainings_into_one_folder_keep_apart(cache: Cache, tmp_path: Path) -> None:
    with alone(tmp_path / "run"), pytest.raises(BadConfig, match="another process is writing into"):
        train(CONFIG, cache, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("part", "config", "says"),
    [
        ("head", {"n_steps": 0}, "n_steps"),
        ("head", {"noise_draws": 0}, "noise_draws"),
        ("head", {"hidden": 0}, "hidden must be at least 2"),
        ("backbone", {"text_width": 63}, "tiny .*'text_width': 63.* cannot be built: .*divisible"),
    ],
)
def test_parts_that_cannot_be_built_are_refused(
    part: str, config: dict[str, Any], says: str, cache: Cache, tmp_path: Path
) -> None:
    parts = PolicyConfig(**{f"{part}_config": config})
    with pytest.raises(BadConfig, match=says):
        train(replace(CONFIG, policy=parts), cache, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_episodes_than_there_are_is_refused(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="7 episodes asked for, the dataset has 6"):
        train(replace(CONFIG, episodes=7), cache, tmp_path / "run")


def test_a_batch_larger_than_the_dataset_is_the_dataset(cache: Cache, tmp_path: Path) -> None:
    train(replace(CONFIG, episodes=1, batch_size=10_000, steps=2), cache, tmp_path / "run")
    trained = json.loads((tmp_path / "run" / "config.json").read_text())["trained"]
    assert trained["frames"] == len(cache.first_episodes(1)) < len(cache)


def test_the_clock_stops_a_run_that_has_steps_left(cache: Cache, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=10**9, minutes=0.01), cache, tmp_path / "run")
    trained = json.loads((tmp_path / "run" / "config.json").read_text())["trained"]
    assert 0 < trained["steps"] < 10**6
    assert 0.5 < trained["seconds"] < 5


def test_fine_tuning_starts_from_the_weights_it_is_given(cache: Cache, tmp_path: Path) -> None:
    first = train(replace(CONFIG, steps=60, learning_rate=5e-3), cache, tmp_path / "first")
    before = weights(first)
    seen: list[float] = []
    tuned = train(
        replace(CONFIG, steps=3, learning_rate=1e-4, episodes=3),
        cache,
        tmp_path / "tuned",
        initial=first,
        on_step=lambda now: seen.append(now.loss),
    )
    fresh: list[float] = []
    train(replace(CONFIG, steps=1), cache, tmp_path / "fresh", on_step=lambda now: fresh.append(now.loss))
    assert seen[0] < 0.8 * fresh[0]
    assert weights(first) == before, "it is a copy that is trained"
    assert tuned.spec == first.spec, "the statistics stay those the weights were made for"


def test_fine_tuning_needs_the_same_robot_and_the_same_parts(cache: Cache, tmp_path: Path) -> None:
    initial = train(replace(CONFIG, steps=1), cache, tmp_path / "first")
    other = replace(cache, spec=replace(cache.spec, control_rate_hz=20.0))
    with pytest.raises(SpecMismatch, match=r"the policy and the dataset .*\n.*control_rate_hz: 10\.0 \| 20\.0"):
        train(CONFIG, other, tmp_path / "run", initial=initial)
    parts = replace(PARTS, head="flow", chunk_size=4)
    with pytest.raises(BadConfig, match="other parts: head was 'l1', now 'flow'; chunk_size was 8, now 4;"):
        train(replace(CONFIG, policy=parts), cache, tmp_path / "run", initial=initial)
    assert not (tmp_path / "run").exists()


def test_nothing_it_writes_can_run_code(cache: Cache, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=3), cache, tmp_path)
    assert {f.suffix for f in tmp_path.iterdir()} == {".json", ".jsonl", ".safetensors"}
    for name in ("training.safetensors", "policy.safetensors"):
        with safe_open(tmp_path / name, "pt") as file:
            assert all(isinstance(file.get_tensor(k), torch.Tensor) for k in file.keys())  # noqa: SIM118
    for file_bytes in contents(tmp_path).values():
        assert not file_bytes.startswith((b"\x80", b"PK")), "a pickle, or torch's zip of one"


TRAIN_AND_COUNT_THREADS = """
import atexit, sys
from pathlib import Path

def count():
    names = [comm.read_text().strip() for comm in Path("/proc/self/task").glob("*/comm")]
    print("threads of the team:", names.count("pt_gloo_runloop"), file=sys.stderr)

atexit.register(count)  # the first to be registered is the last to be called
from vla.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_train_one_policy(demonstrations: Path, tmp_path: Path) -> None:
    """As on two GPUs: both open the dataset, one writes, both stop at the same step by one clock.

    A thread of the team that is left when Python ends aborts its process now and then: "terminate called".
    """
    arguments = ["train", "--dataset", str(demonstrations), "--out", str(tmp_path / "run"), "--head", "l1"]
    arguments += ["--backbone-config", json.dumps(BACKBONE), "--batch-size", "8", "--threads", "1"]
    arguments += ["--steps", "1000000", "--minutes", "0.01"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What `accelerate launch` and `torchrun` tell the processes they start.
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    team = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TRAIN_AND_COUNT_THREADS, *arguments],
            env=os.environ | told | {"RANK": rank, "LOCAL_RANK": rank, "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in team]
        assert [process.returncode for process in team] == [0, 0], "\n".join(errors)
        assert all("threads of the team: 0" in error for error in errors), errors
    finally:
        for process in team:
            process.kill()
    trained = json.loads((tmp_path / "run" / "config.json").read_text())["trained"]
    assert 0 < trained["steps"] < 10**6
    assert checkpoint.load(tmp_path / "run").config.head == "l1"


@pytest.mark.parametrize("text", ["{width: 3}", "[1]", '{"widht": 3}'])
def test_a_misspelt_setting_on_the_command_line_is_one_line(
    text: str, demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--dataset", str(demonstrations), "--out", str(out), "--backbone-config", text]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "--backbone-config" in message or "widht" in message
    assert not out.exists()
