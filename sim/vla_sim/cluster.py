"""Work shared out over a Ray cluster, with the promises of `vla_sim.workers`.

A worker is a Ray actor with one CPU. Every machine must see the policy and the run folder under the same paths.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any

from vla.errors import Missing
from vla_sim.workers import ATTEMPTS, Item, Result, Setup


def run_on_cluster(
    setup: Setup[Item, Result], items: Iterable[Item], workers: int, report: Callable[[str], None], address: str
) -> Generator[tuple[Item, Result]]:
    """Yield (item, result) as they are done, in any order.

    Args:
        setup: see `vla_sim.workers.Setup`.
        items: may be endless; close this iterator to stop.
        workers: actors, one CPU each; those that the cluster has no room for wait.
        report: told about each actor that died.
        address: "host:port" of the cluster's head, "auto" for the one this machine is in, "local" to start one here.

    Raises:
        Missing: Ray is not installed, there is no cluster, or an item killed its actor twice.
        Exception: whatever the function raised.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    try:
        import ray
    except ImportError as error:
        raise Missing("--cluster needs Ray: uv pip install 'vla-stack[cluster]'") from error
    here = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Missing(
            f"no Ray cluster at {address!r}: {error}. Start one: ray start --head. One that asks for a token, as new "
            "ones do, needs RAY_AUTH_MODE=token here and the head's ~/.ray/auth_token on each machine"
        ) from error
    actor = ray.remote(num_cpus=1)(_Worker)
    todo, again, crashes = iter(items), deque[Any](), dict[Any, int]()
    free = [actor.remote(setup) for _ in range(workers)]
    busy: dict[Any, tuple[Any, Any]] = {}
    try:
        while True:
            while free and (item := again.popleft() if again else next(todo, None)) is not None:
                worker = free.pop()
                busy[worker.work.remote(item)] = worker, item
            if not busy:
                return
            (answer, *_), _ = ray.wait(list(busy))
            worker, item = busy.pop(answer)
            try:
                result = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError:
                what = f"a worker on the cluster died on {item}"
                crashes[item] = crashes.get(item, 0) + 1
                if crashes[item] >= ATTEMPTS:
                    raise Missing(f"{what}, twice. Try --workers 1 without --cluster to see why.") from None
                report(f"{what}; it is replaced and the work done again")
                again.append(item)
                free.append(actor.remote(setup))
                continue
            free.append(worker)
            yield item, result
    finally:
        ray.shutdown()


class _Worker:
    """Sets itself up once, then answers items one by one."""

    def __init__(self, setup: Setup[Any, Any]) -> None:
        self._work = setup()

    def work(self, item: Any) -> Any:
        return self._work(item)
