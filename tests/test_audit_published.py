"""The check of published audits: numbers derived again, and each mismatch explained as far as it can be."""

import csv

import pytest
from ready_tables import RACE, SEX, audit, write_table

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.audit.published import (
    Verdict,
    check_tables,
    count_digits,
    load_published,
    read_number,
    summarize,
)
from ilqljax.hiring.audit.tables import list_tables

HEADER = "audit,position,sex,applicants,selected,rate,impact_ratio"


def check(path, *lines, header=HEADER):
    """Return the rows of made tables by category (and role, where there are several)."""
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    tables = load_published(path)
    check_tables(tables)
    return tables, {(row.role, row.category): row for table in tables for row in table.rows}


def find_verdicts(tmp_path, *lines):
    _, rows = check(tmp_path / "t.csv", *lines)
    return [(str(row.rate_verdict), str(row.ratio_verdict)) for row in rows.values()]


def test_numbers_that_follow_agree(tmp_path):
    """34 / 76 = .44737, 50 / 92 = .54348, and their ratio .82316."""
    found = find_verdicts(tmp_path, "a,x,f,76,34,44.7%,0.82", "a,x,m,92,50,54.3%,1.00", "a,x,Unknown,9,,,")
    assert found == [("agrees", "agrees"), ("agrees", "agrees"), ("", "")]


def test_cut_digits_and_ratios_of_rounded_rates_are_rounding(tmp_path):
    """18 / 28 = .64286 is published as .642 in the law's example; .45 / .54 is .83 where the rates give .82."""
    assert find_verdicts(tmp_path, "a,x,f,28,18,.642,1.000", "a,x,m,40,15,.375,.583")[0] == ("rounding", "agrees")
    found = find_verdicts(tmp_path, "a,x,f,76,34,.45,.83", "a,x,m,92,50,.54,1.00")
    assert found == [("agrees", "rounding"), ("agrees", "agrees")]


def test_rates_without_counts_are_known_as_rounded(tmp_path):
    """.50 over .51 is .980, but .495 over .515 is .961."""
    for ratio, verdict in ((0.98, "agrees"), (0.97, "rounding"), (0.95, "unexplained")):
        found = find_verdicts(tmp_path, f"a,x,f,,,.50,{ratio}", "a,x,m,,,.51,1.00")
        assert found[0] == ("not derivable", verdict)
    made = find_verdicts(tmp_path, "a,x,f,2500,1250,.50,.97", "a,x,m,2500,1275,.51,1.00")  # products of these rates
    assert made[0] == ("agrees", "rounding")


def test_another_comparator_is_named(tmp_path):
    """Over white men's .5, though black men have .6."""
    lines = [
        "a,x,wm,1000,501,.50,1.00",
        "a,x,bm,990,597,.60,1.20",
        "a,x,wf,1010,399,.40,0.79",
        "a,x,bf,1001,303,.30,.60",
    ]
    _, rows = check(tmp_path / "t.csv", *lines)
    assert {row.ratio_verdict for row in rows.values()} == {Verdict.COMPARATOR}
    assert {row.explanation for row in rows.values()} == {"wm"}
    assert rows["x", "bm"].flags == ["ratio above 1"]


def test_category_without_a_ratio_is_no_reference_but_may_be_the_comparator(tmp_path):
    lines = ["a,x,f,1000,401,.40,.80", "a,x,m,1000,502,.50,1.00", "a,x,tiny,11,8,.73,"]
    _, rows = check(tmp_path / "t.csv", *lines)
    assert [row.ratio_verdict for row in rows.values()] == ["agrees", "agrees", ""]
    assert rows["x", "tiny"].flags == ["selected under 10"]
    lines = ["a,x,f,1000,401,.40,.55", "a,x,m,1000,502,.50,.69", "a,x,tiny,11,8,.73,"]
    _, rows = check(tmp_path / "t.csv", *lines)
    assert rows["x", "f"].explanation == "tiny" and rows["x", "f"].ratio_verdict == Verdict.COMPARATOR


def test_roles_that_were_merged_are_seen(tmp_path):
    """In x women have 200 of 1000 and in y 810 of 900; together 1010 / 1900 over men's 1120 / 1700 is .81."""
    lines = [
        "a,x,f,1000,200,.200,.81",
        "a,x,m,700,220,.314,1.00",
        "a,y,f,900,810,.900,1.00",
        "a,y,m,1000,900,.900,1.00",
    ]
    _, rows = check(tmp_path / "t.csv", *lines)
    assert rows["x", "f"].ratio_verdict == Verdict.MERGED and "added up" in rows["x", "f"].explanation
    assert rows["y", "f"].ratio_verdict == Verdict.AGREES


