"""Processes that crash are replaced, errors come back, and nothing is lost or done twice."""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vla.errors import BadConfig, Missing
from vla_sim.workers import run_jobs


def _squares(crash_once: Path | None = None, crash_always: bool = False) -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 3 and crash_always:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 3 and crash_once is not None and not crash_once.exists():
            crash_once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 99:
            raise BadConfig("ninety-nine")
        return item * item

    return work


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_answered_once(workers: int) -> None:
    done = dict(run_jobs(_squares, range(7), workers, print))
    assert done == {i: i * i for i in range(7)}


def test_a_killed_process_is_replaced_reported_and_its_item_done(tmp_path: Path) -> None:
    reports: list[str] = []
    setup = functools.partial(_squares, tmp_path / "crashed")
    done = list(run_jobs(setup, range(6), 2, reports.append))
    assert sorted(done) == [(i, i * i) for i in range(6)]
    assert len(reports) == 1
    assert "exit code -9" in reports[0]


def test_an_item_that_kills_every_process_ends_the_run() -> None:
    setup = functools.partial(_squares, None, True)
    with pytest.raises(Missing, match=r"3, twice.*--workers 1"):
        list(run_jobs(setup, range(6), 2, lambda line: None))


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_raised_by_the_work_reach_the_caller(workers: int) -> None:
    with pytest.raises(BadConfig, match="ninety-nine"):
        list(run_jobs(_squares, [1, 99, 2], workers, print))


def test_an_error_says_where_it_happened_even_one_that_cannot_travel() -> None:
    for item, kind in ((50, ValueError), (51, RuntimeError)):
        with pytest.raises(kind) as raised:
            list(run_jobs(_broken, [item], 2, print))
        said = "\n".join([str(raised.value), *raised.value.__notes__])
        assert "in _fails" in said, "the function that raised it"
        assert f"at work on {item}" in said


class TwoArguments(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} {where}")


def _fails(item: int) -> int:
    raise ValueError("cannot place") if item == 50 else TwoArguments("cannot", "place")


def _broken() -> Callable[[int], int]:
    return _fails


def test_endless_items_are_taken_only_as_needed_and_closing_leaves_no_process() -> None:
    taken = itertools.count()
    jobs = run_jobs(_squares, taken, 2, print)
    for _ in range(5):
        next(jobs)
    jobs.close()
    assert next(taken) <= 5 + 2
    import multiprocessing

    assert multiprocessing.active_children() == []
