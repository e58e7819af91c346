"""Lay the audit out as one page of HTML that needs nothing else: for a regulator to check and a recruiter to read.

The page's words, and how its numbers are to be read, stand in `templates/report.html.j2`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ilqljax.data.pages import render_page
from ilqljax.hiring.audit import tables
from ilqljax.hiring.audit.findings import state_findings
from ilqljax.hiring.audit.impact_ratio import MIN_PEOPLE
from ilqljax.hiring.audit.market import AFTER, BEFORE
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


def format_page(audit: Mapping[str, Any], *, facts: Sequence[tuple[str, str]], rewrites: Sequence[Rewrite] = ()) -> str:
    """Return the report.

    The facts say what was audited and how, as names and values; there is one rewrite a posting of the audit, or none.
    """
    name = audit["attributes"][0]["name"]  # one page can show the gains on one attribute
    gains = [row[f"score_{AFTER}"][name] - row[f"score_{BEFORE}"][name] for row in audit["postings"] if rewrites]
    failed = [bool(rewrite.failed_checks) for rewrite in rewrites]
    return render_page(
        __package__,
        "report.html.j2",
        audit=audit,
        facts=tables.Table("What was audited", ["", ""], [[name, tables.Words(value)] for name, value in facts]),
        findings=state_findings(audit),
        titles=MEASURE_TITLES,
        tables=tables,
        min_people=MIN_PEOPLE,
        draw_measure=_draw_measure,
        draw_composition=draw_composition,
        gains=gains,
        passed=[gain for gain, fail in zip(gains, failed, strict=True) if not fail],
        draw_gains=lambda: draw_gains(gains, failed, title=f"Gain in the score on {name} of every posting"),
        rewrites=[(audit["postings"][i], rewrites[i], gains[i]) for i in _choose_rewrites(gains, failed)],
        compare=_compare,
    )


def _draw_measure(section: Mapping[str, Any], measure: str) -> Markup | None:
    rows = {phase: of_phase[measure]["rows"] for phase, of_phase in section["rates"].items()}
    title = f"{section['name']}: impact ratio, {MEASURE_TITLES[measure].lower()}"
    return draw_ratios(rows, title=title) if any(rows.values()) else None


def _choose_rewrites(gains: Sequence[float], failed: Sequence[bool]) -> list[int]:
    """Return which rewrites are shown: where there are many, the best and the worst that pass, and some that fail."""
    order = sorted(range(len(gains)), key=lambda i: (-gains[i], i))
    if len(order) <= MAX_SHOWN_REWRITES:
        return order
    part = MAX_SHOWN_REWRITES // 3
    passed = [i for i in order if not failed[i]]
    return [*passed[:part], *[i for i in order if failed[i]][:part], *passed[part:][-part:]]


def _compare(rewrite: Rewrite) -> list[tuple[str, str]]:
    """Return the pieces of a rewrite, each with the tag that shows whether it is old or new."""
    if max(len(rewrite.original), len(rewrite.text)) > MAX_COMPARED_CHARACTERS:
        return [("span", f"Longer than {MAX_COMPARED_CHARACTERS:,} characters: not compared.")]
    return [(_TAGS[segment.kind], segment.text) for segment in diff_words(rewrite.original, rewrite.text)]
