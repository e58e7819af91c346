"""Skew, NDKL and exposure by hand and against slow twins, and their values under a random order."""

from itertools import permutations

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.audit.ranking import (
    expected_ndkl,
    expected_skew,
    expected_skew_range,
    exposure_ratio,
    ndkl,
    skew,
    skew_range,
)
from ilqljax.hiring.reward.diversity import CategoryCounts, count_categories, normalize_counts

HALF = np.array([0.5, 0.5])
THREE = np.array([0.5, 0.3, 0.2])


def test_skew_by_hand():
    """Three of four against a half, with one member more, split as the target: ln(3.5 / 2.5) and ln(1.5 / 2.5)."""
    codes = np.array([0, 0, 1, 0, 1, 1])
    np.testing.assert_allclose(skew(codes, HALF, 4), [np.log(1.4), np.log(0.6)])


def test_list_that_equals_the_target_has_no_skew():
    codes = np.repeat([0, 1, 2], [5, 3, 2])
    np.testing.assert_allclose(skew(codes, THREE, 10), np.zeros(3), atol=1e-12)


def test_absent_category_has_a_finite_skew():
    np.testing.assert_allclose(skew(np.zeros(4, int), HALF, 4)[1], np.log((0.5 / 5) / 0.5))


def test_unknown_members_belong_to_no_category():
    np.testing.assert_allclose(skew(np.array([0, -1, 1, -1]), HALF, 4), [0.0, 0.0], atol=1e-12)


def test_list_of_nobody_known_has_no_skew():
    skews = skew(np.array([[-1, -1, 0], [0, -1, 0]]), HALF, 2)
    assert np.isnan(skews[0]).all() and not np.isnan(skews[1]).any()


def test_category_without_a_target_share_has_no_skew_and_is_left_out_of_the_range():
    skews = skew(np.array([0, 1, 2]), np.array([0.5, 0.5, 0.0]), 3)
    assert np.isnan(skews[2])
    assert skew_range(skews) == pytest.approx((np.log(1.5 / 4 / 0.5), np.log(1.5 / 4 / 0.5)))


def test_min_and_max_skew_are_the_extremes():
    assert skew_range(np.array([0.3, -0.4, 0.1])) == pytest.approx((-0.4, 0.3))


def test_k_beyond_the_list_is_refused():
    with pytest.raises(UserError, match="skew@5 of a list of 4"):
        skew(np.zeros(4, int), HALF, 5)


def test_ndkl_by_hand():
    """The docstring's table."""
    second = 1 / np.log2(3)
    assert ndkl(np.array([0, 1]), HALF) == pytest.approx(np.log(2) / (1 + second))
    assert ndkl(np.array([0, 0]), HALF) == pytest.approx(np.log(2))
    assert ndkl(np.array([-1, 0]), HALF) == pytest.approx(np.log(2))


def test_ndkl_is_a_slow_twins():
    rng = np.random.default_rng(0)
    for codes in rng.integers(-1, 3, size=(20, 12)):
        total = weight = 0.0
        for i in range(1, 13):
            known = [c for c in codes[:i] if c >= 0]
            if known:
                shares = [known.count(c) / len(known) for c in range(3)]
                total += sum(p * np.log(p / q) for p, q in zip(shares, THREE, strict=True) if p) / np.log2(i + 1)
                weight += 1 / np.log2(i + 1)
        assert ndkl(codes, THREE) == pytest.approx(total / weight, abs=1e-12)


def test_ndkl_refuses_members_of_a_category_with_no_target_share():
    with pytest.raises(UserError, match="target share of 0 has members"):
        ndkl(np.array([0, 1]), np.array([1.0, 0.0]))


def test_alternating_order_has_a_lower_ndkl_than_blocks():
    assert ndkl(np.tile([0, 1], 5), HALF) < ndkl(np.repeat([0, 1], 5), HALF)


def test_exposure_by_hand():
    """The docstring's list a b b: weights 1, 0.631, 0.5."""
    weights = [1.0, 1 / np.log2(3), 0.5]
    found = exposure_ratio(np.array([0, 1, 1]), np.array([0.5, 0.25]))
    np.testing.assert_allclose(found, [2 / sum(weights), 4 - 4 / sum(weights)])


def test_expected_values_are_means_over_every_order():
    codes = np.array([0, 0, 1, 2, -1])
    pool = count_categories(codes, 3)
    every = np.array(list(permutations(codes)))
    np.testing.assert_allclose(expected_skew(THREE, 3, pool=pool), skew(every, THREE, 3).mean(axis=0), atol=1e-12)
    shares = (exposure_ratio(every, THREE) * THREE).mean(axis=0)
    np.testing.assert_allclose(normalize_counts(pool.counts), shares, atol=1e-12)
    spread = ndkl(every[:, :3], THREE)
    assert expected_ndkl(THREE, 3, pool=pool) == pytest.approx(spread.mean(), abs=4 * spread.std() / np.sqrt(4000))
    found, expected = skew_range(skew(every, THREE, 3)), expected_skew_range(THREE, 3, pool=pool)
    for value, values in zip(expected, found, strict=True):
        assert value == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(4000))


def test_expected_skew_leaves_out_lists_of_nobody_known():
    codes = np.array([0, 0, 1, -1, -1, -1])
    pool, every = count_categories(codes, 2), np.array(list(permutations(codes)))
    skews = skew(every, HALF, 2)
    assert np.isnan(skews).any()
    np.testing.assert_allclose(expected_skew(HALF, 2, pool=pool), np.nanmean(skews, axis=0), atol=1e-12)
    found, expected = skew_range(skews), expected_skew_range(HALF, 2, pool=pool)
    for value, values in zip(expected, found, strict=True):
        assert value == pytest.approx(np.nanmean(values), abs=4 * np.nanstd(values) / np.sqrt(3000))


def test_expected_values_are_undefined_without_a_known_member():
    pool = CategoryCounts(np.array([0, 0]), np.array(9))
    assert np.isnan(expected_skew(HALF, 3, pool=pool)).all()
    assert np.isnan([*expected_skew_range(HALF, 3, pool=pool), expected_ndkl(HALF, 3, pool=pool)]).all()


def test_a_fair_order_has_a_negative_expected_skew_and_a_positive_ndkl():
    pool = CategoryCounts(np.array([500, 500]), np.array(0))
    assert (expected_skew(HALF, 10, pool=pool) < 0).all()
    assert expected_ndkl(HALF, 50, pool=pool, n_draws=500) > 0
