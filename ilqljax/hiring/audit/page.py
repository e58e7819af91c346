"""Lay the audit out as one page of HTML that needs nothing else: for a regulator to check and a recruiter to read.

The page's words stand in `templates/report.html.j2`; here is what it is filled with.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ilqljax.data.pages import render_page
from ilqljax.hiring.audit.findings import METHODS, state_findings
from ilqljax.hiring.audit.market import AFTER, BEFORE
from ilqljax.hiring.audit.page_tables import (
    Table,
    Words,
    show_changes,
    show_ranking,
    show_rates,
    show_scores,
    show_tests,
)
from ilqljax.hiring.audit.plots import draw_composition, draw_gains, draw_ratios
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import Rewrite

MAX_SHOWN_REWRITES = 45
MAX_COMPARED_CHARACTERS = 30_000  # the comparison takes time that grows with the square
MEASURE_TITLES = {
    "shortlisting": "Who gets onto a shortlist",
    "selection": "Who is selected from it",
    "scoring": "Who scores above the median",
}
_TAGS = {"same": "span", "removed": "del", "added": "ins"}


@dataclass(frozen=True)
class _Measure:
    title: str
    drawing: Markup | None
    tables: list[Table]
    tests: list[Table]


@dataclass(frozen=True)
class _Section:
    """Hold what the page shows of one attribute; empty or None is left out."""

    name: str
    unknown: str
    n_hidden: int
    measures: list[_Measure]
    composition: Markup | None
    target: str
    scores: Table | None
    ranking: list[Table]


@dataclass(frozen=True)
class _Gains:
    """Count the gains on the first attribute, which a page can show."""

    attribute: str
    n: int
    n_passed: int
    n_better: int
    n_same: int
    n_worse: int
    drawing: Markup


@dataclass(frozen=True)
class _Rewrite:
    id: str
    title: str
    failures: Sequence[str]
    reasons: Sequence[str]
    gain: str
    pieces: list[tuple[str, str]]


def format_page(audit: Mapping[str, Any], *, facts: Sequence[tuple[str, str]], rewrites: Sequence[Rewrite] = ()) -> str:
    """Return the report.

    Args:
        audit: what `market.audit_market` or `ready_table.audit_ready_table` returned.
        facts: what was audited and how, as names and values, such as ("postings", "300, from jobs.jsonl").
        rewrites: one a posting of the audit, in its order.
    """
    kind = "postings" if audit["n_postings"] else "table"
    return render_page(
        __package__,
        "report.html.j2",
        audit=audit,
        facts=Table("What was audited", ["", ""], [[name, Words(value)] for name, value in facts]),
        findings=state_findings(audit),
        sections=[_show_attribute(section, audit) for section in audit["attributes"]],
        gains=_count_gains(audit) if rewrites else None,
        rewrites=_show_rewrites(audit, rewrites) if rewrites else [],
        methods=[method for method in METHODS if method.only in ("", kind)],
    )


def _show_attribute(section: Mapping[str, Any], audit: Mapping[str, Any]) -> _Section:
    phases, name, composition = audit["phases"], section["name"], None
    has_postings = audit["n_postings"] > 0
    if section["composition"]:
        title = f"{name}: share of all shortlists against the target"
        composition = draw_composition(section["composition"], phases=phases, title=title)
    ranking = section["ranking"] and show_ranking(section, phases=phases, selected=audit["selected"], top=audit["top"])
    return _Section(
        name=name,
        unknown="a hidden number" if section["n_unknown"] is None else f"{section['n_unknown']:,}",
        n_hidden=section["n_hidden"],
        measures=[
            _show_measure(section, measure, phases, has_postings=has_postings)
            for measure in section["rates"][phases[0]]
        ],
        composition=composition,
        target=section["target"] if composition else "",
        scores=show_scores(section["scores"], phases=phases) if composition else None,
        ranking=ranking or [],
    )


def _show_measure(section: Mapping[str, Any], measure: str, phases: Sequence[str], *, has_postings: bool) -> _Measure:
    of_phase = {phase: section["rates"][phase][measure] for phase in phases}
    drawing = None
    if any(table["rows"] for table in of_phase.values()):
        drawing = draw_ratios(
            {phase: table["rows"] for phase, table in of_phase.items()},
            title=f"{section['name']}: impact ratio, {MEASURE_TITLES[measure].lower()}",
        )
    named = [(phase if len(phases) > 1 else "", table) for phase, table in of_phase.items()]
    tables = [show_rates(measure, phase, table, has_postings=has_postings) for phase, table in named]
    if section["changes"].get(measure):
        tables.append(show_changes(measure, section["changes"][measure], has_postings=has_postings))
    tests = [show_tests(measure, phase, table, has_postings=has_postings) for phase, table in named]
    return _Measure(MEASURE_TITLES[measure], drawing, tables, tests)


def _list_gains(audit: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Return the name of the first attribute and the gain of each posting on it."""
    name = audit["attributes"][0]["name"]
    return name, [row[f"score_{AFTER}"][name] - row[f"score_{BEFORE}"][name] for row in audit["postings"]]


def _count_gains(audit: Mapping[str, Any]) -> _Gains:
    name, gains = _list_gains(audit)
    failed = [bool(row["guardrail_failures"]) for row in audit["postings"]]
    passed = [gain for gain, fail in zip(gains, failed, strict=True) if not fail]
    better, worse = sum(gain > 0 for gain in passed), sum(gain < 0 for gain in passed)
    drawing = draw_gains(gains, failed, title=f"Gain in the score on {name} of every posting")
    return _Gains(name, len(gains), len(passed), better, len(passed) - better - worse, worse, drawing)


def _show_rewrites(audit: Mapping[str, Any], rewrites: Sequence[Rewrite]) -> list[_Rewrite]:
    name, gains = _list_gains(audit)
    shown = order = sorted(range(len(rewrites)), key=lambda i: (-gains[i], i))
    if len(order) > MAX_SHOWN_REWRITES:
        part = MAX_SHOWN_REWRITES // 3
        passed = [i for i in order if not rewrites[i].failed_checks]
        failed = [i for i in order if rewrites[i].failed_checks][:part]
        shown = [*passed[:part], *failed, *[i for i in passed[-part:] if i not in passed[:part]]]
    return [_show_rewrite(audit["postings"][i], rewrites[i], gains[i], name) for i in shown]


def _show_rewrite(posting: Mapping[str, Any], rewrite: Rewrite, gain: float, name: str) -> _Rewrite:
    if max(len(rewrite.original), len(rewrite.text)) > MAX_COMPARED_CHARACTERS:
        pieces = [("span", f"Longer than {MAX_COMPARED_CHARACTERS:,} characters: not compared.")]
    else:
        pieces = [(_TAGS[segment.kind], segment.text) for segment in diff_words(rewrite.original, rewrite.text)]
    change = f"gain on {name}: {gain:+.1f}" if math.isfinite(gain) else ""
    title = posting["title"] or "Posting"
    return _Rewrite(posting["id"], title, rewrite.failed_checks, rewrite.reasons, change, pieces)
