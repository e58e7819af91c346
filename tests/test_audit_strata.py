"""Within strata: Mantel and Haenszel's ratio, its test and interval, shuffles within strata, and Simpson's warning."""

import itertools
import json

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import StratifiedTable

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Column
from ilqljax.hiring.audit import shuffles
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.audit.shuffles import draw_selected
from ilqljax.hiring.audit.strata import (
    Counts,
    common_ratio,
    find_disagreement,
    find_inflation,
    make_strata,
    shuffle_within,
    stratified_statistic,
)
from ilqljax.hiring.audit.tables import list_disagreements, state_findings

WORKED = Counts(*map(np.array, ([8, 20], [10, 100], [70, 1], [100, 10])))  # the module's


def draw_counts(seed: int, *, n_strata: int, size: int) -> Counts:
    rng = np.random.default_rng(seed)
    n1, n0 = rng.integers(1, size, (2, n_strata))
    rates = rng.uniform(0.2, 0.6, n_strata)
    return Counts(rng.binomial(n1, 0.8 * rates), n1, rng.binomial(n0, rates), n0)


def test_worked_example():
    ratio, p_value = common_ratio(WORKED)
    assert ratio.value == pytest.approx(1.25) and ratio.low < 1.0 < ratio.high and p_value > 0.05


@pytest.mark.parametrize(("n_strata", "size"), [(3, 200), (40, 6)])
def test_ratio_and_test_are_those_of_statsmodels(n_strata, size):
    counts = draw_counts(0, n_strata=n_strata, size=size)
    a, n1, b, n0 = counts
    peer = StratifiedTable(np.array([[a, n1 - a], [b, n0 - b]], float))
    ratio, p_value = common_ratio(counts)
    assert ratio.value == pytest.approx(peer.riskratio_pooled)
    assert stratified_statistic(counts, 1.0) == pytest.approx(peer.test_null_odds().statistic)
    assert p_value == pytest.approx(peer.test_null_odds().pvalue)
    assert (p_value < 0.05) == (not ratio.low <= 1.0 <= ratio.high)


def test_interval_is_near_that_of_greenland_and_robins_in_large_strata():
    """1985: the variance of the log ratio is sum (m n1 n0 - a b N) / N^2 over the product of the two sums."""
    a, n1, b, n0 = counts = draw_counts(1, n_strata=5, size=2000)
    n = n1 + n0
    variance = (((a + b) * n1 * n0 - a * b * n) / n**2).sum() / ((a * n0 / n).sum() * (b * n1 / n).sum())
    ratio, _ = common_ratio(counts)
    expected = ratio.value * np.exp(np.array([-1.96, 1.96]) * np.sqrt(variance))
    np.testing.assert_allclose([ratio.low, ratio.high], expected, rtol=2e-3)


def test_nobody_selected_has_an_interval_and_no_reference_selected_has_none():
    none = Counts(*map(np.array, ([0, 0], [20, 30], [5, 9], [20, 30])))
    ratio, p_value = common_ratio(none)
    assert ratio.value == ratio.low == 0.0 < ratio.high < 1.0 and p_value < 0.05
    ratio, p_value = common_ratio(Counts(none.b, none.n0, none.a, none.n1))
    assert np.isnan(ratio).all() and p_value < 0.05
    empty = Counts(*np.empty((4, 0)))
    assert np.isnan([*common_ratio(empty)[0], common_ratio(empty)[1]]).all()


def draw_people(rng, *, n, rate, alike, n_strata):
    """Return rows of people with several strata each, whose selections go together."""
    people = np.repeat(np.arange(n), 4)
    place = rng.permuted(np.tile(np.arange(n_strata), (n, 1)), axis=1)[:, :4].ravel()
    luck = rng.random(n)[people]
    luck = np.where(rng.random(len(people)) < alike, luck, rng.random(len(people)))
    return people, place, luck < rate * (0.5 + place / n_strata)


