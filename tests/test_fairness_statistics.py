"""Intervals against worked numbers, coverage and SciPy."""

import numpy as np
import pytest
import scipy.stats

from ilqljax.errors import UserError
from ilqljax.hiring.statistics import (
    bootstrap_mean,
    cluster_bootstrap,
    divide,
    wilson_interval,
)


def pool_rate(sums: np.ndarray) -> np.ndarray:
    return divide(sums[..., 0], sums[..., 1])


def test_wilson_interval_equals_scipy_and_is_undefined_without_trials():
    rate, low, high = wilson_interval(np.array([0, 3, 10, 0]), np.array([10, 10, 10, 0]))
    for i, successes in enumerate((0, 3, 10)):
        expected = scipy.stats.binomtest(successes, 10).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    np.testing.assert_allclose(rate[:3], [0.0, 0.3, 1.0])
    assert np.isnan([rate[3], low[3], high[3]]).all()


def test_bootstrap_of_a_mean_is_near_the_t_interval():
    values = np.random.default_rng(0).normal(2.0, 3.0, size=40)
    expected = scipy.stats.t.interval(0.95, 39, loc=values.mean(), scale=scipy.stats.sem(values))
    value, low, high = bootstrap_mean(values, seed=1)
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(expected, abs=0.12)


def test_bootstrap_interval_covers_the_true_mean_at_its_level():
    """400 samples of 25: a true 95 % would be covered 380 times, give or take 4.4."""
    rng = np.random.default_rng(2)
    covered = 0
    for sample in range(400):
        _, low, high = bootstrap_mean(rng.normal(1.0, 2.0, size=25), seed=sample, n_resamples=600)
        covered += low <= 1.0 <= high
    assert 364 <= covered <= 394


def test_bootstrap_resamples_clusters_not_members():
    """Ten members who always agree carry the information of one: the interval must be as wide as for ten clusters."""
    selected = np.array([10, 0, 10, 10, 0, 0, 10, 0, 0, 10])
    whole = cluster_bootstrap(np.stack([selected, np.full(10, 10)], axis=1), pool_rate, seed=0)
    alone = bootstrap_mean(selected / 10, seed=0)
    assert tuple(whole) == pytest.approx(tuple(alone))
    naive = wilson_interval(50, 100)
    assert whole.high - whole.low > 2 * (naive.high - naive.low)


def test_bootstrap_of_constant_differences_has_no_width():
    assert tuple(map(float, bootstrap_mean(np.full(5, 3.0), seed=0))) == pytest.approx((3.0, 3.0, 3.0))


def test_bootstrap_repeats_with_its_seed_and_blocks_change_nothing(monkeypatch):
    values = np.random.default_rng(3).normal(size=20)
    first = bootstrap_mean(values, seed=5, n_resamples=500)
    monkeypatch.setattr("ilqljax.hiring.statistics.DRAWS_PER_BLOCK", 70)
    assert bootstrap_mean(values, seed=5, n_resamples=500) == pytest.approx(first)
    assert bootstrap_mean(values, seed=6, n_resamples=500) != first


def test_bootstrap_of_one_cluster_has_no_interval_and_of_none_is_refused():
    assert np.isnan(bootstrap_mean(np.array([1.0]), seed=0)[1:]).all()
    with pytest.raises(UserError, match="got none"):
        bootstrap_mean(np.array([]), seed=0)


def test_bootstrap_is_undefined_when_many_resamples_are():
    """Only one of twenty clusters has members, so a third of the resamples have none."""
    rows = np.zeros((20, 2))
    rows[0] = (1, 2)
    value, low, high = cluster_bootstrap(rows, pool_rate, seed=0, n_resamples=500)
    assert value == 0.5 and np.isnan(low) and np.isnan(high)
