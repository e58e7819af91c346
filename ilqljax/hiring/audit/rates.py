"""Rates and impact ratios of one measure and attribute, as rows: intervals, tests, chance, and what rewriting changed.

This is the one place where impact ratios are computed: for an audit's page and tables, and for the `impact_ratios.csv`
of a training run (`evaluation.impact`).

Two intervals stand beside each impact ratio. `ratio_low/high` counts postings and candidates (`crossed`) and is the one
to read: it covers the ratio that another set of postings *and* of candidates would give, in 93 to 97 % of samples
(`benchmarks/audit_coverage.py`). `postings_low/high` resamples postings only: it covers the ratio of other postings for
these very candidates, and as a statement about other candidates covers too seldom, in 85 to 95 %.

The Wilson intervals of the rates and `p_independent` treat assessments as independent, which they are not where people
come back in many shortlists. `p_crossed` (against everyone else) uses the error of `ratio_low/high`, and `p_shuffled`
shuffled labels (`shuffling`); where they differ from `p_independent`, trust these.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num
from statsmodels.stats.multitest import multipletests

from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.crossed import (
    Tally,
    category_totals,
    crossed_change,
    crossed_p_value,
    crossed_ratio,
    find_influence,
    sum_shared,
    tally_pairs,
)
from ilqljax.hiring.audit.impact_ratio import (
    JUDGED,
    NO_REFERENCE,
    find_eligible,
    find_reference,
    make_ratio_statistic,
    mark_category,
    ratios_and_smallest,
)
from ilqljax.hiring.audit.pairs import Pairs
from ilqljax.hiring.audit.shuffling import shuffle_labels
from ilqljax.hiring.statistics import Estimate, cluster_bootstrap, two_proportion_test, wilson_interval
from ilqljax.types import Array

Row = dict[str, Any]
UNDEFINED = Estimate(math.nan, math.nan, math.nan)
N_RESAMPLES = 2000


def tabulate_rates(pairs: Pairs, attribute: Attribute, *, seed: int) -> dict[str, Any]:
    """Return a measure's table of one attribute: a row a category, the unknown, the smallest ratio, and their null.

    The smallest ratio, its null and its p-value are those of the categories of enough people, which a finding names.

    Args:
        pairs: who was assessed and selected.
        attribute: the candidates' codes and categories.
        seed: of the bootstrap and the shuffles.
    """
    tally = tally_pairs(pairs, attribute.codes, n_categories=len(attribute.categories))
    assessed, selected = category_totals(tally)
    eligible = find_eligible(assessed)
    wilson = wilson_interval(selected, assessed)
    reference = find_reference(wilson.value, eligible)
    people, people_selected = _count_people(tally)
    marks = [
        mark_category(c, selected, assessed, people=people, eligible=eligible, reference=reference)
        for c in range(len(assessed))
    ]
    judged = np.isin(marks, JUDGED)
    null = shuffle_labels(tally, judged=judged, seed=seed)
    compared = _compare_categories(tally, eligible, reference, seed=seed)
    rows = [
        {
            "category": category,
            "n_people": int(people[c]),
            "n_people_selected": int(people_selected[c]),
            "n_assessed": int(assessed[c]),
            "n_selected": int(selected[c]),
            **spread("rate", _pick(wilson, c)),
            **compared[c],
            **spread("null_ratio", _pick(null.ratios, c)),
            "p_shuffled": float(null.p_values[c]),
            "mark": str(marks[c]),
        }
        for c, category in enumerate(attribute.categories)
    ]
    unknown = attribute.codes < 0
    return {
        "rows": rows,
        "unknown": {
            "n_people": int((unknown & (tally.candidate_assessed > 0)).sum()),
            "n_people_selected": int((unknown & (tally.candidate_selected > 0)).sum()),
            "n_assessed": int(tally.candidate_assessed[unknown].sum()),
            "n_selected": int(tally.candidate_selected[unknown].sum()),
        },
        "reference": attribute.categories[reference] if reference != NO_REFERENCE else "",
        "smallest_ratio": float(ratios_and_smallest(selected, assessed, judged)[-1]),
        **spread("null_smallest", null.smallest),
        "p_smallest": null.p_smallest,
    }


def _compare_categories(tally: Tally, eligible: Bool[Array, "C"], reference: int, *, seed: int) -> list[Row]:
    """Return each category's ratios to the reference and to everyone else, with intervals and tests."""
    assessed, selected = category_totals(tally)
    statistic = make_ratio_statistic(eligible, reference)
    ratios = statistic(np.concatenate([assessed, selected]))
    over_postings = _bootstrap_ratios(tally, statistic, seed=seed)
    numbers = np.arange(len(assessed))
    parts = [find_influence(tally, numbers == c) for c in numbers]
    rows = []
    for c, part in enumerate(parts):
        is_compared = bool(reference != NO_REFERENCE and c != reference and eligible[c])
        crossed = crossed_ratio(part, parts[reference]) if is_compared else UNDEFINED
        rest = find_influence(tally, numbers != c)
        test = two_proportion_test(
            int(selected[c]),
            int(assessed[c]) if is_compared else 0,
            successes_b=int(selected[reference]),
            trials_b=int(assessed[reference]),
        )
        rows.append(
            {
                "impact_ratio": float(ratios[c]),
                "ratio_low": crossed.low,
                "ratio_high": crossed.high,
                "postings_low": float(over_postings.low[c]) if is_compared else math.nan,
                "postings_high": float(over_postings.high[c]) if is_compared else math.nan,
                **spread("versus_rest", crossed_ratio(part, rest)),
                "p_independent": test.p_value,
                "test": test.method if is_compared else "",
                "p_crossed": crossed_p_value(part, rest),
            }
        )
    return rows


