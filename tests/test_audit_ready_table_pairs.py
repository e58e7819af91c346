"""Ready tables of pairs of attributes, and two tables of the same people."""

import pytest
from ready_tables import SEX, audit, write_table

from ilqljax.errors import UserError
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.audit.tables import format_json, list_tables


def test_intersection_has_one_column_a_part(tmp_path):
    lines = ["sex,race,selected"] + [f"{s},{r},{i % 2}" for s in "fm" for r in "ab" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    text = list_tables(audit(tmp_path / "t.csv"))["selection_race_by_sex_before.csv"]
    assert text.startswith("race,sex,# of Applicants")
    assert "\na,f,40,20,50.0%,1.00,40," in text


def write_crossed(path, groups):
    lines = [f"{sex},{race},{i % 2}" for race, sex, n in groups for i in range(n)]
    path.write_text("\n".join(["sex,race,selected", *lines]))
    return path


def test_categories_with_slashes_keep_their_columns_and_are_hidden_with_their_part(tmp_path):
    """Three people of Pacific take the next smallest race with them, whose cells would add up to it."""
    people = {"Black / African American": (40, 40), "White": (200, 200), "Pacific": (1, 2)}
    groups = [(race, sex, n) for race, both in people.items() for sex, n in zip("FM", both, strict=True)]
    path = write_crossed(tmp_path / "t.csv", groups)
    name = "selection_race_by_sex_before.csv"
    assert "\nBlack / African American,F,40,20," in list_tables(audit(path))[name]
    hidden = audit(path, min_count=5)
    assert [line.split(",")[0] for line in list_tables(hidden)[name].splitlines()[1:]] == [
        "White",
        "White",
        "Unknown",
        "Total",
        "Hidden",
    ]
    assert "African" not in format_json(hidden)


def test_combinations_that_would_share_a_name_are_told_apart(tmp_path):
    path = write_crossed(tmp_path / "t.csv", [("x / y", "z", 40), ("x", "y / z", 50)])
    section = audit(path)["attributes"][-1]
    assert section["pool"] == {"'x' / 'y / z'": 50, "'x / y' / 'z'": 40}
    assert list(section["parts"].values()) == [["x", "y / z"], ["x / y", "z"]]


def test_pair_of_attributes_that_nobody_declares_together_is_left_out(tmp_path):
    path = write_crossed(tmp_path / "t.csv", [("", "F", 40), ("a", "", 40)])
    result = audit(path)
    assert [section["name"] for section in result["attributes"]] == ["race", "sex"]
    assert result["not_audited"] == ["race x sex"]


def test_attribute_whose_own_name_has_a_cross_is_one_column(tmp_path):
    text = list_tables(audit(write_table(tmp_path / "t.csv", SEX, kind="selected", name="a x b")))
    assert text["selection_a_by_b_before.csv"].splitlines()[1].startswith("Female,76,34,")


def write_pair(folder, before, after, *, header="id,sex,selected"):
    for name, rows in (("a.csv", before), ("b.csv", after)):
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return [load_ready_table(folder / name) for name in ("a.csv", "b.csv")]


def test_two_tables_of_the_same_people_are_compared_by_id(tmp_path):
    """Before, 10 of 40 women and 20 of 40 men; after, 20 of each: the ratio goes from 0.5 to 1, twice what it was."""
    before = [f"f{i},f,{int(i < 10)}" for i in range(40)] + [f"m{i},m,{int(i < 20)}" for i in range(40)]
    after = [f"f{i},f,{int(i < 20)}" for i in range(40)] + [f"m{i},m,{int(i < 20)}" for i in range(40)]
    first, second = write_pair(tmp_path, before, after[::-1])
    (section,) = audit_ready_table(first, AuditConfig(("sex",)), after=second)["attributes"]
    (change,) = section["changes"]["selection"]
    assert (change["category"], change["change"]) == ("f", pytest.approx(2.0))
    assert 1.0 < change["change_low"] < 2.0 < change["change_high"]


@pytest.mark.parametrize(
    ("after", "header", "message"),
    [
        (["1,f,1", "2,x,0"], "id,sex,selected", "candidate '2' has other categories before than after"),
        (["1,f,1", "3,m,0"], "id,sex,selected", "candidate '2' is in one of the two tables only"),
        (["1,m,1", "2,f,0"], "id,sex,selected", "candidate '1' has other categories"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(tmp_path, after, header, message):
    first, second = write_pair(tmp_path, ["1,f,1", "2,m,0"], after, header=header)
    with pytest.raises(UserError, match=message):
        audit_ready_table(first, AuditConfig(("sex",)), after=second)


def test_comparing_tables_needs_ids_and_equal_columns(tmp_path):
    first, second = write_pair(tmp_path, ["f,1", "m,0"], ["f,1", "m,0"], header="sex,selected")
    with pytest.raises(UserError, match="needs a column 'id' in both"):
        audit_ready_table(first, AuditConfig(("sex",)), after=second)
