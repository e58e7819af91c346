"""Several rows a person: rows of one id are one cluster, in intervals, tests, counts and words."""

import json

import numpy as np
import pytest
import scipy.stats
from ready_tables import SEX, audit, write_table

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.audit.crossed import _count_effective, crossed_ratio, find_influence, pair_rows, tally_pairs
from ilqljax.hiring.audit.frame import audit_frame
from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table
from ilqljax.hiring.proportions import ratio_interval, ratio_test


def compare(selected, people, codes):
    """Return the ratio of category 0 to 1 with its interval; the codes are of people."""
    tally = tally_pairs(pair_rows(selected, people), codes, n_categories=2)
    return crossed_ratio(*(find_influence(tally, np.arange(2) == c) for c in range(2)))


def draw_rows(rng, n_people, *, rate, alike):
    """Return rows of people who are selected each with a chance of their own; `alike` is the correlation of rows."""
    chances = rng.beta(rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1), n_people)
    people = np.repeat(np.arange(n_people), rng.integers(1, 9, n_people))
    return rng.random(len(people)) < chances[people], people


def count_by_hand(selected, people):
    """Return the selected and assessed of as many independent trials, person by person."""
    rate, each = selected.mean(), [selected[people == one] for one in np.unique(people)]
    variance = sum((rows - rate).sum() ** 2 for rows in each) / len(selected) ** 2 * len(each) / (len(each) - 1)
    shrink = (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, len(each) - 1)) ** 2
    size = min(len(selected), rate * (1 - rate) / variance * shrink)
    return rate * size, size


