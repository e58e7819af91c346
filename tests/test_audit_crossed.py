"""Intervals over postings and candidates, and shuffled labels: by hand, by slow twins, and how often they cover."""

from itertools import permutations

import numpy as np
import pytest
import scipy.stats

from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.audit.crossed import (
    _find_effective_size,
    crossed_change,
    crossed_ratio,
    find_influence,
    pair_measures,
    pair_rows,
    pair_selection,
    sum_shared,
    tally_pairs,
)
from ilqljax.hiring.audit.program import make_matcher
from ilqljax.hiring.audit.rates import find_eligible, ratios_and_smallest, shuffle_labels, tabulate_rates
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.matching.matcher import NOBODY, Matches, match_texts
from ilqljax.hiring.proportions import ratio_interval, ratio_test

N_SAMPLES = 200


def draw_shortlists(seed: int, *, n_postings: int, k: int, n_candidates: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(n_candidates, k, replace=False) for _ in range(n_postings)])


def draw_codes(seed: int, *, n: int, n_categories: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, n_categories, n)


def influences(pairs, codes, n_categories=2):
    tally = tally_pairs(pairs, codes, n_categories=n_categories)
    return [find_influence(tally, np.arange(n_categories) == c) for c in range(n_categories)]


def list_pairs(indices, n_selected, n_candidates):
    """Return dense matrices of the selected and assessed pairs of selection."""
    assessed, selected = np.zeros((2, len(indices), n_candidates))
    for g, row in enumerate(indices):
        assessed[g, row], selected[g, row[:n_selected]] = 1, 1
    return selected, assessed


def pair_shortlisting(indices, *, n_candidates):
    matches = Matches(indices, np.zeros(indices.shape))
    return pair_measures(matches, n_candidates=n_candidates, n_selected=1)["shortlisting"]


def pair_market(postings, candidates, *, top):
    """Return the pairs of shortlisting of a market."""
    matches = match_texts(make_matcher("tfidf", candidates), [p.description for p in postings], top)
    return pair_measures(matches, n_candidates=len(candidates), n_selected=10)["shortlisting"]


def dense_influence(selected, assessed, codes, category):
    chosen = codes == category
    rate = selected[:, chosen].sum() / assessed[:, chosen].sum()
    return np.where(chosen, selected - rate * assessed, 0.0) / selected[:, chosen].sum()


def corrected(sums, n):
    return (sums**2).sum() * n / (n - 1)


def test_measures_count_who_is_assessed_and_selected():
    indices, scores = np.array([[3, 1, 0], [3, 2, -1]]), np.array([[0.9, 0.5, 0.1], [0.9, 0.2, np.nan]])
    measures = pair_measures(Matches(indices, scores), n_candidates=4, n_selected=1)
    for name, assessed, selected in (
        ("shortlisting", [2, 2, 2, 2], [1, 1, 1, 2]),
        ("selection", [1, 1, 1, 2], [0, 0, 0, 2]),
        ("scoring", [1, 1, 1, 2], [0, 0, 0, 2]),  # the median is .5, not above it
    ):
        tally = tally_pairs(measures[name], np.zeros(4, int), n_categories=1)
        np.testing.assert_array_equal(tally.candidate_assessed, assessed)
        np.testing.assert_array_equal(tally.candidate_selected, selected)


def test_interval_over_both_is_a_slow_twins():
    indices, codes = draw_shortlists(0, n_postings=12, k=8, n_candidates=40), draw_codes(1, n=40)
    a, b = influences(pair_selection(indices, n_candidates=40, n_selected=3), codes)
    selected, assessed = list_pairs(indices, 3, 40)
    e = dense_influence(selected, assessed, codes, 0) - dense_influence(selected, assessed, codes, 1)
    people = min(np.bincount(codes[assessed.any(axis=0) & (codes >= 0)]))
    postings, candidates = corrected(e.sum(axis=1), 12), corrected(e.sum(axis=0), people)
    variance = max(postings + candidates - (e**2).sum(), postings, candidates)
    estimate, _ = crossed_ratio(a, b)
    t = scipy.stats.t.ppf(0.975, df=min(12, people) - 1)
    expected = estimate.value * np.exp([-t * np.sqrt(variance), t * np.sqrt(variance)])
    np.testing.assert_allclose([estimate.low, estimate.high], expected, rtol=1e-10)


