"""How an arm moved: length and smoothness of the path it was commanded along."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vla.spec import Spec
from vla.types import Command, Mode


class Motion:
    """Collects an episode's commands; measures the tool's translation, or, for joint actions, the joints'.

    It measures commands because they are the policy's doing and every suite has them; what the arm made of them is the
    controller's.
    """

    def __init__(self, spec: Spec) -> None:
        self._dt_s = 1.0 / spec.control_rate_hz
        self._axes = _axes(spec)
        scale = {"delta": 1.0 / self._dt_s, "offset": 1.0 / self._dt_s, "velocity": 1.0, "absolute": 1.0}
        self._scale = np.array([scale[spec.action[i].kind] for i in self._axes])
        self._is_position = bool(self._axes) and spec.action[self._axes[0]].kind == "absolute"
        self._taken: list[npt.NDArray[np.float64]] = []

    def add(self, command: Command) -> None:
        """A command that went to the robot; HOLD and STOP are standing still."""
        if command.mode is Mode.TRACK:
            self._taken.append(np.asarray(command.action, float)[self._axes] * self._scale)
        elif self._is_position and self._taken:
            self._taken.append(self._taken[-1])
        elif not self._is_position:
            self._taken.append(np.zeros(len(self._axes)))

    @property
    def path(self) -> float | None:
        """Length of the commanded path [m], or [rad] for joint actions; None where nothing moves."""
        if not self._axes:
            return None
        return float(np.linalg.norm(self._velocities(), axis=1).sum() * self._dt_s)

    @property
    def smoothness(self) -> float | None:
        """Log dimensionless jerk, higher is smoother; None for less than four commands or no motion.

        -ln(T³ / v_max² · ∫ |v̈|² dt) with the commanded velocity v (Balasubramanian et al., J. NeuroEng. Rehabil.
        2015). It depends on neither the size nor the duration of a movement, but a longer task of many movements
        scores lower: compare it on the same seeds.
        """
        if not self._axes or len(self._taken) < 4:
            return None
        speed = self._velocities()
        peak = float(np.linalg.norm(speed, axis=1).max())
        jerk = np.diff(speed, 2, axis=0) / self._dt_s**2
        total = float((jerk**2).sum()) * self._dt_s
        duration = len(speed) * self._dt_s
        if peak == 0.0 or total == 0.0:
            return None
        return -math.log(duration**3 / peak**2 * total)

    def _velocities(self) -> npt.NDArray[np.float64]:
        """(T, axes) commanded velocity [unit/s]."""
        taken: npt.NDArray[np.float64] = np.array(self._taken, float).reshape(-1, len(self._axes))
        return np.diff(taken, axis=0) / self._dt_s if self._is_position else taken


def _axes(spec: Spec) -> list[int]:
    """The action's dimensions that are translation of the tool, else those that are joint motion; of one kind."""
    for unit in ("m", "rad"):
        axes = [
            i for i, d in enumerate(spec.action) if d.unit in (unit, f"{unit}/s") and "gripper" not in (d.frame, d.name)
        ]
        if axes:
            return [i for i in axes if spec.action[i].kind == spec.action[axes[0]].kind]
    return []
