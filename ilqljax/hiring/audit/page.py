"""Lay the audit out as one page of HTML that needs nothing else: for a regulator to check and a recruiter to read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ilqljax.hiring.audit.findings import METHODS, state_findings
from ilqljax.hiring.audit.market import AFTER, BEFORE
from ilqljax.hiring.audit.markup import Markup, document, element, join
from ilqljax.hiring.audit.page_tables import (
    show_changes,
    show_ranking,
    show_rates,
    show_scores,
    show_table,
    show_tests,
    words,
)
from ilqljax.hiring.audit.plots import draw_composition, draw_gains, draw_legend, draw_ratios
from ilqljax.hiring.audit.style import STYLE
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import Rewrite

MAX_SHOWN_REWRITES = 45
MAX_COMPARED_CHARACTERS = 30_000  # the comparison takes time that grows with the square
TITLE = "Audit of shortlists"
MEASURE_TITLES = {
    "shortlisting": "Who gets onto a shortlist",
    "selection": "Who is selected from it",
    "scoring": "Who scores above the median",
}


def format_page(audit: Mapping[str, Any], *, facts: Sequence[tuple[str, str]], rewrites: Sequence[Rewrite] = ()) -> str:
    """Return the report.

    Args:
        audit: what `market.audit_market` or `ready_table.audit_ready_table` returned.
        facts: what was audited and how, as names and values, such as ("postings", "300, from jobs.jsonl").
        rewrites: one a posting of the audit, in its order.
    """
    sections = [_show_attribute(section, audit, i) for i, section in enumerate(audit["attributes"])]
    links = [(f"attribute-{i}", section["name"]) for i, section in enumerate(audit["attributes"])]
    extra = []
    if rewrites:
        extra = [_show_gains(audit), _show_rewrites(audit, rewrites)]
        links += [("gains", "Gain of each posting"), ("rewrites", "The rewrites")]
    links += [("methods", "How to read the numbers")]
    menu = element("nav", element("ul", *(element("li", element("a", name, href=f"#{at}")) for at, name in links)))
    return document(
        TITLE,
        element("h1", TITLE),
        show_table("What was audited", ["", ""], [[name, words(value)] for name, value in facts]),
        element("h2", "What was found", id="findings"),
        element("div", *_show_findings(audit), class_="box"),
        menu,
        *sections,
        *extra,
        _show_methods(audit),
        style=STYLE,
    )


def _show_findings(audit: Mapping[str, Any]) -> list[Markup]:
    parts = (
        []
        if len(audit["phases"]) == 1
        else [element("p", "Ratios and p-values are those before, unless it says after.", class_="note")]
    )
    for name, sentences in state_findings(audit).items():
        parts += [element("h3", name), element("ul", *(element("li", text) for text in sentences))]
    if audit["not_audited"]:
        text = f"Not audited, for nobody declares both: {', '.join(audit['not_audited'])}."
        parts.append(element("p", text, class_="note"))
    return parts


def _show_attribute(section: Mapping[str, Any], audit: Mapping[str, Any], index: int) -> Markup:
    phases, name = audit["phases"], section["name"]
    has_postings = audit["n_postings"] > 0
    unknown = "a hidden number" if section["n_unknown"] is None else f"{section['n_unknown']:,}"
    parts = [
        element("h2", name, id=f"attribute-{index}"),
        element("p", f"{unknown} of {audit['n_candidates']:,} candidates do not declare it.", class_="note"),
    ]
    if section["n_hidden"]:
        text = f"Hidden, to protect small groups: {section['n_hidden']} of its cells."
        parts.append(element("p", text, class_="note"))
    for measure in section["rates"][phases[0]]:
        parts += _show_measure(section, measure, phases, has_postings=has_postings)
    if section["composition"]:
        drawing = draw_composition(
            section["composition"], phases=phases, title=f"{name}: share of all shortlists against the target"
        )
        parts += [
            element("h3", "What the shortlists are made of"),
            element(
                "figure",
                draw_legend(phases, bars=True),
                drawing,
                element("figcaption", f"Share of the known members of all shortlists; target: {section['target']}."),
            ),
            show_scores(section["scores"], phases=phases),
        ]
    if section["ranking"]:
        ranking = show_ranking(section, phases=phases, selected=audit["selected"], top=audit["top"])
        parts.append(element("details", element("summary", "Places in the lists: skew, NDKL, exposure"), ranking))
    return element("section", *parts)


def _show_measure(
    section: Mapping[str, Any], measure: str, phases: Sequence[str], *, has_postings: bool
) -> list[Markup]:
    tables = {phase: section["rates"][phase][measure] for phase in phases}
    parts = [element("h3", MEASURE_TITLES[measure])]
    if any(table["rows"] for table in tables.values()):
        drawing = draw_ratios(
            {phase: table["rows"] for phase, table in tables.items()},
            title=f"{section['name']}: impact ratio, {MEASURE_TITLES[measure].lower()}",
        )
        caption = "Impact ratio (rate over the highest rate) with 95 % intervals; dashed line: four fifths."
        legend = [draw_legend(phases, bars=False)] if len(phases) > 1 else []
        parts.append(element("figure", *legend, drawing, element("figcaption", caption)))
    names = {phase: phase if len(phases) > 1 else "" for phase in phases}
    parts += [show_rates(measure, names[phase], tables[phase], has_postings=has_postings) for phase in phases]
    if section["changes"].get(measure):
        parts.append(show_changes(measure, section["changes"][measure], has_postings=has_postings))
    tests = [show_tests(measure, names[phase], tables[phase], has_postings=has_postings) for phase in phases]
    parts.append(element("details", element("summary", "Tests and chance"), *tests))
    return parts


def _gains(audit: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Return the gain of each posting on the first attribute, which a page can show, and its name."""
    name = audit["attributes"][0]["name"]
    return name, [row[f"score_{AFTER}"][name] - row[f"score_{BEFORE}"][name] for row in audit["postings"]]


