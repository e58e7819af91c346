"""Counts, targets, distances against worked numbers and SciPy, the score and its noise floor."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from ilqljax.errors import UserError
from ilqljax.hiring.reward.distances import (
    DISTANCES,
    jensen_shannon,
    original_wasserstein,
    total_variation,
)
from ilqljax.hiring.reward.diversity import (
    CategoryCounts,
    count_categories,
    diversity_score,
    fixed_target,
    noise_floor,
    normalize_counts,
    pool_share,
)

SWAPPED = (np.array([0.8, 0.2]), np.array([0.2, 0.8]))


def draw_shares(seed: int, *, n: int, n_categories: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(n_categories), size=n)


def test_counts_leave_unknown_apart():
    counts = count_categories(np.array([[0, 1, -1, 1], [-1, -1, -1, -1]]), 3)
    np.testing.assert_array_equal(counts.counts, [[1, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(counts.n_unknown, [1, 4])


def test_distribution_of_nobody_known_is_undefined():
    np.testing.assert_array_equal(normalize_counts(np.array([[1, 3], [0, 0]])), [[0.25, 0.75], [np.nan, np.nan]])


def test_codes_outside_the_categories_are_refused():
    with pytest.raises(UserError, match=r"-1 .* to 1"):
        count_categories(np.array([0, 2]), 2)


def test_targets():
    np.testing.assert_allclose(pool_share(np.array([0, 0, 0, 1, -1, -1]), 2), [0.75, 0.25])
    assert np.isnan(pool_share(np.array([-1, -1]), 2)).all()
    np.testing.assert_allclose(fixed_target({"b": 0.3, "a": 0.7}, ("a", "b")), [0.7, 0.3])


def test_bad_targets_are_refused():
    with pytest.raises(UserError, match="categories are"):
        fixed_target({"a": 1.0}, ("a", "b"))
    for shares in ({"a": 0.7, "b": 0.7}, {"a": 1.5, "b": -0.5}, {"a": float("nan"), "b": 0.5}):
        with pytest.raises(UserError, match="add up to 1"):
            fixed_target(shares, ("a", "b"))


def test_swapped_shares_are_far_apart_except_for_the_original():
    assert total_variation(*SWAPPED) == pytest.approx(0.6)
    assert jensen_shannon(*SWAPPED) > 0.5
    assert original_wasserstein(*SWAPPED) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(("target", "expected"), [([0.8, 0.2], 0.0422), ([0.54, 0.46], 0.3022)])
def test_original_numbers(target, expected):
    """DOMAIN 2.1 prints the shares rounded to .842; its results come from .8422."""
    assert original_wasserstein(np.array([0.8422, 0.1578]), np.array(target)) == pytest.approx(expected, abs=1e-12)
    assert original_wasserstein(np.array([0.842, 0.158]), np.array(target)) == pytest.approx(expected, abs=3e-4)


def test_original_distance_is_scipy_on_the_vectors_as_samples():
    shares, target = draw_shares(0, n=50, n_categories=5), draw_shares(1, n=50, n_categories=5)
    expected = [scipy.stats.wasserstein_distance(p, q) for p, q in zip(shares, target, strict=True)]
    np.testing.assert_allclose(original_wasserstein(shares, target), expected, rtol=1e-12)


def test_jensen_shannon_is_scipys_distance_in_bits_and_stays_within_one():
    shares, target = draw_shares(2, n=50, n_categories=4), draw_shares(3, n=50, n_categories=4)
    expected = scipy.spatial.distance.jensenshannon(shares, target, base=2, axis=1)
    np.testing.assert_allclose(jensen_shannon(shares, target), expected, rtol=1e-7)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_ignores_a_renaming_of_the_categories_in_both(name):
    shares, target = draw_shares(4, n=20, n_categories=4), draw_shares(5, n=20, n_categories=4)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        DISTANCES[name](shares[:, order], target[:, order]), DISTANCES[name](shares, target), atol=1e-12
    )


@pytest.mark.parametrize("name", ["total_variation", "jensen_shannon"])
def test_distance_sees_which_category_holds_which_share(name):
    """Permuting one side must matter; the original's distance is blind to it."""
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    permuted = shares[[1, 2, 3, 0]]
    assert DISTANCES[name](shares, permuted) > 0.3
    assert original_wasserstein(shares, permuted) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_is_zero_for_equals(name):
    shares = draw_shares(6, n=20, n_categories=3)
    np.testing.assert_allclose(DISTANCES[name](shares, shares), 0.0, atol=1e-7)


