"""Scores over several attributes, intersections, targets by group, exposure weights, and exact noise floors."""

from itertools import combinations

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.postings.posting import Candidate
from ilqljax.hiring.reward.diversity import (
    CategoryCounts,
    count_categories,
    diversity_score,
    exact_noise_floor,
    exposure_weights,
    noise_floor,
    weigh_categories,
)
from ilqljax.hiring.reward.scores import RewardConfig, ShortlistScorer, make_targets, parse_shares, select_targets

ROWS = [("f", "n", "cook"), ("f", "s", "cook"), ("m", "n", "nurse"), ("m", "s", "nurse"), ("f", "", "nurse")]
TABLE = AttributeTable.from_candidates(
    [Candidate(str(i), "text", dict(zip(("sex", "region", "job"), row, strict=True))) for i, row in enumerate(ROWS)]
)

NO_SMOOTHING = {"distance": "kullback_leibler", "smoothing": 0.0}


def make_scorer(**settings) -> ShortlistScorer:
    return ShortlistScorer(TABLE, RewardConfig(**{"attribute": "sex", "target": "uniform"} | settings))


def test_several_attributes_count_the_same():
    """Rows 0 and 1: all f (TV .5 from half and half), one n and one s (TV 0)."""
    assert make_scorer(attribute="sex, region").score(np.array([[0, 1]]))[0] == pytest.approx(-25.0)


def test_intersections_may_have_three_parts():
    """Rows 0, 1 and 2 fill three of the four joint categories that the pool has: TV (3 (1/3 - 1/4) + 1/4) / 2 = .25."""
    scorer = make_scorer(attribute="sex x region x job")
    assert scorer.score(np.array([[0, 1, 2]]))[0] == pytest.approx(-25.0)


def test_intersection_counts_members_known_in_all_parts():
    """Rows 0 and 4: one f / n, one unknown; one category of four holds all, TV .75."""
    assert make_scorer(attribute="sex x region").score(np.array([[0, 4]]))[0] == pytest.approx(-75.0)


def test_group_targets_from_the_candidates_of_the_same_group():
    """Cooks are all f, nurses one f of three: all f scores 0 for a cook, -100 * 2/3 for a nurse."""
    scorer = make_scorer(target="group", group_attribute="job")
    np.testing.assert_allclose(scorer.score(np.array([[0, 1], [0, 1]]), ["cook", "nurse"]), [0.0, -200 / 3])


def test_group_without_a_target_is_refused():
    with pytest.raises(UserError, match=r"no target for the job group 'pilot'.*cook, nurse"):
        make_scorer(target="group", group_attribute="job").score(np.array([[0, 1]]), ["pilot"])


