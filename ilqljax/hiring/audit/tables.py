"""Lay out an audit's rates as CSV tables in the form of Local Law 144's examples, and the whole of it as JSON.

A table has one row a category: its name (one column a part, in an intersection), the number of applicants, the number
selected, the rate, the impact ratio, and a note. The last row is the unknown, which enters no rate. "Applicants" are
assessments: with postings, a person who is on the shortlists of three postings counts three times, and the column
"Different people" says how many persons these are.
"""

import csv
import io
import json
import math
from typing import Any

from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.impact_ratio import Mark
from ilqljax.hiring.reward.scores import CROSS

RATE_NAMES = {"shortlisting": "Shortlisting Rate", "selection": "Selection Rate", "scoring": "Scoring Rate"}
CHOSEN_NAMES = {"shortlisting": "# Shortlisted", "selection": "# Selected", "scoring": "# Above Median"}
UNKNOWN_NAME = "Unknown"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def name_table(attribute: str, measure: str, phase: str) -> str:
    """Return the file name of a table; letters and digits of the attribute are kept."""
    safe = "".join(letter if letter.isalnum() else "_" for letter in attribute.replace(CROSS, "_by_"))
    return f"{measure}_{safe}_{phase}.csv"


def list_tables(audit: dict[str, Any]) -> dict[str, str]:
    """Return every table of an audit as CSV text, by file name."""
    tables = {}
    for section in audit["attributes"]:
        for phase, of_phase in section["rates"].items():
            for measure, table in of_phase.items():
                name = name_table(section["name"], measure, phase)
                while name in tables:  # two attributes whose names differ in punctuation only
                    name = f"_{name}"
                tables[name] = format_table(section, measure, table)
    return tables


def format_table(section: dict[str, Any], measure: str, table: dict[str, Any]) -> str:
    """Return one table of an attribute's section as CSV text."""
    columns = section["columns"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    counts = ["# of Applicants", CHOSEN_NAMES[measure], RATE_NAMES[measure], "Impact Ratio", "Different people", "Note"]
    writer.writerow([*map(_safe, columns), *counts])
    for row in table["rows"]:
        cells = section["parts"][row["category"]]
        numbers = [row["n_assessed"], row["n_selected"], _percent(row["rate"]), _ratio(row["impact_ratio"])]
        writer.writerow([*map(_safe, cells), *numbers, row["n_people"], describe_mark(row["mark"])])
    if table["unknown"]:
        blank, unknown = [""] * (len(columns) - 1), table["unknown"]
        numbers = [unknown["n_assessed"], unknown["n_selected"], "", "", unknown["n_people"]]
        writer.writerow([UNKNOWN_NAME, *blank, *numbers, "not in the calculation"])
    if section["n_hidden"]:
        writer.writerow(["Hidden", *[""] * (len(columns) + 4), f"{section['n_hidden']} cells of few people"])
    return buffer.getvalue()


def describe_mark(mark: str) -> str:
    """Return a mark in the words of a reader."""
    words = {
        Mark.REFERENCE: "highest rate",
        Mark.PASSED: "0.8 or more",
        Mark.BELOW: "below 0.8",
        Mark.INSUFFICIENT: "insufficient data",
        Mark.EXCLUDED: "under 2 % of the data: not in the ratios",
        Mark.UNDEFINED: "no ratio",
    }
    return words[Mark(mark)]


def format_json(audit: dict[str, Any]) -> str:
    """Return the audit as JSON; undefined numbers are null."""
    return json.dumps(_plain(audit), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%" if math.isfinite(value) else ""


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _safe(text: str) -> str:
    """Keep a spreadsheet from running a category as a formula."""
    text = clean_text(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
