"""Work shared out to processes that may crash: simulators and drivers do.

Each process sets itself up once (an environment, a policy) and then answers items one by one. One that dies is
replaced and its item tried again, so a lost process costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from vla.errors import BadConfig, Missing

Item = TypeVar("Item")
Result = TypeVar("Result")
Setup = Callable[[], Callable[[Item], Result]]
"""Called once in each process (so it is picklable); returns the function that answers an item."""

ATTEMPTS = 2
"""Times an item is tried before it is taken to be what crashes."""


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    item: Any = None


def check_workers(workers: int, here: bool = True) -> None:
    """Raises BadConfig for none, or more than this machine can bear, if they are here: a simulator takes a gigabyte."""
    most = 8 * (os.cpu_count() or 1)
    if workers < 1 or (here and workers > most):
        raise BadConfig(f"workers must be within 1 and {most} on this machine, got {workers}")


def check_seeds(seed: int, episodes: int) -> None:
    """Raises BadConfig for no episode, or seeds that a generator does not take: numpy's old one ends at 32 bits."""
    if episodes < 1 or seed < 0:
        raise BadConfig(f"episodes must be at least 1 and seed not negative, got {episodes} and {seed}")
    if seed + episodes > 1 << 32:
        raise BadConfig(f"seeds end at {(1 << 32) - 1}; {episodes} from {seed} on go beyond")


def run_jobs(
    setup: Setup[Item, Result], items: Iterable[Item], workers: int, report: Callable[[str], None]
) -> Generator[tuple[Item, Result]]:
    """Yield (item, result) as they are done, in any order; items are taken only as processes become free.

    Args:
        setup: see `Setup`.
        items: may be endless; close this iterator to stop.
        workers: processes. 1 works in this one.
        report: told about each process that crashed.

    Raises:
        Missing: an item crashed its process twice.
        Exception: whatever the function raised.
    """
    if workers <= 1:
        work = setup()
        for item in items:
            yield item, work(item)
        return
    # One thread each: several processes with a thread pool apiece are slower than either alone.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    todo, again = iter(items), deque[Any]()
    crashes: dict[Any, int] = {}
    team = [_start(setup) for _ in range(workers)]
    try:
        while True:
            for worker in team:
                if worker.item is None:
                    worker.item = again.popleft() if again else next(todo, None)
                    if worker.item is not None:
                        _hand_out(worker)
            busy = [worker for worker in team if worker.item is not None]
            if not busy:
                return
            for connection in wait([worker.connection for worker in busy]):
                i = next(i for i, worker in enumerate(team) if worker.connection is connection)
                worker = team[i]
                try:
                    error, result = worker.connection.recv()
                except (EOFError, ConnectionError):
                    worker.process.join()
                    what = f"a worker process died (exit code {worker.process.exitcode}) on {worker.item}"
                    crashes[worker.item] = crashes.get(worker.item, 0) + 1
                    if crashes[worker.item] >= ATTEMPTS:
                        raise Missing(f"{what}, twice. Try --workers 1 to see why; `vla doctor` checks GL.") from None
                    report(f"{what}; it is replaced and the work done again")
                    again.append(worker.item)
                    team[i] = _start(setup)
                    continue
                if error is not None:
                    error.add_note(f"It was at work on {worker.item}.")
                    raise error
                done, worker.item = worker.item, None
                yield done, result
    finally:
        for worker in team:
            worker.process.terminate()
            worker.process.join()
            worker.connection.close()


def _start(setup: Setup[Item, Result]) -> _Worker:
    # spawn: a forked child would inherit threads' locks and GL contexts it cannot use.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(setup, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the pipe
    return _Worker(process, ours)


def _hand_out(worker: _Worker) -> None:
    try:
        worker.connection.send(worker.item)
    except ConnectionError:
        return  # it is dead; the next recv says so


def _serve(setup: Setup[Item, Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        work = setup()
        while True:
            connection.send((None, work(connection.recv())))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            connection.send((_as_sent(error), None))


def _as_sent(error: Exception) -> Exception:
    """What can be raised again where it did not happen, and says where it did."""
    where = f"in a worker process:\n{traceback.format_exc()}"
    error.add_note(where)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a type that cannot be made again from its arguments
        return RuntimeError(where)
    return error