def _show_gains(audit: Mapping[str, Any]) -> Markup:
    name, gains = _gains(audit)
    failed = [bool(row["guardrail_failures"]) for row in audit["postings"]]
    passed = [gain for gain, fail in zip(gains, failed, strict=True) if not fail]
    better, worse = sum(gain > 0 for gain in passed), sum(gain < 0 for gain in passed)
    text = (
        f"Of {len(gains)} rewrites {len(passed)} pass every guardrail: on {name}, {better} of these score better than "
        f"their original, {len(passed) - better - worse} the same, {worse} worse. {sum(failed)} fail a guardrail "
        "(hollow bars) and count as no improvement."
    )
    drawing = draw_gains(gains, failed, title=f"Gain in the score on {name} of every posting")
    return element("section", element("h2", "Gain of each posting", id="gains"), element("p", text), drawing)


def _show_rewrites(audit: Mapping[str, Any], rewrites: Sequence[Rewrite]) -> Markup:
    name, gains = _gains(audit)
    order = sorted(range(len(rewrites)), key=lambda i: (-gains[i], i))
    shown = order
    text = "Removed words are struck through, added words underlined."
    if len(order) > MAX_SHOWN_REWRITES:
        part = MAX_SHOWN_REWRITES // 3
        passed = [i for i in order if not rewrites[i].failed_checks]
        failed = [i for i in order if rewrites[i].failed_checks][:part]
        shown = [*passed[:part], *failed, *[i for i in passed[-part:] if i not in passed[:part]]]
        text += (
            f" Shown are {len(shown)} of {len(order)}: the largest gains, rewrites that fail a guardrail, and the "
            "smallest gains."
        )
    articles = [_show_rewrite(audit["postings"][i], rewrites[i], gains[i], name) for i in shown]
    return element("section", element("h2", "The rewrites", id="rewrites"), element("p", text), *articles)


def _show_rewrite(posting: Mapping[str, Any], rewrite: Rewrite, gain: float, name: str) -> Markup:
    tags = {"same": "span", "removed": "del", "added": "ins"}
    if max(len(rewrite.original), len(rewrite.text)) > MAX_COMPARED_CHARACTERS:
        pieces = [join(f"Longer than {MAX_COMPARED_CHARACTERS:,} characters: not compared.")]
    else:
        pieces = [element(tags[segment.kind], segment.text) for segment in diff_words(rewrite.original, rewrite.text)]
    flag = element("span", "passes every guardrail", class_="good")
    if rewrite.failed_checks:
        flag = element("span", f"fails: {', '.join(rewrite.failed_checks)}", class_="flag")
    reasons = element("ul", *(element("li", reason) for reason in rewrite.reasons)) if rewrite.reasons else join()
    change = f"gain on {name}: {gain:+.1f}" if math.isfinite(gain) else ""
    return element(
        "article",
        element("h3", f"{posting['title'] or 'Posting'} ({posting['id']})"),
        element("p", flag, join(" " + change)),
        reasons,
        element("p", *pieces, class_="diff"),
    )


def _show_methods(audit: Mapping[str, Any]) -> Markup:
    kind = "postings" if audit["n_postings"] else "table"
    items = [
        element("li", element("strong", method.name + ". "), method.text)
        for method in METHODS
        if method.only in ("", kind)
    ]
    return element("section", element("h2", "How to read the numbers", id="methods"), element("ul", *items))
