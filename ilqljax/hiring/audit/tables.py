"""Lay out an audit: rates as CSV in the form of Local Law 144's examples, all as JSON, its page's tables and words.

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
from ilqljax.hiring.audit.rates import Mark, Row
from ilqljax.hiring.audit.suppression import UNKNOWN_CATEGORY
from ilqljax.hiring.reward.scores import CROSS

RATE_NAMES = {"shortlisting": "Shortlisting Rate", "selection": "Selection Rate", "scoring": "Scoring Rate"}
CHOSEN_NAMES = {"shortlisting": "# Shortlisted", "selection": "# Selected", "scoring": "# Above Median"}
VERBS = {"shortlisting": "Shortlisted", "selection": "Selected", "scoring": "Scored above the median"}
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
SIGNIFICANT = 0.05
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


def _read_p(name: str) -> Callable[[Row], str]:
    return lambda row: show_p(row[name]).removeprefix("= ")


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
        ("p, shuffled labels", _read_p("p_shuffled")),
        ("p, Holm", _read_p("p_holm")),
        ("p, independent trials", _read_p("p_independent")),
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


# --- What was found ---------------------------------------------------------------------------------------------------


def state_findings(audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the findings as sentences, by attribute: each rate, then the diversity score and what rewriting did."""
    first, last = audit["phases"][0], audit["phases"][-1]
    findings = {}
    for section in audit["attributes"]:
        sentences = []
        for measure, table in section["rates"][first].items():
            sentences.append(f"{VERBS[measure]}: {_describe(table)}")
            if last != first:
                lowest = _describe_lowest(section["rates"][last][measure])
                later = f"the lowest is {lowest}" if lowest else "there is insufficient data to compare"
                sentences[-1] += f" After, {later}."
        if section["scores"]:
            sentences.append(f"Diversity: {_describe_scores(section['scores'], last)}")
        findings[section["name"]] = sentences
    return findings


def _describe_lowest(table: Mapping[str, Any]) -> str:
    """Name the lowest impact ratio among the categories of enough people, with its interval; "" if there is none."""
    judged = [row for row in table["rows"] if row["mark"] in (Mark.PASSED, Mark.BELOW)]
    if not judged:
        return ""
    lowest = min(judged, key=lambda row: row["impact_ratio"])
    text = f"{show_estimate(lowest, 'impact_ratio', 'ratio')}, of {lowest['category']}"
    return text + (" (below four fifths)" if lowest["mark"] == Mark.BELOW else "")


def _describe(table: Mapping[str, Any]) -> str:
    lowest = _describe_lowest(table)
    if not lowest:
        return "insufficient data to compare categories."
    text = f"the lowest impact ratio is {lowest}"
    few = sum(row["mark"] in (Mark.INSUFFICIENT, Mark.EXCLUDED) for row in table["rows"])
    text += f"; too little data for {few} {'category' if few == 1 else 'categories'}" if few else ""
    if not math.isfinite(table["p_smallest"]):
        return text + "."
    is_low = table["p_smallest_holm"] < SIGNIFICANT
    raw, adjusted = show_p(table["p_smallest"]), show_p(table["p_smallest_holm"])
    verdict = "lower than chance gives" if is_low else "not clearly lower than by chance"
    return f"{text}; {verdict} (under shuffled labels p {raw}; adjusted for the number of comparisons p {adjusted})."


def _describe_scores(scores: Mapping[str, Any], last: str) -> str:
    text = (
        f"a shortlist's mean score is {scores['before']:.1f} where chance gives {scores['floor']:.1f}"
        f" (p {show_p(scores['before_p'])} under shuffled labels)"
    )
    if "guarded_gain" not in scores:
        return text + "."
    low, high = scores["guarded_gain_low"], scores["guarded_gain_high"]
    verdict = "an improvement" if low > 0 else "a deterioration" if high < 0 else "no clear change"
    return text + (
        f"; {last} rewriting it is {scores[last]:.1f}. The gain that counts no rewrite failing a guardrail as an "
        f"improvement is {scores['guarded_gain']:+.1f} [{low:+.1f}, {high:+.1f}]: {verdict}."
    )
