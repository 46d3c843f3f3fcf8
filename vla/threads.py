"""How many threads torch computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vla.runs import cores


@contextmanager
def computing_on(threads: int) -> Iterator[None]:
    """So many threads while the block runs, but no more than there are cores.

    Two threads on one core wait for each other: a training step then takes ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads, cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