def test_candidates_whom_nobody_assessed_change_nothing():
    indices, codes = draw_shortlists(0, n_postings=12, k=8, n_candidates=40), draw_codes(1, n=60)
    few = influences(pair_selection(indices, n_candidates=40, n_selected=3), codes[:40])
    many = influences(pair_selection(indices, n_candidates=60, n_selected=3), codes)
    assert crossed_ratio(*few) == crossed_ratio(*many)


def test_interval_of_a_ready_table_is_the_score_interval():
    """One row a candidate is one independent trial."""
    codes = np.repeat([0, 1], [40, 60])
    selected = np.concatenate([np.arange(40) < 10, np.arange(60) < 30])
    estimate, p_value = crossed_ratio(*influences(pair_rows(selected), codes))
    assert tuple(estimate) == tuple(ratio_interval(10, 40, 30, 60)) and estimate.value == 0.5
    assert p_value == ratio_test(10, 40, 30, 60)[0]


def test_copies_of_a_posting_add_nothing_to_what_is_known_of_the_candidates():
    """Thirty copies of three postings: the same candidates, so the interval must not shrink with the copies."""
    indices, codes = draw_shortlists(2, n_postings=3, k=60, n_candidates=200), draw_codes(3, n=200)
    once = influences(pair_shortlisting(indices, n_candidates=200), codes)
    copies = influences(pair_shortlisting(np.tile(indices, (30, 1)), n_candidates=200), codes)
    errors = [np.sqrt((part[0].candidates ** 2).sum() + (part[1].candidates ** 2).sum()) for part in (once, copies)]
    assert errors[0] == pytest.approx(errors[1])
    wide, _ = crossed_ratio(*copies)
    assert np.log(wide.high / wide.low) > 2 * 1.96 * errors[1]


def test_change_is_a_slow_twins_and_echo_changes_nothing():
    old, new = (draw_shortlists(seed, n_postings=9, k=12, n_candidates=50) for seed in (4, 5))
    codes = draw_codes(6, n=50)
    before, after = (pair_selection(i, n_candidates=50, n_selected=4) for i in (old, new))
    first, second = influences(before, codes), influences(after, codes)
    shared = sum(sum_shared(before, after, first[c], second[c]) for c in range(2))
    e_old, e_new = (
        dense_influence(*list_pairs(i, 4, 50), codes, 0) - dense_influence(*list_pairs(i, 4, 50), codes, 1)
        for i in (old, new)
    )
    assert shared == pytest.approx((e_old * e_new).sum(), rel=1e-9)
    difference = e_new - e_old
    people = min(len(np.intersect1d([old, new], np.flatnonzero(codes == c))) for c in range(2))
    postings, candidates = corrected(difference.sum(axis=1), 9), corrected(difference.sum(axis=0), people)
    error = np.sqrt(max(postings + candidates - (difference**2).sum(), postings, candidates))
    change = crossed_change(tuple(first), tuple(second), shared=shared)
    t = scipy.stats.t.ppf(0.975, df=min(9, people) - 1)
    np.testing.assert_allclose(np.log(change.high / change.low), 2 * t * error, rtol=1e-9)
    same = sum(sum_shared(before, before, first[c], first[c]) for c in range(2))
    assert tuple(crossed_change(tuple(first), tuple(first), shared=same)) == pytest.approx((1.0, 1.0, 1.0))


def test_shared_pairs_of_shortlisting_are_a_slow_twins():
    old, new = (draw_shortlists(seed, n_postings=6, k=10, n_candidates=30) for seed in (7, 8))
    codes = draw_codes(9, n=30)
    before, after = (pair_shortlisting(i, n_candidates=30) for i in (old, new))
    e = []
    for indices in (old, new):
        selected, _ = list_pairs(indices, 10, 30)
        e.append(dense_influence(selected, np.ones_like(selected), codes, 0))
    found = sum_shared(before, after, influences(before, codes)[0], influences(after, codes)[0])
    assert found == pytest.approx((e[0] * e[1]).sum(), rel=1e-9)


def place_shortlists(lists, codes, *, n_selected):
    pairs = pair_selection(np.array(lists), n_candidates=len(codes), n_selected=n_selected)
    return influences(pairs, codes)