@pytest.mark.parametrize("name", ["total_variation", "jensen_shannon", "original_wasserstein"])
def test_distance_is_symmetric(name):
    shares, target = draw_shares(6, n=20, n_categories=3), draw_shares(7, n=20, n_categories=3)
    np.testing.assert_allclose(DISTANCES[name](shares, target), DISTANCES[name](target, shares), rtol=1e-12)


def test_scores_of_hand_worked_shortlists():
    shortlists = np.array([[0, 0, 0, 1], [0, 1, -1, -1], [-1, -1, -1, -1], [0, 0, 0, 0]])
    np.testing.assert_allclose(diversity_score(shortlists, np.array([0.5, 0.5])), [-25.0, 0.0, -100.0, -50.0])


@pytest.mark.parametrize("name", DISTANCES)
def test_nobody_known_scores_the_worst_under_every_distance(name):
    assert diversity_score(np.array([-1, -1]), np.array([0.5, 0.5]), distance=DISTANCES[name]) == -100.0


def test_score_does_not_depend_on_the_batch_it_is_computed_in():
    codes = np.random.default_rng(8).integers(-1, 3, size=(2, 5, 10))
    scores = diversity_score(codes, np.full(3, 1 / 3))
    assert scores.shape == (2, 5)
    assert scores[1, 3] == diversity_score(codes[1, 3], np.full(3, 1 / 3))


def test_noise_floor_of_fifty_fair_labels():
    """E|X - 25| / 50 for X ~ Binomial(50, 1/2) is .0561; so large a pool draws as if with replacement.

    |X - 25| reaches 8 in 3.3 % of the draws and 9 in 1.5 %, so the lower end at 2.5 % is -100 * 8 / 50.
    """
    exact = -100 * np.abs(np.arange(51) - 25) @ scipy.stats.binom.pmf(np.arange(51), 50, 0.5) / 50
    assert exact == pytest.approx(-5.61, abs=5e-3)
    pool = CategoryCounts(np.array([500_000, 500_000]), np.array(0))
    floor = noise_floor(np.array([0.5, 0.5]), 50, pool=pool, seed=0, n_draws=40_000)
    assert floor.value == pytest.approx(exact, abs=0.08)  # four standard errors of the simulation
    assert floor.low == -16.0 and floor.high == 0.0


def test_noise_floor_of_the_whole_pool_is_its_own_distance():
    pool = CategoryCounts(np.array([30, 10]), np.array(5))
    floor = noise_floor(np.array([0.5, 0.5]), 45, pool=pool, n_draws=10)
    assert tuple(floor) == pytest.approx((-25.0, -25.0, -25.0))


def test_noise_floor_equals_scores_of_random_shortlists():
    codes = np.repeat([0, 1, 2, -1], [30, 15, 10, 5])
    target = pool_share(codes, 3)
    rng = np.random.default_rng(9)
    scores = diversity_score(np.array([rng.choice(codes, 10, replace=False) for _ in range(4000)]), target)
    floor = noise_floor(target, 10, pool=count_categories(codes, 3), seed=1)
    assert floor.value == pytest.approx(scores.mean(), abs=4 * scores.std() / np.sqrt(2800))


def test_noise_floor_repeats_with_its_seed_and_refuses_a_large_k():
    pool = CategoryCounts(np.array([5, 5]), np.array(1))
    assert noise_floor(np.full(2, 0.5), 3, pool=pool, seed=3) == noise_floor(np.full(2, 0.5), 3, pool=pool, seed=3)
    with pytest.raises(UserError, match=r"k=12.*11"):
        noise_floor(np.full(2, 0.5), 12, pool=pool)
