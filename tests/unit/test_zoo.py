"""Policies that come with the package: small, with a card, for the suite they are called after, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vla import registry, zoo
from vla.cli import main
from vla.errors import UnknownName

LARGEST = 8_000_000
"""Bytes of a policy with its verifiers."""


@pytest.mark.parametrize("name", zoo.names())
def test_a_policy_comes_with_all_it_needs(name: str) -> None:
    opened = registry.open_policy(f"zoo:{name}")
    assert opened.spec.chunk_size
    folder = zoo.HERE / name
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGEST
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jsonl", ".md"}
    card = (folder / "README.md").read_text()
    assert f"vla collect --suite {name}" in card
    assert "vla train " in card
    assert f"vla eval --policy zoo:{name} --suite {name}" in card
    assert json.loads((folder / "config.json").read_text())["revision"][:12] in card


def test_one_can_be_exported_but_nothing_is_written_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = f"zoo:{zoo.names()[0]}"
    assert main(["export", "--policy", policy, "--out", str(tmp_path / "bundle")]) == 0
    assert registry.open_policy(str(tmp_path / "bundle")).spec == registry.open_policy(policy).spec
    assert main(["fit-verifier", "--policy", policy]) == 2
    assert "copy " in capsys.readouterr().err
    assert main(["export", "--policy", "zoo:nothing", "--out", str(tmp_path / "other")]) == 2
    assert "no policy in the zoo is called 'nothing'" in capsys.readouterr().err


def test_there_is_one() -> None:
    assert zoo.names()


@pytest.mark.parametrize("name", ["nothing", "../zoo", "", str(Path.cwd()), "libero_object/../libero_object"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownName):
        zoo.load_policy(name)