def test_intervals_cover_where_people_come_back_in_many_strata():
    """Of 200 samples with a coverage of .95, 3.5 standard errors are .054."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        (p, j, x), (q, k, y) = (draw_people(rng, n=60, rate=r, alike=0.9, n_strata=8) for r in (0.3, 0.5))
        people, place, selected = np.append(p, q + 60), np.append(j, k), np.append(x, y)
        first = np.repeat([True, False], len(p))
        counts = Counts(
            *(
                np.bincount(place[of], weights=w[of], minlength=8)
                for of in (first, ~first)
                for w in (selected, first | True)
            )
        )
        factor = find_inflation(counts, place, people, selected, first)
        seen = stratified_statistic(counts, 0.6)  # in the interval if it is at most chi squared's 95 %, inflated
        covered.append([seen <= 3.841 * factor, seen <= 3.841])
    clustered, independent = np.mean(covered, axis=0)
    assert clustered >= 0.896 and independent < 0.8


def test_rows_of_different_people_inflate_nothing_and_copies_as_many_times():
    rng = np.random.default_rng(3)
    place, first, selected = rng.integers(0, 3, 400), rng.random(400) < 0.5, rng.random(400) < 0.4

    def inflate(n_copies, people):
        one, of, chosen = (np.tile(values, n_copies) for values in (place, first, selected))
        counts = Counts(
            *(np.bincount(one[g], weights=w[g], minlength=3) for g in (of, ~of) for w in (chosen, of | True))
        )
        return find_inflation(counts, one, people, chosen, of)

    assert inflate(1, np.arange(400)) == 1.0
    assert inflate(5, np.tile(np.arange(400), 5)) == pytest.approx(5.0, rel=0.05)
    assert inflate(2, np.tile(np.where(first, 0, np.arange(400)), 2)) == np.inf


@pytest.mark.parametrize("draw_cost", [0, 1000])  # labels are dealt to groups, or people permuted
def test_shuffle_within_has_the_law_of_every_permutation(monkeypatch, draw_cost):
    monkeypatch.setattr(shuffles, "DRAW_COST", draw_cost)
    place, codes = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1, 1])
    for selected in ([1, 0, 1, 1, 0, 0, 1], [2, 0, 1, 1, 0, 3, 1]):  # drawn by numbers, and by orders
        chosen = np.array(selected)
        drawn = draw_selected(place, codes, chosen, n_categories=2, seed=0, n_shuffles=4000)
        exact = [
            chosen[:3][np.array(left) == 0].sum() + chosen[3:][np.array(right) == 0].sum()
            for left in itertools.permutations(codes[:3])
            for right in itertools.permutations(codes[3:])
        ]
        assert drawn[:, 0].mean() == pytest.approx(np.mean(exact), abs=0.05)
        assert drawn[:, 0].std() == pytest.approx(np.std(exact), abs=0.05)
        assert (drawn.sum(axis=1) == chosen.sum()).all()


def test_shuffle_moves_no_label_between_strata():
    """All of one stratum are a, and all of the other b, so nothing can be exchanged."""
    strata = make_strata({"job": Column.from_values(["x"] * 5 + ["y"] * 5)}, np.arange(10))
    selected, codes = np.arange(10) < 5, np.repeat([0, 1], 5)
    assert np.isnan(shuffle_within(strata, selected, codes, n_categories=2, seed=0)).all()


def write_simpson(path, *, person=lambda i: i):
    """Berkeley's figure in small: women apply to the job that takes few."""
    groups = [("A", "f", 100, 80), ("A", "m", 800, 560), ("B", "f", 800, 160), ("B", "m", 100, 15), ("", "m", 4, 2)]
    rows = [(job, sex, int(i < high)) for job, sex, n, high in groups for i in range(n)]
    lines = [f"{person(i)},{job},{sex},{chosen}" for i, (job, sex, chosen) in enumerate(rows)]
    path.write_text("\n".join(["who,job,sex,selected", *lines]) + "\n")
    return path


OPTIONS = {"attributes": ["sex"], "names": {"id": "who"}}


