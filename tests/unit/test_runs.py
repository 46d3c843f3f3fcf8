"""A run folder survives kills and full disks, and says where its rows came from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vla.errors import BadConfig, BadDataset, Missing, UnknownName
from vla.runs import Run, alone, machine, revision, write_json


@dataclass(frozen=True)
class Config:
    suite: str = "tabletop"
    seeds: tuple[int, ...] = (1, 2)
    out: Path = Path("runs/x")


def test_rows_come_back_as_they_were_appended(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "eval", Config())
    rows = [{"seed": i, "success": i % 2 == 0} for i in range(3)]
    for row in rows:
        run.append(row)
    again = Run.open(tmp_path / "a")
    assert again.rows() == rows
    assert again.kind == "eval"
    assert again.config == {"suite": "tabletop", "seeds": [1, 2], "out": "runs/x"}


def test_a_new_run_has_no_rows(tmp_path: Path) -> None:
    assert Run.create(tmp_path / "a", "eval", {}).rows() == []


def test_numpy_values_are_written_as_numbers(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "eval", {"low": np.zeros(2)})
    run.append({"success": np.bool_(True), "steps": np.int64(7)})
    assert run.rows() == [{"success": True, "steps": 7}]


def test_provenance_is_written(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "eval", {})
    meta = json.loads((tmp_path / "a" / "run.json").read_text())
    assert meta == run.meta
    assert meta["revision"] == revision() != ""
    assert meta["machine"] == machine()
    assert meta["versions"]["numpy"] == np.__version__
    assert meta["created"].endswith("+00:00")
    assert not Path(meta["command"].split()[0]).is_absolute()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "eval", {})
    with pytest.raises(BadConfig, match="already holds a run"):
        Run.create(tmp_path / "a", "eval", {})


def test_resuming_goes_on_with_the_rows_there_are(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "eval", Config(), resume=True).append({"seed": 0})
    run = Run.create(tmp_path / "a", "eval", Config(), resume=True)
    run.append({"seed": 1})
    assert [r["seed"] for r in run.rows()] == [0, 1]


def test_resuming_with_another_config_names_the_field(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "eval", Config())
    with pytest.raises(BadConfig, match=r"suite was 'tabletop', now 'libero'"):
        Run.create(tmp_path / "a", "eval", Config(suite="libero"), resume=True)
    with pytest.raises(BadConfig, match=r"'eval', not 'train'"):
        Run.create(tmp_path / "a", "train", Config(), resume=True)


def test_rows_that_no_run_json_accounts_for_are_not_adopted(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "eval", Config()).append({"seed": 0})
    (tmp_path / "a" / "run.json").unlink()
    with pytest.raises(BadConfig, match=r"episodes but no run\.json"):
        Run.create(tmp_path / "a", "eval", Config(), resume=True)


def test_what_the_config_only_names_must_be_the_same_too(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "eval", Config(), digest="aa")
    Run.create(tmp_path / "a", "eval", Config(), resume=True, digest="aa")
    with pytest.raises(BadConfig, match="has changed since"):
        Run.create(tmp_path / "a", "eval", Config(), resume=True, digest="bb")


def test_a_run_over_two_revisions_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(tmp_path / "a", "eval", Config())
    monkeypatch.setattr("vla.runs.revision", lambda: "later")
    for _ in range(2):
        Run.create(tmp_path / "a", "eval", Config(), resume=True)
    assert Run.open(tmp_path / "a").meta["revision"] == f"{revision()}+later"


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    program = f"""
import pathlib, sys, vla.runs
with vla.runs.alone(pathlib.Path({str(tmp_path)!r})):
    print("in", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(BadConfig, match="another process is writing into"), alone(tmp_path):
            pass
        other.stdin.close()
    with alone(tmp_path):  # its death set the folder free
        pass


@pytest.mark.parametrize("torn", [b'{"seed": 1, "succ', b"{", b"\xff\xfe"])
def test_a_torn_last_line_is_dropped_and_does_not_spoil_the_next(tmp_path: Path, torn: bytes) -> None:
    Run.create(tmp_path / "a", "eval", {}).append({"seed": 0})
    with (tmp_path / "a" / "episodes.jsonl").open("ab") as file:
        file.write(torn)
    assert Run.open(tmp_path / "a").rows() == [{"seed": 0}]
    run = Run.create(tmp_path / "a", "eval", {}, resume=True)
    run.append({"seed": 1})
    assert run.rows() == [{"seed": 0}, {"seed": 1}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "eval", {})
    for garbage in ("garbage", "", "[]", "[" * 100_000):
        (tmp_path / "a" / "episodes.jsonl").write_text(f'{{"seed": 0}}\n{garbage}\n{{"seed": 2}}\n')
        with pytest.raises(BadDataset, match="line 2"):
            run.rows()


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"kind": "eval"}', '{"kind": 3, "config": {}}'])
def test_a_broken_run_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadDataset, match=r"run\.json"):
        Run.open(tmp_path)


def test_opening_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no run at"):
        Run.open(tmp_path / "nothing")


def test_a_kill_loses_no_row_that_was_appended(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vla.runs import Run\n"
        "run = Run.create(Path(sys.argv[1]), 'eval', {})\n"
        "for i in range(10**6): run.append({'seed': i}); print(i, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while int(child.stdout.readline()) < 20:
        pass
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    seeds = [r["seed"] for r in Run.open(tmp_path / "a").rows()]
    # The last number may itself have been cut by the kill; the row before it may not be missing.
    assert seeds == list(range(len(seeds)))
    assert len(seeds) > (int(said[-2]) if len(said) > 1 else 20)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's always-full device")
def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", "eval", {})
    (tmp_path / "a" / "episodes.jsonl").symlink_to("/dev/full")
    with pytest.raises(Missing, match=r"No space left on device.*free some space"):
        run.append({"seed": 0})


def test_a_row_that_does_not_fit_leaves_the_earlier_ones_intact(tmp_path: Path) -> None:
    """The kernel's file size limit cuts a write short exactly as a disk that fills up does."""
    code = (
        "import resource, sys; from pathlib import Path; from vla.runs import Run, write_json\n"
        "run = Run.create(Path(sys.argv[1]), 'eval', {})\n"
        "run.append({'seed': 0}); write_json(run.path / 'summary.json', [0])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))\n"
        "for write in (lambda: run.append({'text': 'x' * 99}),"
        " lambda: write_json(run.path / 'summary.json', ['x' * 99])):\n"
        "    try: write()\n"
        "    except Exception as error: print(type(error).__name__)"
    )
    run = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Missing", "Missing"]
    assert (run / "episodes.jsonl").read_bytes() == b'{"seed": 0}\n'
    assert json.loads((run / "summary.json").read_text()) == [0]
    assert {f.name for f in run.iterdir()} == {"run.json", "episodes.jsonl", "summary.json"}


def test_write_json_keeps_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["summary.json"]
