"""Intervals cover what they say, tests reject what they should: by simulation, and against statsmodels and scipy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from vla.statistics import Paired, frequency_averaged, paired, paired_mean, power_law, smallest_detectable, wilson


def outcomes(wins: int, losses: int, both: int, neither: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    a = np.repeat([True, False, True, False], [wins, losses, both, neither])
    b = np.repeat([False, True, True, False], [wins, losses, both, neither])
    return a, b


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 200), (193, 200), (200, 200), (7, 13)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_statsmodels(k: int, n: int, confidence: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    rate = wilson(k, n, confidence)
    assert (rate.low, rate.high) == pytest.approx(proportion_confint(k, n, 1 - confidence, "wilson"), abs=1e-12)


@pytest.mark.parametrize(("n", "p"), [(50, 0.5), (200, 0.9), (300, 0.8)])
def test_wilson_covers_the_true_rate_as_often_as_it_says(n: int, p: float) -> None:
    """Averaged over rates near p: at a single rate, counts being whole, the coverage swings around what is said."""
    interval = [wilson(k, n) for k in range(n + 1)]
    low, high = np.array([r.low for r in interval]), np.array([r.high for r in interval])
    rng = np.random.default_rng(1)
    rate = rng.uniform(p - 0.05, p + 0.05, 200_000)
    k = rng.binomial(n, rate)
    assert np.mean((low[k] <= rate) & (rate <= high[k])) == pytest.approx(0.95, abs=0.01)


def test_rate_reads_as_it_is_reported() -> None:
    assert str(wilson(193, 200)) == "96.5% [93.0, 98.3] n=200"
    assert wilson(193, 200).to_json().keys() == {"k", "n", "low", "high"}
    assert str(wilson(0, 0)) == "no episodes"
    assert math.isnan(wilson(0, 0).rate)


@pytest.mark.parametrize(("k", "n"), [(5, 4), (-1, 4)])
def test_wilson_refuses_what_is_no_count(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a count"):
        wilson(k, n)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (12, 2), (40, 41), (300, 30)])
def test_mcnemar_agrees_with_statsmodels(wins: int, losses: int) -> None:
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar

    # statsmodels has the exact test, mid-p counts the outcome itself half; with as many wins as losses both say 1.
    exact = mcnemar([[5, wins], [losses, 7]], exact=True).pvalue
    expected = exact - binom.pmf(wins, wins + losses, 0.5) if wins != losses else 1.0
    assert paired(*outcomes(wins, losses, 5, 7)).p == pytest.approx(expected, rel=1e-9)


def test_mcnemars_mid_p_is_the_one_its_paper_computes() -> None:
    """Fagerland, Lydersen and Laake (2013), table 1: airway hyper-responsiveness before and after transplantation."""
    assert paired(*outcomes(1, 7, 1, 12)).p == pytest.approx(0.039, abs=5e-4)


@pytest.mark.parametrize(("n", "discordant"), [(100, 0.5), (200, 0.2), (400, 0.3)])
def test_no_difference_is_found_significant_as_often_as_it_says(n: int, discordant: float) -> None:
    """Averaged over nearby rates, as the coverage of Wilson's interval is."""
    rng = np.random.default_rng(6)
    differing = rng.binomial(n, rng.uniform(discordant - 0.05, discordant + 0.05, 40_000))
    wins = rng.binomial(differing, 0.5)
    (pairs, repeats) = np.unique(np.stack([wins, differing - wins], 1), axis=0, return_counts=True)
    found = np.array([paired(*outcomes(w, lost, n - w - lost, 0)).p < 0.05 for w, lost in pairs])
    assert (found * repeats).sum() / 40_000 == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("wins", "losses", "ties"), [(12, 2, 36), (0, 0, 50), (5, 0, 0), (60, 55, 185), (0, 9, 40)])
def test_tango_bounds_are_where_the_score_statistic_reaches_z(wins: int, losses: int, ties: int) -> None:
    """Each bound against the definition: the constrained likelihood maximised numerically, not by its formula."""
    from scipy.optimize import minimize_scalar

    n = wins + losses + ties

    def score(delta: float) -> float:
        def minus_log_likelihood(q: float) -> float:
            terms = zip((wins, losses, ties), (q + delta, q, 1 - 2 * q - delta), strict=True)
            return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

        bounds = (max(0.0, -delta), (1 - delta) / 2)
        q = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return float((wins - losses - n * delta) / math.sqrt(n * (2 * q + delta - delta**2)))

    result = paired(*outcomes(wins, losses, ties, 0))
    if result.low > -1:
        assert score(result.low) == pytest.approx(1.96, abs=2e-3)
    if result.high < 1:
        assert score(result.high) == pytest.approx(-1.96, abs=2e-3)
    assert result.low <= result.difference <= result.high