def test_paradox_is_found_and_said(tmp_path):
    ready = load_ready_table(write_simpson(tmp_path / "t.csv"), within=["job"], **OPTIONS)
    result = audit_ready_table(ready, AuditConfig(("sex",)))
    assert result["within"] == {"names": ["job"], "n_strata": 2, "n_unknown": 4}
    found = result["attributes"][0]["within"]["before"]["selection"]
    (row,) = found["rows"]
    assert (found["reference"], row["category"], row["n_strata"]) == ("m", "f", 2)
    assert row["pooled_ratio"] == pytest.approx((240 / 900) / (575 / 900))
    assert row["ratio_low"] > 1.0 and row["p_mantel_haenszel"] < 0.05 and row["p_shuffled"] < 0.05
    assert row["disagreement"] == "side"
    (warning,) = list_disagreements(result)
    assert warning.startswith("sex: Warning (Simpson): f against m changes sides: 0.42 in total and 1.18 within")
    assert "Within the same job the lowest ratio is 1.18 [" in state_findings(result)["sex"][0]


def test_a_cell_of_a_pair_is_compared_with_the_reference_of_its_own_stratum(tmp_path):
    """In A the ratio is .80 / .70, in B .20 / .15, whatever the other stratum's rates are."""
    ready = load_ready_table(write_simpson(tmp_path / "t.csv"), within=["job"], **OPTIONS)
    strata = audit_ready_table(ready, AuditConfig(("sex",)))["attributes"][0]["within"]["before"]["selection"]["strata"]
    ratios = {(row["stratum"], row["category"]): row["ratio"] for row in strata}
    assert ratios["A", "f"] == pytest.approx(0.8 / 0.7) and ratios["B", "f"] == pytest.approx(0.2 / 0.15)
    assert np.isnan(ratios["A", "m"]) and len(ratios) == 4


def test_strata_are_not_listed_where_small_cells_are_hidden(tmp_path):
    ready = load_ready_table(write_simpson(tmp_path / "t.csv"), within=["job"], **OPTIONS)
    found = audit_ready_table(ready, AuditConfig(("sex",), min_count=3))["attributes"][0]["within"]["before"][
        "selection"
    ]
    assert found["strata"] == [] and len(found["rows"]) == 1


def test_program_page_and_frame_have_it(tmp_path, capsys):
    path = write_simpson(tmp_path / "t.csv")
    arguments = ["--id_column", "who", "--attributes", "sex", "--within", "job", "--job_column", "job"]
    path.write_text(path.read_text().replace(",,m,", ",C,m,"))
    run_command(["audit", "--scores", str(path), *arguments, "--out", str(tmp_path / "out")])
    assert "Warning (Simpson): f against m changes sides" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Within the same job, against m" in page and "the same job: 3 strata" in page and "Single strata" in page
    found = json.loads((tmp_path / "out" / "audit.json").read_text())["attributes"][0]["within"]
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    frame = {"job": [r[1] for r in rows], "sex": [r[2] for r in rows], "p": [int(r[3]) for r in rows]}
    same = audit_frame(frame, attributes=["sex"], selected="p", posting="job", within=["job"])
    assert same.audit["attributes"][0]["within"]["before"]["selection"]["rows"] == [
        pytest.approx(row) for row in found["before"]["selection"]["rows"]
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": ["level"]}, r"no column 'level'.*--within"),
        ({"within": ["sex"]}, "'sex' is in --attributes and, for instance, in --within"),
    ],
)
def test_wrong_strata_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load_ready_table(write_simpson(tmp_path / "t.csv"), **OPTIONS, **options)


def test_strata_of_postings_are_refused(tmp_path):
    with pytest.raises(UserError, match="--within names columns of a ready table"):
        run_command(["audit", "--sample", "--within", "job", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("pooled", "within", "found"),
    [
        (0.7, 0.9, "vanishes"),
        (0.9, 0.7, "appears"),
        (0.7, 1.2, "side"),
        (1.004, 0.99, ""),
        (0.7, 0.75, ""),
        (0.8, 0.9, ""),
    ],
)
def test_kinds_of_disagreement(pooled, within, found):
    assert find_disagreement(pooled, within) == found
