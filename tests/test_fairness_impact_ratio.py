"""The check vectors of Local Law 144's example, pooling, absent and small groups, and the permuted-label null."""

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.audit.impact_ratio import (
    Mark,
    SelectionCounts,
    compute_impact_ratios,
    count_above_median,
    count_selection,
    mark_category,
    ratios_and_smallest,
)


def pool_counts(assessed: list[int], selected: list[int], *, unknown: int = 0) -> SelectionCounts:
    return SelectionCounts(np.array([assessed]), np.array([selected]), np.array([unknown]), np.array([0]))


def make_shortlists(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, np.int64) for row in rows]


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
    table = compute_impact_ratios(pool_counts(assessed, selected), names)
    np.testing.assert_allclose([100 * row.selection_rate.value for row in table.rows], rates, atol=0.1)
    np.testing.assert_allclose([row.impact_ratio.value for row in table.rows], ratios, atol=0.005)
    assert table.smallest_ratio == pytest.approx(min(ratios), abs=0.005)


def test_check_vector_as_scoring_rates():
    """Scores with 84 of 168 above the median: the law's male and female example."""
    codes = np.repeat([0, 0, 1, 1], [50, 42, 34, 42])
    scores = np.repeat([1.0, 0.0, 1.0, 0.0], [50, 42, 34, 42])
    counts = count_above_median(scores, codes, n_categories=2)
    table = compute_impact_ratios(counts, ["Male", "Female"], n_resamples=200, n_permutations=200)
    assert [row.n_selected for row in table.rows] == [50, 34]
    assert table.rows[1].impact_ratio.value == pytest.approx(0.82, abs=0.005)


def test_score_at_the_median_is_not_above_it_and_unknown_counts_for_the_median():
    counts = count_above_median(np.array([1.0, 2.0, 3.0, 9.0, 9.0]), np.array([0, 0, 1, -1, -1]), n_categories=2)
    np.testing.assert_array_equal(counts.selected.sum(axis=0), [0, 0])
    assert counts.unknown_selected.sum() == 2


def test_scoring_rates_refuse_nan_scores():
    with pytest.raises(UserError, match="1 of them NaN"):
        count_above_median(np.array([1.0, np.nan]), np.array([0, 1]), n_categories=2)


def test_counts_are_pooled_before_the_ratio():
    counts = count_selection(make_shortlists([0, 1, 0, -1], [1, 1, 0, 1], []), n_selected=2, n_categories=2)
    np.testing.assert_array_equal(counts.assessed, [[2, 1], [1, 3], [0, 0]])
    np.testing.assert_array_equal(counts.selected, [[1, 1], [0, 2], [0, 0]])
    np.testing.assert_array_equal(counts.unknown_assessed, [1, 0, 0])
    table = compute_impact_ratios(counts, ["a", "b"], n_resamples=50, n_permutations=50)
    assert table.rows[0].impact_ratio.value == pytest.approx((1 / 3) / (3 / 4))
    assert (table.n_unknown_assessed, table.n_unknown_selected) == (1, 0)


def test_absent_category_is_undefined_not_zero():
    table = compute_impact_ratios(pool_counts([60, 0, 60], [30, 0, 20]), ["a", "b", "c"])
    absent = table.rows[1]
    assert np.isnan([*absent.selection_rate, *absent.impact_ratio, *absent.null_ratio, absent.p_value]).all()
    assert absent.mark == Mark.UNDEFINED and absent.n_assessed == 0
    assert table.smallest_ratio == pytest.approx(2 / 3)


def test_present_category_that_is_never_selected_has_ratio_zero():
    table = compute_impact_ratios(pool_counts([60, 60], [30, 0]), ["a", "b"])
    assert table.rows[1].impact_ratio.value == 0.0 and table.rows[1].mark == Mark.BELOW


def test_nobody_selected_leaves_every_ratio_undefined():
    table = compute_impact_ratios(pool_counts([60, 60], [0, 0], unknown=10), ["a", "b"])
    assert all(row.mark == Mark.UNDEFINED and np.isnan(row.impact_ratio.value) for row in table.rows)
    assert np.isnan(table.smallest_ratio)


def test_category_under_two_percent_is_listed_but_sets_no_ratio():
    table = compute_impact_ratios(pool_counts([990, 995, 15], [300, 250, 15]), ["a", "b", "tiny"])
    tiny = table.rows[2]
    assert tiny.mark == Mark.EXCLUDED and tiny.n_assessed == 15 and tiny.selection_rate.value == 1.0
    assert np.isnan(tiny.impact_ratio.value)
    assert table.rows[0].mark == Mark.REFERENCE and table.rows[0].impact_ratio.value == 1.0


def test_marks_follow_the_four_fifths_line_and_small_numbers():
    marks = [row.mark for row in compute_impact_ratios(pool_counts([100, 100, 100], [50, 40, 39]), "abc").rows]
    assert marks == [Mark.REFERENCE, Mark.PASSED, Mark.BELOW]
    marks = [row.mark for row in compute_impact_ratios(pool_counts([100, 29], [50, 5]), "ab").rows]
    assert marks == [Mark.REFERENCE, Mark.INSUFFICIENT]


