"""Lay out an audit: rates as CSV in the form of Local Law 144's examples, all as JSON, its page's tables and words.

A CSV table has one row a category: its name (one column a part, in an intersection), the number of applicants, the
number selected, the rate, the impact ratio, and a note. Below are the unknown, who enter no category's rate, and the
total of all, the unknown included. "Applicants"
are assessments: with postings, a person who is on the shortlists of three postings counts three times, and the column
"Different people" says how many persons these are.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ilqljax.data.pages import clean_text, defuse_cell
from ilqljax.hiring.audit.rates import MIN_PEOPLE, Mark, Row
from ilqljax.hiring.audit.suppression import HIDDEN, UNKNOWN_CATEGORY
from ilqljax.hiring.reward.scores import CROSS
from ilqljax.hiring.statistics import divide

RATE_NAMES = {"shortlisting": "Shortlisting Rate", "selection": "Selection Rate", "scoring": "Scoring Rate"}
CHOSEN_NAMES = {"shortlisting": "# Shortlisted", "selection": "# Selected", "scoring": "# Above Median"}
VERBS = {"shortlisting": "Shortlisted", "selection": "Selected", "scoring": "Scored above the median"}
UNKNOWN_NAME, TOTAL_NAME = "Unknown", "Total"
TOTAL = "total"  # the mark of the row of all
MARKS = {
    Mark.REFERENCE: "highest rate",
    Mark.PASSED: "0.8 or more",
    Mark.BELOW: "below 0.8",
    Mark.INSUFFICIENT: "insufficient data",
    Mark.UNDEFINED: "no ratio",
    UNKNOWN_CATEGORY: "not in the calculation",
    TOTAL: "unknown included",
}
DISAGREEMENTS = {
    "side": "changes sides",
    "vanishes": "is below four fifths only when strata are added up",
    "appears": "is below four fifths only within strata",
}
MOST_NAMED = 6  # of the categories that are not compared; of the others only the number is said
DASH = "–"
SIGNIFICANT = 0.05
MOST_LETTERS, LAST_LETTERS = 80, 20  # of a name on the page: its beginning and end; the files have all of it
MOST_IN_FILE_NAME = 60


# --- Files ------------------------------------------------------------------------------------------------------------


def list_tables(audit: dict[str, Any]) -> dict[str, str]:
    """Return every table of an audit as CSV text, by file name, which keeps the attribute's letters and digits.

    Of a long name it keeps the first ones, and a checksum.
    """
    tables = {}
    for section in audit["attributes"]:
        safe = "".join(letter if letter.isalnum() else "_" for letter in section["name"].replace(CROSS, "_by_"))
        if len(safe.encode()) > 2 * MOST_IN_FILE_NAME:
            digest = hashlib.sha256(section["name"].encode("utf-8", "surrogatepass")).hexdigest()[:8]
            safe = f"{safe[: MOST_IN_FILE_NAME // 2]}_{digest}"
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
    writer.writerow([*map(defuse_cell, columns), *counts])
    unknown, total = [UNKNOWN_NAME, *[""] * (len(columns) - 1)], [TOTAL_NAME] * len(columns)
    for row in list_rows(table):
        rate = f"{100 * row['rate']:.1f}%" if math.isfinite(row["rate"]) else ""
        ratio = f"{row['impact_ratio']:.2f}" if math.isfinite(row["impact_ratio"]) else ""
        cells = [row["n_assessed"], row["n_selected"], rate, ratio, row["n_people"], read_mark(row, table)]
        parts = section["parts"][row["category"]] if row["category"] else total if row["mark"] == TOTAL else unknown
        writer.writerow(map(defuse_cell, (*parts, *cells)))  # the mark names a category too
    if section["n_hidden"]:
        writer.writerow(["Hidden", *[""] * (len(columns) + 4), f"{section['n_hidden']} cells of few people"])
    return buffer.getvalue()


def list_rows(table: dict[str, Any]) -> list[Row]:
    """Return the rows of a table of `rates`, then the unknown and the total of all, unless they are hidden."""
    names = ("rate", "rate_low", "rate_high", "impact_ratio", "ratio_low", "ratio_high", "bound_low", "bound_high")
    undefined = dict.fromkeys(names, math.nan)
    unknown = {"category": UNKNOWN_CATEGORY, "mark": UNKNOWN_CATEGORY} | undefined | table["unknown"]
    total = undefined | {"category": UNKNOWN_CATEGORY, "mark": TOTAL} | table["total"]
    total["rate"] = float(divide(total["n_selected"], total["n_assessed"])) if table["total"] else math.nan
    return [*table["rows"], *([unknown] if table["unknown"] else []), *([total] if table["total"] else [])]


def name_row(row: Row) -> str:
    """Return what the page calls a row of `list_rows`."""
    return show_name(row["category"]) or (TOTAL_NAME if row["mark"] == TOTAL else UNKNOWN_NAME)


def read_mark(row: Row, table: Mapping[str, Any]) -> str:
    """Return a row's mark in words; where its ratio is not the impact ratio in the row, with that ratio."""
    mark, is_same = row["mark"], table["compared_with"] == table["reference"]
    if mark == Mark.EXCLUDED:
        return f"{say_share(table)}: not in the ratios"
    if mark == Mark.REFERENCE and table["named_reference"]:
        return "reference"
    if mark == Mark.REFERENCE and not is_same:
        return f"highest rate of {MIN_PEOPLE} people or more"
    if mark in (Mark.PASSED, Mark.BELOW) and not is_same:
        return f"{row['compared_ratio']:.2f} of {show_name(table['compared_with'])}: {MARKS[mark]}"
    return MARKS[mark]


