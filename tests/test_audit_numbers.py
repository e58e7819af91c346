"""Attributes that are numbers, put in bins on request only; and rows that count by their weights."""

import numpy as np
import pytest
import scipy.stats

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.audit.columns import bin_columns, bin_values, parse_bins
from ilqljax.hiring.audit.crossed import _count_effective, crossed_ratio, find_influence, pair_rows, tally_pairs
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.rates import Mark
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.proportions import ratio_interval, ratio_test
from ilqljax.hiring.statistics import weighted_median

# --- Bins -------------------------------------------------------------------------------------------------------------


def test_worked_bins():
    found = bin_values("age", ["39.9", "40", "65", "", "0"], (0.0, 40.0, 65.0))
    assert found == ["0 to under 40", "40 to 65", "40 to 65", "", "0 to under 40"]
    open_ended = bin_values("age", ["-3", "40", "90"], (-np.inf, 40.0, np.inf))
    assert open_ended == ["under 40", "40 or more", "40 or more"]


def test_quantiles_hold_about_as_many_each():
    ages = [str(age) for age in np.random.default_rng(0).permutation(200)]
    found = bin_values("age", ages, 4)
    assert sorted(found.count(name) for name in set(found)) == [50, 50, 50, 50]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["age"], "not numbers.*Give edges in rising order, such as age=0,40,200"),
        (["=1,2,3"], "write COLUMN=0,40,200"),
        (["age=0,40,200", "age=1,2,3"], "once for each column"),
        (["age=0,x,2"], "not numbers"),
        (["age=0,40"], "three edges or more"),
        (["age=0,40,40"], "in rising order"),
        (["age=0,nan,40"], "in rising order"),
        (["age=quantiles:1"], "number of quantiles from 2 to 20"),
        (["age=quantiles:x"], "number of quantiles from 2 to 20"),
    ],
)
def test_wrong_bins_are_refused(texts, message):
    with pytest.raises(UserError, match=message):
        parse_bins(texts)


def test_values_that_fit_no_bin_and_columns_without_bins_are_refused():
    with pytest.raises(UserError, match=r"age=250 is in no bin; they go from 0 to 200. Widen them"):
        bin_values("age", ["20", "250"], (0.0, 40.0, 200.0))
    with pytest.raises(UserError, match="age='old' is not a number"):
        bin_values("age", ["old"], (0.0, 40.0, 200.0))
    with pytest.raises(UserError, match="has no 4 quantiles that differ"):
        bin_values("age", ["1", "1"], 4)
    with pytest.raises(UserError, match="--bins age: it is not among the attributes: sex"):
        bin_columns({"sex": ["f"]}, {"age": 4})
    with pytest.raises(UserError, match=r"'age' holds 30 different numbers.*--bins age=0,40,200"):
        bin_columns({"age": [str(i) for i in range(30)]}, {})
    assert bin_columns({"code": [str(i % 9) for i in range(30)]}, {})["code"][:2] == ["0", "1"]


def write_ages(path):
    lines = [f"{20 + i % 50},{int(i % 3 == 0)}" for i in range(300)] + ["N/A,1"]
    path.write_text("\n".join(["age,selected", *lines]) + "\n")
    return path


def test_ages_are_groups_of_the_bins_and_never_of_a_year(tmp_path):
    path = write_ages(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"left out are 'age' \(numbers; to audit them.*--bins age=0,40,200"):
        load_ready_table(path)
    with pytest.raises(UserError, match="'age' holds 50 different numbers"):
        load_ready_table(path, attributes=["age"])
    for named in ((), ("age",)):
        table = load_ready_table(path, attributes=named, bins={"age": (0.0, 40.0, 200.0)}).table
        assert table.attribute("age").categories == ("0 to under 40", "40 to 200")
    run_command(["audit", "--scores", str(path), "--bins", "age=0,40,200", "--out", str(tmp_path / "out")])
    assert "40 to 200,180," in (tmp_path / "out" / "selection_age_before.csv").read_text()
    ages = [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:301]]
    frame = {"age": ages, "p": [int(i % 3 == 0) for i in range(300)]}
    rows = audit_frame(frame, attributes=["age"], selected="p", bins={"age": [0, 40, 200]}).by_group
    assert [row["n_assessed"] for row in rows] == [120, 180]
    with pytest.raises(UserError, match="holds 50 different numbers"):
        audit_frame(frame, attributes=["age"], selected="p")


# --- Weights ----------------------------------------------------------------------------------------------------------


def compare(selected, weights, codes, people=()):
    tally = tally_pairs(pair_rows(selected, people, weights=weights), codes, n_categories=2)
    return crossed_ratio(*(find_influence(tally, np.arange(2) == c) for c in range(2)))


def count_by_hand(selected, weights):
    """Return effective counts of rows of different people."""
    rate, n = np.average(selected, weights=weights), len(selected)
    variance = ((weights * (selected - rate)) ** 2).sum() / weights.sum() ** 2 * n / (n - 1)
    shrink = (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, n - 1)) ** 2
    size = min(n, rate * (1 - rate) / variance * shrink)
    return rate * size, size


def test_weighted_interval_is_a_slow_twins_and_weights_have_no_unit():
    rng = np.random.default_rng(0)
    selected, weights, codes = rng.random(90) < 0.4, rng.gamma(1.0, 1.0, 90), np.repeat([0, 1], [40, 50])
    found, _ = compare(selected, weights, codes)
    expected = [count_by_hand(selected[codes == c], weights[codes == c]) for c in range(2)]
    np.testing.assert_allclose(found, ratio_interval(*expected[0], *expected[1]), rtol=1e-6)
    np.testing.assert_allclose(compare(selected, weights * 40, codes)[0], found, rtol=1e-6)
    found, p_value = compare(selected | (codes == 0), weights, codes)
    assert p_value < 0.05 and found.low > 1.0


