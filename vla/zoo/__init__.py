"""Policies that come with the package: `zoo:libero_object`. Each folder's README.md names the commands that made it."""

from __future__ import annotations

from pathlib import Path

from vla import registry
from vla.errors import UnknownName

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every policy there is, by the suite it is for."""
    return sorted(file.parent.name for file in HERE.glob("*/policy.safetensors"))


def load_policy(name: str) -> registry.OpenedPolicy:
    """Open one, with the verifiers fitted for it. Raises UnknownName, listing the names there are."""
    return registry.open_policy(folder(f"zoo:{name}"))  # by its path: who only looks for a folder need not load torch


def folder(policy: str) -> Path:
    """Where a policy's files lie, of `zoo:NAME`, `scheme:folder` or a folder. Raises UnknownName."""
    scheme, _, name = policy.partition(":")
    if scheme != "zoo":
        return Path(policy.rpartition(":")[2])
    if name not in names():  # a name, never a path out of this folder
        raise UnknownName(f"no policy in the zoo is called {name!r}; there is {', '.join(names()) or 'none'}")
    return HERE / name