def test_star_is_the_target_of_every_other_group():
    targets = make_targets("group", TABLE.attribute("sex"), shares="cook: f=1, m=0; *: f=0.5, m=0.5")
    np.testing.assert_allclose(select_targets(targets, ["cook", "pilot"]), [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "fixed"}, "needs shares of 'sex'"),
        ({"target": "fixed", "shares": "f=0.5, w=0.5"}, r"categories are \['f', 'm'\]"),
        ({"target": "fixed", "shares": "f=-1, m=2"}, "number from 0 on"),
        ({"target": "fixed", "shares": "f"}, "'f' is not name=number"),
        ({"target": "group"}, "one section a job group"),
        ({"target": "half"}, "target='half' is unknown"),
        ({"shares": "f=0.9, m=0.1"}, r"target='uniform' takes no shares, got 'f=0\.9, m=0\.1'\. Set target='fixed'"),
        ({"target": "pool", "shares": "f=0.9, m=0.1"}, "target='pool' takes no shares"),
        (
            {"group_attribute": "job"},
            "group_attribute='job' is for target='group' without shares, got target='uniform'",
        ),
        ({"target": "group", "group_attribute": "job", "shares": "*: f=1, m=0"}, "without shares, got target='group'"),
        ({"ground": "f < m"}, "ground='f < m' is of distance='wasserstein', got 'total_variation'"),
        ({"smoothing": 0.1}, r"smoothing=0\.1 is of distance='kullback_leibler', got 'total_variation'"),
        ({**NO_SMOOTHING, "target": "fixed", "shares": "f=1, m=0"}, "smoothing=0 is infinite.*share of 'm' is 0"),
        ({**NO_SMOOTHING, "target": "group", "group_attribute": "job"}, "smoothing=0 is infinite.*share of 'm' is 0"),
        ({"weights": "log"}, "weights='log' is unknown"),
        ({"attribute": ","}, "names none"),
        ({"attribute": "age"}, "Unknown attribute 'age'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_scorer(**settings)


def test_shares_are_read_by_section():
    assert parse_shares("a=1") == {"": {"a": 1.0}}
    assert parse_shares("x: a=0.5, b=0.5; *: a=1, b=0") == {"x": {"a": 0.5, "b": 0.5}, "*": {"a": 1.0, "b": 0.0}}


def test_exposure_weighs_the_first_places_most():
    weights = exposure_weights(3)
    np.testing.assert_allclose(weights, [1.0, 1 / np.log2(3), 0.5])
    np.testing.assert_allclose(weigh_categories(np.array([0, -1, 1]), 2, weights=weights), [1.0, 0.5])
    first, last = np.array([0, 1, 1]), np.array([1, 1, 0])
    target = np.array([0.5, 0.5])
    assert diversity_score(first, target) == diversity_score(last, target)
    assert diversity_score(first, target, weights=weights) > diversity_score(last, target, weights=weights)


def test_exact_noise_floor_is_the_mean_over_every_shortlist():
    codes = np.array([0, 0, 0, 1, 1, 2, -1, -1])
    target = np.array([0.5, 0.3, 0.2])
    every = np.array([codes[list(members)] for members in combinations(range(8), 3)])
    expected = diversity_score(every, target).mean()
    assert exact_noise_floor(target, 3, pool=count_categories(codes, 3)) == pytest.approx(expected, abs=1e-10)


def test_exact_noise_floor_counts_shortlists_of_nobody_known():
    codes = np.array([0, 1, -1, -1])
    every = np.array([codes[list(members)] for members in combinations(range(4), 2)])
    expected = diversity_score(every, np.array([0.5, 0.5])).mean()
    assert exact_noise_floor(np.array([0.5, 0.5]), 2, pool=count_categories(codes, 2)) == pytest.approx(expected)


def test_exact_noise_floor_of_fifty_fair_labels():
    """DOMAIN 2.10: with 50 fair labels chance scores -5.61."""
    pool = CategoryCounts(np.array([500_000, 500_000]), np.array(0))
    assert exact_noise_floor(np.array([0.5, 0.5]), 50, pool=pool) == pytest.approx(-5.61, abs=5e-3)


def test_simulated_noise_floor_with_exposure_equals_scores_of_random_orders():
    codes = np.repeat([0, 1, -1], [30, 20, 10])
    target, weights = np.array([0.6, 0.4]), exposure_weights(8)
    rng = np.random.default_rng(0)
    draws = np.array([rng.choice(codes, 8, replace=False) for _ in range(4000)])
    scores = diversity_score(draws, target, weights=weights)
    floor = noise_floor(target, 8, pool=count_categories(codes, 2), weights=weights, seed=1)
    assert floor.value == pytest.approx(scores.mean(), abs=4 * scores.std() / np.sqrt(2800))


def test_floor_by_group_is_the_average_of_the_groups_floors():
    scorer = make_scorer(target="group", shares="a: f=1, m=0; b: f=0, m=1")
    floors = [scorer.floor_of_term(scorer.terms[0], 2, [group]) for group in "ab"]
    exact = scorer.floor_of_term(scorer.terms[0], 2, ["a", "b", "b"])
    assert exact == pytest.approx((floors[0] + 2 * floors[1]) / 3)
    simulated = scorer.simulate_floor(2, ["a", "b", "b"], n_draws=4000)
    assert simulated.value == pytest.approx(exact, abs=4 * 40 / np.sqrt(4000))