@pytest.mark.parametrize("p", [(0.15, 0.05), (0.3, 0.1), (0.1, 0.1)])
def test_tango_covers_the_true_difference_as_often_as_it_says(p: tuple[float, float]) -> None:
    n, draws = 200, 5_000
    counts = np.random.default_rng(2).multinomial(n, [*p, 1 - sum(p)], draws)
    unique, repeats = np.unique(counts, axis=0, return_counts=True)
    results = [paired(*outcomes(wins, losses, ties, 0)) for wins, losses, ties in unique]
    covered = np.array([r.low <= p[0] - p[1] <= r.high for r in results])
    assert (covered * repeats).sum() / draws == pytest.approx(0.95, abs=0.01)


def test_swapping_the_arms_mirrors_the_comparison() -> None:
    a, b = outcomes(30, 8, 100, 20)
    forth, back = paired(a, b), paired(b, a)
    assert (back.wins, back.losses, back.p) == (forth.losses, forth.wins, forth.p)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))


def test_paired_reads_as_it_is_reported() -> None:
    text = str(Paired(12, 2, 36, 0.2, 0.061, 0.345, 0.0129))
    assert text == "+20.0 points [+6.1, +34.5], 12 won, 2 lost, 36 tied, p=0.013"


@pytest.mark.parametrize(("a", "b"), [([True], [True, False]), ([], [])])
def test_paired_refuses_arms_that_do_not_pair(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(ValueError, match="two outcomes a seed"):
        paired(np.array(a), np.array(b))


@pytest.mark.parametrize(("n", "p"), [(100, 0.5), (200, 0.8), (300, 0.5), (400, 0.9)])
def test_the_smallest_detectable_gain_is_detected_as_often_as_asked(n: int, p: float) -> None:
    draws = 3_000
    gain = smallest_detectable(n, p, power=0.8)
    assert gain is not None
    rates = [(p + gain) * (1 - p), p * (1 - p - gain), p * (p + gain) + (1 - p) * (1 - p - gain)]
    counts = np.random.default_rng(3).multinomial(n, rates, draws)
    unique, repeats = np.unique(counts, axis=0, return_counts=True)
    found = np.array([paired(*outcomes(wins, losses, ties, 0)).p < 0.05 for wins, losses, ties in unique])
    assert (found * repeats).sum() / draws == pytest.approx(0.8, abs=0.05)


def test_no_gain_is_detectable_where_there_is_no_room_for_one() -> None:
    assert smallest_detectable(50, 0.98) is None
    assert smallest_detectable(50, 1.0) is None


def test_a_power_law_is_recovered() -> None:
    k = [1, 2, 4, 8, 16]
    found = power_law(k, [0.3 * i**-0.2 for i in k])
    assert (found.scale, found.exponent, found.r2) == pytest.approx((0.3, -0.2, 1.0))
    noisy = np.random.default_rng(4).normal(1, 0.1, 5)
    assert 0 < power_law(k, [0.3 * i**-0.2 * e for i, e in zip(k, noisy, strict=True)]).r2 < 1


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]), ([1, 2, 3], [1, 2])])
def test_a_power_law_needs_positive_points(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="three or more positive points"):
        power_law(x, y)


def test_a_mean_difference_agrees_with_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(5)
    a, b = rng.lognormal(1.0, 0.4, 30), rng.lognormal(0.8, 0.4, 30)
    found = paired_mean(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((a - b).mean())


def test_a_mean_difference_of_too_few_seeds_excludes_nothing() -> None:
    one = paired_mean(np.array([3.0]), np.array([2.0]))
    assert (one.mean, one.low, one.high) == (1.0, -math.inf, math.inf)
    assert str(paired_mean(np.array([]), np.array([]))) == "no seeds in common"
    with pytest.raises(ValueError, match="two values a seed"):
        paired_mean(np.array([1.0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("success", [True, False])
def test_seeds_that_are_all_alike_do_not_make_a_score_certain(success: bool) -> None:
    found, rate = frequency_averaged([[success] * 20] * 3), wilson(20 * success, 20)
    assert (found.mean, found.low, found.high, found.n) == (success, rate.low, rate.high, 20)
    mixed = frequency_averaged([[True] * 20, [False] * 20])
    assert mixed.low < mixed.mean == 0.5 < mixed.high
    assert frequency_averaged([[True]]).low == 0.0
