"""The tables of the report page, one function each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ilqljax.hiring.audit.findings import show_p
from ilqljax.hiring.audit.impact_ratio import Mark
from ilqljax.hiring.audit.tables import CHOSEN_NAMES, RATE_NAMES, describe_mark

DASH = "–"
LEVEL = "[95\u00a0%]"  # kept together by a space that does not break


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


def show_rates(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Table:
    """Return the main table of a measure: counts, rate, impact ratio with its interval, and what to make of it."""
    header = ["Category", "# of applicants", CHOSEN_NAMES[measure]]
    header += [f"{RATE_NAMES[measure]} {LEVEL}", f"Impact ratio {LEVEL}", "Reading"]
    header += ["Different people"] if has_postings else []
    rows = []
    for row in table["rows"]:
        cells = [
            row["category"],
            f"{row['n_assessed']:,}",
            f"{row['n_selected']:,}",
            show_percent(row["rate"], row["rate_low"], row["rate_high"]),
            show_number(row["impact_ratio"], row["ratio_low"], row["ratio_high"]),
            Words(describe_mark(row["mark"]), is_bold=row["mark"] == Mark.BELOW),
        ]
        rows.append([*cells, f"{row['n_people']:,}"] if has_postings else cells)
    if table["unknown"]:
        unknown = table["unknown"]
        cells = ["Unknown", f"{unknown['n_assessed']:,}", f"{unknown['n_selected']:,}"]
        cells += [DASH, DASH, Words("not in the calculation")]
        rows.append([*cells, f"{unknown['n_people']:,}"] if has_postings else cells)
    return Table(f"{RATE_NAMES[measure]}{phase and ', ' + phase}", header, rows)


def show_tests(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Table:
    """Return the tests of a measure: each category against everyone else, what chance gives, raw and adjusted."""
    header = [
        "Category",
        f"Rate / everyone else's {LEVEL}",
        f"Ratio by chance {LEVEL}",
        "p, shuffled labels",
        "p, Holm",
    ]
    header += ["p, independent trials", "Test"]
    header += ["Ratio's interval, postings only"] if has_postings else []
    rows = []
    for row in table["rows"]:
        cells = [
            row["category"],
            show_number(row["versus_rest"], row["versus_rest_low"], row["versus_rest_high"]),
            show_number(row["null_ratio"], row["null_ratio_low"], row["null_ratio_high"]),
            show_p(row["p_shuffled"]).removeprefix("= "),
            show_p(row["p_holm"]).removeprefix("= "),
            show_p(row["p_independent"]).removeprefix("= "),
            Words(row["test"] or DASH),
        ]
        low, high = row["postings_low"], row["postings_high"]
        rows.append([*cells, show_interval(low, high)] if has_postings else cells)
    return Table(f"Tests of the {RATE_NAMES[measure].lower()}{phase and ', ' + phase}", header, rows)


def show_changes(measure: str, changes: Sequence[dict[str, Any]], *, has_postings: bool) -> Table:
    """Return how each category's ratio changed from before to after."""
    header = ["Category", "Compared with", f"Change {LEVEL}", *(["Postings only"] if has_postings else [])]
    rows = []
    for row in changes:
        change = show_number(row["change"], row["change_low"], row["change_high"])
        cells = [row["category"], Words(row["reference"]), change]
        rows.append([*cells, show_interval(row["postings_low"], row["postings_high"])] if has_postings else cells)
    caption = f"{RATE_NAMES[measure]}: ratio after / ratio before (1 is no change)"
    return Table(caption, header, rows)


def show_ranking(section: dict[str, Any], *, phases: Sequence[str], selected: int, top: int) -> list[Table]:
    """Return skew and exposure of each category, and the measures of whole lists, each beside its value by chance."""
    header = ["Category"]
    for at in (selected, top):
        header += [f"skew@{at} {phase}" for phase in phases] + [f"skew@{at} by chance"]
    header += [f"exposure / target {phase}" for phase in phases] + ["by chance"]
    rows = []
    for row in section["ranking"]:
        cells = [row["category"]]
        for at in (selected, top):
            cells += [show_number(row[f"skew_{at}_{phase}"]) for phase in phases]
            cells.append(show_number(row[f"expected_skew_{at}"]))
        cells += [show_number(row[f"exposure_{phase}"]) for phase in phases]
        rows.append([*cells, show_number(row["expected_exposure"])])
    lists, body = section["lists"], []
    for key, name in (("min_skew", f"MinSkew@{selected}"), ("max_skew", f"MaxSkew@{selected}"), ("ndkl", "NDKL")):
        cells = [
            show_number(lists[phase][key], lists[phase][f"{key}_low"], lists[phase][f"{key}_high"]) for phase in phases
        ]
        body.append([name, *cells, show_number(lists[f"expected_{key}"])])
    return [
        Table("Places in the lists, mean over postings", header, rows),
        Table("Whole lists, mean over postings [95 %]", ["Measure", *phases, "by chance"], body),
    ]


def show_scores(scores: dict[str, Any], *, phases: Sequence[str]) -> Table:
    """Return the diversity scores, their noise floor, and the gain."""
    rows = [
        [
            f"Mean score {phase}",
            show_number(scores[phase], scores[f"{phase}_low"], scores[f"{phase}_high"]),
            Words(
                f"{show_number(scores[f'{phase}_net'])} net of chance; shuffled labels give "
                f"{show_number(scores[f'{phase}_null'], scores[f'{phase}_null_low'], scores[f'{phase}_null_high'])}, "
                f"p {show_p(scores[f'{phase}_p'])}"
            ),
        ]
        for phase in phases
    ]
    rows.append(["Chance (noise floor)", show_number(scores["floor"]), Words("mean score of random shortlists")])
    if "gain" in scores:
        for key, name, note in (
            ("gain", "Gain", "after minus before, paired by posting"),
            ("guarded_gain", "Guarded gain", "a rewrite that fails a guardrail never counts as an improvement"),
        ):
            rows.append([name, show_number(scores[key], scores[f"{key}_low"], scores[f"{key}_high"]), Words(note)])
    return Table("Diversity score", ["", f"Value {LEVEL}", "Note"], rows)


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
    if not math.isfinite(value):
        return DASH
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _round(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
