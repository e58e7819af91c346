"""Audits of data frames: the numbers are those of the engine, and what is no frame is refused."""

import importlib.metadata
from datetime import UTC, datetime

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table

# Local Law 144's example: 50 of 92 and 34 of 76.
SEX = ["Male"] * 92 + ["Female"] * 76
PICKED = [i < 50 for i in range(92)] + [i < 34 for i in range(76)]


class Frame:
    """What is used of pandas: `to_dict("list")`, with NaN where nothing stands."""

    def __init__(self, **columns):
        self.columns = columns

    def to_dict(self, orient):
        assert orient == "list"
        return self.columns


@pytest.fixture(scope="module")
def audited():
    return audit_frame({"sex": SEX, "picked": PICKED}, attributes=["sex"], selected="picked")


def test_the_laws_example(audited):
    female, male = audited.by_group
    assert (female["attribute"], female["category"], female["n_assessed"], female["n_selected"]) == (
        "sex", "Female", 76, 34
    )  # fmt: skip
    assert audited.overall["rate"] == pytest.approx(84 / 168)
    assert audited.overall["rate_low"] < 0.5 < audited.overall["rate_high"]
    assert audited.ratio() == {"sex": pytest.approx((34 / 76) / (50 / 92))}
    assert audited.difference() == {"sex": pytest.approx(50 / 92 - 34 / 76)}
    assert female["ratio_low"] < female["impact_ratio"] < female["ratio_high"] and male["mark"] == "reference"


def test_an_audit_is_shown_in_a_line_an_attribute(audited):
    assert repr(audited) == "FrameAudit: 84 of 168 selected (50.0%)\n  sex: lowest ratio 0.82, difference 0.10"
    few = audit_frame(GOOD, attributes=["sex"], selected="picked")
    assert repr(few).splitlines()[1:] == ["  sex: no two categories of 30 people each"]
    unknown = audit_frame(GOOD | {"sex": ["", None]}, attributes=["sex"], selected="picked")
    with pytest.raises(UserError, match="'' has no row"):
        unknown.plot()


@pytest.mark.parametrize("kind", ["score", "selected"])
def test_without_postings_every_number_is_that_of_the_ready_table(tmp_path, kind):
    rng = np.random.default_rng(0)
    columns = {
        "sex": ["f", "m", ""] * 40,
        "race": rng.choice(["a", "b"], 120).tolist(),
        kind: rng.integers(0, 2, 120).tolist(),
    }
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    expected = audit_ready_table(
        load_ready_table(tmp_path / "t.csv"), AuditConfig(("sex", "race"), min_count=2, seed=4)
    )
    found = audit_frame(columns, attributes=["sex", "race"], **{kind: kind}, min_count=2, seed=4).audit
    np.testing.assert_equal(found, expected)


def test_every_kind_of_frame_gives_the_same_and_what_is_missing_is_unknown(audited):
    columns = {"sex": [*SEX, float("nan"), None, ""], "picked": [*PICKED, 1, 0.0, True]}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    del records[-1]["sex"]
    for frame in (columns, Frame(**columns), records):
        found = audit_frame(frame, attributes=["sex"], selected="picked")
        assert found.audit["attributes"][0]["n_unknown"] == 3
        assert found.overall["n_assessed"] == 171
        assert [row["rate"] for row in found.by_group] == [row["rate"] for row in audited.by_group]


def make_shortlists(n_postings=12, n_people=80):
    rng = np.random.default_rng(1)
    job, who = np.repeat(np.arange(n_postings), n_people), np.tile(np.arange(n_people), n_postings)
    return {"job": job, "who": who, "sex": np.where(who % 2, "f", "m"), "picked": rng.random(len(who)) < 0.3}


def test_people_who_come_back_count_once_and_postings_widen_the_intervals():
    frame = make_shortlists()
    chosen = {"attributes": ["sex"], "selected": "picked"}
    crossed = audit_frame(frame, **chosen, posting="job", person="who")
    apart = audit_frame(frame, **chosen, posting="job")
    assert (crossed.audit["n_candidates"], crossed.audit["n_postings"]) == (80, 12)
    assert [row["n_people"] for row in crossed.by_group] == [40, 40]
    assert (apart.audit["n_candidates"], apart.by_group[0]["n_people"]) == (960, 480)
    assert [row["n_selected"] for row in crossed.by_group] == [row["n_selected"] for row in apart.by_group]
    lower = min(crossed.by_group, key=lambda row: row["impact_ratio"])
    assert np.isfinite([lower["ratio_low"], lower["postings_low"]]).all()