def test_weighted_intervals_cover():
    """Selection goes with the weight; of 300 samples with a coverage of .95, 3.5 standard errors are .044."""
    rng, codes, covered = np.random.default_rng(1), np.repeat([0, 1], [80, 120]), []
    for _ in range(300):
        weights = rng.choice([1.0, 5.0], 200)
        chances = np.where(weights > 1, 0.5, 0.3) * np.where(codes == 0, 0.7, 1.0)
        tally = tally_pairs(pair_rows(rng.random(200) < chances, weights=weights), codes, n_categories=2)
        counts = [n for c in range(2) for n in _count_effective(find_influence(tally, np.arange(2) == c))]
        covered.append(ratio_test(*counts, ratio=0.7)[0] >= 0.05)  # then 0.7 is in the interval
    assert np.mean(covered) >= 0.906


def test_rate_of_one_is_as_certain_as_its_heaviest_rows_allow():
    """One row with nearly all of the weight is one person."""
    weights = np.append([1000.0], np.ones(99))
    found, _ = compare(np.append(np.ones(50, bool), np.arange(50) < 25), weights, np.repeat([0, 1], 50))
    assert found.low < 1.0


def test_weights_of_one_person_are_added_up():
    rng = np.random.default_rng(2)
    selected, codes = rng.random(60) < 0.5, np.repeat([0, 1], 30)
    once, _ = compare(selected, np.full(60, 2.0), codes, np.arange(60))
    copies, _ = compare(np.tile(selected, 4), np.full(240, 0.5), codes, np.tile(np.arange(60), 4))
    np.testing.assert_allclose(once, copies, rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [([3, 1, 2], [], 2), ([3, 1, 2], [1, 1, 1], 2), ([1, 2, 3, 4], [1, 1, 1, 1], 2.5), ([1, 2, 3], [1, 1, 5], 3)],
)
def test_weighted_median(values, weights, expected):
    assert weighted_median(np.array(values, float), np.array(weights, float)) == expected


def write_weights(path):
    """Weighted, 40 of 100 and 30 of 60; unweighted 20 of 40 each."""
    groups = [("f", 20, 2, 1), ("f", 20, 3, 0), ("m", 20, 1.5, 1), ("m", 20, 1.5, 0)]
    lines = [f"{sex},{weight},{chosen}" for sex, n, weight, chosen in groups for _ in range(n)]
    path.write_text("\n".join(["sex,w,selected", *lines]) + "\n")
    return path


def test_weighted_table_is_audited_and_says_so(tmp_path):
    path = write_weights(tmp_path / "t.csv")
    result = audit_ready_table(load_ready_table(path, names={"weight": "w"}), AuditConfig(("sex",)))
    f, m = result["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert (f["n_assessed"], f["n_selected"], f["n_people"]) == (100.0, 40.0, 40)
    assert f["impact_ratio"] == pytest.approx(0.8) and f["mark"] == Mark.PASSED and m["mark"] == Mark.REFERENCE
    assert f["test"] == "score, effective counts" and 0.05 < f["p_shuffled"] < 1
    frame = {"sex": ["f"] * 40 + ["m"] * 40, "w": [2] * 20 + [3] * 20 + [1.5] * 40, "p": ([1] * 20 + [0] * 20) * 2}
    same = audit_frame(frame, attributes=["sex"], selected="p", weight="w")
    np.testing.assert_equal(same.audit, result)
    assert same.overall["n_assessed"] == 160.0
    run_command(["audit", "--scores", str(path), "--weight_column", "w", "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "rates are weighted; intervals are of effective counts" in page and "Weight of assessments" in page


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("sex,w,selected\nf,0,1\nm,1,0\n", {}, r"t\.csv:2: weight='0' is not a finite number above 0"),
        ("sex,w,selected\nf,1,1\nm,,0\n", {}, r"t\.csv:3: weight=''"),
        ("sex,w,applicants,selected\nf,1,9,1\nm,1,9,1\n", {}, "takes no weights"),
    ],
)
def test_wrong_weights_are_refused(tmp_path, text, names, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_ready_table(tmp_path / "t.csv", names={"weight": "w"} | names)


def test_weights_with_jobs_or_strata_are_refused(tmp_path):
    path = write_weights(tmp_path / "t.csv")
    path.write_text(
        path.read_text()
        .replace("sex,w", "sex,w,job")
        .replace("f,", "f,")
        .replace(",1\n", ",1,1\n")
        .replace(",0\n", ",1,0\n")
    )
    ready = load_ready_table(path, attributes=["sex"], names={"weight": "w"}, within=["job"])
    with pytest.raises(UserError, match="does not go with --within: the intervals and tests over strata are of whole"):
        audit_ready_table(ready, AuditConfig(("sex",)))


@pytest.mark.parametrize("option", ["--within", "--job_column"])
def test_weights_with_jobs_or_strata_are_refused_before_a_table_is_read(tmp_path, option):
    """A table of many rows was read first, and refused then; where there is none at all, nobody has read it."""
    given = ["--scores", str(tmp_path / "nowhere.csv"), "--weight_column", "w", option, "job"]
    with pytest.raises(UserError, match=f"--weight_column does not go with {option}.*too narrow for sums of weights"):
        run_command(["audit", *given, "--out", str(tmp_path / "out")])
