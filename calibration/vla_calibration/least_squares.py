"""Levenberg-Marquardt on states that are no vectors (poses), with covariance and estimated noise levels.

scipy's solver wants a vector; poses want a step in their own tangent space at each iterate. A problem says how
residuals change with a step, and how a step changes the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
from scipy.stats import chi2, f

from vla.errors import BadCalibration
from vla_calibration.geometry import Doubles

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of measurement at a state."""

    residuals: Doubles
    """(M,) in units of their standard deviation."""
    information: Doubles
    """(P, P) J'J of their Jacobian; kept instead of J, which is large and mostly zero."""
    gradient: Doubles
    """(P,) J'r."""

    @classmethod
    def dense(cls, residuals: Doubles, jacobian: Doubles) -> Self:
        """From residuals (M,) and their Jacobian (M, P)."""
        return cls(residuals, jacobian.T @ jacobian, jacobian.T @ residuals)


Rows = Mapping[str, Term]
"""Kind of measurement -> its term."""
Linearise = Callable[[State], Rows]
Retract = Callable[[State, Doubles], State]

_MAX_STEPS = 100
_MAX_DAMPING = 1e12
_SINGULAR = 1e13


@dataclass(frozen=True, eq=False)
class Solution(Generic[State]):
    """Where the sum of squared residuals is smallest, and how well that is known."""

    state: State
    covariance: Doubles
    """(P, P) of the step, for residuals in units of their standard deviation."""
    residuals: Mapping[str, Doubles]
    redundancy: Mapping[str, float]
    """Kind -> residuals less the parameters they were spent on: what is left to judge the noise by."""

    def scale(self, kind: str) -> float:
        """Estimated over assumed standard deviation of a kind of measurement (Förstner's variance components)."""
        return float(np.sqrt(np.square(self.residuals[kind]).sum() / max(self.redundancy[kind], 1e-9)))


def solve(state: State, linearise: Linearise[State], retract: Retract[State], name: str) -> Solution[State]:
    """Find the least squares.

    Args:
        state: where to start.
        linearise: residuals and Jacobians at a state.
        retract: a state moved by a step (P,).
        name: what is being calibrated, for the error.

    Raises:
        BadCalibration: the measurements leave some combination of the parameters open, or nothing fits them.
    """
    rows = linearise(state)
    cost = _cost(rows)
    if not np.isfinite(cost):
        raise BadCalibration(f"{name}: the start puts the board behind the camera; are the poses those of this arm?")
    damping = 1e-4
    for _ in range(_MAX_STEPS):
        N, gradient = _normal(rows)
        while True:
            step: Doubles = np.asarray(
                np.linalg.solve(N + damping * np.diag(np.diag(N) + 1e-12), -gradient), np.float64
            )
            candidate = retract(state, step)
            candidate_rows = linearise(candidate)
            candidate_cost = _cost(candidate_rows)
            if candidate_cost <= cost or damping > _MAX_DAMPING:
                break
            damping *= 10
        if damping > _MAX_DAMPING:
            break
        gain, state, rows, cost = cost - candidate_cost, candidate, candidate_rows, candidate_cost
        damping = max(damping / 10, 1e-12)
        if gain <= 1e-8 * cost + 1e-14:
            break
    N, _ = _normal(rows)
    covariance = _inverse(N, name)
    redundancy = {
        kind: len(t.residuals) - float(np.einsum("ij,ji->", covariance, t.information)) for kind, t in rows.items()
    }
    return Solution(state, covariance, {kind: t.residuals for kind, t in rows.items()}, redundancy)


def ellipse_holds(error: Doubles, covariance: Doubles, dof: float | None = None, confidence: float = 0.95) -> bool:
    """Does the confidence ellipsoid of a covariance (n, n) contain an error (n,)?

    `dof` is the redundancy that the noise level was estimated from (Fisher's F); None for a noise that is known.
    """
    n = len(error)
    squared = float(error @ np.linalg.solve(covariance, error))
    bound = float(chi2.ppf(confidence, n)) if dof is None else n * float(f.ppf(confidence, n, dof))
    return squared <= bound


def _cost(rows: Rows) -> float:
    return float(sum(t.residuals @ t.residuals for t in rows.values()))


def _normal(rows: Rows) -> tuple[Doubles, Doubles]:
    """J'J (P, P) and J'r (P,) over all kinds."""
    return np.sum([t.information for t in rows.values()], 0), np.sum([t.gradient for t in rows.values()], 0)


def _inverse(N: Doubles, name: str) -> Doubles:
    """The inverse of J'J, scaled first so that metres and pixels count alike."""
    scale = np.sqrt(np.diag(N))
    if (scale == 0).any():
        raise BadCalibration(f"{name}: {int((scale == 0).sum())} of {len(N)} parameters change no measurement")
    scaled = N / np.outer(scale, scale)
    try:
        inverted = np.linalg.inv(scaled)
        condition = float(np.linalg.norm(scaled, 1) * np.linalg.norm(inverted, 1))
    except np.linalg.LinAlgError:
        condition = np.inf
    if not condition < _SINGULAR:
        raise BadCalibration(
            f"{name}: the measurements leave a combination of the parameters open; take views that differ more, "
            "with the board tilted about both of its axes"
        )
    return np.asarray(inverted / np.outer(scale, scale))
