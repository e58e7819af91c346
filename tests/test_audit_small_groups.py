"""Who is compared with whom: few people, small shares, named references, and what is said of those who are not."""

import numpy as np
import pytest
from ready_tables import SEX, audit, write_table

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.crossed import pair_rows
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.rates import Mark, tabulate_changes
from ilqljax.hiring.audit.tables import list_tables, state_findings


def audit_groups(folder, groups, **settings):
    """Return the rows by category, the table and the finding."""
    result = audit(write_table(folder / "t.csv", groups, kind="selected"), **settings)
    table = result["attributes"][0]["rates"]["before"]["selection"]
    return {row["category"]: row for row in table["rows"]}, table, state_findings(result)["sex"][0]


FEW = [("A", 200, 100), ("B", 200, 60), ("C", 14, 14)]  # C is 3.4 % of the rows, 14 people, and has the highest rate


def test_few_people_with_the_highest_rate_take_no_other_category_with_them(tmp_path):
    rows, table, finding = audit_groups(tmp_path, FEW)
    assert [rows[c]["impact_ratio"] for c in "ABC"] == pytest.approx([0.5, 0.3, 1.0])  # the law's, over the highest
    assert [rows[c]["compared_ratio"] for c in "AB"] == pytest.approx([1.0, 0.6])
    assert rows["B"]["compared_low"] < 0.6 < rows["B"]["compared_high"] < 0.8
    assert [rows[c]["mark"] for c in "ABC"] == [Mark.REFERENCE, Mark.BELOW, Mark.INSUFFICIENT]
    assert (table["reference"], table["compared_with"]) == ("C", "A")
    assert table["smallest_ratio"] == pytest.approx(0.6) and table["p_smallest"] < 0.01
    assert "the lowest impact ratio is 0.60 [" in finding and ", of B against A (below four fifths)" in finding
    assert "Not compared, with fewer than 30 people: C (14)." in finding
    assert finding.endswith("With every category included the lowest ratio would be 0.30, of B.")


def test_small_share_is_not_called_too_little_data(tmp_path):
    rows, _, finding = audit_groups(tmp_path, [("A", 4000, 2000), ("B", 4000, 1900), ("C", 60, 12), ("D", 9, 3)])
    assert rows["C"]["mark"] == rows["D"]["mark"] == Mark.EXCLUDED and np.isnan(rows["C"]["impact_ratio"])
    assert "Left out, under 2 % of the data: C (60), D (9). With every category included" in finding
    assert finding.endswith("the lowest ratio would be 0.40, of C.") and "fewer than" not in finding


def test_share_below_which_a_category_is_left_out_is_an_option(tmp_path):
    groups = [("A", 4000, 2000), ("B", 4000, 1900), ("C", 60, 12)]
    rows, _, finding = audit_groups(tmp_path, groups, leave_out_below=0.0)
    assert rows["C"]["impact_ratio"] == pytest.approx(0.4) and rows["C"]["mark"] == Mark.BELOW
    assert "is 0.40 [" in finding and "Left out" not in finding
    rows, _, finding = audit_groups(tmp_path, [*SEX, ("C", 40, 4)], leave_out_below=0.25)
    assert rows["C"]["mark"] == Mark.EXCLUDED and "Left out, under 25 % of the data: C (40)." in finding


def test_nobody_to_compare_is_said_with_the_reason(tmp_path):
    _, table, finding = audit_groups(tmp_path, [("A", 24, 12), ("B", 8, 2), ("C", 40, 20)])
    assert np.isnan(table["smallest_ratio"])
    assert "insufficient data to compare categories. Not compared, with fewer than 30 people: A (24), B (8)." in finding
    assert finding.endswith("would be 0.50, of B.")


def test_nobody_selected_of_those_who_are_many_is_insufficient_data(tmp_path):
    rows, table, _ = audit_groups(tmp_path, [("A", 60, 0), ("B", 60, 0), ("C", 10, 5)])
    assert {row["mark"] for row in rows.values()} == {Mark.INSUFFICIENT} and table["compared_with"] == ""


