"""The graph as lines of JSON: calls in on stdin, answers, episodes and diagnostics out on stdout.

`vla_ros.session` talks to the nodes through this process, so that the command line, a notebook or a test drives them
without loading ROS itself. A call is `{"id": 1, "call": "policy/configure"}`, its answer `{"id": 1, "ok": true,
"message": ""}`; everything else has a "topic".
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_ros import interface, messages
from vla_ros.node import spin

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


class OperatorNode(Node):  # type: ignore[misc]
    """Relays between standard input and output and the graph."""

    def __init__(self) -> None:
        super().__init__("operator")
        os.nice(10)  # who watches must not slow down what is watched
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting: list[dict[str, Any]] = []
        self._callers: dict[str, Any] = {}
        self.create_subscription(DiagnosticArray, interface.DIAGNOSTICS, self._on_diagnostics, interface.EVENTS)
        self.create_subscription(String, interface.EPISODE, self._on_episode, interface.LATCHED)
        self.create_timer(0.02, self._serve, clock=Clock(clock_type=ClockType.STEADY_TIME))
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """Nothing to say."""

    def _read(self) -> None:
        for line in sys.stdin:
            self._asked.put(json.loads(line))

    def _serve(self) -> None:
        """Call each service that was asked for as soon as it is there."""
        while not self._asked.empty():
            self._waiting.append(self._asked.get())
        self._waiting = [call for call in self._waiting if not self._called(call)]

    def _called(self, call: dict[str, Any]) -> bool:
        node, _, name = call["call"].partition("/")
        if name in TRANSITIONS:
            client = self._client(ChangeState, f"{node}/change_state")
            request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        else:
            client, request = self._client(Trigger, f"{node}/{name}"), Trigger.Request()
        if not client.service_is_ready():
            return False

        def answered(future: Any) -> None:
            result = future.result()
            _emit(id=call["id"], ok=bool(result.success), message=getattr(result, "message", ""))

        client.call_async(request).add_done_callback(answered)
        return True

    def _client(self, kind: Any, name: str) -> Any:
        if name not in self._callers:
            self._callers[name] = self.create_client(kind, name)
        return self._callers[name]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        stamp_ns = messages.to_ns(message.header.stamp)
        for status in message.status:
            level = int.from_bytes(status.level, "little")
            values = {pair.key: pair.value for pair in status.values}
            _emit(topic=status.name, stamp_ns=stamp_ns, level=level, text=status.message, values=values)

    def _on_episode(self, message: String) -> None:
        _emit(topic="episode", values=json.loads(message.data))


def _emit(**line: Any) -> None:
    print(json.dumps({"received_ns": time.monotonic_ns(), **line}), flush=True)


if __name__ == "__main__":
    sys.exit(spin(OperatorNode))
