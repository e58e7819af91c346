"""The CSV tables of an audit as one Excel workbook, a sheet each (extra `tables`)."""

import csv
import io
from collections.abc import Mapping
from datetime import datetime

from ilqljax.errors import UserError
from ilqljax.hiring.audit.tables import CHOSEN_NAMES, RATE_NAMES

WORKBOOK = "tables.xlsx"
LONGEST_SHEET_NAME = 31  # Excel's limit
MADE = datetime(1980, 1, 1)  # what makes two workbooks of the same tables the same file; the date is in the page
FORMATS = dict.fromkeys(RATE_NAMES.values(), "0.0%") | {"Impact Ratio": "0.00"}
COUNTS = ("# of Applicants", *CHOSEN_NAMES.values(), "Different people")


def check_workbook() -> None:
    """Raise a `UserError` unless the package that writes workbooks is here."""
    try:
        import xlsxwriter  # noqa: F401
    except ImportError as error:
        raise UserError("--workbook needs XlsxWriter: pip install 'ilqljax[tables]', or leave it out.") from error


def format_workbook(tables: Mapping[str, str]) -> bytes:
    """Return the bytes of a workbook with a sheet for each table of `tables.list_tables`.

    Cells are those of the CSV: counts, rates and ratios are numbers, rounded as there, and all else is text, which no
    spreadsheet runs. Sheets are named after their files, cut to Excel's 31 letters with a number where two would agree.
    """
    import xlsxwriter

    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        book.set_properties({"created": MADE})
        header = book.add_format({"bold": True})
        formats = {name: book.add_format({"num_format": text}) for name, text in FORMATS.items()}
        names: list[str] = []
        for file_name, text in tables.items():
            names.append(name_sheet(file_name.removesuffix(".csv"), names))
            sheet = book.add_worksheet(names[-1])
            columns, *rows = csv.reader(io.StringIO(text))
            sheet.freeze_panes(1, 0)
            for j, column in enumerate(columns):
                sheet.write_string(0, j, column, header)
                for i, row in enumerate(rows, 1):
                    if not row[j]:
                        continue
                    if column in FORMATS:
                        number = float(row[j].removesuffix("%")) / (100 if row[j].endswith("%") else 1)
                        sheet.write_number(i, j, number, formats[column])
                    elif column in COUNTS:
                        sheet.write_number(i, j, float(row[j]))
                    else:
                        sheet.write_string(i, j, row[j])
            sheet.autofit()
    return buffer.getvalue()


def name_sheet(name: str, taken: list[str]) -> str:
    """Return a sheet's name of a file's, which no other has; Excel does not tell capitals from small letters."""
    known, number, found = {other.lower() for other in taken}, 1, name[:LONGEST_SHEET_NAME]
    while found.lower() in known:
        number += 1
        found = f"{name[: LONGEST_SHEET_NAME - len(str(number)) - 1]}_{number}"
    return found
