"""How sure we may be of a success rate, and of the difference between two.

A rate is printed with n and its Wilson score interval; two arms are compared on the same seeds, with McNemar's test
(mid-p) and Tango's score interval for the paired difference, never by two bare means. A comparison that may stop
early needs the intervals of `vla.sequential` instead. `vla bench statistics` checks all of them by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Outcomes = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Rate:
    """k successes of n, with an interval for the true rate."""

    k: int
    n: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """k / n; NaN when nothing was tried."""
        return self.k / self.n if self.n else math.nan

    def __str__(self) -> str:
        if not self.n:
            return "no episodes"
        return f"{100 * self.rate:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n}"

    def to_json(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {"k": self.k, "n": self.n, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Paired:
    """Arm a against arm b on the same seeds."""

    wins: int
    """Seeds where only a succeeded."""
    losses: int
    """Seeds where only b succeeded."""
    ties: int
    difference: float
    """Success rate of a minus that of b."""
    low: float
    high: float
    p: float
    """Two-sided p-value of "no difference": McNemar's mid-p, unless `anytime`."""
    anytime: bool = False
    """Interval and p-value hold whenever one looks and stops, see `vla.sequential`."""

    def __str__(self) -> str:
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"{self.wins} won, {self.losses} lost, {self.ties} tied, p={self.p:.2g}"
            f"{', whenever stopped' if self.anytime else ''}"
        )


@dataclass(frozen=True)
class MeanDifference:
    """A mean over seeds, of a - b where two arms are compared, with Student's interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "no seeds in common"
        return f"{self.mean:+.3g} [{self.low:+.3g}, {self.high:+.3g}] n={self.n}"


@dataclass(frozen=True)
class PowerLaw:
    """y = scale * x ** exponent."""

    scale: float
    exponent: float
    r2: float
    """Share of log y's variance that it explains."""


def wilson(k: int, n: int, confidence: float = 0.95) -> Rate:
    """Wilson's score interval for k successes of n.

    It covers what it says even near 0 and 1 and at small n, where the textbook interval does not (Wilson 1927;
    Brown, Cai and DasGupta 2001).
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n} is not a count")
    if n == 0:
        return Rate(0, 0, 0.0, 1.0)
    z = _z(confidence)
    centre = (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    # At k = 0 and k = n the bounds are exactly 0 and 1, which rounding would miss.
    return Rate(int(k), int(n), 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def paired(a: Outcomes, b: Outcomes, confidence: float = 0.95) -> Paired:
    """Compare two arms over the same n seeds.

    Args:
        a: (n,) success of the arm in question.
        b: (n,) success of the arm it is compared with, in the same order.
        confidence: of the interval.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a paired test needs two outcomes a seed, got {a.shape} and {b.shape}")
    n, wins, losses = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    low, high = _tango(wins, losses, n, _z(confidence))
    return Paired(wins, losses, n - wins - losses, (wins - losses) / n, low, high, _mcnemar(wins, losses))


def paired_mean(a: Floats, b: Floats, confidence: float = 0.95) -> MeanDifference:
    """Mean difference of a measure over the same n seeds, e.g. of time to success where both arms succeeded.

    Args:
        a: (n,) of the arm in question.
        b: (n,) of the arm it is compared with, in the same order.
        confidence: of the interval; fewer than two seeds exclude nothing, differences all alike leave one point.
    """
    from scipy import stats

    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired difference needs two values a seed, got {a.shape} and {b.shape}")
    n, gap = len(a), np.asarray(a, float) - np.asarray(b, float)
    if n < 2:
        return MeanDifference(float(gap.mean()) if n else math.nan, -math.inf, math.inf, n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * gap.std(ddof=1) / math.sqrt(n))
    mean = float(gap.mean())
    return MeanDifference(mean, mean - half, mean + half, n)


def frequency_averaged(outcomes: Sequence[Sequence[bool]], confidence: float = 0.95) -> MeanDifference:
    """Mean success over control rates, each over the same n seeds, with Student's interval over the seeds.

    Seeds, not episodes, are independent: an easy scene is easy at every rate. Where all seeds are alike it is Wilson's
    interval: Student's would be one point, and say that no seed can do otherwise.
    """
    per_seed = np.mean(np.array(outcomes, float), axis=0)
    found = paired_mean(per_seed, np.zeros_like(per_seed), confidence)
    if found.low == found.high:
        rate = wilson(round(found.mean * found.n), found.n, confidence)
        return MeanDifference(found.mean, rate.low, rate.high, found.n)
    return MeanDifference(found.mean, max(found.low, 0.0), min(found.high, 1.0), found.n)


def smallest_detectable(n: int, p: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest gain over a success rate p that a paired test over n seeds finds with this power.

    Connor's sample size formula (Biometrics 1987), with the two arms' outcomes independent given the rates: arms that
    fail on the same seeds, as ours do, discern smaller gains than this. None when even reaching 100% would be missed.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)

    def excess(gain: float) -> float:
        discordant = p * (1 - p - gain) + (p + gain) * (1 - p)
        spread = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(max(discordant - gain**2, 0.0))
        return math.sqrt(n) * gain - spread

    largest = 1 - p
    return None if excess(largest) <= 0 else root(lambda gain: -excess(gain), 0.0, largest)


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Least squares in log-log coordinates; at least three positive points."""
    if len(x) != len(y) or len(x) < 3 or min(*x, *y) <= 0:
        raise ValueError(f"a power law needs three or more positive points, got x={list(x)}, y={list(y)}")
    log_x, log_y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    exponent, intercept = np.polyfit(log_x, log_y, 1)
    residual = log_y - (exponent * log_x + intercept)
    total = float(((log_y - log_y.mean()) ** 2).sum())
    r2 = 1 - float((residual**2).sum()) / total if total > 0 else 1.0
    return PowerLaw(float(np.exp(intercept)), float(exponent), r2)


def _mcnemar(wins: int, losses: int) -> float:
    """McNemar's mid-p: binomial test of wins among the seeds that differ, p = 1/2, what was seen counted half.

    Counted whole, counts being whole, the test finds a difference where there is none 1 to 2 points less often than it
    says, and real ones less often too. (Fagerland, Lydersen and Laake, BMC Medical Research Methodology 2013.)
    """
    n, fewer = wins + losses, min(wins, losses)
    beyond = sum(math.comb(n, i) for i in range(fewer))
    return (2 * beyond + math.comb(n, fewer)) / (1 << n)


def _tango(wins: int, losses: int, n: int, z: float) -> tuple[float, float]:
    """Tango's score interval (Statistics in Medicine 1998): the differences that the score test does not reject."""

    def score(delta: float) -> float:
        # q: maximum likelihood estimate of P(only b succeeds) when the difference is delta.
        linear = (2 * n - wins + losses) * delta - wins - losses
        q = (math.sqrt(max(linear**2 + 8 * n * losses * delta * (1 - delta), 0.0)) - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        gap = wins - losses - n * delta
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    estimate = (wins - losses) / n
    return root(lambda d: score(d) - z, -1.0, estimate), root(lambda d: score(d) + z, estimate, 1.0)


def root(decreasing: Callable[[float], float], low: float, high: float) -> float:
    """Where a decreasing function crosses zero, by bisection to the last bit that matters."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return (low + high) / 2


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
