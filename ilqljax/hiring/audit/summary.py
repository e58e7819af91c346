"""Say in a few lines what an audit found: a headline, and a line for each attribute, of its lowest impact ratio."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ilqljax.hiring.audit.rates import MIN_PEOPLE, Mark
from ilqljax.hiring.audit.tables import (
    SIGNIFICANT,
    find_lowest,
    list_disagreements,
    show_name,
    show_shortfalls,
)
from ilqljax.hiring.reward.scores import CROSS

CHOSEN = {"shortlisting": "shortlisted", "selection": "selected", "scoring": "above the median"}
MOST_LINES, MOST_WARNINGS = 5, 2
BELOW, MAYBE, LOWER, NOTHING, UNTESTED = "below", "maybe", "lower", "nothing", "untested"
VERDICTS = {  # of a line, and of all lines of the kind in the headline
    BELOW: ("below four fifths, beyond chance", "below four fifths, by more than chance explains"),
    MAYBE: ("below four fifths, may be chance", "below four fifths, which chance could explain"),
    LOWER: ("above four fifths, lower beyond chance", "not below four fifths, but lower than chance explains"),
    UNTESTED: ("not tested against chance", "not tested against chance"),
    NOTHING: ("no clear difference", "not clearly different"),
}


class Line(NamedTuple):
    """Say how an attribute's lowest impact ratio stands."""

    attribute: str
    verdict: str  # a key of `VERDICTS`
    text: str


class Summary(NamedTuple):
    """Hold what a reader has to know first."""

    headline: str
    lines: list[Line]
    warnings: list[str]


def summarize_audit(audit: Mapping[str, Any]) -> Summary:
    """Return the summary, of the first phase, in the order of `VERDICTS`, and the lowest ratio first.

    There is a line for each attribute, of the measure with its lowest ratio, and one for the first pair of attributes;
    the headline names all of them.
    """
    found = [(ratio, line) for section in audit["attributes"] for ratio, line in _find_line(audit, section)]
    kinds = list(VERDICTS)
    ordered = [line for _, line in sorted(found, key=lambda pair: (kinds.index(pair[1].verdict), pair[0]))]
    pairs = [line for line in ordered if CROSS in line.attribute]
    shown = [line for line in ordered if line not in pairs[1:]][:MOST_LINES]
    return Summary(_make_headline(ordered), shown, list_disagreements(audit)[:MOST_WARNINGS])


def _make_headline(lines: list[Line]) -> str:
    if not lines:
        return f"No two categories of {MIN_PEOPLE} people or more could be compared."
    names = {kind: [show_name(line.attribute) for line in lines if line.verdict == kind] for kind in VERDICTS}
    parts = [f"{', '.join(of)}: {VERDICTS[kind][1]}" for kind, of in names.items() if of and kind != NOTHING]
    if not parts:
        return "No impact ratio is below four fifths, and none is clearly lower than by chance."
    return f"{'. '.join(parts)}."


def _find_line(audit: Mapping[str, Any], section: Mapping[str, Any]) -> list[tuple[float, Line]]:
    """Return the lowest ratio of a section and its line; nothing where nobody is compared."""
    phases = audit["phases"]
    tables = section["rates"][phases[0]]
    found = {measure: find_lowest(table) for measure, table in tables.items()}
    found = {measure: row for measure, row in found.items() if row}
    if not found:
        return []
    measure = min(found, key=lambda name: found[name]["compared_ratio"])
    row, table = found[measure], tables[measure]
    against = table["compared_with"]
    rates = [row["rate"], *(of["rate"] for of in table["rows"] if of["category"] == against)]
    text = f"{show_name(row['category'])}: {CHOSEN[measure]} at {row['compared_ratio']:.2f} times the rate of "
    text += f"{show_name(against)} ({' against '.join(f'{100 * rate:.1f} %' for rate in rates)})"
    if math.isfinite(row["compared_low"]):
        text += f"; with other people it could be {row['compared_low']:.2f} to {row['compared_high']:.2f}"
    text += f".{show_shortfalls(row)}"
    if len(phases) > 1 and (after := find_lowest(section["rates"][phases[-1]][measure])):
        text += f" After, the lowest is {after['compared_ratio']:.2f}, of {show_name(after['category'])}."
    return [(row["compared_ratio"], Line(section["name"], _judge(row, table), text))]


def _judge(row: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    is_below, p_value = row["mark"] == Mark.BELOW, table["p_smallest_holm"]
    if not math.isfinite(p_value):
        return UNTESTED
    if p_value < SIGNIFICANT:
        return BELOW if is_below else LOWER
    return MAYBE if is_below else NOTHING
