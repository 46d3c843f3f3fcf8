"""However often one looks and whenever one stops, the truth is missed no more often than stated."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from vla.sequential import anytime_paired, anytime_rate
from vla.statistics import Paired, paired, wilson

ALPHA = 0.1


def outcomes(wins: int, losses: int, ties: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    counts = [wins, losses, ties]
    return np.repeat([True, False, True], counts), np.repeat([False, True, True], counts)


def misses(difference: float, draws: int = 300, looks: int = 12) -> float:
    """Share of runs in which any of the looks, 10 seeds apart, has an interval without the true difference."""
    rates = [0.2 + difference / 2, 0.2 - difference / 2, 0.6]
    steps = np.random.default_rng(1).multinomial(10, rates, (draws, looks))
    seen: dict[tuple[int, ...], bool] = {}

    def missed(counts: npt.NDArray[np.int64]) -> bool:
        key = tuple(map(int, counts))
        if key not in seen:
            found = anytime_paired(*outcomes(*key), alpha=ALPHA)
            seen[key] = not found.low <= difference <= found.high
        return seen[key]

    return float(np.mean([any(missed(c) for c in run) for run in np.cumsum(steps, axis=1)]))


@pytest.mark.parametrize("difference", [0.0, 0.2])
def test_looking_often_misses_the_truth_no_more_often_than_stated(difference: float) -> None:
    assert misses(difference) <= ALPHA


def test_a_fixed_test_looked_at_as_often_would() -> None:
    """What the stopping rule is for: without it this simulation finds far more false claims."""
    steps = np.random.default_rng(1).multinomial(10, [0.2, 0.2, 0.6], (300, 12))
    runs = np.cumsum(steps, axis=1)
    assert np.mean([any(paired(*outcomes(*c)).p < ALPHA for c in run) for run in runs]) > 1.5 * ALPHA


def test_the_bounds_are_where_the_gamblers_wealth_reaches_its_limit() -> None:
    """Against the definition: every share's product of returns, bet by bet, averaged."""
    from vla.sequential import _SHARES

    found = anytime_paired(*outcomes(20, 4, 26), alpha=0.05)
    values = np.repeat([1.0, -1.0, 0.0], [20, 4, 26])
    for bound, sign in ((found.low, 1), (found.high, -1)):
        returns = 1 + _SHARES[:, None] * (sign * values - sign * bound) / (1 + sign * bound)
        assert np.log(returns.prod(1).mean()) == pytest.approx(math.log(2 / 0.05), abs=1e-6)


def test_p_and_interval_agree_about_zero() -> None:
    for counts in ((20, 4, 26), (12, 8, 30), (0, 9, 40), (3, 30, 10)):
        found = anytime_paired(*outcomes(*counts), alpha=0.05)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_it_is_wider_than_an_interval_for_one_look_and_narrows() -> None:
    few, many = (anytime_paired(*outcomes(6 * k, 2 * k, 12 * k)) for k in (1, 40))
    assert many.high - many.low < few.high - few.low
    once = paired(*outcomes(6, 2, 12))
    assert few.low < once.low < once.high < few.high
    assert anytime_rate(90, 100).low < wilson(90, 100).low
    assert anytime_rate(90, 100).high > wilson(90, 100).high


def test_swapping_the_arms_mirrors_it() -> None:
    forth, back = anytime_paired(*outcomes(30, 8, 60)), anytime_paired(*outcomes(8, 30, 60))
    assert (back.low, back.high, back.p) == pytest.approx((-forth.high, -forth.low, forth.p))


@pytest.mark.parametrize(("k", "n"), [(0, 40), (40, 40), (0, 0)])
def test_a_rates_bounds_stay_within_0_and_1(k: int, n: int) -> None:
    found = anytime_rate(k, n)
    assert 0 <= found.low <= (found.rate if n else 0.5) <= found.high <= 1


def test_it_reads_as_it_is_reported() -> None:
    assert str(Paired(12, 2, 36, 0.2, 0.061, 0.345, 0.013, anytime=True)).endswith("p=0.013, whenever stopped")


@pytest.mark.parametrize(("a", "b"), [([True], [True, False]), ([], [])])
def test_arms_that_do_not_pair_are_refused(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(ValueError, match="two outcomes a seed"):
        anytime_paired(np.array(a), np.array(b))
    with pytest.raises(ValueError, match="not a count"):
        anytime_rate(3, 2)
