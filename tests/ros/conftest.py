"""A session of real node processes around a policy made for tests."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vla import registry
from vla.spec import Spec
from vla_ros.session import Session

HERE = Path(__file__).parent


@pytest.fixture
def spec() -> Spec:
    """Of the fake policy: the tabletop's, with a chunk of 8."""
    robot: Spec = registry.suite("tabletop")().spec
    return dataclasses.replace(robot, chunk_size=8)


@pytest.fixture
def policy(tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake policy; nodes open it as f"fake:{policy}"."""
    about = tmp_path / "installed" / "fake_policy-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-policy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vla.policies]\nfake = fake_policy:load\n")
    places = [str(about.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in places if p))
    folder = tmp_path / "policy"
    folder.mkdir()
    spec.save(folder / "spec.json")
    return folder


@pytest.fixture
def session(tmp_path: Path, policy: Path) -> Iterator[Session]:
    """A session with nothing in it yet; its nodes end with the test."""
    with Session.opened(tmp_path) as opened:
        yield opened
