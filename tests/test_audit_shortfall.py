"""Shortfalls and standard deviations: a hand-worked example, slow twins, and that hidden cells keep them."""

import math

import numpy as np
import pytest
from ready_tables import audit, write_table
from statsmodels.stats.proportion import proportions_ztest

from ilqljax.hiring.audit.shortfall import GAPS, measure_gaps


def count_up(selected, assessed, their_selected, their_assessed, numerator, denominator):
    """Select one more at a time until the ratio is reached, in whole numbers."""
    more = 0
    while denominator * (selected + more) * their_assessed < numerator * their_selected * assessed:
        more += 1
    assert selected + more <= assessed
    return more


def test_shortfall_of_a_hand_worked_example():
    """10 of 100 beside 40 of 200: four fifths of 20 % are 16, all of it 20; z = -0.1 / sqrt(1/6 5/6 (.01 + .005))."""
    (gaps, reference) = measure_gaps(np.array([10, 40]), np.array([100, 200]), np.ones(2, bool), 1)
    assert (gaps["shortfall_four_fifths"], gaps["shortfall_parity"]) == (6, 10)
    assert gaps["standard_deviations"] == pytest.approx(-2.1908902300206643)
    assert all(math.isnan(reference[name]) for name in GAPS)


def test_shortfalls_are_those_of_counting_up_and_deviations_those_of_statsmodels():
    rng = np.random.default_rng(0)
    for _ in range(300):
        assessed = rng.integers(1, 60, 2)
        selected = rng.integers(0, assessed + 1)
        if not selected[1]:
            continue
        gaps = measure_gaps(selected, assessed, np.ones(2, bool), 1)[0]
        counts = (selected[0], assessed[0], selected[1], assessed[1])
        assert gaps["shortfall_four_fifths"] == count_up(*counts, 4, 5)
        assert gaps["shortfall_parity"] == count_up(*counts, 1, 1)
        if 0 < selected.sum() < assessed.sum():
            assert gaps["standard_deviations"] == pytest.approx(proportions_ztest(selected, assessed)[0])


def test_exactly_four_fifths_lacks_nobody_and_nobody_selected_lacks_all(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", [("A", 30, 25), ("B", 30, 20), ("C", 30, 0)], kind="selected"))
    rows = {row["category"]: row for row in result["attributes"][0]["rates"]["before"]["selection"]["rows"]}
    assert [rows["B"][name] for name in GAPS[:2]] == [0, 5]
    assert [rows["C"][name] for name in GAPS[:2]] == [20, 25]


def test_everybody_selected_is_no_deviation():
    gaps = measure_gaps(np.array([40, 400]), np.array([40, 400]), np.ones(2, bool), 1)[0]
    assert tuple(gaps.values()) == (0, 0, 0.0)


def test_sums_of_weights_have_none():
    gaps = measure_gaps(np.array([1.5, 2.0]), np.array([4.0, 4.0]), np.ones(2, bool), 1)[0]
    assert all(math.isnan(value) for value in gaps.values())


def test_a_hidden_reference_hides_them(tmp_path):
    """They would give away its rate. 35 people of A have the highest rate; only 4 of A are not hidden in sum."""
    groups = [("A", 35, 4), ("B", 200, 20), ("C", 300, 10), ("D", 40, 2)]
    (section,) = audit(write_table(tmp_path / "t.csv", groups, kind="selected"), min_count=5)["attributes"]
    table = section["rates"]["before"]["selection"]
    assert table["compared_with"] == "(hidden)" and table["rows"]
    assert all(math.isnan(row[name]) for row in table["rows"] for name in GAPS)
