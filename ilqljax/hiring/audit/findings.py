"""Say in sentences what an audit found."""

import math
from collections.abc import Mapping
from typing import Any

from ilqljax.hiring.audit.impact_ratio import Mark
from ilqljax.hiring.audit.tables import show_estimate, show_p

SIGNIFICANT = 0.05
_VERBS = {"shortlisting": "Shortlisted", "selection": "Selected", "scoring": "Scored above the median"}


def state_findings(audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the findings as sentences, by attribute: each rate, then the diversity score and what rewriting did."""
    first, last = audit["phases"][0], audit["phases"][-1]
    findings = {}
    for section in audit["attributes"]:
        sentences = []
        for measure, table in section["rates"][first].items():
            later = ""
            if last != first:
                lowest = _describe_lowest(section["rates"][last][measure])
                later = (
                    f" After, the lowest is {lowest}." if lowest else " After, there is insufficient data to compare."
                )
            sentences.append(f"{_VERBS[measure]}: {_describe(table)}{later}")
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
