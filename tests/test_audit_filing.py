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
