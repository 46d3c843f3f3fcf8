"""A verifier's score as a probability of success, and the plot that says whether to believe it.

Scores are only comparable within a decision; a person who must choose when to stop a robot needs a probability. Two
numbers are fitted to held-out decisions and their episodes' outcomes: p = sigmoid(slope · score + offset), with Platt's
targets (Platt 1999), so that few data do not promise certainty. Where the data ask for it a third: scores beyond `bend`
count by their logarithm (asinh), because an advantage that doubles hardly changes what is near certain already.
Monotone: it never changes which candidate is best.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from vla.errors import BadCalibration
from vla.statistics import Rate, wilson
from vla_calibration.geometry import Doubles

MIN_OUTCOMES = 50
_MIN_OF_EACH = 5
_BENDS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Tried, in units of the median score's size."""
_WORTH_A_BEND = 3.0
"""Gain in log-likelihood."""
Outcomes = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScoreScale:
    """Score -> probability of success."""

    slope: float
    offset: float
    bend: float | None = None
    """Score beyond which it counts logarithmically; None: nowhere."""

    def p_success(self, scores: Doubles) -> Doubles:
        """(N,) probabilities of scores (N,)."""
        return np.asarray(expit(self.slope * _bent(np.asarray(scores, np.float64), self.bend) + self.offset))


@dataclass(frozen=True)
class Reliability:
    """Said against seen."""

    bins: tuple[tuple[float, Rate], ...]
    """Mean probability said, and how often it came true; as many decisions in each bin."""
    calibration_error: float
    """Mean distance between the two over the bins, each counted by its size (ECE)."""
    brier: float
    """Mean squared error of the probabilities."""


def fit_scale(scores: Doubles, success: Outcomes) -> ScoreScale:
    """Fit slope and offset.

    Args:
        scores: (N,) of the chosen candidates, one an episode, of episodes the verifier was not fitted on.
        success: (N,) how those episodes ended.

    Raises:
        BadCalibration: too few outcomes of either kind, scores that are not finite, or a verifier that ranks backwards.
    """
    x, y = _checked(scores, success)
    if len(x) < MIN_OUTCOMES or min(y.sum(), (~y).sum()) < _MIN_OF_EACH:
        raise BadCalibration(
            f"{int(y.sum())} successes and {int((~y).sum())} failures: at least {MIN_OUTCOMES} episodes with "
            f"{_MIN_OF_EACH} of each are needed; run more, or harder ones"
        )
    if x.std() == 0:
        raise BadCalibration("all scores are equal: this verifier says nothing, there is nothing to scale")
    straight, cost = _platt(x, y, None)
    size = float(np.median(np.abs(x)))
    bent = [_platt(x, y, size * share) for share in _BENDS if size > 0]
    best, least = min(bent, key=lambda found: found[1], default=(straight, cost))
    found = best if least < cost - _WORTH_A_BEND else straight
    if found.slope <= 0:
        raise BadCalibration(
            "higher scores went with fewer successes: the verifier ranks backwards or was fitted for another policy; "
            "fit it again (`vla fit-verifier`)"
        )
    return found


def _bent(x: Doubles, bend: float | None) -> Doubles:
    return x if bend is None else np.asarray(np.arcsinh(x / bend))


def _platt(x: Doubles, y: Outcomes, bend: float | None) -> tuple[ScoreScale, float]:
    """The sigmoid that fits best, and its negative log-likelihood."""
    given = _bent(x, bend)
    middle, spread = float(given.mean()), float(given.std())
    z = (given - middle) / spread
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def loss(w: Doubles) -> tuple[float, Doubles]:
        logit = w[0] * z + w[1]
        value = np.logaddexp(0, logit) - target * logit
        residual = expit(logit) - target
        return float(value.sum()), np.array([residual @ z, residual.sum()])

    found = minimize(loss, np.array([0.0, 0.0]), jac=True, method="BFGS")
    slope, offset = found.x
    return ScoreScale(float(slope / spread), float(offset - slope * middle / spread), bend), float(found.fun)


def reliability(p_success: Doubles, success: Outcomes, bins: int = 10) -> Reliability:
    """Compare probabilities (N,) with outcomes (N,) that they were not fitted on. Raises BadCalibration."""
    p, y = _checked(p_success, success)
    if len(p) < bins or p.min() < 0 or p.max() > 1:
        raise BadCalibration(f"{len(p)} probabilities for {bins} bins: at least one each is needed, within 0 and 1")
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    found = tuple((float(p[i].mean()), wilson(int(y[i].sum()), len(i))) for i in parts)
    error = sum(abs(said - rate.rate) * rate.n for said, rate in found) / len(p)
    return Reliability(found, error, float(np.square(p - y).mean()))


def plot(result: Reliability, path: Path) -> None:
    """The reliability plot, as a PNG: on the diagonal it says what happens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.2, 4.2), layout="constrained")
    said = np.array([s for s, _ in result.bins])
    rates = [r for _, r in result.bins]
    seen = np.array([r.rate for r in rates])
    below, above = seen - [r.low for r in rates], np.array([r.high for r in rates]) - seen
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.errorbar(said, seen, yerr=[below, above], fmt="o", capsize=2, markersize=4)
    axes.set(xlabel="said p_success", ylabel="succeeded (95% Wilson)", xlim=(0, 1), ylim=(0, 1))
    n = sum(r.n for r in rates)
    axes.set_title(f"calibration error {result.calibration_error:.3f}, Brier {result.brier:.3f}, n={n}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _checked(values: Doubles, success: Outcomes) -> tuple[Doubles, Outcomes]:
    x, y = np.asarray(values, np.float64), np.asarray(success, bool)
    if x.ndim != 1 or x.shape != y.shape or not np.isfinite(x).all():
        raise BadCalibration(f"want as many finite scores as outcomes, got shapes {x.shape} and {y.shape}")
    return x, y
