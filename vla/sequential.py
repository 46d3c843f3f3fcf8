"""Comparisons that may stop as soon as they are decided, with a stated error rate.

Looking at a fixed-n test again and again until it says "significant" is wrong far more often than it says. These
intervals hold at every look at once: the chance that any of them misses the truth, however often one looks and whenever
one stops, is at most alpha. They cost some width for that.

Method: test by betting (Waudby-Smith and Ramdas, JRSS-B 2024). A gambler bets against "the mean is m"; under that
claim his wealth is a martingale, so it ever reaches 2/alpha with probability at most alpha/2 (Ville's inequality). The
interval holds every m that has not been refuted so. He spreads his money over fixed shares of it per bet, so what he
ends up with depends on the counts alone and not on their order.

What must hold: seeds come in an order that has nothing to do with their outcomes. Episodes that fail take longer, so
the first to *finish* are not such a sample; `vla_sim.evaluate` looks at complete prefixes of the seeds only.
"""

from __future__ import annotations

import math

import numpy as np

from vla.statistics import Outcomes, Paired, Rate, root

_SHARES = np.geomspace(0.05, 0.9, 30)
"""Shares of the wealth that are bet: small ones find small differences, large ones find large ones soon."""


def anytime_paired(a: Outcomes, b: Outcomes, alpha: float = 0.05) -> Paired:
    """Compare two arms over the n seeds there are so far.

    Args:
        a: (n,) success of the arm in question.
        b: (n,) success of the arm it is compared with, in the same order.
        alpha: chance that the interval, at any n, ever misses the true difference.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a paired test needs two outcomes a seed, got {a.shape} and {b.shape}")
    n, wins, losses = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    ties = n - wins - losses
    low, high = _interval(wins, losses, ties, alpha)
    evidence = max(_log_wealth(wins, losses, ties, 0.0), _log_wealth(losses, wins, ties, 0.0))
    p = min(1.0, 2 * math.exp(-evidence))
    return Paired(wins, losses, ties, (wins - losses) / n, low, high, p, anytime=True)


def anytime_rate(k: int, n: int, alpha: float = 0.05) -> Rate:
    """k successes of the n episodes there are so far; wider than Wilson's interval, but true whenever one stops."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n} is not a count")
    if n == 0:
        return Rate(0, 0, 0.0, 1.0)
    low, high = _interval(k, n - k, 0, alpha)
    return Rate(int(k), int(n), (1 + low) / 2, (1 + high) / 2)


def _interval(ups: int, downs: int, ties: int, alpha: float) -> tuple[float, float]:
    """Means within [-1, 1] not refuted by `ups` values of +1, `downs` of -1 and `ties` of 0."""
    limit, mean = math.log(2 / alpha), (ups - downs) / (ups + downs + ties)
    low = root(lambda m: _log_wealth(ups, downs, ties, m) - limit, -1.0, mean)
    high = -root(lambda m: _log_wealth(downs, ups, ties, m) - limit, -1.0, -mean)
    return low, high


def _log_wealth(ups: int, downs: int, ties: int, mean: float) -> float:
    """Of a gambler who started with 1 and bet that the mean is higher; falls as `mean` rises.

    A share c turns into 1 - c + c (1 + x) / (1 + mean) at a value x: 1 on average if the mean is what is claimed.
    """
    kept, won = 1 - _SHARES, _SHARES / max(1 + mean, 1e-12)
    logs = ups * np.log(kept + 2 * won) + ties * np.log(kept + won) + downs * np.log(kept)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))
