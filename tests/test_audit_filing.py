"""What a page needs to be filed: words that fit what was audited, and everything that says which data it is of."""

import re

import pytest
from ready_tables import SEX, write_table

from ilqljax.cli import run_command

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
