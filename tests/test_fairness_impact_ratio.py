"""The check vectors of Local Law 144's example, pooling, absent and small groups, and what shuffled labels give."""

import numpy as np
import pytest

from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.crossed import (
    NOBODY,
    crossed_ratio,
    find_influence,
    pair_measures,
    pair_rows,
    pair_selection,
    tally_pairs,
)
from ilqljax.hiring.audit.rates import (
    Mark,
    adjust_for_many,
    choose_comparison,
    mark_categories,
    ratios_and_smallest,
    tabulate_rates,
)
from ilqljax.hiring.matching.matcher import Matches


def tabulate_groups(assessed: list[int], selected: list[int], names, *, unknown: int = 0) -> dict:
    """Tabulate a ready table: everybody is assessed once."""
    codes = np.concatenate([np.repeat(np.arange(len(assessed)), assessed), np.full(unknown, -1)])
    chosen = np.concatenate([np.arange(n) < s for n, s in zip([*assessed, unknown], [*selected, 0], strict=True)])
    return tabulate_rates(pair_rows(chosen), Attribute("a", tuple(names), codes), seed=0)


def tabulate_shortlists(codes: np.ndarray, names, *, n_selected: int = 10, seed: int = 0) -> dict:
    """Tabulate shortlists of the members' codes; everybody is on one list only."""
    indices = np.arange(codes.size).reshape(codes.shape)
    pairs = pair_selection(indices, n_candidates=codes.size, n_selected=n_selected)
    return tabulate_rates(pairs, Attribute("a", tuple(names), codes.ravel()), seed=seed)


def pair_scoring(scores: np.ndarray):
    """Return the pairs of scoring of one shortlist of everybody."""
    matches = Matches(np.arange(len(scores))[None], scores[None])
    return pair_measures(matches, n_candidates=len(scores), n_selected=1)["scoring"]


def column(table: dict, name: str) -> list:
    return [row[name] for row in table["rows"]]


def interval(table: dict, name: str) -> list[float]:
    return [table[f"{name}{end}"] for end in ("_low", "", "_high")]


def draw_fair_shortlists(seed: int, *, n_postings: int, shares=(0.5, 0.5)) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), p=shares, size=(n_postings, 50))


@pytest.mark.parametrize(
    ("names", "assessed", "selected", "rates", "ratios"),
    [
        (["Male", "Female"], [92, 76], [50, 34], [54.3, 44.7], [1.00, 0.82]),
        (
            ["Hispanic", "White", "Black", "Native Hawaiian or Pacific Islander", "Asian"],
            [28, 40, 32, 8, 24],
            [18, 15, 16, 5, 10],
            [64.2, 37.5, 50.0, 62.5, 41.7],
            [1.00, 0.58, 0.78, 0.97, 0.65],
        ),
    ],
)
def test_check_vectors(names, assessed, selected, rates, ratios):
    """The published 64.2 is 18/28 = 64.29 cut off, hence the tolerance of a tenth."""
    table = tabulate_groups(assessed, selected, names)
    np.testing.assert_allclose(100 * np.array(column(table, "rate")), rates, atol=0.1)
    np.testing.assert_allclose(column(table, "impact_ratio"), ratios, atol=0.005)
    found = ratios_and_smallest(np.array(selected), np.array(assessed), np.ones(len(names), bool))
    np.testing.assert_allclose(found, [*ratios, min(ratios)], atol=0.005)


def test_smallest_ratio_is_of_the_categories_with_enough_people():
    table = tabulate_groups([60, 60, 29], [30, 20, 2], "abc")
    assert table["smallest_ratio"] == pytest.approx(2 / 3) and min(column(table, "impact_ratio")) < 0.2


def test_check_vector_as_scoring_rates():
    """Scores with 84 of 168 above the median: the law's male and female example."""
    codes = np.repeat([0, 0, 1, 1], [50, 42, 34, 42])
    scores = np.repeat([1.0, 0.0, 1.0, 0.0], [50, 42, 34, 42])
    table = tabulate_rates(pair_scoring(scores), Attribute("sex", ("Male", "Female"), codes), seed=0)
    assert column(table, "n_selected") == [50, 34]
    assert table["rows"][1]["impact_ratio"] == pytest.approx(0.82, abs=0.005)


def test_score_at_the_median_is_not_above_it_and_unknown_counts_for_the_median():
    pairs = pair_scoring(np.array([1.0, 2.0, 3.0, 9.0, 9.0]))
    table = tabulate_rates(pairs, Attribute("a", ("a", "b"), np.array([0, 0, 1, -1, -1])), seed=0)
    assert column(table, "n_selected") == [0, 0]
    assert table["unknown"]["n_selected"] == 2


