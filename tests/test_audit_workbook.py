"""The Excel workbook of an audit against its CSV tables."""

import csv
import sys

import openpyxl
import pytest

from ilqljax.cli import main
from ilqljax.hiring.audit.workbook import format_workbook, name_sheet

ROWS = [("=1+1", "x", 40, 20), ("b", "x", 30, 10), ("b", "y", 35, 30), ("", "y", 5, 1)]
LONG = "an attribute of quite some length"


def write_table(path):
    lines = [f"id,sex,{LONG},selected"]
    for sex, other, n, n_selected in ROWS:
        lines += [f"c{len(lines) + i},{sex},{other},{int(i < n_selected)}" for i in range(n)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def audit(folder, table, *options):
    main(["audit", "--scores", table, "--attributes", f"sex,{LONG}", "--out", str(folder), *options])
    return folder


def show(cell, column):
    """Write a number as the CSV has it."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{100 * cell:.1f}%" if column.endswith("Rate") else f"{cell:.2f}" if column == "Impact Ratio" else str(cell)


def test_sheets_are_the_csv_tables_and_run_nothing(tmp_path):
    folder = audit(tmp_path / "report", write_table(tmp_path / "t.csv"), "--workbook")
    book = openpyxl.load_workbook(folder / "tables.xlsx")
    files = list(folder.glob("*.csv"))
    tables = {tuple(map(tuple, csv.reader(file.read_text().splitlines()))) for file in files}
    shown = set()
    for sheet in book:
        rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
        shown.add(tuple(tuple(map(show, row, rows[0])) for row in rows))
        assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}  # no formula
        assert sheet.freeze_panes == "A2" and len(sheet.title) <= 31
    assert shown == tables and len(book.sheetnames) == len(files) == 3
    assert any("'=1+1" in row for table in shown for row in table)


def test_two_workbooks_of_one_audit_are_one_file(tmp_path):
    table = write_table(tmp_path / "t.csv")
    first, second = (audit(tmp_path / name, table, "--workbook") for name in "ab")
    assert (first / "tables.xlsx").read_bytes() == (second / "tables.xlsx").read_bytes()
    without = audit(tmp_path / "c", table)
    assert not (without / "tables.xlsx").exists()
    assert (without / "audit.json").read_bytes() == (first / "audit.json").read_bytes()


def test_a_missing_package_is_said_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(SystemExit) as ended:
        audit(tmp_path / "report", "nowhere.csv", "--workbook")
    assert ended.value.code == 2 and "--workbook needs XlsxWriter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sheets_have_names_of_their_own():
    names = []
    for name in ("a" * 40, "A" * 40, "a" * 31, "b"):
        names.append(name_sheet(name, names))
    assert names == ["a" * 31, "A" * 29 + "_2", "a" * 29 + "_3", "b"]
    assert format_workbook({f"{'x' * 50}{i}.csv": "sex,Note\nb,\n" for i in range(12)})
