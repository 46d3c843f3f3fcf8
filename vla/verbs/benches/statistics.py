"""Do the statistics do what they say? By simulation: coverage, false positives, power, and stopping early.

The coverage of an interval for counts swings from one true rate to the next, because counts are whole. As is usual,
coverage and false positives are averaged over true rates drawn within 5 points of the one named. Everything is drawn
from seed 0; the interval of a row is that of its own simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vla.sequential import anytime_paired
from vla.statistics import Paired, paired, paired_mean, smallest_detectable, wilson
from vla.verbs.bench import Args, Metric, share

Counts = npt.NDArray[np.int64]
"""(draws, 3) seeds that only the first arm won, that only the second won, and the others."""

DRAWS = 20_000
NOMINAL = 0.95
LOOK_EVERY, LAST = 20, 400
SPREAD = 0.05


def measure(args: Args) -> list[Metric]:
    """About a minute; `args` only names the benchmark."""
    rng = np.random.default_rng(0)
    return [*_wilson(rng), *_pairs(rng), *_times(rng), *_power(rng), *_sequential(rng)]


def _wilson(rng: np.random.Generator) -> list[Metric]:
    rows = []
    for n, p in ((50, 0.5), (50, 0.9), (200, 0.5), (200, 0.9), (400, 0.94)):
        rate = rng.uniform(p - SPREAD, p + SPREAD, DRAWS)
        k = rng.binomial(n, rate)
        interval = [wilson(i, n) for i in range(n + 1)]
        low, high = np.array([r.low for r in interval])[k], np.array([r.high for r in interval])[k]
        rows.append(share(f"Wilson, n={n}, rate {p:g}, coverage", (low <= rate) & (rate <= high)))
    return [*rows, _farthest("Wilson, farthest from 95%", rows, NOMINAL)]


def _pairs(rng: np.random.Generator) -> list[Metric]:
    """Tango's interval, with a difference and without one, and both tests of no difference."""
    covered, excluded, rejected = [], [], []
    for n, wins, losses in ((100, 0.3, 0.1), (200, 0.15, 0.05), (300, 0.2, 0.03)):
        shift = rng.uniform(-0.02, 0.02, (DRAWS, 2))
        rates = np.array([wins, losses]) + shift
        found = _compared(paired, _draw(rng, n, rates))
        truth = rates[:, 0] - rates[:, 1]
        name = f"Tango, n={n}, {100 * (wins - losses):.0f} points, coverage"
        covered.append(share(name, (found[:, 0] <= truth) & (truth <= found[:, 1])))
    for n, discordant in ((100, 0.5), (200, 0.2), (400, 0.3)):
        each = rng.uniform(discordant - SPREAD, discordant + SPREAD, (DRAWS, 1)) / 2
        found = _compared(paired, _draw(rng, n, np.hstack([each, each])))
        name = f"no difference, n={n}, {100 * discordant:.0f}% discordant"
        excluded.append(share(f"{name}, Tango excludes 0", (found[:, 0] > 0) | (found[:, 1] < 0)))
        rejected.append(share(f"{name}, McNemar mid-p < 0.05", found[:, 2] < 0.05))
    return [
        *covered,
        _farthest("Tango, farthest from 95%", covered, NOMINAL),
        *excluded,
        _farthest("Tango, farthest from 5% false positives", excluded, 1 - NOMINAL),
        *rejected,
        _farthest("McNemar, farthest from 5% false positives", rejected, 1 - NOMINAL),
    ]


def _times(rng: np.random.Generator) -> list[Metric]:
    """Student's interval where times to success are skewed, as they are: log-normal, about 40 of 100 seeds shared."""
    draws, n = DRAWS // 5, 40
    scene = rng.lognormal(0.8, 0.4, (draws, n))
    a, b = (scene * rng.lognormal(shift, 0.3, (draws, n)) for shift in (0.1, 0.0))
    truth = np.exp(0.8 + 0.4**2 / 2) * (np.exp(0.1 + 0.3**2 / 2) - np.exp(0.3**2 / 2))
    found = [paired_mean(x, y) for x, y in zip(a, b, strict=True)]
    row = share("time to success, n=40, coverage", np.array([d.low <= truth <= d.high for d in found]))
    return [row, _farthest("time to success, farthest from 95%", [row], NOMINAL)]