def test_counts_are_pooled_before_the_ratio():
    """Persons 0, 2, 6 are of category a, 3 is unknown; the lists' codes are [a, b, a, -], [b, b, a, b] and []."""
    codes = np.array([0, 1, 0, -1, 1, 1, 0, 1])
    indices = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [NOBODY] * 4])
    pairs = pair_selection(indices, n_candidates=8, n_selected=2)
    tally = tally_pairs(pairs, codes, n_categories=2)
    np.testing.assert_array_equal(tally.posting_assessed, [[2, 1], [1, 3], [0, 0]])
    np.testing.assert_array_equal(tally.posting_selected, [[1, 1], [0, 2], [0, 0]])
    table = tabulate_rates(pairs, Attribute("a", ("a", "b"), codes), seed=0)
    assert table["rows"][0]["impact_ratio"] == pytest.approx((1 / 3) / (3 / 4))
    assert (table["unknown"]["n_assessed"], table["unknown"]["n_selected"]) == (1, 0)


def test_absent_category_is_undefined_not_zero():
    table = tabulate_groups([60, 0, 60], [30, 0, 20], "abc")
    absent = table["rows"][1]
    numbers = [*interval(absent, "rate"), *interval(absent, "null_ratio"), *interval(absent, "versus_rest")]
    numbers += [absent[name] for name in ("impact_ratio", "ratio_low", "ratio_high", "p_independent", "p_crossed")]
    assert np.isnan([*numbers, absent["p_shuffled"]]).all()
    assert absent["mark"] == Mark.UNDEFINED and absent["n_assessed"] == 0
    assert table["smallest_ratio"] == pytest.approx(2 / 3)


def test_present_category_that_is_never_selected_has_ratio_zero():
    never = tabulate_groups([60, 60], [30, 0], "ab")["rows"][1]
    assert never["impact_ratio"] == 0.0 and never["mark"] == Mark.BELOW


def test_nobody_selected_leaves_every_ratio_undefined():
    table = tabulate_groups([60, 60], [0, 0], "ab", unknown=10)
    assert column(table, "mark") == [Mark.UNDEFINED] * 2
    assert np.isnan([*column(table, "impact_ratio"), table["smallest_ratio"]]).all()


def test_category_under_two_percent_is_listed_but_sets_no_ratio():
    table = tabulate_groups([990, 995, 15], [300, 250, 15], ["a", "b", "tiny"])
    tiny = table["rows"][2]
    assert tiny["mark"] == Mark.EXCLUDED and tiny["n_assessed"] == 15 and tiny["rate"] == 1.0
    assert np.isnan(tiny["impact_ratio"])
    assert table["rows"][0]["mark"] == Mark.REFERENCE and table["rows"][0]["impact_ratio"] == 1.0


def test_marks_follow_the_four_fifths_line_and_small_numbers():
    marks = column(tabulate_groups([100, 100, 100], [50, 40, 39], "abc"), "mark")
    assert marks == [Mark.REFERENCE, Mark.PASSED, Mark.BELOW]
    marks = column(tabulate_groups([100, 29], [50, 5], "ab"), "mark")
    assert marks == [Mark.REFERENCE, Mark.INSUFFICIENT]


def test_few_people_who_come_back_in_many_shortlists_are_insufficient_data():
    """Twenty lists of the same 40 people assess each group 400 times, but these are 20 people each."""
    indices = np.tile(np.arange(40), (20, 1))
    pairs = pair_selection(indices, n_candidates=40, n_selected=10)
    table = tabulate_rates(pairs, Attribute("a", ("a", "b"), np.arange(40) % 2), seed=0)
    assert column(table, "n_assessed") == [400, 400] and column(table, "n_people") == [20, 20]
    assert column(table, "mark") == [Mark.INSUFFICIENT] * 2


@pytest.mark.parametrize(("assessed", "selected"), [([30, 30], [25, 20]), ([32, 30], [12, 9]), ([36, 30], [15, 10])])
def test_ratio_of_exactly_four_fifths_is_not_below_it(assessed, selected):
    """(20 / 30) / (25 / 30) is 0.7999999999999999 in floating point."""
    assert column(tabulate_groups(assessed, selected, "ab"), "mark") == [Mark.REFERENCE, Mark.PASSED]


def test_ratio_of_four_fifths_less_one_of_a_billion_is_below_it():
    assessed, selected = np.full(2, 10**9), np.array([10**9, 8 * 10**8 - 1])
    marks = mark_categories(selected, assessed, choose_comparison(selected, assessed, people=assessed))
    assert marks == [Mark.REFERENCE, Mark.BELOW]


def test_category_that_a_draw_leaves_out_takes_no_other_with_it():
    ratios = ratios_and_smallest(np.array([2, 1, 0]), np.array([4, 4, 0]), np.ones(3, bool))
    np.testing.assert_allclose(ratios, [1.0, 0.5, np.nan, 0.5])
    assert np.isnan(ratios_and_smallest(np.array([2, 0]), np.array([4, 0]), np.ones(2, bool))[-1])


def test_reference_has_no_test_and_the_others_have():
    rows = tabulate_groups([200, 200], [100, 60], "ab")["rows"]
    assert np.isnan(rows[0]["p_independent"]) and rows[0]["test"] == ""
    assert rows[1]["p_independent"] < 0.001 and rows[1]["test"] == "score"


