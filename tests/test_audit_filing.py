"""What a page needs to be filed: words that fit what was audited, and everything that says which data it is of."""

import hashlib
import importlib.metadata
import json
import re
from datetime import UTC, datetime

import pytest
from ready_tables import SEX, audit, write_table

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.audit.filing import hash_input, list_exclusions

STRANGE = re.compile("posting|shortlist|matcher|the pool", re.IGNORECASE)  # to whoever gives a table of decisions


def report(folder, *arguments):
    run_command(["audit", *map(str, arguments), "--out", str(folder)])
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "title"), [("selected", "Audit of selections"), ("score", "Audit of scores")])
def test_a_table_of_decisions_has_its_own_title_and_no_shortlist(tmp_path, kind, title):
    page = report(tmp_path / "out", "--scores", write_table(tmp_path / "t.csv", SEX, kind=kind))
    assert f"<title>{title}</title>" in page and f"<h1>{title}</h1>" in page
    assert not STRANGE.search(re.sub("<style>.*</style>", "", page, flags=re.DOTALL))


def test_a_table_with_jobs_speaks_of_jobs(tmp_path):
    lines = [f"p{i % 40},{'fm'[i % 2]},{i % 3 // 2},j{i // 40}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["id,sex,selected,opening", *lines]))
    page = report(tmp_path / "out", "--scores", tmp_path / "t.csv", "--job_column", "opening")
    assert "jobs only" in page and not STRANGE.search(page)


def test_every_table_ends_with_the_total_of_all_that_checks_read_past(tmp_path, capsys):
    path = write_table(tmp_path / "t.csv", SEX, kind="selected", extra=["u1,,1", "u2,,1"])
    page = report(tmp_path / "out", "--scores", path)
    row = page[page.index(">Total<") : page.index("unknown included")]
    assert re.findall(">([^<\n]+)<", row)[:4] == ["Total", "170", "86", "50.6 %"]
    table = tmp_path / "out" / "selection_sex_before.csv"
    assert table.read_text().splitlines()[-1] == "Total,170,86,50.6%,,170,unknown included"
    capsys.readouterr()
    run_command(["audit", "--check", str(table)])
    assert "unexplained: " not in capsys.readouterr().out


def test_a_total_of_few_is_hidden(tmp_path):
    """Of 170 rows 3 are selected: their sum would say what each hidden cell is at most."""
    path = write_table(tmp_path / "t.csv", [("Male", 90, 2), ("Female", 80, 1)], kind="selected")
    assert ">Total<" not in report(tmp_path / "out", "--scores", path, "--min_count", 10)


def test_the_median_is_named_with_the_scores_that_equal_it(tmp_path):
    table = write_table(tmp_path / "t.csv", [("a", 40, 10), ("b", 40, 15)], kind="score")
    page = report(tmp_path / "out", "--scores", table)
    assert "strictly above 0, the median of all scores; 55 scores equal it" in page


STATED = ["--employer", "A & Sons", "--tool", "Rank 3.1", "--auditor", "C. Heck", "--period", "May 2026"]
STATED += ["--data_source", "their own records", "--left_out", "12 who withdrew", "--date", "2026-05-04"]


def test_the_page_and_the_numbers_say_whose_audit_of_which_file_it_is(tmp_path):
    table = write_table(tmp_path / "t.csv", SEX, kind="selected")
    page = report(tmp_path / "out", "--scores", table, *STATED)
    stated = ("A &amp; Sons", "Rank 3.1", "C. Heck", "May 2026", "their own records", "12 who withdrew", "2026-05-04")
    for words in stated:
        assert f">{words}</td>" in page
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    assert f">{digest}</td>" in page and f"ilqljax {importlib.metadata.version('ilqljax')}" in page
    assert "Not stated" not in page
    filing = json.loads((tmp_path / "out" / "audit.json").read_text())["filing"]
    assert filing["inputs"] == [{"path": str(table), "sha256": digest}] and filing["employer"] == "A & Sons"


def test_what_nobody_stated_is_named_and_the_date_is_todays(tmp_path):
    page = report(tmp_path / "out", "--scores", write_table(tmp_path / "t.csv", SEX, kind="selected"))
    assert ">employer, tool, auditor, data period, data source</td>" in page
    assert f">{datetime.now(UTC).date().isoformat()}</td>" in page


def test_a_date_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--date 4 May: is no date. Write year, month and day"):
        report(tmp_path / "out", "--scores", write_table(tmp_path / "t.csv", SEX, kind="selected"), "--date", "4 May")


def test_a_folders_checksum_is_that_of_its_files_lines(tmp_path):
    (tmp_path / "jobs" / "b").mkdir(parents=True)
    (tmp_path / "jobs" / "b" / "2").write_text("two")
    (tmp_path / "jobs" / "1").write_text("one")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    assert hash_input(tmp_path / "jobs") == hashlib.sha256(f"{one}  1\n{two}  b/2\n".encode()).hexdigest()


def test_who_is_left_out_is_listed_with_the_reason(tmp_path):
    groups = [("a", 1000, 500), ("b", 1000, 500), ("few", 12, 6), ("some", 42, 20), ("mid", 29, 10)]
    found = audit(write_table(tmp_path / "t.csv", groups, kind="selected", extra=["u1,,1"]), leave_out_below=0.01)
    assert list_exclusions(found) == [
        ("sex", "Unknown (1)", "no category declared: in no rate"),
        ("sex", "few (12)", "under 1 % of the data: in no ratio"),
        ("sex", "mid (29)", "fewer than 30 people: not judged"),
    ]
    hidden = audit(tmp_path / "t.csv", min_count=15)
    assert "few (" not in str(list_exclusions(hidden)) and "Unknown" not in str(list_exclusions(hidden))


def test_columns_that_were_not_audited_are_named(tmp_path):
    lines = [f"p{i},p{i}@x.org,{'fm'[i % 2]},{i % 3 // 2}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["id,email,sex,selected", *lines]))
    page = report(tmp_path / "out", "--scores", tmp_path / "t.csv")
    assert re.search("Columns not audited</th><td [^>]*>email</td>", page)


def test_nothing_that_is_closed_would_be_lacking_in_the_pdf(tmp_path):
    """A browser prints a closed box without what is in it."""
    page = report(tmp_path / "out", "--scores", write_table(tmp_path / "t.csv", SEX, kind="selected"))
    assert "Tests and chance" in page and not re.search("<details(?! open)", page)
