"""Say in sentences what an audit found, and what each number means and does not mean."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ilqljax.hiring.audit.impact_ratio import MIN_PEOPLE, Mark

SIGNIFICANT = 0.05
_VERBS = {"shortlisting": "Shortlisted", "selection": "Selected", "scoring": "Scored above the median"}


class Method(NamedTuple):
    """Explain a number; `only` says where it applies: "postings", "table" (a ready one), or "" for both."""

    name: str
    text: str
    only: str = ""


METHODS = (
    Method(
        "Impact ratio",
        "A category's rate over the highest category's rate, as in New York City Local Law 144 (6 RCNY 5-300). The law "
        "sets no pass mark. The four-fifths rule (29 CFR 1607.4(D)) takes a ratio below 0.8 as evidence of adverse "
        "impact in general, with attention to significance and to small numbers. Counts are pooled over postings "
        "before any ratio is taken. A category under 2 % of the data is listed but enters no ratio.",
    ),
    Method(
        "Unknown",
        "Whoever declares nothing is counted and left out of every rate. Nothing is inferred from names or texts.",
    ),
    Method(
        "Insufficient data",
        f"Marks a category, or a reference, of fewer than {MIN_PEOPLE} different people. Such a ratio shows nothing, "
        "and the p-value of the lowest ratio leaves it out.",
    ),
    Method(
        "Three rates",
        "Shortlisting: of the whole pool, who comes onto a posting's shortlist. Selection: of a shortlist's members, "
        "who takes the first places. Scoring: of all shortlists' members, who scores strictly above the median of all.",
        "postings",
    ),
    Method(
        "Intervals of the rates",
        "Wilson's, which treat assessments as independent; they describe the rate and are no test.",
    ),
    Method(
        "Intervals of the ratios",
        "95 % for another set of postings and of candidates (Cameron, Gelbach and Miller 2011), because the same "
        "people come back in many shortlists. The column 'postings only' resamples postings and keeps the candidates: "
        "narrower, and right only for statements about these very people.",
        "postings",
    ),
    Method("Intervals of the ratios", "95 % for another sample of candidates, each counted once.", "table"),
    Method(
        "The reference",
        "Is chosen as the highest rate, so with many categories the ratios lie below 1 by chance. The columns "
        "'everyone else's' and 'by chance' do not suffer from that choice.",
    ),
    Method(
        "Chance",
        "Labels are shuffled 2,000 times among the candidates who were assessed at all; a person keeps the shuffled "
        "label throughout. 'By chance' is what the same number then is. The p-value says how often shuffled labels "
        "give a rate as far from the overall one.",
    ),
    Method(
        "Many comparisons",
        "Among twenty tests of nothing one is expected below 0.05. 'p, Holm' adjusts over all categories of all "
        "attributes of one rate, the adjusted p-values under 'What was found' over all rates and attributes; a single "
        "small p-value among many is no finding.",
    ),
    Method(
        "Skew, NDKL, exposure",
        "skew@k is ln(share among the first k / target share), with one more member split as the target is, so that an "
        "absent category stays finite; MinSkew and MaxSkew are the extremes over categories. NDKL averages the "
        "divergence from the target over all prefixes of a list, early places weighing more (Geyik et al. 2019). "
        "Exposure weighs a place by 1 / log2(1 + rank) (Singh and Joachims 2018). 'By chance' is the value of a random "
        "order, which is not 0.",
        "postings",
    ),
    Method(
        "Diversity score",
        "-100 times the distance of a shortlist's distribution from its target: 0 is best, and random shortlists do "
        "not reach it. 'Net of chance' is the score minus theirs; 0 net is no different from chance. Its intervals, "
        "and those of the gains, resample postings and keep the candidates; its p-value is one-sided: lists less like "
        "their target than shuffled labels give.",
        "postings",
    ),
    Method(
        "What this does not show",
        "A difference between categories is not yet discrimination: it may follow from qualifications, from who is in "
        "the pool, or from wording. Equal rates do not show that the matcher is fair to a single person. The numbers "
        "hold for this data and this matcher.",
    ),
)


def state_findings(audit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the findings as sentences, by attribute: each rate, then the diversity score and what rewriting did."""
    first, last = audit["phases"][0], audit["phases"][-1]
    findings = {}
    for section in audit["attributes"]:
        sentences = []
        for measure, table in section["rates"][first].items():
            later = _describe_later(section["rates"][last][measure]) if last != first else ""
            sentences.append(f"{_VERBS[measure]}: {_describe(table)}{later}")
        if section["scores"]:
            sentences.append(f"Diversity: {_describe_scores(section['scores'], last)}")
        findings[section["name"]] = sentences
    return findings


def show_p(value: float) -> str:
    """Return a p-value with its sign: "= 0.012", "< 0.001", or a dash where it is undefined."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _describe_lowest(table: Mapping[str, Any]) -> str:
    """Name the lowest impact ratio among the categories of enough people, with its interval; "" if there is none."""
    judged = [row for row in table["rows"] if row["mark"] in (Mark.PASSED, Mark.BELOW)]
    if not judged:
        return ""
    lowest = min(judged, key=lambda row: row["impact_ratio"])
    text = f"{lowest['impact_ratio']:.2f}"
    if math.isfinite(lowest["ratio_low"]):
        text += f" [{lowest['ratio_low']:.2f}, {lowest['ratio_high']:.2f}]"
    text += f", of {lowest['category']}"
    return text + (" (below four fifths)" if lowest["mark"] == Mark.BELOW else "")


def _describe_later(table: Mapping[str, Any]) -> str:
    lowest = _describe_lowest(table)
    return f" After, the lowest is {lowest}." if lowest else " After, there is insufficient data to compare."


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
    verdict = "no clear change"
    if low > 0:
        verdict = "an improvement"
    elif high < 0:
        verdict = "a deterioration"
    return text + (
        f"; {last} rewriting it is {scores[last]:.1f}. The gain that counts no rewrite failing a guardrail as an "
        f"improvement is {scores['guarded_gain']:+.1f} [{low:+.1f}, {high:+.1f}]: {verdict}."
    )