def test_everybody_selected_has_intervals_of_some_width_and_p_values_that_agree():
    for selected in ([40, 400], [40, 390], [39, 400], [0, 400]):
        row, reference = tabulate_groups([40, 400], selected, "ab")["rows"]
        row = row if np.isfinite(row["ratio_low"]) else reference
        assert row["ratio_low"] < row["ratio_high"]
        assert (row["p_independent"] < 0.05) == (not row["ratio_low"] <= 1.0 <= row["ratio_high"])


def test_bootstrap_over_postings_of_a_rate_of_one_has_no_interval():
    """All of a in every list are selected, and so are all of b: resampled postings know nothing else."""
    indices = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    pairs = pair_selection(indices, n_candidates=10, n_selected=4)
    table = tabulate_rates(pairs, Attribute("a", ("a", "b"), np.array([0, 0, 1, 1, -1] * 2)), seed=0)
    row = table["rows"][1]
    assert row["rate"] == 1.0 and np.isnan(row["postings_low"]) and row["ratio_low"] < 1.0 < row["ratio_high"]


def test_interval_contains_a_planted_ratio():
    """The first ten are drawn so that category 1 is selected at 0.6 times the rate of category 0."""
    rng = np.random.default_rng(1)
    codes = draw_fair_shortlists(2, n_postings=80)
    keys = -np.log(rng.random(codes.shape)) / np.where(codes == 0, 1.0, 0.55)  # weighted draw without replacement
    codes = np.take_along_axis(codes, np.argsort(keys, axis=1), axis=1)
    table = tabulate_shortlists(codes, "ab")
    row = table["rows"][1]
    assert row["ratio_low"] < row["impact_ratio"] < row["ratio_high"] < 0.8
    assert row["ratio_high"] - row["ratio_low"] < 0.25
    assert table["smallest_ratio"] < table["null_smallest_low"]


def test_interval_over_postings_and_candidates_covers_equal_rates():
    """Of 200 markets in which ten of forty are selected by luck, a true 95 % would cover 190, give or take 3.

    The 60 people come back in every market's 30 lists, and each has a standing of its own, which luck gave it.
    """
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        codes, standing = rng.permutation(np.arange(60) % 2), rng.normal(size=60)
        lists = np.stack([rng.choice(60, 40, replace=False) for _ in range(30)])
        order = np.argsort(-(standing[lists] + rng.normal(size=lists.shape)), axis=1)
        pairs = pair_selection(np.take_along_axis(lists, order, axis=1), n_candidates=60, n_selected=10)
        tally = tally_pairs(pairs, codes, n_categories=2)
        estimate, _ = crossed_ratio(*(find_influence(tally, np.arange(2) == c) for c in range(2)))
        covered += estimate.low <= 1.0 <= estimate.high
    assert 180 <= covered <= 200


def test_fair_labels_lie_inside_their_null_once_pooled():
    """Averaged per posting with absent groups as 0, the same labels seem to fail four fifths (DOMAIN 2.9)."""
    codes = draw_fair_shortlists(3, n_postings=60)
    table = tabulate_shortlists(codes, "ab")
    low, mean, _ = interval(table, "null_smallest")
    assert low < table["smallest_ratio"] < table["null_smallest_high"]
    assert table["smallest_ratio"] > 0.85 and mean > 0.9
    rates = np.stack([(codes[:, :10] == c).sum(axis=1) / (codes == c).sum(axis=1) for c in (0, 1)])
    assert (rates.min(axis=0) / rates.max(axis=0)).mean() < low


def test_table_repeats_with_its_seed():
    codes = draw_fair_shortlists(4, n_postings=9)
    np.testing.assert_equal(tabulate_shortlists(codes, "ab", seed=1), tabulate_shortlists(codes, "ab", seed=1))


def test_ratios_follow_a_renaming_of_the_categories():
    codes = draw_fair_shortlists(5, n_postings=30, shares=(0.5, 0.3, 0.2))
    plain, swapped = tabulate_shortlists(codes, "abc"), tabulate_shortlists(2 - codes, "cba")
    for one, other in zip(plain["rows"], reversed(swapped["rows"]), strict=True):
        assert one["category"] == other["category"]
        for name in ("impact_ratio", "ratio_low", "ratio_high", "postings_low", "postings_high", "p_crossed"):
            assert one[name] == pytest.approx(other[name], nan_ok=True), name


def test_shortlists_without_a_known_member_give_an_empty_table():
    table = tabulate_shortlists(np.full((3, 3), -1), [], n_selected=1)
    assert table["rows"] == [] and (table["unknown"]["n_assessed"], table["unknown"]["n_selected"]) == (9, 3)


def test_p_values_are_adjusted_for_their_number_and_an_undefined_one_is_no_test():
    """The docstring's example."""
    rows = [{"p": p} for p in (0.01, float("nan"), 0.04, 0.03)]
    adjust_for_many(rows, name="p", adjusted="holm")
    assert [row["holm"] for row in rows] == pytest.approx([0.03, float("nan"), 0.06, 0.06], nan_ok=True)
    adjust_for_many(nothing := [{"p": float("nan")}], name="p", adjusted="holm")
    assert np.isnan(nothing[0]["holm"])
