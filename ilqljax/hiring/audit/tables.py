"""Lay out an audit: rates as CSV in the form of Local Law 144's examples, the tables of its page, all of it as JSON.

A CSV table has one row a category: its name (one column a part, in an intersection), the number of applicants, the
number selected, the rate, the impact ratio, and a note. The last row is the unknown, which enters no rate. "Applicants"
are assessments: with postings, a person who is on the shortlists of three postings counts three times, and the column
"Different people" says how many persons these are.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilqljax.data.pages import clean_text
from ilqljax.hiring.audit.impact_ratio import Mark
from ilqljax.hiring.audit.rates import Row
from ilqljax.hiring.audit.suppression import UNKNOWN_CATEGORY
from ilqljax.hiring.reward.scores import CROSS

RATE_NAMES = {"shortlisting": "Shortlisting Rate", "selection": "Selection Rate", "scoring": "Scoring Rate"}
CHOSEN_NAMES = {"shortlisting": "# Shortlisted", "selection": "# Selected", "scoring": "# Above Median"}
UNKNOWN_NAME = "Unknown"
MARKS = {
    Mark.REFERENCE: "highest rate",
    Mark.PASSED: "0.8 or more",
    Mark.BELOW: "below 0.8",
    Mark.INSUFFICIENT: "insufficient data",
    Mark.EXCLUDED: "under 2 % of the data: not in the ratios",
    Mark.UNDEFINED: "no ratio",
    UNKNOWN_CATEGORY: "not in the calculation",
}
DASH = "–"
LEVEL = "[95\u00a0%]"  # kept together by a space that does not break
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


# --- Files ------------------------------------------------------------------------------------------------------------


def list_tables(audit: dict[str, Any]) -> dict[str, str]:
    """Return every table of an audit as CSV text, by file name, which keeps the attribute's letters and digits."""
    tables = {}
    for section in audit["attributes"]:
        safe = "".join(letter if letter.isalnum() else "_" for letter in section["name"].replace(CROSS, "_by_"))
        for phase, of_phase in section["rates"].items():
            for measure, table in of_phase.items():
                name = f"{measure}_{safe}_{phase}.csv"
                while name in tables:  # two attributes whose names differ in punctuation only
                    name = f"_{name}"
                tables[name] = _format_csv(section, measure, table)
    return tables


def _format_csv(section: dict[str, Any], measure: str, table: dict[str, Any]) -> str:
    columns, buffer = section["columns"], io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    counts = ["# of Applicants", CHOSEN_NAMES[measure], RATE_NAMES[measure], "Impact Ratio", "Different people", "Note"]
    writer.writerow([*map(_defuse, columns), *counts])
    parts = section["parts"] | {UNKNOWN_CATEGORY: [UNKNOWN_NAME, *[""] * (len(columns) - 1)]}
    for row in list_rows(table):
        rate = f"{100 * row['rate']:.1f}%" if math.isfinite(row["rate"]) else ""
        ratio = f"{row['impact_ratio']:.2f}" if math.isfinite(row["impact_ratio"]) else ""
        cells = [row["n_assessed"], row["n_selected"], rate, ratio, row["n_people"], MARKS[row["mark"]]]
        writer.writerow([*map(_defuse, parts[row["category"]]), *cells])
    if section["n_hidden"]:
        writer.writerow(["Hidden", *[""] * (len(columns) + 4), f"{section['n_hidden']} cells of few people"])
    return buffer.getvalue()


def list_rows(table: dict[str, Any]) -> list[Row]:
    """Return the rows of a table of `rates`, with the unknown as the last one unless it is hidden."""
    undefined = dict.fromkeys(("rate", "rate_low", "rate_high", "impact_ratio", "ratio_low", "ratio_high"), math.nan)
    unknown = {"category": UNKNOWN_CATEGORY, "mark": UNKNOWN_CATEGORY} | undefined | table["unknown"]
    return [*table["rows"], *([unknown] if table["unknown"] else [])]