def test_named_reference_may_be_the_lower_rate(tmp_path):
    rows, table, finding = audit_groups(tmp_path, [*SEX, ("X", 50, 10)], reference={"sex": "female "})
    assert rows["Male"]["impact_ratio"] == pytest.approx((50 / 92) / (34 / 76))
    assert rows["Female"]["mark"] == Mark.REFERENCE and rows["Male"]["mark"] == Mark.PASSED
    assert table["smallest_ratio"] == pytest.approx((10 / 50) / (34 / 76))
    assert ", of X against Female (below four fifths)" in finding and table["p_smallest"] < 0.05


def test_ratio_to_a_named_reference_is_the_smallest_of_the_others(tmp_path):
    _, table, _ = audit_groups(tmp_path, SEX, reference={"sex": "Female"})
    assert table["smallest_ratio"] == pytest.approx(1.2145, abs=1e-3) and table["p_smallest"] > 0.5


def test_named_reference_is_never_left_out_and_of_few_people_compares_nobody(tmp_path):
    groups = [("A", 1000, 500), ("B", 1000, 400), ("C", 5, 2)]
    rows, table, finding = audit_groups(tmp_path, groups, reference={"sex": "C"})
    assert rows["A"]["impact_ratio"] == pytest.approx(1.25) and table["compared_with"] == ""
    assert "insufficient data to compare categories. Not compared, with fewer than 30 people: C (5)." in finding


def test_table_names_the_reference(tmp_path):
    result = audit(write_table(tmp_path / "t.csv", SEX, kind="selected"), reference={"sex": "Female"})
    lines = list_tables(result)["selection_sex_before.csv"].splitlines()
    assert lines[1:3] == ["Female,76,34,44.7%,1.00,76,reference", "Male,92,50,54.3%,1.21,92,0.8 or more"]


def test_change_is_of_the_ratio_to_those_with_enough_people():
    codes = np.repeat([0, 1, 2], [200, 200, 14])
    before, after = (
        pair_rows(np.concatenate([np.arange(n) < s for n, s in zip((200, 200, 14), counts, strict=True)]))
        for counts in ((100, 60, 14), (100, 90, 7))
    )
    of_b, of_c = tabulate_changes(before, after, Attribute("a", ("A", "B", "C"), codes), seed=0)
    assert (of_b["reference"], of_b["change"], of_c["change"]) == ("A", pytest.approx(1.5), pytest.approx(0.5))
    (_, named) = tabulate_changes(before, after, Attribute("a", ("A", "B", "C"), codes), seed=0, reference="B")
    assert named["reference"] == "B"


def test_lowest_of_all_is_hidden_with_any_cell(tmp_path):
    _, table, finding = audit_groups(tmp_path, FEW, min_count=20)
    assert np.isnan(table["smallest_of_all"]) and table["smallest_of_all_category"] == ""
    assert table["reference"] == "(hidden)" and "With every category" not in finding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "sex=Mal"], "reference sex=Mal: no such category. Did you mean 'Male'"),
        (["--reference", "race=White"], "reference='race' is unknown. Known: sex"),
        (["--reference", "Male"], r"write ATTRIBUTE=CATEGORY"),
        (["--reference", "sex=Male", "--reference", "sex=Female"], "once for each attribute"),
        (["--leave_out_below", "2"], r"leave_out_below=2.0 is out of range. Give a number in \[0, 1\)"),
    ],
)
def test_wrong_reference_or_share_is_refused(tmp_path, arguments, message):
    path = write_table(tmp_path / "t.csv", SEX, kind="selected")
    with pytest.raises(UserError, match=message):
        run_command(["audit", "--scores", str(path), "--out", str(tmp_path / "out"), *arguments])


def test_frames_take_both_options():
    frame = {"sex": ["f"] * 50 + ["m"] * 50 + ["x"] * 40, "picked": [i % 2 for i in range(140)]}
    options = {"attributes": ["sex"], "selected": "picked", "reference": {"sex": "m"}, "leave_out_below": 0.3}
    rows = audit_frame(frame, **options).by_group
    assert [row["mark"] for row in rows] == [Mark.PASSED, Mark.REFERENCE, Mark.EXCLUDED]
