"""`vla list` names everything that can be named on the command line, and imports none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vla import cli, registry, zoo
from vla.runs import Run


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each, and a hidden one that is nobody's business."""
    for place in ("runs/a/policy/policy.safetensors", "bundles/x/encode.onnx", ".venv/y/encode.onnx"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    run = Run.create(tmp_path / "runs" / "a", "eval", {})
    run.append({"seed": 0, "skill": "pick", "success": True})
    Run.create(tmp_path / "runs" / "b", "train", {})
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "run.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workplace")
def test_everything_below_is_found_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shipped = {f"zoo:{name}": "comes with the package" for name in zoo.names()}
    assert found["policies"] == {"runs/a/policy": ""} | shipped
    assert found["bundles"] == {"bundles/x": ""}
    assert found["runs"]["runs/a"] == "eval  100.0% [20.7, 100.0] n=1"
    assert found["runs"]["runs/b"] == "train"
    assert found["runs"]["runs/c"].startswith("unreadable: ")


@pytest.mark.usefixtures("workplace")
def test_every_method_stands_with_its_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for kind in registry.KINDS:
        assert sorted(found[kind]) == registry.names(kind)
        assert all(line.endswith(".") for line in found[kind].values())
    assert found["suites"]["tabletop"]
    assert cli.main(["list"]) == 0
    assert "runs/a/policy" in capsys.readouterr().out


def test_listing_imports_neither_torch_nor_mujoco(tmp_path: Path) -> None:
    code = (
        "import sys, vla.cli; vla.cli.main(['list'])\n"
        "print([m for m in ('torch', 'mujoco', 'onnxruntime', 'rclpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_in_a_checkout_the_packages_own_policies_are_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(zoo.HERE.parent)
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["policies"]) == [f"zoo:{name}" for name in zoo.names()]
