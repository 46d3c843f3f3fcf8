"""A session: simulator, policy and safety as processes, driven through episodes, measured, and ended without leftovers.

Nothing here loads ROS: the nodes are child processes, and one of them, the operator, relays calls and diagnostics.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vla import zoo
from vla.errors import BadConfig, Missing, VlaError
from vla.runs import Run, write_json
from vla_ros.env import child_environment, own_domain
from vla_ros.graph import OPERATOR, POLICY, SAFETY, SIM, NodeSpec
from vla_ros.measure import Measurements, SessionResult
from vla_ros.processes import Child

_START_S = 60.0
"""Patience with a node that loads a simulator or a policy."""


@dataclass(frozen=True)
class SessionConfig:
    """What runs, and how long."""

    policy: str
    """A folder that holds a spec.json: a bundle (runs/demo/bundle) or a checkpoint; also zoo:NAME, or scheme:folder."""
    suite: str = "tabletop"
    """Suite of simulated tasks."""
    verifier: str | None = None
    """Verifier that chooses among the candidates; without one the first is taken."""
    candidates: int = 1
    """Action chunks sampled for each observation."""
    noise_scale: float = 1.0
    """Standard deviation of the candidates' noise."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision."""
    rate_scale: float = 1.0
    """How many times faster than real time the simulated robot lives."""
    successes: int = 10
    """End when so many episodes succeeded."""
    episodes: int = 20
    """Episodes to try at most."""
    seed: int = 2_000_000
    """Of the first episode; each later one's is the next."""
    kill_test: bool = False
    """At the end kill -9 the policy in the middle of a chunk, and measure how soon the safety node holds."""
    calibration: str = ""
    """The robot's calibration file, which the policy node holds to the bundle's spec; a simulator needs none."""

    def __post_init__(self) -> None:
        if not 1 <= self.successes <= self.episodes:
            raise BadConfig(f"successes ({self.successes}) must be within 1 and episodes ({self.episodes})")
        if self.seed < 0:
            raise BadConfig(f"seed must not be negative, got {self.seed}")


class CallFailed(VlaError):
    """A node refused a call, or did not answer."""


class Session:
    """Nodes that run; `call` their services, `take` what they report."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._children: list[Child] = []
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ids = 0
        self._operator = self.start(OPERATOR, {})
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path) -> Iterator[Self]:
        """A session in a ROS domain of its own; its processes' logs go to `folder`. Raises Missing without ROS 2."""
        if importlib.util.find_spec("rclpy") is None:
            raise Missing("ROS 2 is not there: uv pip install -e '.[ros]', or source the system's ROS 2")
        with own_domain() as domain:
            session = cls(folder, child_environment(domain))
            try:
                yield session
            finally:
                session.close()

    def start(self, node: NodeSpec, parameters: Mapping[str, object]) -> Child:
        """Start a node; it ends with the session."""
        log = self._folder / f"{node.name}.log"
        child = Child(node.name, node.argv(parameters), self._environment, log, talks=node is OPERATOR)
        self._children.append(child)
        return child

    def call(self, name: str, timeout_s: float = _START_S) -> str:
        """Call "node/service" or "node/transition"; its message.

        Raises:
            CallFailed: refused, with the node's last error, or no answer in time.
        """
        self._ids += 1
        assert self._operator.process.stdin is not None
        self._operator.process.stdin.write((json.dumps({"id": self._ids, "call": name}) + "\n").encode())
        self._operator.process.stdin.flush()
        node, errors = name.partition("/")[0], []
        for line in self.take(timeout_s):
            if line.get("topic") == node and line["level"] == 2:
                errors.append(line["text"])
            if line.get("id") == self._ids:
                if not line["ok"]:
                    raise CallFailed(f"{name} was refused: {'; '.join(errors) or line['message'] or 'see its log'}")
                return str(line["message"])
        raise CallFailed(f"{name} was not answered within {timeout_s:.0f} s; see {self._folder / node}.log")

    def require_ready(self, timeout_s: float = _START_S) -> None:
        """Wait until robot, policy and safety node hear each other, so that no episode begins unheard.

        Raises:
            CallFailed: the policy says that it cannot go on, or something is still missing.
        """
        policy, safety = "nothing was heard of it", False
        for line in self.take(timeout_s):
            if line.get("topic") == POLICY.name:
                policy = line["text"]
                if line["level"] == 2:
                    raise CallFailed(policy)
            safety |= line.get("topic") == SAFETY.name and line["values"].get("robot_known") == "True"
            if policy == "ready" and safety:
                return
        raise CallFailed(f"not ready after {timeout_s:.0f} s: policy: {policy}, safety node: {safety}")

    def take(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        """What the nodes report, as it comes, until the time is over.

        Raises:
            NodeDied: one ended on its own.
        """
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            for child in self._children:
                child.require_alive()
            with contextlib.suppress(queue.Empty):
                yield self._lines.get(timeout=min(left, 0.2))

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, what: str) -> dict[str, Any]:
        """The first report that is wanted. Raises CallFailed when none comes in time."""
        for line in self.take(timeout_s):
            if wanted(line):
                return line
        raise CallFailed(f"{what} did not happen within {timeout_s:.0f} s; the logs are in {self._folder}")

    def kill(self, child: Child) -> int:
        """kill -9 one node and go on without it; returns when [ns, monotonic]."""
        self._children.remove(child)
        killed = child.kill()
        child.end()
        return killed

    def close(self) -> None:
        """End every node, the last started first: `run` starts the policy after safety and safety after the robot."""
        for child in reversed(self._children):
            child.end()

    def _read(self) -> None:
        assert self._operator.process.stdout is not None
        with contextlib.suppress(ValueError):  # closed while reading: the session has ended
            for line in self._operator.process.stdout:
                self._lines.put(json.loads(line))


