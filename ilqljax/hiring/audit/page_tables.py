"""The tables of the report page, one function each."""

import math
from collections.abc import Sequence
from typing import Any

from ilqljax.hiring.audit.findings import show_p
from ilqljax.hiring.audit.impact_ratio import Mark
from ilqljax.hiring.audit.markup import Markup, element, join
from ilqljax.hiring.audit.tables import CHOSEN_NAMES, RATE_NAMES, describe_mark

DASH = "–"


def show_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table in a box of its own that scrolls sideways where the screen is narrow; the first column names."""
    has_words = [any(isinstance(row[i], Words) for row in rows) for i in range(len(header))]
    head = element(
        "tr",
        *(
            element("th", _keep_together(name), scope="col", class_="words" if is_words else "number")
            for name, is_words in zip(header, has_words, strict=True)
        ),
    )
    body = [element("tr", *(_show_cell(name, cell) for name, cell in zip(header, row, strict=True))) for row in rows]
    head = element("thead", head) if any(header) else join()
    table = element("table", element("caption", caption), head, element("tbody", *body))
    return element("div", table, class_="wide", tabindex=0, role="region", aria_label=caption)


class Words(str):
    """Mark a cell of words, which may wrap; `emphasis` sets it in bold."""

    emphasis = False


def words(text: str, *, emphasis: bool = False) -> Words:
    """Return a cell of words."""
    cell = Words(text)
    cell.emphasis = emphasis
    return cell


def _keep_together(name: str) -> str:
    return name.replace("[95 %]", "[95\u00a0%]")


def _show_cell(name: str, cell: str) -> Markup:
    # The label is what a phone shows beside the value, where the table is too narrow for a header.
    if isinstance(cell, Words):
        return element(
            "td", str(cell), class_="words below" if cell.emphasis else "words", data_label=_keep_together(name)
        )
    return element("td", cell, data_label=_keep_together(name))


def show_rates(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Markup:
    """Return the main table of a measure: counts, rate, impact ratio with its interval, and what to make of it."""
    header = ["Category", "# of applicants", CHOSEN_NAMES[measure]]
    header += [f"{RATE_NAMES[measure]} [95 %]", "Impact ratio [95 %]", "Reading"]
    header += ["Different people"] if has_postings else []
    rows = []
    for row in table["rows"]:
        cells = [
            row["category"],
            f"{row['n_assessed']:,}",
            f"{row['n_selected']:,}",
            show_percent(row["rate"], row["rate_low"], row["rate_high"]),
            show_number(row["impact_ratio"], row["ratio_low"], row["ratio_high"]),
            words(describe_mark(row["mark"]), emphasis=row["mark"] == Mark.BELOW),
        ]
        rows.append([*cells, f"{row['n_people']:,}"] if has_postings else cells)
    if table["unknown"]:
        unknown = table["unknown"]
        cells = ["Unknown", f"{unknown['n_assessed']:,}", f"{unknown['n_selected']:,}"]
        cells += [DASH, DASH, words("not in the calculation")]
        rows.append([*cells, f"{unknown['n_people']:,}"] if has_postings else cells)
    return show_table(f"{RATE_NAMES[measure]}{phase and ', ' + phase}", header, rows)


def show_tests(measure: str, phase: str, table: dict[str, Any], *, has_postings: bool) -> Markup:
    """Return the tests of a measure: each category against everyone else, what chance gives, raw and adjusted."""
    header = ["Category", "Rate / everyone else's [95 %]", "Ratio by chance [95 %]", "p, shuffled labels", "p, Holm"]
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
            words(row["test"] or DASH),
        ]
        low, high = row["postings_low"], row["postings_high"]
        rows.append([*cells, show_interval(low, high)] if has_postings else cells)
    return show_table(f"Tests of the {RATE_NAMES[measure].lower()}{phase and ', ' + phase}", header, rows)


def show_changes(measure: str, changes: Sequence[dict[str, Any]], *, has_postings: bool) -> Markup:
    """Return how each category's ratio changed from before to after."""
    header = ["Category", "Compared with", "Change [95 %]", *(["Postings only"] if has_postings else [])]
    rows = []
    for row in changes:
        change = show_number(row["change"], row["change_low"], row["change_high"])
        cells = [row["category"], words(row["reference"]), change]
        rows.append([*cells, show_interval(row["postings_low"], row["postings_high"])] if has_postings else cells)
    caption = f"{RATE_NAMES[measure]}: ratio after / ratio before (1 is no change)"
    return show_table(caption, header, rows)


def show_ranking(section: dict[str, Any], *, phases: Sequence[str], selected: int, top: int) -> Markup:
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
    return join(
        show_table("Places in the lists, mean over postings", header, rows),
        show_table("Whole lists, mean over postings [95 %]", ["Measure", *phases, "by chance"], body),
    )


def show_scores(scores: dict[str, Any], *, phases: Sequence[str]) -> Markup:
    """Return the diversity scores, their noise floor, and the gain."""
    rows = [
        [
            f"Mean score {phase}",
            show_number(scores[phase], scores[f"{phase}_low"], scores[f"{phase}_high"]),
            words(
                f"{show_number(scores[f'{phase}_net'])} net of chance; shuffled labels give "
                f"{show_number(scores[f'{phase}_null'], scores[f'{phase}_null_low'], scores[f'{phase}_null_high'])}, "
                f"p {show_p(scores[f'{phase}_p'])}"
            ),
        ]
        for phase in phases
    ]
    rows.append(["Chance (noise floor)", show_number(scores["floor"]), words("mean score of random shortlists")])
    if "gain" in scores:
        for key, name, note in (
            ("gain", "Gain", "after minus before, paired by posting"),
            ("guarded_gain", "Guarded gain", "a rewrite that fails a guardrail never counts as an improvement"),
        ):
            rows.append([name, show_number(scores[key], scores[f"{key}_low"], scores[f"{key}_high"]), words(note)])
    return show_table("Diversity score", ["", "Value [95 %]", "Note"], rows)


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
