"""Reading what somebody else wrote: plain YAML, numbers of a shape, names. Every function raises BadCalibration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles

CURE = "Restore the file from a copy, or make a new one."
MAX_STAMP_NS = (1 << 63) - 1
_LIMIT_BYTES = 4 << 20
_MAX_DEPTH = 20
"""Brackets in brackets: PyYAML's time grows with the square of them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LONGEST = 1000


class _Plain(yaml.SafeLoader):
    """YAML in which a key counts once: the last of two would win in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{twice} come twice", node.start_mark)
        return super().construct_mapping(node, deep)


# PyYAML takes 1e-05 for a word; ROS's programs in C++ write such numbers.
_Plain.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """An object in YAML: limited in size and depth, no tags, no aliases, each key once."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise BadCalibration(f"there is no {path}: give its path, or make it, see docs/calibration.md") from error
    except OSError as error:
        raise BadCalibration(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _LIMIT_BYTES:
        raise BadCalibration(f"{path} is larger than {_LIMIT_BYTES} bytes: it is no calibration")
    try:
        depth = 0
        for event in yaml.parse(data, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise BadCalibration(f"{path} uses YAML aliases, which no calibration needs")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise BadCalibration(f"{path} is nested {depth} levels deep: it is no calibration")
        parsed = yaml.load(data, _Plain)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadCalibration(f"{path} is not plain YAML: {error}. {CURE}") from error
    if not isinstance(parsed, dict):
        raise BadCalibration(f"{path} does not hold an object. {CURE}")
    return parsed


def numbers(value: Any, shape: tuple[int, ...], where: str) -> Doubles:
    """Finite numbers of a shape; text and truth values are none."""
    plain = np.array(value, object)
    if plain.shape != shape or not all(type(leaf) in (int, float) for leaf in plain.ravel()):
        raise BadCalibration(f"{where}: want finite numbers of shape {shape}, got {str(value)[:80]}. {CURE}")
    try:
        array = plain.astype(np.float64)
    except OverflowError as error:
        raise BadCalibration(f"{where}: {str(value)[:80]} is too large. {CURE}") from error
    if not np.isfinite(array).all():
        raise BadCalibration(f"{where}: want finite numbers of shape {shape}, got {str(value)[:80]}. {CURE}")
    return array


def whole(value: Any, low: int, high: int, where: str) -> int:
    """A whole number from low to high."""
    if type(value) is not int or not low <= value <= high:
        raise BadCalibration(f"{where}: want a whole number from {low} to {high}, got {str(value)[:80]}")
    return value


def label(value: Any, where: str) -> str:
    """A name that may be part of a file's or a topic's."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadCalibration(f"{where}: want letters, digits, '_', '-' and '.', 64 at most, got {value!r:.80}")
    return value


def text(value: Any, where: str) -> str:
    """A line that can be printed."""
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
        raise BadCalibration(f"{where}: want a line of text, got {value!r:.80}. {CURE}")
    return value


def known(data: Any, fields: Iterable[str], where: str) -> dict[str, Any]:
    """An object without fields that this version would drop when it writes the file again."""
    if not isinstance(data, dict):
        raise BadCalibration(f"{where}: want an object, got {str(data)[:80]}. {CURE}")
    if unknown := sorted({str(key) for key in data} - set(fields)):
        raise BadCalibration(
            f"{where} has {unknown}, which this version does not know and would lose: it was written by a newer one; "
            "update vla-stack"
        )
    return data