def run(
    config: SessionConfig, folder: Path, progress: Callable[[dict[str, Any], int, int], None] = lambda *_: None
) -> SessionResult:
    """Run episodes through ROS 2, and write them and `ros.json` into a run folder.

    Args:
        config: what runs.
        folder: the run folder to make.
        progress: given each finished episode's row, the successes so far and the episodes so far.

    Raises:
        CallFailed, NodeDied: a node refused to start, or ended on its own.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the nodes are ended first.
    """
    record = Run.create(folder, "ros", config)
    with _signals_interrupt(), Session.opened(folder) as session:
        session.start(SIM, {"suite": config.suite, "rate_scale": config.rate_scale, "seed": config.seed})
        safety = {"spec": str(zoo.folder(config.policy) / "spec.json"), "n_action_steps": config.n_action_steps}
        session.start(SAFETY, safety)
        policy = session.start(
            POLICY,
            {
                "policy": config.policy,
                "verifier": config.verifier or "",
                "candidates": config.candidates,
                "noise_scale": config.noise_scale,
                "n_action_steps": config.n_action_steps,
                "calibration": config.calibration,
            },
        )
        session.call("policy/configure")
        session.call("policy/activate")
        session.require_ready()
        seen = Measurements()
        rows: list[dict[str, Any]] = []
        while len(rows) < config.episodes and sum(r["success"] for r in rows) < config.successes:
            rows.append(_episode(session, seen))
            record.append(rows[-1])
            progress(rows[-1], sum(r["success"] for r in rows), len(rows))
        held_ms = _kill_test(session, policy) if config.kill_test else None
    result = seen.result(rows, held_ms)
    write_json(folder / "ros.json", result.to_json())
    return result


def _episode(session: Session, seen: Measurements) -> dict[str, Any]:
    """One episode, from its start to its row."""
    session.call("sim/next_episode")
    for line in session.take(600.0):
        seen.add(line)
        if line.get("topic") == "episode" and line["values"]["event"] == "ended":
            row = dict(line["values"])
            del row["event"]
            return row
    raise CallFailed("an episode did not end within 10 minutes")


def _kill_test(session: Session, policy: Child) -> float:
    """[ms] from a kill -9 of the policy, just after it began a chunk, to the safety node's first HOLD."""
    session.call("sim/next_episode")
    session.wait(lambda line: _is_command(line, "track"), 30.0, "TRACK")
    killed_ns = session.kill(policy)
    line = session.wait(lambda line: _is_command(line, "hold", killed_ns), 10.0, "HOLD after the kill")
    return (int(line["values"]["published_ns"]) - killed_ns) / 1e6


def _is_command(line: dict[str, Any], mode: str, after_ns: int = 0) -> bool:
    """The safety node's report of a command of this mode, published after a moment [ns, monotonic]."""
    values = line.get("values", {})
    return line.get("topic") == "safety" and values.get("mode") == mode and int(values["published_ns"]) > after_ns


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT are a Ctrl-C, SIGINT even where a shell in the background ignores it.

    Only a main thread may set signal handlers; elsewhere: no change.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
