"""Names resolve to files; what does not resolve is answered with what there is."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import vla
from vla import registry
from vla.errors import Missing, UnknownName

METHOD = '''"""A head of one's own."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    width: int = 4

class Head:
    def __init__(self, config, size):
        self.config, self.size = config, size
'''


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_a_methods_name_is_its_files_stem(kind: str) -> None:
    stems = {f.stem for f in (Path(vla.__file__).parent / kind).glob("*.py") if not f.stem.startswith("_")}
    assert stems <= set(registry.names(kind))
    assert registry.names(kind) == sorted(registry.names(kind))


@pytest.mark.parametrize("name", ["vgsp", "_critic", "__init__", "vgps.Config", "../verifiers/vgps", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownName, match=r"no verifier is called .*; there is .*vgps"):
        registry.module("verifiers", name)


def test_a_file_of_ones_own_is_a_method(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(METHOD)
    head = registry.build("heads", str(mine), {"width": 7}, 3)
    assert (head.config.width, head.size) == (7, 3)


def test_a_file_of_ones_own_knows_its_own_config(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(METHOD + "        assert isinstance(config, Config)\n")
    assert registry.build("heads", str(mine), {}, 3).config.width == 4


@pytest.mark.parametrize("lacking", ["Config", "Head"])
def test_a_file_of_ones_own_without_its_classes_is_named(tmp_path: Path, lacking: str) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(METHOD.replace(f"class {lacking}", "class Other"))
    with pytest.raises(UnknownName, match=rf"mine\.py defines no class {lacking}"):
        registry.build("heads", str(mine), {}, 3)


def test_a_file_named_on_disk_runs_only_when_the_user_named_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text(METHOD)
    for listed in ("", str(tmp_path / "other.py")):
        monkeypatch.setenv("VLA_TRUST", listed)
        with pytest.raises(UnknownName, match=r"config\.json names the Python file .*theirs\.py.*VLA_TRUST="):
            registry.require_trusted(str(theirs), "config.json")
    monkeypatch.setenv("VLA_TRUST", f"{tmp_path / 'other.py'}:{theirs}")
    registry.require_trusted(str(theirs), "config.json")
    monkeypatch.delenv("VLA_TRUST")
    registry.module("heads", str(theirs))
    registry.require_trusted(str(theirs), "config.json")
    twin = tmp_path / "elsewhere" / "theirs.py"
    with pytest.raises(UnknownName, match="VLA_TRUST"):
        registry.require_trusted(str(twin), "config.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"nothing\.py"):
        registry.module("heads", str(tmp_path / "nothing.py"))


def test_a_setting_a_method_does_not_have_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(METHOD)
    with pytest.raises(UnknownName, match=r"mine\.py.*'colour'"):
        registry.build("heads", str(mine), {"colour": "red"}, 3)


@pytest.mark.parametrize("hidden", ["64", 64.5, True, None])
def test_a_setting_of_another_type_is_named(hidden: object) -> None:
    with pytest.raises(UnknownName, match=r"head 'flow': hidden is .*; it must be of type int, as 240 is"):
        registry.resolved("heads", "flow", {"hidden": hidden})


@pytest.mark.parametrize("name", ["runs/nothing", "nothing", "nonsense:nothing"])
def test_a_policy_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UnknownName, match=r"no policy at|no kind of policy is called"):
        registry.open_policy(name)


def test_a_suite_that_is_not_there_is_answered_with_the_ones_that_are() -> None:
    assert "tabletop" in registry.suites()
    with pytest.raises(UnknownName, match=r"no suite is called 'kitchen'; there is .*tabletop"):
        registry.suite("kitchen")


@pytest.mark.parametrize(
    "name", ["tabletop:mesh+primitive", "tabletop:nothing", "lift:Door", "pick_place:PickPlaceCan"]
)
def test_a_variant_that_a_suite_does_not_have_is_named(name: str) -> None:
    with pytest.raises(UnknownName, match=rf"{name.split(':')[0]} has no variant"):
        registry.suite(name)()


def test_a_suite_whose_module_is_missing_says_who_registered_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = EntryPoint("gone", "no_such_module:Suite", "vla.suites")
    monkeypatch.setattr(registry, "entry_points", lambda **_: [gone])
    with pytest.raises(Missing, match="'gone' is registered by no_such_module:Suite, which cannot be imported"):
        registry.suite("gone")