def test_a_difference_from_a_hidden_category_is_not_told():
    groups = [("a", 100, 50), ("b", 100, 48), ("c", 60, 46), ("d", 44, 44)]
    frame = {"g": [g for g, n, _ in groups for _ in range(n)], "p": [i < k for _, n, k in groups for i in range(n)]}
    shown, hidden = (audit_frame(frame, attributes=["g"], selected="p", min_count=n) for n in (0, 45))
    assert [row["category"] for row in hidden.by_group] == ["a", "b"]  # "c" would give "d" away
    assert shown.ratio() == {"g": 0.48} and np.isnan(hidden.ratio()["g"])  # 0.48 / 0.48 would be the rate of "d"
    assert shown.difference() == {"g": pytest.approx(0.52)}
    assert np.isnan(hidden.difference()["g"])


def test_scores_are_compared_with_the_median_of_all():
    found = audit_frame({"sex": ["f", "f", "m", "m"], "s": [-1.0, 3, 2, 9]}, attributes=["sex"], score="s")
    assert [row["n_selected"] for row in found.by_group] == [1, 1]
    assert found.audit["medians"] == {"before": 2.5}
    assert np.isnan(found.ratio()["sex"]) and np.isnan(found.difference()["sex"])  # four people


def test_the_page_and_the_plot_are_those_of_the_audit(audited):
    page = audited.to_html()
    assert page.startswith("<!DOCTYPE html>") and "0.82" in page
    assert f">{datetime.now(UTC).date().isoformat()}</td>" in page
    assert f">ilqljax {importlib.metadata.version('ilqljax')}</td>" in page
    axes = audited.plot("sex").axes[0]
    assert [text.get_text() for text in axes.texts] == ["Female", "Male"] and 0.8 in axes.get_xticks()
    with pytest.raises(UserError, match=r"'age' has no row\. \['sex'\] have"):
        audited.plot("age")


GOOD = {"sex": ["f", "m"], "picked": [0, 1], "job": ["x", "x"], "who": [1, 2]}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"score": "picked"}, "give one of the two"),
        ({}, {"attributes": "sex"}, "give a list of columns"),
        ({}, {"attributes": ["age"]}, "no column 'age'. It has 'sex', 'picked'"),
        ({"picked": [0, 2]}, {}, "row 1: picked=2 is not 0 or 1"),
        ({"picked": [0, None]}, {}, "row 1: picked=None is not 0 or 1"),
        ({"picked": [0, "yes"]}, {}, "row 1: picked='yes' is not 0 or 1; write 1 for yes"),
        ({"picked": [0, [1]]}, {}, r"row 1: picked=\[1\] is not 0 or 1"),
        ({"picked": 1}, {}, "Column 'picked' is 1. Give a list"),
        ({"sex": "fm"}, {}, "Column 'sex' is 'fm'. Give a list"),
        ({}, {"attributes": 3}, "attributes=3: give a list of columns"),
        ({}, {"attributes": [3]}, r"attributes\[0\]=3 is of type int"),
        ({}, {"attributes": ["SEX"]}, "no column 'SEX'. Did you mean 'sex'?"),
        ({}, {"attributes": ["sex", "sex"]}, "Column 'sex' is named twice"),
        ({}, {"selected": None}, "selected=None is of type NoneType. Give the name of a column"),
        ({}, {"min_count": "5"}, "min_count='5' is not a whole number"),
        ({}, {"seed": -1}, "seed=-1 is not a whole number"),
        ({"who": [1, None]}, {"person": "who"}, "row 1: who=None names nothing"),
        ({"job": ["x", ["y"]]}, {"posting": "job"}, r"row 1: job=\['y'\] names nothing"),
        ({"picked": [0]}, {}, r"columns have \[1, 2\] rows"),
        ({"who": [1, 1]}, {"person": "who"}, "row 1: 1 is {'sex': 'm'}, and was {'sex': 'f'}"),
        ({"who": [1, 1], "sex": ["f", "f"]}, {"person": "who", "posting": "job"}, "1 is twice in one posting"),
    ],
)
def test_what_cannot_be_audited_is_refused(change, options, message):
    with pytest.raises(UserError, match=message):
        audit_frame(GOOD | change, **{"attributes": ["sex"], "selected": "picked"} | options)


def test_a_frame_with_two_columns_of_one_name_is_refused():
    frame = Frame(sex=["f", "m"], picked=[0, 1])
    frame.columns = ["sex", "picked", "sex"]
    with pytest.raises(UserError, match="more than one column 'sex'"):
        audit_frame(frame, attributes=["sex"], selected="picked")


@pytest.mark.parametrize("frame", [[1, 2], ["sex"], [], 3, None, "table.csv", np.zeros((2, 2))])
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(UserError, match=r"is no frame|has no column|Give a DataFrame"):
        audit_frame(frame, attributes=["sex"], selected="picked")