def test_rate_of_zero_or_one_has_an_interval_as_wide_as_its_people_allow():
    """In thirty lists of the same people all ten of a are selected, and b's twenty half of the time or never."""
    codes, rng = np.repeat([0, 1], [10, 20]), np.random.default_rng(0)
    everybody = place_shortlists(
        [[*range(10), *rng.permutation(np.arange(10, 30))] for _ in range(30)], codes, n_selected=20
    )
    for parts in (everybody, everybody[::-1]):
        estimate, p_value = crossed_ratio(*parts)
        assert estimate.low < estimate.value < estimate.high
        assert (p_value < 0.05) == (not estimate.low <= 1.0 <= estimate.high)
    nobody = place_shortlists(
        [[*rng.permutation(np.arange(10, 30)), *range(10)] for _ in range(30)], codes, n_selected=5
    )
    estimate, p_value = crossed_ratio(*nobody)
    assert estimate.value == estimate.low == 0.0 < estimate.high and p_value > 0.05
    assert estimate.high > 1.0  # ten people say little, though they were assessed 300 times


def test_all_selected_of_both_is_certain_only_as_far_as_their_number_goes():
    codes = np.repeat([0, 1], [40, 60])
    lists = [[*range(100), NOBODY]] * 20
    pairs = pair_measures(Matches(np.array(lists), np.zeros((20, 101))), n_candidates=100, n_selected=100)["selection"]
    few, p_value = crossed_ratio(*influences(pairs, codes))
    assert few.low < 0.9 < few.value == 1.0 < 1.1 < few.high and p_value == 1.0  # 20 postings each
    rows, _ = crossed_ratio(*influences(pair_rows(np.ones(100, bool)), codes))
    assert few.low < rows.low < 0.97 and 1.03 < rows.high < few.high


def test_effective_counts_of_independent_pairs_are_their_number():
    """Each of 400 people is on one of 200 lists, so a pair says as much as a trial of its own."""
    rng = np.random.default_rng(1)
    chosen = rng.permutation(400).reshape(200, 2)
    (part, _) = place_shortlists(chosen, np.where(np.arange(400) < 390, 0, 1), n_selected=1)
    assert 0.7 * 390 < _find_effective_size(part) <= 390


def test_change_of_a_rate_of_one_has_no_interval():
    codes = np.repeat([0, 1], [5, 5])
    old = place_shortlists([[0, 1, 5, 6], [2, 3, 7, 8]], codes, n_selected=2)
    change = crossed_change(tuple(old), tuple(old), shared=0.0)
    assert old[0].rate == 1.0 and np.isnan([change.low, change.high]).all()


def test_shuffled_labels_have_the_law_of_every_permutation():
    codes, indices = np.array([0, 0, 0, 1, 1, -1]), np.array([[0, 1, 3], [0, 4, 5], [0, 1, 2]])
    tally = tally_pairs(pair_selection(indices, n_candidates=6, n_selected=2), codes, n_categories=2)
    eligible = find_eligible(np.array([5, 2]))
    null, _ = shuffle_labels(tally, eligible=eligible, judged=eligible, seed=0, n_shuffles=4000)
    draws = []
    for labels in set(permutations(codes)):
        counts = [
            [c[np.array(labels) == k].sum() for k in range(2)]
            for c in (tally.candidate_assessed, tally.candidate_selected)
        ]
        draws.append(ratios_and_smallest(np.array([counts[1]]), np.array([counts[0]]), eligible)[0])
    expected = np.nanmean(np.array(draws), axis=0)
    np.testing.assert_allclose(null.value, expected, atol=0.02)


def test_shuffling_one_row_a_candidate_is_the_same_drawn_either_way():
    """With every candidate assessed twice and selected at most twice the shortcut cannot be taken; rates agree."""
    codes = np.repeat([0, 1, 2, -1], [30, 20, 10, 10])
    chosen = np.random.default_rng(0).random(70) < 0.4
    every, twice = np.ones(3, bool), np.where(chosen[None, :], np.arange(70), -1).repeat(2, axis=0)
    fast = tally_pairs(pair_rows(chosen), codes, n_categories=3)
    slow = tally_pairs(pair_shortlisting(twice, n_candidates=70), codes, n_categories=3)
    fast, fast_p = shuffle_labels(fast, eligible=every, judged=every, seed=0, n_shuffles=4000)
    slow, slow_p = shuffle_labels(slow, eligible=every, judged=every, seed=1, n_shuffles=4000)
    np.testing.assert_allclose(fast.value[:-1], slow.value[:-1], atol=0.02)
    np.testing.assert_allclose(fast_p[:-1], slow_p[:-1], atol=0.04)


