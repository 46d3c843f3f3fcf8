"""The promises of local processes, on a Ray cluster of this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vla.errors import BadConfig, Missing
from vla_sim.cluster import run_on_cluster


class Squares:
    """Work on 3 kills its process the first time; work on 99 raises, once 3 was answered after all."""

    def __init__(self, folder: Path) -> None:
        self.crashed, self.answered = folder / "crashed", folder / "answered"

    def __call__(self) -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 3 and not self.crashed.exists():
                self.crashed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if item == 3:
                self.answered.touch()
            if item == 99:
                while not self.answered.exists():  # Ray takes its time to notice a death
                    time.sleep(0.05)
                raise BadConfig("ninety-nine")
            return item * item

        return work


@pytest.mark.timeout(240)
def test_on_a_cluster_started_here_every_item_is_answered_once_and_a_killed_worker_replaced(tmp_path: Path) -> None:
    """One test, for starting a cluster takes longer than all that is asked of it."""
    pytest.importorskip("ray", reason="--cluster is an extra: uv pip install 'vla-stack[cluster]'")
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker cannot import a test
    reports: list[str] = []
    jobs = run_on_cluster(Squares(tmp_path), [*range(6), 99], 2, reports.append, "local")
    done: list[tuple[int, int]] = []
    with pytest.raises(BadConfig, match="ninety-nine"):
        done.extend(jobs)
    assert len(set(done)) == len(done)
    assert set(done) <= {(i, i * i) for i in range(6)}
    assert {(i, i * i) for i in (0, 1, 2)} <= set(done)
    assert reports == ["a worker on the cluster died on 3; it is replaced and the work done again"]


def test_where_there_is_no_cluster_it_says_so(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="--cluster is an extra: uv pip install 'vla-stack[cluster]'")
    with pytest.raises(Missing, match="no Ray cluster at 'nonsense'"):
        list(run_on_cluster(Squares(tmp_path), range(6), 2, print, "nonsense"))