def _power(rng: np.random.Generator) -> list[Metric]:
    """How often the test finds the gain that was announced before the run as found 4 times in 5."""
    rows = []
    for n, p in ((100, 0.5), (200, 0.5), (200, 0.8), (400, 0.8)):
        gain = smallest_detectable(n, p)
        assert gain is not None
        rates = np.broadcast_to([(p + gain) * (1 - p), p * (1 - p - gain)], (DRAWS, 2))
        found = _compared(paired, _draw(rng, n, rates))
        name = f"smallest detectable gain, n={n}, from {100 * p:.0f}%: {100 * gain:.1f} points, found"
        rows.append(share(name, found[:, 2] < 0.05))
    return [*rows, _farthest("smallest detectable gain, farthest from 80% found", rows, 0.8, 5)]


def _sequential(rng: np.random.Generator) -> list[Metric]:
    """A look every 20 seeds up to 400; 30% of the seeds discordant. Claims: zero is excluded at any look."""
    draws, looks = DRAWS // 10, LAST // LOOK_EVERY
    null = _looks(rng, draws, looks, (0.15, 0.15))
    naive = np.stack([_compared(paired, counts)[:, 2] < 0.05 for counts in null])
    found = [_compared(anytime_paired, counts) for counts in null]
    claims = np.stack([(f[:, 0] > 0) | (f[:, 1] < 0) for f in found])
    rows = [
        share("fixed-n McNemar looked at 20 times, false claims", naive.any(0)),
        share("sequential, false claims", claims.any(0), "<= 0.05"),
    ]
    for gain in (0.1, 0.2):
        counts = _looks(rng, draws, looks, (0.15 + gain / 2, 0.15 - gain / 2))
        found = [_compared(anytime_paired, c) for c in counts]
        covers = np.stack([(f[:, 0] <= gain) & (gain <= f[:, 1]) for f in found])
        claims = np.stack([f[:, 0] > 0 for f in found])
        stopped = np.where(claims.any(0), (claims.argmax(0) + 1) * LOOK_EVERY, LAST)
        name = f"sequential, gain of {100 * gain:.0f} points"
        rows += [
            share(f"{name}, true at every look", covers.all(0), ">= 0.95"),
            share(f"{name}, claimed", claims.any(0)),
            Metric(f"{name}, seeds run on average", float(stopped.mean()), f"of {LAST}", draws),
        ]
    return rows


def _draw(rng: np.random.Generator, n: int, rates: npt.NDArray[np.float64]) -> Counts:
    """Counts over n seeds, for rates (draws, 2) of only the first winning and only the second."""
    counts: Counts = rng.multinomial(n, np.hstack([rates, 1 - rates.sum(1, keepdims=True)]))
    return counts


def _looks(rng: np.random.Generator, draws: int, looks: int, rates: tuple[float, float]) -> list[Counts]:
    """What each look of each run has seen so far."""
    each = np.broadcast_to(rates, (draws, 2))
    return list(np.cumsum([_draw(rng, LOOK_EVERY, each) for _ in range(looks)], axis=0))


def _compared(compare: Callable[[Any, Any], Paired], counts: Counts) -> npt.NDArray[np.float64]:
    """(draws, 3) low, high and p of each draw; equal counts are compared once."""
    unique, which = np.unique(counts, axis=0, return_inverse=True)
    found = []
    for count in unique:
        a, b = np.repeat([True, False, True], count), np.repeat([False, True, True], count)
        result = compare(a, b)
        found.append((result.low, result.high, result.p))
    return np.array(found)[which.reshape(-1)]


def _farthest(name: str, rows: list[Metric], nominal: float, most: float = 1) -> Metric:
    return Metric(name, max(100 * abs(row.value - nominal) for row in rows), "points", target=f"<= {most:g}")
