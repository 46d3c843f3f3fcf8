"""Names to code. A method's name is its file's stem; no decorators, no lists to edit.

Looked up in order: the flat folder (`vla/heads/flow.py` is head "flow"), entry points (`vla.heads`), a file
(`./mine.py`). Each method file holds a frozen `Config` dataclass and one class named in `KINDS`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from vla.errors import Missing, UnknownName
from vla.pipeline import Policy, Verifier

KINDS = {"backbones": "Backbone", "heads": "Head", "verifiers": "Verifier", "objectives": "Objective"}
"""Kind of method -> name of the class its files define."""


class OpenedPolicy(Policy, Protocol):
    """A policy opened by name; it knows the verifiers that were fitted for it."""

    def verifier(self, name: str) -> Verifier:
        """The verifier called `name`, ready to judge this policy's candidates. Raises UnknownName."""


def names(kind: str) -> list[str]:
    """Every registered method of a kind, sorted."""
    package = importlib.import_module(f"vla.{kind}")
    files = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    return sorted(files | {e.name for e in entry_points(group=f"vla.{kind}")})


def module(kind: str, name: str) -> ModuleType:
    """The file that defines a method.

    Raises:
        UnknownName: listing the names there are.
    """
    package = importlib.import_module(f"vla.{kind}")
    if name in {m.name for m in pkgutil.iter_modules(package.__path__)} and not name.startswith("_"):
        return importlib.import_module(f"vla.{kind}.{name}")
    for entry in entry_points(group=f"vla.{kind}", name=name):
        return importlib.import_module(entry.module)
    if name.endswith(".py"):
        return _from_file(Path(name))
    raise _unknown(kind.removesuffix("s"), name, names(kind))


def require_trusted(name: str, source: object) -> None:
    """A name that came from disk may not run a Python file, unless the user has named that file himself.

    He has if this process already imported it, or if `VLA_TRUST` lists it (separated as in PATH).

    Raises:
        UnknownName: with what to do.
    """
    if not name.endswith(".py"):
        return
    here = Path(name).resolve()
    listed = {Path(path).resolve() for path in os.environ.get("VLA_TRUST", "").split(os.pathsep) if path}
    loaded = getattr(sys.modules.get(_user_module(here)), "__file__", None)
    if here not in listed and (loaded is None or Path(loaded).resolve() != here):
        raise UnknownName(
            f"{source} names the Python file {name}; opening it would run that file. If it is yours: VLA_TRUST={name}"
        )


def build(kind: str, name: str, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Construct a method: its `Config` from plain values, then its class with `args` after the config.

    Raises:
        UnknownName: no such method, a config field it does not have, or a file of one's own without its classes.
    """
    found = module(kind, name)  # once: a file of one's own would be run again, and its Config be another class
    return _defined(found, KINDS[kind], name)(_config(found, kind, name, config), *args, **kwargs)


def resolved(kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A config with its defaults filled in: what is saved, so that a default may change later. Raises UnknownName."""
    return dataclasses.asdict(_config(module(kind, name), kind, name, config))


def open_policy(name: str | os.PathLike[str]) -> OpenedPolicy:
    """Open a policy: `scheme:rest` by its entry point, else a folder by what it holds.

    Raises:
        UnknownName: no such folder or scheme.
    """
    name = os.fspath(name)
    scheme, _, rest = name.partition(":")
    if not rest:
        folder = Path(name)
        if not folder.is_dir():
            raise UnknownName(f"no policy at {name!r}: there is no such folder. `vla list` shows what there is.")
        scheme, rest = ("bundle" if (folder / "encode.onnx").exists() else "checkpoint"), name
    opened: OpenedPolicy = _entry("vla.policies", "kind of policy", scheme)(rest)
    return opened


def suite(name: str) -> Any:
    """What makes a suite of simulated tasks, e.g. `tabletop`; `libero_object:decimated` is a variant of one.

    Raises:
        UnknownName: no such suite, or it has no such variant.
    """
    name, _, variants = name.partition(":")
    found = _entry("vla.suites", "suite", name)
    if not variants:
        return found
    try:
        inspect.signature(found).bind(*variants.split("+"))
    except TypeError:
        raise UnknownName(f"suite {name} has no variant {variants!r}") from None
    return functools.partial(found, *variants.split("+"))


def suites() -> list[str]:
    """Names of the installed suites."""
    return sorted({e.name for e in entry_points(group="vla.suites")})


def _config(found: ModuleType, kind: str, name: str, config: dict[str, Any]) -> Any:
    try:
        built = _defined(found, "Config", name)(**config)
    except TypeError as error:
        raise UnknownName(f"{kind.removesuffix('s')} {name!r}: {error}") from error
    for field in dataclasses.fields(built):
        value, default = getattr(built, field.name), field.default
        if isinstance(default, (bool, int, float, str)) and type(value) not in _LIKE[type(default)]:
            raise UnknownName(
                f"{kind.removesuffix('s')} {name!r}: {field.name} is {value!r}; it must be of type "
                f"{type(default).__name__}, as {default!r} is"
            )
    return built


_LIKE = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}
"""Type of a setting's default -> types its value may have."""


def _defined(found: ModuleType, what: str, name: str) -> Any:
    if not hasattr(found, what):
        raise UnknownName(f"{name} defines no class {what}; docs/adding.md shows what a method's file holds")
    return getattr(found, what)


def _entry(group: str, kind: str, name: str) -> Any:
    for entry in entry_points(group=group, name=name):
        try:
            return entry.load()
        except ImportError as error:
            raise Missing(
                f"{kind} {name!r} is registered by {entry.value}, which cannot be imported: {error}"
            ) from error
    raise _unknown(kind, name, sorted({e.name for e in entry_points(group=group)}))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownName(f"no file {path}")
    name = _user_module(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path} is not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def _user_module(path: Path) -> str:
    return f"vla_user_{path.stem}"


def _unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    return UnknownName(f"no {kind} is called {name!r}; there is {', '.join(known) or 'none'}")
