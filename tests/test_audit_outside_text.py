"""Names from outside: nothing unseen is obeyed, nothing long breaks a table or a file, no cell is a formula."""

import csv
import json

import pytest
from ready_tables import audit

from ilqljax.cli import run_command
from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.tables import list_tables, show_name

TURNED, LONG = "\u202efemale\u2066", "lang" * 750


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("fe\u200bmale\u00ad", "fe⟨U+200B⟩male⟨U+00AD⟩"),
        ("\ufeff\U000e0041x", "⟨U+FEFF⟩⟨U+E0041⟩x"),
        ("ma\u200dle", "ma⟨U+200D⟩le"),  # a joiner between Latin letters does nothing but tell names apart
        ("می\u200cخواهم", "می\u200cخواهم"),  # and in Persian it spells the word
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("é ß – 北京", "é ß – 北京"),
    ],
)
def test_marks_that_nobody_sees_are_shown(text, shown):
    assert clean_text(text) == shown == clean_text(shown)


def test_long_names_are_cut_in_the_middle():
    assert show_name("a" * 100) == "a" * 100
    cut = show_name("a" * 1500 + "b" * 1500)
    assert cut == "a" * 80 + "…" + "b" * 20
    assert show_name("a\nb\u200b") == "a b⟨U+200B⟩"


def write(path, name, groups):
    lines = [[category, int(i < n // 2)] for category, n in groups for i in range(n)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([[name, "selected"], *lines])
    return path


def test_page_files_and_printed_words_hold_with_turned_and_long_names(tmp_path, capsys):
    path = write(tmp_path / "t.csv", LONG, [(TURNED, 60), (LONG, 61), ("x", 40)])
    run_command(["audit", "--scores", str(path), "--attributes", LONG, "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in page and "\u2066" not in page and "⟨U+202E⟩female⟨U+2066⟩" in page
    assert "lang" * 20 + "…" + "lang" * 5 in page and "lang" * 100 not in page
    printed = capsys.readouterr().out
    assert "\u202e" not in printed and "lang" * 100 not in printed
    (table,) = (tmp_path / "out").glob("selection_*.csv")
    assert len(table.name) < 100 and f"\n{LONG},61," in table.read_text(encoding="utf-8")  # the files have all of it
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["attributes"][0]["name"] == LONG


def test_long_names_of_two_columns_have_two_files(tmp_path):
    lines = [f"{'fm'[i % 2]},{'ab'[i // 2 % 2]},{i % 3 % 2}" for i in range(160)]
    (tmp_path / "t.csv").write_text("\n".join([f"{LONG}1,{LONG}2,selected", *lines]) + "\n")
    assert len(list_tables(audit(tmp_path / "t.csv"))) == 3


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@a", "＝1", "＠a", "x;=1", "x|  =1", "x\t=1"])
def test_cells_that_look_like_formulas_are_text_to_spreadsheets(tmp_path, start):
    path = write(tmp_path / "t.csv", start, [(start, 40), ("b", 41)])
    (text,) = list_tables(audit(path)).values()
    for cell in (cell for row in csv.reader(text.splitlines()) for cell in row):
        for part in cell.replace("|", ";").replace("\t", ";").split(";"):
            assert not part.strip().startswith(("=", "+", "-", "@", "＝", "＠")), cell


def test_a_category_that_a_note_names_is_no_formula_either(tmp_path):
    """The reading of another category says what it is compared with."""
    path = write(tmp_path / "t.csv", "sex", [("x;=1+1", 40), ("b", 60), ("small", 10)])
    lines = path.read_text().splitlines()
    lines = [lines[0], *("small,1" for _ in range(10)), *(line for line in lines[1:] if not line.startswith("small"))]
    path.write_text("\n".join(lines).replace("b,1", "b,0", 20) + "\n")
    (text,) = list_tables(audit(path)).values()
    assert "of x;'=1+1: below 0.8" in text and "x;=1+1" not in text
