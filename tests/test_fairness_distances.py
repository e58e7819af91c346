"""Kullback-Leibler and Wasserstein distances: worked numbers, SciPy's, and how their options are refused."""

import numpy as np
import pytest
import scipy.stats

from ilqljax.errors import UserError
from ilqljax.hiring.reward.distances import find_line, kullback_leibler, make_distance, parse_ground, total_variation

LEVELS = ("junior", "middle", "senior")


def draw_shares(seed, *, n, n_categories):
    return np.random.default_rng(seed).dirichlet(np.ones(n_categories), size=n)


def test_kullback_leibler_by_hand():
    """KL((.5, .5) || (.25, .75)) = .5 ln 2 + .5 ln(2/3)."""
    value = kullback_leibler(np.array([0.5, 0.5]), np.array([0.25, 0.75]), smoothing=0.0)
    assert value == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=1e-12)


def test_smoothing_mixes_both_sides_with_the_uniform_distribution():
    value = kullback_leibler(np.array([1.0, 0.0]), np.array([0.0, 1.0]), smoothing=0.2)
    assert value == pytest.approx(0.9 * np.log(9) + 0.1 * np.log(1 / 9), abs=1e-12)
    assert kullback_leibler(np.array([1.0, 0.0]), np.array([0.0, 1.0]), smoothing=0.0) == np.inf


def test_wasserstein_sees_how_far_shares_move_along_an_order():
    """All junior onto all senior moves two steps of a half, onto all middle one; total variation sees no difference."""
    move = make_distance("wasserstein", LEVELS, ground="junior < middle < senior")
    junior, middle, senior = np.eye(3)
    assert move(junior, senior) == pytest.approx(1.0)
    assert move(junior, middle) == pytest.approx(0.5)
    assert total_variation(junior, senior) == total_variation(junior, middle) == 1.0


def test_wasserstein_along_an_order_is_scipys_with_values_at_the_places():
    shares, target = draw_shares(0, n=40, n_categories=3), draw_shares(1, n=40, n_categories=3)
    move = make_distance("wasserstein", LEVELS, ground="senior < junior < middle")
    places = [0.5, 1.0, 0.0]
    expected = [scipy.stats.wasserstein_distance(places, places, p, q) for p, q in zip(shares, target, strict=True)]
    np.testing.assert_allclose(move(shares, target), expected, atol=1e-12)


def test_wasserstein_with_equal_ground_distances_is_total_variation():
    shares, target = draw_shares(2, n=20, n_categories=4), draw_shares(3, n=20, n_categories=4)
    move = make_distance("wasserstein", tuple("abcd"))
    np.testing.assert_allclose(move(shares, target), total_variation(shares, target), atol=1e-12)


def test_the_original_example_is_far_apart_under_wasserstein():
    """DOMAIN 2.1: (.8, .2) against (.2, .8) is .6, not 0."""
    move = make_distance("wasserstein", ("a", "b"))
    assert move(np.array([0.8, 0.2]), np.array([0.2, 0.8])) == pytest.approx(0.6)


def test_linear_program_by_hand_and_against_the_closed_form():
    """b and c are close to each other and far from a: half of a goes to the nearer b, at 0.8."""
    move = make_distance("wasserstein", tuple("abc"), ground="a|b=0.8, a|c=1, b|c=0.3")
    assert move(np.array([0.5, 0.0, 0.5]), np.array([0.0, 0.5, 0.5])) == pytest.approx(0.4, abs=1e-9)
    assert move(np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])) == pytest.approx(0.5, abs=1e-9)
    shares, target = draw_shares(4, n=10, n_categories=3), draw_shares(5, n=10, n_categories=3)
    bent = make_distance("wasserstein", tuple("abc"), ground="a|b=0.5, a|c=1.0001, b|c=0.5")  # a hair off the line
    line = make_distance("wasserstein", tuple("abc"), ground="a < b < c")
    np.testing.assert_allclose(bent(shares, target), line(shares, target), atol=2e-4)


def test_undefined_shares_stay_undefined():
    move = make_distance("wasserstein", tuple("abc"), ground="a|b=0.8, a|c=1, b|c=0.3")
    assert np.isnan(move(np.full(3, np.nan), np.full(3, 1 / 3)))


def test_line_is_found_only_where_there_is_one():
    assert find_line(parse_ground("b < a < c", tuple("abc"))) is not None
    assert find_line(parse_ground("a|b=0.8, a|c=1, b|c=0.3", tuple("abc"))) is None


@pytest.mark.parametrize(
    ("ground", "message"),
    [
        ("a < b", "name each category once"),
        ("a|b=1, a|c=1", r"lacks the pair b\|c"),
        ("a|b=1, a|d=1", "not a pair of categories"),
        ("a|b=-1, a|c=1, b|c=1", "number from 0 on, got '-1'"),
        ("a|b=0.5, b|a=0.9, a|c=1, b|c=1", r"names the pair b\|a twice"),
        ("a|b=nan, a|c=1, b|c=1", "number from 0 on"),
    ],
)
def test_bad_ground_distance_is_refused(ground, message):
    with pytest.raises(UserError, match=message):
        parse_ground(ground, tuple("abc"))


def test_bad_smoothing_and_name_are_refused():
    with pytest.raises(UserError, match=r"smoothing=1\.0"):
        make_distance("kullback_leibler", ("a", "b"), smoothing=1.0)
    with pytest.raises(UserError, match=r"'euclid'.*total_variation, jensen_shannon, .*kullback_leibler, wasserstein"):
        make_distance("euclid", ("a", "b"))
