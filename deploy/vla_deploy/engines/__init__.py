"""Engines that run a bundle's graphs. One file each, whose stem is the name; each holds a class `Engine`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vla.errors import UnknownName

Array = npt.NDArray[Any]


class Engine(Protocol):
    """One graph, loaded and ready. Constructed as `Engine(graph, name)`; raises BadBundle when it cannot load it."""

    inputs: tuple[str, ...]
    """Names the graph takes."""
    outputs: tuple[str, ...]
    """Names it gives."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output. `inputs` may hold more than the graph takes."""


def names() -> list[str]:
    """Every engine there is a file for, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def open_engine(engine: str, graph: bytes, name: str) -> Engine:
    """Load a graph in the engine of that name; `name` says in errors which graph it is.

    Raises:
        UnknownName: there is no such engine.
        Missing: its library is not installed.
        BadBundle: it cannot load this graph.
    """
    if engine not in names():
        raise UnknownName(f"no engine is called {engine!r}; there is {', '.join(names())}")
    opened: Engine = importlib.import_module(f"vla_deploy.engines.{engine}").Engine(graph, name)
    return opened


def contiguous(inputs: Mapping[str, Array], wanted: tuple[str, ...]) -> dict[str, Array]:
    """The arrays a graph takes, laid out as C does; noise is often a slice."""
    return {name: np.ascontiguousarray(inputs[name]) for name in wanted}
