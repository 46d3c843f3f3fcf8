"""The report's two curves, as SVG that takes its colours from the page: readable in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.statistics import power_law

ARM_COLOURS = 6
"""How many colours the page's style has (`--arm-0`...); more series start again."""

# Matplotlib wants numbers, the page has variables: each stands in for one and is replaced in the finished SVG.
_INK, _GRID = "#010203", "#010204"
_ARMS = [f"#0102{16 + i:02x}" for i in range(ARM_COLOURS)]
_VARIABLES = {_INK: "var(--ink-2)", _GRID: "var(--line)"} | {c: f"var(--arm-{i})" for i, c in enumerate(_ARMS)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a run may be called a$b$
    "svg.hashsalt": "vla",  # the same data gives the same file
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def learning_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Training loss against minutes, one line a run; rows are {"step", "loss", "seconds", ...}."""

    def draw(axes: Any) -> None:
        for i, (name, rows) in enumerate(logs.items()):
            minutes, loss = [row["seconds"] / 60 for row in rows], [row["loss"] for row in rows]
            axes.plot(minutes, loss, color=_ARMS[i % ARM_COLOURS], label=name)
        axes.set(xlabel="minutes", ylabel="training loss")
        axes.set_xlim(left=0)
        if all(row["loss"] > 0 for rows in logs.values() for row in rows):  # a likelihood's falls below
            axes.set_yscale("log")
            _plain_log_ticks(axes)
        if len(logs) > 1:
            axes.legend()

    return _svg(draw)


def oracle_errors(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Error of the best of K candidates against K, with the power law fitted to each; {"k": [...], "error": [...]}."""

    def draw(axes: Any) -> None:
        for i, (name, curve) in enumerate(curves.items()):
            k, error, colour = curve["k"], curve["error"], _ARMS[i % ARM_COLOURS]
            law = power_law(k, error)
            ends = np.array([min(k), max(k)])
            label = f"{name}: K^{law.exponent:.3f}, R² {law.r2:.3f}".replace("-", "\N{MINUS SIGN}")
            axes.plot(ends, law.scale * ends**law.exponent, "--", color=colour, linewidth=1.2, label=label)
            axes.plot(k, error, "o", color=colour)
        axes.set(xlabel="candidates K", ylabel="error of the best candidate", xscale="log", yscale="log")
        ticks = sorted({value for curve in curves.values() for value in curve["k"]})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        _plain_log_ticks(axes)
        axes.legend()

    return _svg(draw)


def _plain_log_ticks(axes: Any) -> None:
    """Six ticks evenly spaced on the log axis, written as plain numbers of two digits."""
    low, high = axes.get_ylim()
    ticks = {float(f"{tick:.2g}") for tick in np.geomspace(low, high, 8)[1:-1]}
    axes.set_yticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
    axes.set_yticks([], minor=True)


def _svg(draw: Callable[[Any], None]) -> str:
    """One <svg> element, sized by the page, in the page's colours and font."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 3.8), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # inline, it would style the whole page
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg
