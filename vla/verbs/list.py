"""List the methods and suites there are, and the policies, bundles and runs below this folder."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

Found = Literal["policies", "bundles", "runs", "datasets"]

MARKS: dict[str, Found] = {
    "policy.safetensors": "policies",
    "encode.onnx": "bundles",
    "run.json": "runs",
    "collection.json": "datasets",
}
"""The file by which a folder is known for what it is."""

DEPTH = 5
"""Folders deep that the search goes."""


@dataclass(frozen=True)
class Args:
    json: bool = False
    """Print one JSON object {kind: {name: what it is}} instead of lines."""


def main(args: Args) -> int:
    """Print everything that has a name."""
    from vla import registry, zoo

    sections: dict[str, dict[str, str]] = {kind: methods(kind) for kind in registry.KINDS}
    sections["suites"] = {entry.name: _docstring(entry.module) for entry in entry_points(group="vla.suites")}
    sections |= folders(Path())
    sections["policies"] |= {f"zoo:{name}": "comes with the package" for name in zoo.names()}
    if args.json:
        import json

        print(json.dumps(sections, indent=2))
        return 0
    width = max(len(name) for names in sections.values() for name in names)
    for section, names in sections.items():
        print(section)
        for name, line in names.items():
            print(f"  {name:{width}}  {line}".rstrip())
        if not names:
            print("  none")
    return 0


def methods(kind: str) -> dict[str, str]:
    """Name -> first docstring line of every method of a kind, none of them imported."""
    from vla import registry

    modules = {entry.name: entry.module for entry in entry_points(group=f"vla.{kind}")}
    return {name: _docstring(modules.get(name, f"vla.{kind}.{name}")) for name in registry.names(kind)}


def folders(root: Path) -> dict[str, dict[str, str]]:
    """Kind -> {folder: a line about it} of everything found below a folder, but for what the package itself holds."""
    from vla import zoo

    found: dict[str, dict[str, str]] = {kind: {} for kind in MARKS.values()}
    for folder, files in _walk(root):
        if folder.resolve().parent == zoo.HERE:  # these have names of their own
            continue
        for mark in MARKS.keys() & files:
            found[MARKS[mark]][str(folder)] = _about_run(folder) if mark == "run.json" else ""
    return found


def _walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for folder, below, files in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts) >= DEPTH
        below[:] = [] if deep else sorted(name for name in below if not name.startswith("."))
        yield here, set(files)


def _about_run(folder: Path) -> str:
    """Its kind, and its success rate when its rows are episodes of an evaluation."""
    from vla.comparison import ALL, rates
    from vla.errors import BadDataset
    from vla.runs import Run

    try:
        run = Run.open(folder)
    except BadDataset as error:
        return f"unreadable: {error}"
    try:
        overall = rates(run)[ALL]
    except BadDataset:
        return run.kind
    return f"{run.kind}  {overall}" if overall.n else run.kind


def _docstring(module: str) -> str:
    """First docstring line of a module that is found but not imported; its parents are."""
    from vla.cli import first_line

    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return "its package is not installed"
    return first_line(Path(spec.origin))