def test_category_of_few_people_is_tested_among_those_who_were_assessed():
    """Of 1,000 candidates 20 are ever assessed, both people of c among them, and c's rate is the overall one.

    Shuffled over the whole pool c would mostly have nobody assessed, which is no rate at all.
    """
    codes = np.repeat([0, 1, 2], [499, 499, 2])
    half = [0, 1, 2, 3, 4, 499, 500, 501, 502, 998]
    shortlist = np.array([*half, 5, 6, 7, 8, 503, 504, 505, 506, 507, 999])
    pairs = pair_selection(np.tile(shortlist, (40, 1)), n_candidates=1000, n_selected=10)
    tally, every = tally_pairs(pairs, codes, n_categories=3), np.ones(3, bool)
    null, p_values = shuffle_labels(tally, eligible=every, judged=every, seed=0)
    assert p_values[2] == 1.0 and p_values[-1] > 0.5
    assert np.isfinite(null).all()


def test_shuffle_that_selects_nobody_known_counts_for_nothing():
    """Of 4 known people among 40 one is selected; 90 % of the shuffles select none, and in the others a ratio is 0."""
    codes = np.repeat([0, 1, -1], [2, 2, 36])
    pairs = pair_rows(np.arange(40) == 0)
    tally, every = tally_pairs(pairs, codes, n_categories=2), np.ones(2, bool)
    _, p_values = shuffle_labels(tally, eligible=every, judged=every, seed=0)
    assert p_values[-1] == 1.0


@pytest.mark.slow
def test_without_a_plant_intervals_cover_no_effect_in_95_percent_of_200_samples(monkeypatch):
    """With 200 samples the standard error of a coverage of .95 is .015; the range is 3.5 of it to either side.

    Postings only must cover clearly less: it takes the candidates' labels, drawn by luck, for given.
    """
    monkeypatch.setattr("ilqljax.hiring.audit.rates.N_RESAMPLES", 200)
    covered = {"ratio": [], "postings": []}
    for seed in range(N_SAMPLES):
        postings, candidates = make_market(seed=seed, n_postings=50, n_candidates=400, plant=0.0)
        table = AttributeTable.from_candidates(candidates)
        pairs = pair_market(postings, candidates, top=40)
        rows = tabulate_rates(pairs, table.attribute("gender"), seed=seed)["rows"]
        row = next(row for row in rows if np.isfinite(row["ratio_low"]))
        for kind, hits in covered.items():
            hits.append(row[f"{kind}_low"] <= 1.0 <= row[f"{kind}_high"])
    assert 0.9 <= np.mean(covered["ratio"]) <= 1.0
    assert np.mean(covered["postings"]) < np.mean(covered["ratio"])


def test_with_the_plant_the_effect_is_found():
    postings, candidates = make_market(seed=0, plant=0.8)
    table = AttributeTable.from_candidates(candidates)
    pairs = pair_market(postings, candidates, top=50)
    found = tabulate_rates(pairs, table.attribute("gender"), seed=0)
    women = next(row for row in found["rows"] if row["category"] == "female")
    assert women["ratio_high"] < 1.0 and women["p_shuffled"] < 0.01 and found["p_smallest"] < 0.01


def test_ratios_averaged_over_postings_look_unfair_under_fair_labels():
    """DOMAIN 2.9: 10 of 50, fair labels: the mean ratio is .82, and 73 % of postings fall below four fifths."""
    labels = np.random.default_rng(0).integers(0, 2, (20_000, 50))
    rates = np.stack([((labels == c)[:, :10].sum(1)) / (labels == c).sum(1) for c in range(2)], axis=1)
    ratios = rates / rates.max(axis=1, keepdims=True)
    assert ratios.mean() == pytest.approx(0.82, abs=0.02)
    assert (ratios.min(axis=1) < 0.8).mean() == pytest.approx(0.73, abs=0.02)