def test_what_nothing_explains_is_unexplained(tmp_path):
    found = find_verdicts(tmp_path, "a,x,f,1000,301,.45,.70", "a,x,m,1000,502,.50,1.00")
    assert found[0] == ("unexplained", "unexplained")


def test_tables_are_flagged(tmp_path):
    tables, rows = check(
        tmp_path / "t.csv", "a,x,f,9,3,.33,.66", "a,x,m,1000,500,.5,.98", "a,y,f,100,40,.4,.8", "a,y,m,100,50,.5,1",
        "a,y,Missing/Unknown,600,,,", "a,z,f,100,39.6,.396,", "a,z,m,10,20,.5,",
    )  # fmt: skip
    assert tables[0].flags == ["does not say how many are of unknown category", "no comparator: no ratio is 1"]
    assert rows["x", "f"].flags == ["applicants under 10", "selected under 10"]
    assert tables[1].flags == [] and tables[1].missing_share == 0.75
    assert "no impact ratio" in tables[2].flags
    assert rows["z", "f"].flags == ["a count is not whole: made from a rate"]
    assert rows["z", "m"].flags == ["more selected than applied"]
    summary = dict(summarize(tables))
    assert (
        summary["Audits, tables, rows"] == "1, 3, 7" and summary["Cells under 10"] == "1 of applicants, 1 of selected"
    )
    assert summary["Of unknown category"] == "said in 1 tables; more than half of the people in 1"


@pytest.mark.parametrize("groups", [SEX, RACE])
def test_our_own_tables_pass(tmp_path, groups):
    (text,) = list_tables(audit(write_table(tmp_path / "t.csv", groups, kind="selected"))).values()
    (tmp_path / "own.csv").write_text(text)
    tables = load_published(tmp_path / "own.csv")
    check_tables(tables)
    for row in tables[0].rows:
        assert row.is_unknown or (row.rate_verdict, row.ratio_verdict) == ("agrees", "agrees")
    assert tables[0].rows[-1].is_unknown and len(tables[0].rows) == len(groups) + 1


@pytest.mark.parametrize(
    ("text", "digits"),
    [("54.3%", 3), ("54%", 2), ("0.50", 2), ("0.8740000000000001", 3), ("1", 0), ("NA", 0), (".5", 1)],
)
def test_digits(text, digits):
    assert count_digits(text) == digits


def test_numbers_are_read_as_published():
    assert [read_number(text, where="x") for text in ("1,030,417", "54.3%", ".5")] == [
        1030417,
        pytest.approx(0.543),
        0.5,
    ]
    with pytest.raises(UserError, match="x: 'about 5' is not a number"):
        read_number("about 5", where="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no published audit; the columns are a, b"),
        ("", "no published audit"),
        (HEADER + "\na,b\n", "2 cells"),
    ],
)
def test_what_is_no_published_audit_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_published(tmp_path / "t.csv")


def test_program_prints_a_summary_and_writes_every_row(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("\n".join([HEADER, "a,x,=f,1000,301,.45,.70", "a,x,m,1000,502,.50,1.00"]) + "\n")
    run_command(["audit", "--check", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Published ratios: 1 agrees; 1 unexplained" in printed and "t.csv:2: =f, rate 0.45, ratio 0.7" in printed
    rows = list(csv.DictReader((tmp_path / "out" / "check.csv").read_text().splitlines()))
    assert (rows[0]["category"], rows[0]["ratio check"], rows[0]["derived ratio"]) == ("'=f", "unexplained", "0.5996")
    run_command(["audit", "--check", str(tmp_path / "t.csv")])
    with pytest.raises(UserError, match="leave out --jobs, --scores and --sample"):
        run_command(["audit", "--check", str(tmp_path / "t.csv"), "--sample"])
    with pytest.raises(UserError, match="Say where the report goes: --out"):
        run_command(["audit", "--sample"])


def test_published_audits_are_checked(shared_dir):
    """Of the real ones every ratio gets a verdict, and most are explained."""
    tables = load_published(shared_dir / "data" / "ll144_audits.csv.gz")
    check_tables(tables)
    rows = [row for table in tables for row in table.rows]
    verdicts = [row.ratio_verdict for row in rows if row.ratio == row.ratio and not row.is_unknown]
    assert len({row.audit for row in rows}) == 59 and len(rows) == 2231 and all(verdicts)
    assert verdicts.count(Verdict.UNEXPLAINED) < 0.25 * len(verdicts) and verdicts.count(Verdict.AGREES) > 450