def _defuse(text: str) -> str:
    """Keep a spreadsheet from running a category as a formula."""
    text = clean_text(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def format_json(audit: dict[str, Any]) -> str:
    """Return the audit as JSON; undefined numbers are null."""
    return json.dumps(_plain(audit), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- The page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """Mark a cell of words, which may wrap."""

    text: str
    is_bold: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Hold a table as the page shows it (`templates/table.html.j2`); the first column names."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Words]]

    @property
    def is_words(self) -> list[bool]:
        """Which columns hold words."""
        return [any(isinstance(row[i], Words) for row in self.rows) for i in range(len(self.header))]


Columns = list[tuple[str, Callable[[Row], str | Words]]]  # a header, and what it shows of a row


def _lay_out(caption: str, columns: Columns, rows: Sequence[Row]) -> Table:
    return Table(caption, [name for name, _ in columns], [[show(row) for _, show in columns] for row in rows])


def _read(name: str, ends: str = "") -> Callable[[Row], str]:
    return lambda row: show_estimate(row, name, ends)


def show_rates(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Table:
    """Return the main table of a measure: counts, rate, impact ratio with its interval, and what to make of it."""
    columns: Columns = [
        ("Category", lambda row: row["category"] or UNKNOWN_NAME),
        ("# of applicants", lambda row: f"{row['n_assessed']:,}"),
        (CHOSEN_NAMES[measure], lambda row: f"{row['n_selected']:,}"),
        (f"{RATE_NAMES[measure]} {LEVEL}", lambda row: show_percent(row["rate"], row["rate_low"], row["rate_high"])),
        (f"Impact ratio {LEVEL}", _read("impact_ratio", "ratio")),
        ("Reading", lambda row: Words(MARKS[row["mark"]], is_bold=row["mark"] == Mark.BELOW)),
        ("Different people", lambda row: f"{row['n_people']:,}"),
    ]
    caption = f"{RATE_NAMES[measure]}{phase and ', ' + phase}"
    return _lay_out(caption, columns if has_postings else columns[:-1], list_rows(table))


def show_tests(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Table:
    """Return the tests of a measure: each category against everyone else, what chance gives, raw and adjusted."""
    columns: Columns = [
        ("Category", lambda row: row["category"]),
        (f"Rate / everyone else's {LEVEL}", _read("versus_rest")),
        (f"Ratio by chance {LEVEL}", _read("null_ratio")),
        ("p, shuffled labels", lambda row: show_p(row["p_shuffled"]).removeprefix("= ")),
        ("p, Holm", lambda row: show_p(row["p_holm"]).removeprefix("= ")),
        ("p, independent trials", lambda row: show_p(row["p_independent"]).removeprefix("= ")),
        ("Test", lambda row: Words(row["test"] or DASH)),
        ("Ratio's interval, postings only", lambda row: show_interval(row["postings_low"], row["postings_high"])),
    ]
    caption = f"Tests of the {RATE_NAMES[measure].lower()}{phase and ', ' + phase}"
    return _lay_out(caption, columns if has_postings else columns[:-1], table["rows"])


def show_changes(measure: str, changes: Sequence[Row], *, has_postings: bool) -> Table:
    """Return how each category's ratio changed from before to after."""
    columns: Columns = [
        ("Category", lambda row: row["category"]),
        ("Compared with", lambda row: Words(row["reference"])),
        (f"Change {LEVEL}", _read("change")),
        ("Postings only", lambda row: show_interval(row["postings_low"], row["postings_high"])),
    ]
    caption = f"{RATE_NAMES[measure]}: ratio after / ratio before (1 is no change)"
    return _lay_out(caption, columns if has_postings else columns[:-1], changes)


def show_ranking(section: dict[str, Any], *, phases: Sequence[str], selected: int, top: int) -> list[Table]:
    """Return skew and exposure of each category, and the measures of whole lists, each beside its value by chance."""
    columns: Columns = [("Category", lambda row: row["category"])]
    for at in (selected, top):
        columns += [(f"skew@{at} {phase}", _read(f"skew_{at}_{phase}")) for phase in phases]
        columns.append((f"skew@{at} by chance", _read(f"expected_skew_{at}")))
    columns += [(f"exposure / target {phase}", _read(f"exposure_{phase}")) for phase in phases]
    columns.append(("by chance", _read("expected_exposure")))
    lists = section["lists"]
    names = {"min_skew": f"MinSkew@{selected}", "max_skew": f"MaxSkew@{selected}", "ndkl": "NDKL"}
    body = [
        [name, *(show_estimate(lists[phase], key) for phase in phases), show_estimate(lists, f"expected_{key}")]
        for key, name in names.items()
    ]
    return [
        _lay_out("Places in the lists, mean over postings", columns, section["ranking"]),
        Table("Whole lists, mean over postings [95 %]", ["Measure", *phases, "by chance"], body),
    ]


def show_scores(scores: dict[str, Any], *, phases: Sequence[str]) -> Table:
    """Return the diversity scores, their noise floor, and the gain."""
    notes = {
        phase: f"{show_number(scores[f'{phase}_net'])} net of chance; shuffled labels give "
        f"{show_estimate(scores, f'{phase}_null')}, p {show_p(scores[f'{phase}_p'])}"
        for phase in phases
    }
    rows = [(f"Mean score {phase}", phase, note) for phase, note in notes.items()]
    rows.append(("Chance (noise floor)", "floor", "mean score of random shortlists"))
    if "gain" in scores:
        rows.append(("Gain", "gain", "after minus before, paired by posting"))
        note = "a rewrite that fails a guardrail never counts as an improvement"
        rows.append(("Guarded gain", "guarded_gain", note))
    body = [[title, show_estimate(scores, name), Words(note)] for title, name, note in rows]
    return Table("Diversity score", ["", f"Value {LEVEL}", "Note"], body)


def show_estimate(row: Mapping[str, Any], name: str, ends: str = "") -> str:
    """Return a number of a row with its interval where the row has one, whose names begin with `ends` or `name`."""
    low, high = (row.get(f"{ends or name}_{end}", math.nan) for end in ("low", "high"))
    return show_number(row[name], low, high)


def show_number(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a number with two digits, and its interval where there is one."""
    if not math.isfinite(value):
        return DASH
    return f"{_round(value)} {show_interval(low, high)}" if math.isfinite(low) else _round(value)


def show_interval(low: float, high: float) -> str:
    """Return an interval, or a dash."""
    return f"[{_round(low)}, {_round(high)}]" if math.isfinite(low) else DASH


def show_percent(value: float, low: float, high: float) -> str:
    """Return a rate in percent with its interval."""
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" if math.isfinite(value) else DASH


def show_p(value: float) -> str:
    """Return a p-value with its sign: "= 0.012", "< 0.001", or a dash where it is undefined."""
    if not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _round(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
