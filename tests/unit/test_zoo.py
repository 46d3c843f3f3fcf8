"""Policies that come with the package: small, with a card, for the suite they are called after, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vla import registry, zoo
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


def test_there_is_one() -> None:
    assert zoo.names()


@pytest.mark.parametrize("name", ["nothing", "../zoo", "", str(Path.cwd()), "libero_object/../libero_object"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UnknownName):
        zoo.load_policy(name)
