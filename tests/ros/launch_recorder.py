"""Runs a launch file without ROS's `launch`, which is on no package index: whatever it calls there is written down."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import runpy
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class _Recorder:
    """Stands for a class of `launch`."""

    def __init__(self, name: str, calls: list[Call]) -> None:
        self.name, self.calls = name, calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((self.name, args, kwargs))
        return (self.name, args, kwargs)


class _Module(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __init__(self, name: str, calls: list[Call]) -> None:
        super().__init__(name)
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Recorder(name, self.calls)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in ("launch", "launch_ros"):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name, self.calls)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def calls_of(launch_file: Path) -> list[Call]:
    """Every call the launch file makes: name, arguments, keyword arguments."""
    calls: list[Call] = []
    finder = _Finder(calls)
    sys.meta_path.insert(0, finder)
    try:
        runpy.run_path(str(launch_file))["generate_launch_description"]()
    finally:
        sys.meta_path.remove(finder)
        for name in [m for m in sys.modules if m.partition(".")[0] in ("launch", "launch_ros")]:
            del sys.modules[name]
    return calls