def say_share(table: Mapping[str, Any]) -> str:
    """Return below which share a category enters no ratio."""
    return f"under {100 * table['leave_out_below']:g} % of the data"


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


def show_name(name: str) -> str:
    """Return a name from outside in one line, with what cannot be seen shown, and with its middle left out if long."""
    name = clean_text(" ".join(name.split()))
    left_out = len(name) - MOST_LETTERS - LAST_LETTERS
    return name if left_out <= 0 else f"{name[:MOST_LETTERS]}…{name[-LAST_LETTERS:]}"


def show_ranking(
    section: dict[str, Any], *, phases: Sequence[str], selected: int, top: int
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return skew and exposure of each category, and the measures of whole lists, each beside its value by chance.

    That is two tables, each a caption, a header and rows; the second is left out where it would be of hidden cells.
    """
    names: dict[str, str] = {}  # of the columns, with their headers
    for at in (selected, top):
        names |= {f"skew_{at}_{phase}": f"skew@{at} {phase}" for phase in phases}
        names[f"expected_skew_{at}"] = f"skew@{at} by chance"
    names |= {f"exposure_{phase}": f"exposure / target {phase}" for phase in phases}
    names["expected_exposure"] = "by chance"
    places = [[show_name(row["category"]), *(show_estimate(row, name) for name in names)] for row in section["ranking"]]
    lists = section["lists"]
    measures = {"min_skew": f"MinSkew@{selected}", "max_skew": f"MaxSkew@{selected}", "ndkl": "NDKL"}
    shown = [("Places in the lists, mean over postings", ["Category", *names.values()], places)]
    if lists:
        whole = [
            [name, *(show_estimate(lists[phase], key) for phase in phases), show_estimate(lists, f"expected_{key}")]
            for key, name in measures.items()
        ]
        shown.append(("Whole lists, mean over postings [95 %]", ["Measure", *phases, "by chance"], whole))
    return shown


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
    """Return a rate in percent, with its interval where there is one."""
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if math.isfinite(low) else ""
    return f"{100 * value:.1f} %{interval}" if math.isfinite(value) else DASH


def show_part(part: float, whole: float) -> str:
    """Return two counts, one of which is a part of the other, or a dash."""
    return f"{part:,} of {whole:,}" if math.isfinite(part) else DASH


def show_shortfall(row: Mapping[str, Any]) -> str:
    """Return how many further selections bring a row's ratio to 0.8, and to 1; a dash where it is not compared."""
    ends = [row.get(name, math.nan) for name in ("shortfall_four_fifths", "shortfall_parity")]
    return " / ".join(f"{end:,}" for end in ends) if all(map(math.isfinite, ends)) else DASH


def show_shortfalls(row: Mapping[str, Any]) -> str:
    """Return the same as a sentence behind another; "" of a row that is not compared, or lacks nobody."""
    four_fifths, parity = (row[name] for name in ("shortfall_four_fifths", "shortfall_parity"))
    if not math.isfinite(parity) or not parity:
        return ""
    to_four_fifths = f"{four_fifths:,} more to reach 0.8, " if four_fifths else ""
    return f" Shortfall: {to_four_fifths}{parity:,} more for equal rates."


def show_frequency(p_value: float) -> str:
    """Return how many shuffles a p-value is, in words: "3 of 100 shuffles"."""
    if p_value < 0.001:
        return "fewer than 1 of 1,000 shuffles"
    n = 100 if p_value >= 0.0095 else 1000
    return f"{n * p_value:.0f} of {n:,} shuffles"


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
            if audit["within"]:
                sentences[-1] += _describe_within(audit, section, first, measure)
            if last != first:
                lowest = _describe_lowest(section["rates"][last][measure])
                later = f"the lowest is {lowest}" if lowest else "there is insufficient data to compare"
                sentences[-1] += f" After, {later}."
        if section["scores"]:
            sentences.append(f"Diversity: {_describe_scores(section['scores'], last)}")
        findings[section["name"]] = sentences
    return findings


def find_lowest(table: Mapping[str, Any]) -> Row:
    """Return the row of the lowest ratio among the categories that are compared; an empty one if there is none."""
    judged = [row for row in table["rows"] if row["mark"] in (Mark.PASSED, Mark.BELOW)]
    return min(judged, key=lambda row: row["compared_ratio"], default={})


def state_lowest(audit: Mapping[str, Any]) -> str:
    """Return the lowest ratio of all attributes and rates, of the first phase, as one sentence."""
    phase = audit["phases"][0]
    rates = [(s["name"], measure, table) for s in audit["attributes"] for measure, table in s["rates"][phase].items()]
    found = [of for of in rates if find_lowest(of[-1])]
    if not found:
        return f"No two categories of {MIN_PEOPLE} people or more could be compared."
    name, measure, table = min(found, key=lambda of: find_lowest(of[-1])["compared_ratio"])
    rate, when = RATE_NAMES[measure].lower(), f", {phase}" if len(audit["phases"]) > 1 else ""
    verdict = f": {_judge(table)}" if math.isfinite(table["p_smallest_holm"]) else ""
    return f"The lowest impact ratio is {_describe_lowest(table)} ({show_name(name)}, {rate}{when}){verdict}."


def _describe_lowest(table: Mapping[str, Any]) -> str:
    """Name the lowest ratio with its interval; "" if there is none."""
    if not (lowest := find_lowest(table)):
        return ""
    text = f"{show_estimate(lowest, 'compared_ratio', 'compared')}, of {show_name(lowest['category'])}"
    if table["named_reference"] or table["compared_with"] != table["reference"]:
        text += f" against {show_name(table['compared_with'])}"
    return text + (" (below four fifths)" if lowest["mark"] == Mark.BELOW else "")


def _describe(table: Mapping[str, Any]) -> str:
    lowest, others = _describe_lowest(table), _describe_others(table)
    if not lowest and table["compared_with"] == HIDDEN:
        return f"the reference is hidden, and with it every ratio.{others}"
    if not lowest:
        return f"insufficient data to compare categories.{others}"
    text = f"the lowest impact ratio is {lowest}"
    if not math.isfinite(table["p_smallest"]):
        return f"{text}.{others}"
    how_often = f"Shuffled labels give one this low in {show_frequency(table['p_smallest'])}"
    if table["p_smallest"] < SIGNIFICANT <= table["p_smallest_holm"]:
        how_often += ", which is not rare among so many comparisons"
    behind = (
        f"p {show_p(table['p_smallest'])}; adjusted for the number of comparisons p {show_p(table['p_smallest_holm'])}"
    )
    if math.isfinite(deviations := find_lowest(table)["standard_deviations"]):
        behind += f"; {show_number(abs(deviations))} standard deviations"
    return f"{text}; {_judge(table)}. {how_often} ({behind}).{show_shortfalls(find_lowest(table))}{others}"


def _judge(table: Mapping[str, Any]) -> str:
    """Say whether the lowest ratio is lower than chance gives, with all comparisons counted."""
    return "lower than chance gives" if table["p_smallest_holm"] < SIGNIFICANT else "not clearly lower than by chance"


def _describe_within(audit: Mapping[str, Any], section: Mapping[str, Any], phase: str, measure: str) -> str:
    """Name the lowest ratio within strata, and what contradicts the pooled ratios."""
    where, found = f"the same {', '.join(audit['within']['names'])}", section["within"][phase][measure]
    rows = [row for row in found["rows"] if math.isfinite(row["ratio"])]
    if not rows:
        return f" Within {where} no category can be compared."
    low = min(rows, key=lambda row: row["ratio"])
    tested = f"shuffled within them p {show_p(low['p_shuffled'])}; adjusted p {show_p(low['p_holm'])}"
    ratio = f"{show_estimate(low, 'ratio')}, of {show_name(low['category'])} against {show_name(found['reference'])}"
    text = f" Within {where} the lowest ratio is {ratio} ({low['n_strata']:,} strata have both; {tested})."
    return text + "".join(f" {_warn(row, found['reference'], where)}" for row in rows if row["disagreement"])


def _warn(row: Row, reference: str, where: str) -> str:
    ratios = f"{show_number(row['pooled_ratio'])} in total and {show_number(row['ratio'])} within {where}"
    pair = f"{show_name(row['category'])} against {show_name(reference)}"
    return f"Warning (Simpson): {pair} {DISAGREEMENTS[row['disagreement']]}: {ratios}."


def list_disagreements(audit: Mapping[str, Any]) -> list[str]:
    """Return a warning for each category whose ratio within strata contradicts the pooled one, of the first phase."""
    phase, warnings = audit["phases"][0], []
    for section in audit["attributes"] if audit["within"] else ():
        for found in section["within"][phase].values():
            where = f"the same {', '.join(audit['within']['names'])}"
            rows = [row for row in found["rows"] if row["disagreement"]]
            warnings += [f"{show_name(section['name'])}: {_warn(row, found['reference'], where)}" for row in rows]
    more = f"{len(warnings) - MOST_NAMED:,} more such warnings are on the page."
    return [*warnings[:MOST_NAMED], *([more] if len(warnings) > MOST_NAMED else [])]


def _describe_others(table: Mapping[str, Any]) -> str:
    """Say which categories are not compared and why, and what the lowest ratio would be with every one included."""
    few = [row for row in table["rows"] if row["mark"] == Mark.INSUFFICIENT and row["n_people"] < MIN_PEOPLE]
    small = [row for row in table["rows"] if row["mark"] == Mark.EXCLUDED]
    text = f" Not compared, with fewer than {MIN_PEOPLE} people: {name_rows(few)}." if few else ""
    text += f" Left out, {say_share(table)}: {name_rows(small)}." if small else ""
    if not text or not math.isfinite(table["smallest_of_all"]):
        return text
    of_all = f"{show_number(table['smallest_of_all'])}, of {show_name(table['smallest_of_all_category'])}"
    return f"{text} With every category included the lowest ratio would be {of_all}."


def name_rows(rows: Sequence[Row]) -> str:
    """Return the categories of rows with their numbers of people; of many the first ones."""
    more = f" and {len(rows) - MOST_NAMED:,} more" if len(rows) > MOST_NAMED else ""
    return ", ".join(f"{show_name(row['category'])} ({row['n_people']:,})" for row in rows[:MOST_NAMED]) + more


def _describe_scores(scores: Mapping[str, Any], last: str) -> str:
    text = f"a shortlist's mean score is {scores['before']:.1f} where chance gives {scores['floor']:.1f}"
    if math.isfinite(scores["before_p"]):
        text += f" (shuffled labels give one this low in {show_frequency(scores['before_p'])})"
    if "guarded_gain" not in scores:
        return text + "."
    low, high = scores["guarded_gain_low"], scores["guarded_gain_high"]
    verdict = "an improvement" if low > 0 else "a deterioration" if high < 0 else "no clear change"
    return text + (
        f"; {last} rewriting it is {scores[last]:.1f}. The gain that counts no rewrite failing a guardrail as an "
        f"improvement is {scores['guarded_gain']:+.1f} [{low:+.1f}, {high:+.1f}]: {verdict}."
    )
