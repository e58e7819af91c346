"""Ratios of shares: published intervals, a slow twin, the agreement of interval and test, and coverage near 1."""

import itertools

import numpy as np
import pytest
import scipy.stats

from ilqljax.hiring.proportions import ratio_interval, ratio_test, score_statistic


@pytest.mark.parametrize(
    ("counts", "expected", "tolerance"),
    [
        ((36, 40, 16, 80), (4.5, 2.94, 7.15), 5e-3),  # Koopman 1984, his example
        ((7, 34, 1, 34), (7.0, 1.220853, 42.575718), 5e-4),  # R, PropCIs::riskscoreci
    ],
)
def test_published_intervals(monkeypatch, counts, expected, tolerance):
    """Those are Koopman's with chi squared throughout."""
    monkeypatch.setattr("ilqljax.hiring.proportions.MIN_EXPECTED_COUNT", 0)
    assert tuple(ratio_interval(*counts)) == pytest.approx(expected, rel=tolerance)


def test_with_chi_squared_nobody_missing_has_wilsons_ends(monkeypatch):
    """With all of 40 and all of 400 the statistic is 40 (1 - r) / r below 1 and 400 (r - 1) above it."""
    monkeypatch.setattr("ilqljax.hiring.proportions.MIN_EXPECTED_COUNT", 0)
    z2 = scipy.stats.norm.ppf(0.975) ** 2
    assert tuple(ratio_interval(40, 40, 400, 400)) == pytest.approx((1.0, 1 / (1 + z2 / 40), 1 + z2 / 400), rel=1e-6)


def test_most_likely_shares_are_those_of_a_search():
    for counts, ratio in itertools.product([(3, 9, 20, 25), (9, 9, 20, 25), (0, 9, 5, 25)], (0.3, 0.8, 1.0, 1.7)):
        _, share_a, share_b = score_statistic(*counts, ratio=ratio)
        grid = np.linspace(1e-9, min(1.0, 1.0 / ratio) - 1e-9, 200_001)
        x, m, y, n = counts
        log = scipy.special.xlogy
        likelihood = log(x, ratio * grid) + log(m - x, 1 - ratio * grid) + log(y, grid) + log(n - y, 1 - grid)
        assert share_b == pytest.approx(grid[likelihood.argmax()], abs=1e-5)
        assert share_a == pytest.approx(ratio * share_b, abs=1e-9)


def test_large_counts_use_chi_squared():
    expected = scipy.stats.chi2_contingency([[45, 55], [60, 40]], correction=False).pvalue
    assert ratio_test(45, 100, 60, 100) == (pytest.approx(expected), "score")


def test_small_counts_are_added_up_as_a_slow_twin_does():
    """All 9 x 10 pairs of counts, each with its probability under the pooled share 7 / 17."""
    seen, chance = scipy.stats.chi2_contingency([[1, 7], [6, 3]], correction=False).statistic, 0.0
    for x, y in itertools.product(range(9), range(10)):
        observed = np.array([[x, 8 - x], [y, 9 - y]])
        possible = 0 < x + y < 17
        statistic = scipy.stats.chi2_contingency(observed, correction=False).statistic if possible else 0.0
        weight = scipy.stats.binom.pmf(x, 8, 7 / 17) * scipy.stats.binom.pmf(y, 9, 7 / 17)
        chance += weight * (statistic >= seen - 1e-9)
    assert ratio_test(1, 8, 6, 9) == (pytest.approx(chance, rel=1e-6), "score, added up")


def test_tests_without_information():
    assert ratio_test(0, 30, 0, 40)[0] == ratio_test(30, 30, 40, 40)[0] == 1.0
    assert np.isnan(ratio_test(0, 0, 3, 9)[0])
    assert np.isnan(ratio_interval(0, 0, 3, 9)).all() and np.isnan(ratio_interval(3, 9, 0, 9)).all()


@pytest.mark.parametrize("counts", [*itertools.product([0, 1, 6, 11, 12], [12], [1, 14, 29, 30], [30])])
def test_interval_leaves_out_one_exactly_where_the_test_refuses_it_and_is_never_without_width(counts):
    value, low, high = ratio_interval(*counts)
    assert (low <= 1.0 <= high) == (ratio_test(*counts)[0] >= 0.05)
    assert 0 <= low <= value < high and (low < value or value == 0)


def test_interval_turned_round_is_the_interval_of_the_others():
    value, low, high = ratio_interval(38, 40, 400, 400)
    assert tuple(ratio_interval(400, 400, 38, 40)) == pytest.approx((1 / value, 1 / high, 1 / low), rel=1e-6)


def test_coverage_of_forty_against_four_hundred_near_one():
    """With chi squared alone it would be 90.9 %, as 39 of 40 against 400 of 400 would be refused."""
    shares, covered = (0.995, 0.998), 0.0
    chances = [scipy.stats.binom.pmf(np.arange(n + 1), n, p) for n, p in zip((40, 400), shares, strict=True)]
    for x, y in itertools.product(range(37, 41), range(395, 401)):
        _, low, high = ratio_interval(x, 40, y, 400)
        covered += chances[0][x] * chances[1][y] * (low <= shares[0] / shares[1] <= high)
    assert covered >= 0.94


def test_large_counts_with_a_share_near_one_stay_quick_and_close_to_chi_squared(monkeypatch):
    counts = (99_990, 100_000, 80_000, 100_000)
    found = ratio_interval(*counts)
    monkeypatch.setattr("ilqljax.hiring.proportions.MIN_EXPECTED_COUNT", 0)
    assert tuple(found) == pytest.approx(tuple(ratio_interval(*counts)), rel=1e-4)
