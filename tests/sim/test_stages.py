"""Episodes that `vla_sim.evaluate` has no config for: of benchmarks that build their own world or verifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla.runs import Run
from vla.verbs import _stages

SEEDS = range(100, 145)


def even(seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every even seed succeeds."""
    return [{"seed": seed, "success": seed % 2 == 0} for seed in seeds]


def stopping() -> Callable[[tuple[int, ...]], Any]:
    def work(seeds: tuple[int, ...]) -> Any:
        if 120 in seeds:
            raise KeyboardInterrupt
        return even(seeds)

    return work


def setup() -> Callable[[tuple[int, ...]], Any]:
    return even


@pytest.mark.parametrize("workers", [1, 2])
def test_they_go_on_where_they_were_interrupted_and_come_in_the_order_of_their_seeds(
    tmp_path: Path, workers: int
) -> None:
    run = Run.create(tmp_path / "arm", "eval", {"seed": 100})
    with pytest.raises(KeyboardInterrupt):
        _stages.episodes(run, SEEDS, stopping, 1)
    assert [row["seed"] for row in run.rows()] == list(range(100, 120))
    again = Run.create(tmp_path / "arm", "eval", {"seed": 100}, resume=True)
    np.testing.assert_array_equal(_stages.episodes(again, SEEDS, setup, workers), [seed % 2 == 0 for seed in SEEDS])
    assert sorted(row["seed"] for row in again.rows()) == list(SEEDS)
