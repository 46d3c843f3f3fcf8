"""One progress bar for all long work: fraction, time left, and a line that says how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 60.0
"""On something that is no terminal."""


@contextmanager
def bar(name: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar while the block runs; call the yielded function with the fraction done and a line of text.

    On something that is no terminal (a log file, CI) it prints a line a minute and one at the end instead.
    """
    console = Console(stderr=True)
    last, printed = "", time.monotonic()
    columns = (
        TextColumn("[bold]{task.description:12}"),
        BarColumn(30),
        TaskProgressColumn(),
        TextColumn("{task.fields[line]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=1.0, line="")

        def show(fraction: float, line: str) -> None:
            nonlocal last, printed
            last = line or last
            progress.update(task, completed=fraction, line=line)
            now = time.monotonic()
            if not console.is_terminal and now - printed >= _LINE_EVERY_S:
                printed = now
                left = progress.tasks[task].time_remaining
                say(f"{fraction:.0%}  {line}" + ("" if left is None else f"  {left / 60:.0f} min left"))

        def say(text: str) -> None:
            console.print(f"{name}: {text}".rstrip(), highlight=False)

        yield show
        progress.update(task, completed=1.0)
    if not console.is_terminal:
        say(f"done  {last}")