def tabulate_changes(before: Pairs, after: Pairs, attribute: Attribute, *, seed: int) -> list[Row]:
    """Return how each category's impact ratio changed: ratio after over ratio before, 1 meaning no change.

    The reference is the category with the highest rate *before*, in both, so that a change of reference does not
    masquerade as a change of the category.
    """
    n = len(attribute.categories)
    old, new = (tally_pairs(pairs, attribute.codes, n_categories=n) for pairs in (before, after))
    assessed, selected = category_totals(old)
    eligible = find_eligible(assessed)
    reference = find_reference(wilson_interval(selected, assessed).value, eligible)
    if reference == NO_REFERENCE:
        return []
    parts = [[find_influence(tally, np.arange(n) == c) for c in range(n)] for tally in (old, new)]
    shared = [sum_shared(before, after, parts[0][c], parts[1][c]) for c in range(n)]
    over_postings = _bootstrap_changes(old, new, make_ratio_statistic(eligible, reference), seed=seed)
    rows = []
    for c, category in enumerate(attribute.categories):
        if c == reference or not eligible[c]:
            continue
        change = crossed_change(
            (parts[0][c], parts[0][reference]),
            (parts[1][c], parts[1][reference]),
            shared=shared[c] + shared[reference],
        )
        rows.append(
            {
                "category": category,
                "reference": attribute.categories[reference],
                **spread("change", change),
                "postings_low": float(over_postings.low[c]),
                "postings_high": float(over_postings.high[c]),
            }
        )
    return rows


def adjust_for_many(rows: Sequence[Row], *, name: str, adjusted: str) -> None:
    """Add the p-values adjusted for their number after Holm (1979) to the rows; an undefined one is no test.

    Worked: .01, .04, .03 become 3 * .01 = .03, then 2 * .03 = .06 for .03, and max(.06, 1 * .04) = .06 for .04.
    """
    p_values = np.array([row[name] for row in rows], float)
    tested = ~np.isnan(p_values)
    if tested.any():
        p_values[tested] = multipletests(p_values[tested], method="holm")[1]
    for row, p_value in zip(rows, p_values.tolist(), strict=True):
        row[adjusted] = p_value


def spread(name: str, estimate: Estimate) -> Row:
    """Return an estimate as three numbers of a row: `name`, `name_low`, `name_high`."""
    return {name: float(estimate.value), f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}


def _pick(estimate: Estimate, index: int) -> Estimate:
    return Estimate(*(float(part[index]) for part in estimate))


def _count_people(tally: Tally) -> tuple[Num[Array, "C"], Num[Array, "C"]]:
    """Return how many different candidates of each category were assessed at all, and selected at all."""
    known = tally.codes >= 0
    assessed, selected = (
        np.bincount(tally.codes[known & (counts > 0)], minlength=tally.n_categories)
        for counts in (tally.candidate_assessed, tally.candidate_selected)
    )
    return assessed, selected


def _bootstrap_ratios(tally: Tally, statistic: Callable[..., Float[Array, "..."]], *, seed: int) -> Estimate:
    """Return the impact ratios with intervals that resample postings; undefined in a ready table."""
    if not tally.pairs.n_postings:
        undefined = np.full(tally.n_categories, np.nan)
        return Estimate(undefined, undefined, undefined)
    rows = np.concatenate([tally.posting_assessed, tally.posting_selected], axis=1)
    return cluster_bootstrap(rows, statistic, seed=seed, n_resamples=N_RESAMPLES)


def _bootstrap_changes(old: Tally, new: Tally, statistic: Callable[..., Float[Array, "..."]], *, seed: int) -> Estimate:
    """Return the ratios after over before, resampling postings: a posting keeps its before and its after."""
    if not old.pairs.n_postings:
        undefined = np.full(old.n_categories, np.nan)
        return Estimate(undefined, undefined, undefined)
    rows = np.concatenate(
        [old.posting_assessed, old.posting_selected, new.posting_assessed, new.posting_selected], axis=1
    )
    half = rows.shape[1] // 2

    def compare(sums: Num[Array, "... F"]) -> Float[Array, "... C"]:
        first, second = statistic(sums[..., :half]), statistic(sums[..., half:])
        return np.divide(second, first, out=np.full(first.shape, np.nan), where=first > 0)

    return cluster_bootstrap(rows, compare, seed=seed, n_resamples=N_RESAMPLES)