def test_interval_is_a_slow_twins():
    rng = np.random.default_rng(0)
    (a, of_a), (b, of_b) = (draw_rows(rng, n, rate=0.4, alike=0.5) for n in (25, 40))
    found, _ = compare(np.append(a, b), np.append(of_a, of_b + 25), np.repeat([0, 1], [25, 40]))
    expected = ratio_interval(*count_by_hand(a, of_a), *count_by_hand(b, of_b))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_intervals_cover_where_rows_of_a_person_are_alike_and_independent_ones_do_not():
    """Of 150 samples with a coverage of .95, 3.5 standard errors are .06."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(150):
        (a, of_a), (b, of_b) = (draw_rows(rng, n, rate=rate, alike=0.5) for n, rate in ((60, 0.3), (90, 0.5)))
        tally = tally_pairs(
            pair_rows(np.append(a, b), np.append(of_a, of_b + 60)), np.repeat([0, 1], [60, 90]), n_categories=2
        )
        found = [n for c in range(2) for n in _count_effective(find_influence(tally, np.arange(2) == c))]
        naive = a.sum(), len(a), b.sum(), len(b)
        covered.append([ratio_test(*counts, ratio=0.6)[0] >= 0.05 for counts in (found, naive)])  # is in the interval
    clustered, independent = np.mean(covered, axis=0)
    assert clustered >= 0.89 and independent < 0.8


def test_copies_of_rows_change_no_interval_but_one_row_a_person_is_the_score_interval():
    codes, selected = np.repeat([0, 1], [40, 60]), np.concatenate([np.arange(40) < 10, np.arange(60) < 30])
    once, _ = compare(selected, np.arange(100), codes)
    copies, _ = compare(np.tile(selected, 9), np.tile(np.arange(100), 9), codes)
    assert tuple(once) == tuple(ratio_interval(10, 40, 30, 60))
    assert copies.low < once.low < once.high < copies.high and copies.low > 0.9 * once.low


def test_rate_of_one_is_as_certain_as_its_number_of_people():
    """A person with forty rows who is always selected is one person."""
    people = np.append(np.zeros(40, int), np.arange(1, 61))
    found, p_value = compare(np.append(np.ones(40, bool), np.arange(60) < 30), people, np.repeat([0, 1], [1, 60]))
    assert found.low < 0.5 and p_value > 0.1


def write_rows(path, *, repeat=3, extra=()):
    lines = [f"{c}{i},{c},{i % 2}" for c in "fm" for i in range(40) for _ in range(repeat)]
    path.write_text("\n".join(["id,sex,selected", *lines, *extra]) + "\n")
    return path


def test_rows_and_people_are_counted_apart(tmp_path, caplog):
    result = audit(write_rows(tmp_path / "t.csv"))
    (row, _) = result["attributes"][0]["rates"]["before"]["selection"]["rows"]
    assert (row["n_assessed"], row["n_selected"], row["n_people"], row["n_people_selected"]) == (120, 60, 40, 20)
    assert (result["n_candidates"], result["n_assessments"], result["n_postings"]) == (80, 240, 0)
    assert "240 rows are of 80 people" in caplog.text
    single = audit(write_rows(tmp_path / "t.csv", repeat=1))["attributes"][0]["rates"]["before"]["selection"]["rows"][0]
    assert row["rate_low"] == pytest.approx(single["rate_low"], abs=0.02)  # copies of 40 rows say no more than 40


def test_page_and_printed_line_say_rows_and_people(tmp_path, capsys):
    run_command(["audit", "--scores", str(write_rows(tmp_path / "t.csv")), "--out", str(tmp_path / "out")])
    assert "Candidates: 80 people in 240 rows" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "80 people in 240 rows" in page and "Different people" in page and "# of assessments" in page
    assert "of as many independent trials as the rows" in page
    path = write_table(tmp_path / "s.csv", SEX, kind="selected")
    run_command(["audit", "--scores", str(path), "--out", str(tmp_path / "single")])
    page = (tmp_path / "single" / "report.html").read_text(encoding="utf-8")
    assert "Different people" not in page and "# of applicants" in page and "Assessments and people" not in page


def test_jobs_are_counted_and_widen_the_intervals(tmp_path):
    rng, path = np.random.default_rng(2), tmp_path / "t.csv"
    lines = [f"{i},{'fm'[i % 2]},j{j},{int(rng.random() < 0.2 + 0.05 * j)}" for i in range(60) for j in range(8)]
    path.write_text("\n".join(["id,sex,job,selected", *lines]) + "\n")
    ready = load_ready_table(path, names={"job": "job"})
    assert ready.table.names == ("sex",) and len(ready.table.ids) == 60
    found = audit_ready_table(ready, AuditConfig(("sex",)))
    assert (found["n_postings"], found["n_candidates"], found["n_assessments"]) == (8, 60, 480)
    frame = {
        "who": ready.people.tolist(),
        "job": list(ready.jobs),
        "sex": ["fm"[i % 2] for i in ready.people],
        "p": ready.values,
    }
    same = audit_frame(frame, attributes=["sex"], selected="p", posting="job", person="who").audit
    np.testing.assert_equal(found["attributes"], same["attributes"])
    run_command(["audit", "--scores", str(path), "--job_column", "job", "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["n_postings"] == 8
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "60 people in 480 person-job pairs of 8 jobs" in page and "Three rates" not in page


def test_frame_takes_a_person_several_times_without_postings(tmp_path):
    ready = load_ready_table(write_rows(tmp_path / "t.csv"))
    frame = {"who": ready.people.tolist(), "sex": ["f"] * 120 + ["m"] * 120, "p": ready.values.astype(int).tolist()}
    found = audit_frame(frame, attributes=["sex"], selected="p", person="who")
    np.testing.assert_equal(found.audit, audit_ready_table(ready, AuditConfig(("sex",))))
    assert found.overall["rate"] == 0.5 and found.overall["rate_high"] > 0.6  # of 240 people it would be 0.56


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        ({}, "id,sex,selected\n1,f,1\n2,m,0\n1,m,1\n", r"t\.csv:4: the id '1' is sex='m', and was 'f' at .*t\.csv:2"),
        ({}, "id,sex,selected\n1,f,1\n,m,0\n", r"t\.csv:3: has no id"),
        ({}, "id,sex,selected\n1,f,1\n1,f,0\n", "holds 1 candidates"),
        ({"job": "job"}, "id,job,sex,selected\n1,a,f,1\n1,a,f,0\n", r"t\.csv:3: the id '1' was already used at"),
        ({"job": "job"}, "id,job,sex,selected\n1,a,f,1\n2,,f,0\n", r"t\.csv:3: names no job"),
    ],
)
def test_rows_that_cannot_be_one_persons_are_refused(tmp_path, names, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_ready_table(tmp_path / "t.csv", names=names)


def test_two_tables_of_several_rows_a_person_are_compared_by_job(tmp_path):
    for name, odd in (("a.csv", 0), ("b.csv", 1)):
        lines = [f"{c}{i},{c},j{j},{int((i + j) % 2 == odd)}" for c in "fm" for i in range(40) for j in range(3)]
        (tmp_path / name).write_text("\n".join(["id,sex,job,selected", *lines]) + "\n")
    first, second = (load_ready_table(tmp_path / name, names={"job": "job"}) for name in ("a.csv", "b.csv"))
    (section,) = audit_ready_table(first, AuditConfig(("sex",)), after=second)["attributes"]
    assert [row["n_selected"] for row in section["rates"]["after"]["selection"]["rows"]] == [60, 60]
    first, second = (load_ready_table(tmp_path / name, attributes=["sex"]) for name in ("a.csv", "b.csv"))
    with pytest.raises(UserError, match="needs one row a candidate, or --job_column"):
        audit_ready_table(first, AuditConfig(("sex",)), after=second)