@pytest.mark.parametrize(("assessed", "selected"), [([30, 30], [25, 20]), ([32, 30], [12, 9]), ([36, 30], [15, 10])])
def test_ratio_of_exactly_four_fifths_is_not_below_it(assessed, selected):
    """(20 / 30) / (25 / 30) is 0.7999999999999999 in floating point."""
    table = compute_impact_ratios(pool_counts(assessed, selected), "ab", n_resamples=20, n_permutations=20)
    assert [row.mark for row in table.rows] == [Mark.REFERENCE, Mark.PASSED]


def test_ratio_of_four_fifths_less_one_of_a_billion_is_below_it():
    assessed, selected = np.full(2, 10**9), np.array([10**9, 8 * 10**8 - 1])
    assert mark_category(1, selected, assessed, eligible=np.ones(2, bool), reference=0) == Mark.BELOW


def test_category_that_a_draw_leaves_out_takes_no_other_with_it():
    ratios = ratios_and_smallest(np.array([2, 1, 0]), np.array([4, 4, 0]), np.ones(3, bool))
    np.testing.assert_allclose(ratios, [1.0, 0.5, np.nan, 0.5])
    assert np.isnan(ratios_and_smallest(np.array([2, 0]), np.array([4, 0]), np.ones(2, bool))[-1])


def test_reference_has_no_test_and_the_others_have():
    rows = compute_impact_ratios(pool_counts([200, 200], [100, 60]), "ab").rows
    assert np.isnan(rows[0].p_value) and rows[0].test == ""
    assert rows[1].p_value < 0.001 and rows[1].test == "two proportions"


def test_bootstrap_interval_contains_a_planted_ratio():
    """The first ten are drawn so that category 1 is selected at 0.6 times the rate of category 0."""
    rng = np.random.default_rng(1)
    codes = draw_fair_shortlists(2, n_postings=80)
    keys = -np.log(rng.random(codes.shape)) / np.where(codes == 0, 1.0, 0.55)  # weighted draw without replacement
    codes = np.take_along_axis(codes, np.argsort(keys, axis=1), axis=1)
    table = compute_impact_ratios(count_selection(codes, n_selected=10, n_categories=2), "ab")
    ratio = table.rows[1].impact_ratio
    assert ratio.low < ratio.value < ratio.high < 0.8
    assert ratio.high - ratio.low < 0.25
    assert table.smallest_ratio < table.null_smallest_ratio.low


def test_fair_labels_lie_inside_their_null_once_pooled():
    """Averaged per posting with absent groups as 0, the same labels seem to fail four fifths (DOMAIN 2.9)."""
    codes = draw_fair_shortlists(3, n_postings=60)
    table = compute_impact_ratios(count_selection(codes, n_selected=10, n_categories=2), "ab")
    assert table.null_smallest_ratio.low < table.smallest_ratio < table.null_smallest_ratio.high
    assert table.smallest_ratio > 0.85 and table.null_smallest_ratio.value > 0.9
    rates = np.stack([(codes[:, :10] == c).sum(axis=1) / (codes == c).sum(axis=1) for c in (0, 1)])
    per_posting = (rates.min(axis=0) / rates.max(axis=0)).mean()
    assert per_posting < table.null_smallest_ratio.low


def test_null_repeats_with_its_seed():
    counts = count_selection(draw_fair_shortlists(4, n_postings=9), n_selected=10, n_categories=2)
    assert compute_impact_ratios(counts, "ab", seed=1) == compute_impact_ratios(counts, "ab", seed=1)


def test_ratios_follow_a_renaming_of_the_categories():
    codes = draw_fair_shortlists(5, n_postings=30, shares=(0.5, 0.3, 0.2))
    plain = compute_impact_ratios(count_selection(codes, n_selected=10, n_categories=3), "abc")
    swapped = compute_impact_ratios(count_selection(2 - codes, n_selected=10, n_categories=3), "cba")
    for one, other in zip(plain.rows, reversed(swapped.rows), strict=True):
        assert one.category == other.category
        assert one.impact_ratio == pytest.approx(other.impact_ratio)


def test_shortlists_without_a_known_member_give_an_empty_table():
    table = compute_impact_ratios(
        count_selection(make_shortlists(*[[-1, -1, -1]] * 3), n_selected=1, n_categories=0), []
    )
    assert table.rows == () and table.n_unknown_assessed == 9 and table.n_unknown_selected == 3


def test_selecting_everybody_or_nobody_is_refused():
    for n_selected in (0, 3):
        with pytest.raises(UserError, match=f"selected={n_selected}.*3 members"):
            count_selection(make_shortlists([0, 1, 0]), n_selected=n_selected, n_categories=2)
