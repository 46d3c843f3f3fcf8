"""What every node process does the same: parameters from dataclasses, signals, and an end without leftovers."""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla.errors import BadConfig, VlaError
from vla_ros.processes import PARENT

_PR_SET_PDEATHSIG = 1

Config = TypeVar("Config")


def declared(node: Node, config: type[Config]) -> Config:
    """Declare a dataclass's fields as parameters, with their defaults and docstrings, and read them.

    Raises:
        BadConfig: a value of another type than the default's, or what the dataclass itself refuses.
    """
    descriptions = _docstrings(config)
    values = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        about = ParameterDescriptor(description=descriptions.get(field.name, ""), read_only=True)
        try:
            values[field.name] = node.declare_parameter(field.name, field.default, about).value
        except InvalidParameterTypeException as error:
            raise BadConfig(
                f"parameter {field.name}: want {type(field.default).__name__}, as {field.default!r}"
            ) from error
    return config(**values)


def spin(make: Callable[[], Any]) -> int:
    """Run one node until SIGINT or SIGTERM, then its `close()`, its last words; the process's exit code.

    ROS's own signal handlers would shut it down at once, and the last HOLD could no longer be published.
    """
    _die_with_parent()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
    except VlaError as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    executor = (
        EventsExecutor()
    )  # half the latency a message of SingleThreadedExecutor, which asks all entities each time
    executor.add_node(node)
    try:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    return 0


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent dies, however it dies."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit(1)


def _docstrings(config: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (body,) = ast.parse(inspect.cleandoc(inspect.getsource(config))).body
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):  # type: ignore[attr-defined]
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))  # type: ignore[union-attr]
    return found
