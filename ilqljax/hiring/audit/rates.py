"""Rates and impact ratios of one measure and attribute, as rows: intervals, tests, chance, and what rewriting changed.

This is the one place where impact ratios are computed: for an audit, and for a run's `impact_ratios.csv`.

Two intervals stand beside each ratio. `ratio_low/high` counts postings and candidates (`crossed`) and is the one to
read: it covers the ratio of another set of postings *and* of candidates in 93 to 97 % of samples
(`benchmarks/audit_coverage.py`). `postings_low/high` resamples postings only, for these very candidates; as a statement
about other candidates it covers too seldom, in 85 to 95 %.

The Wilson intervals of the rates and `p_independent` treat assessments as independent, which they are not where people
come back in many shortlists. `p_crossed` (against everyone else) uses the error of `ratio_low/high`, and `p_shuffled`
shuffled labels (`impact_ratio`); where they differ from `p_independent`, trust these.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num
from statsmodels.stats.multitest import multipletests

from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.crossed import (
    Pairs,
    Tally,
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
    mark_categories,
    ratios_and_smallest,
    ratios_to,
    shuffle_labels,
)
from ilqljax.hiring.statistics import (
    UNDEFINED,
    Estimate,
    cluster_bootstrap,
    divide,
    two_proportion_test,
    wilson_interval,
)
from ilqljax.types import Array

Row = dict[str, Any]
N_RESAMPLES = 2000


def tabulate_rates(pairs: Pairs, attribute: Attribute, *, seed: int) -> dict[str, Any]:
    """Return a measure's table of one attribute: a row a category, the unknown, the smallest ratio, and their null.

    The smallest ratio, its null and its p-value are those of the categories of enough people, which a finding names.
    """
    tally = tally_pairs(pairs, attribute.codes, n_categories=len(attribute.categories))
    counts = {
        "n_people": tally.sum_by_category(tally.candidate_assessed > 0),
        "n_people_selected": tally.sum_by_category(tally.candidate_selected > 0),
        "n_assessed": tally.sum_by_category(tally.candidate_assessed),
        "n_selected": tally.sum_by_category(tally.candidate_selected),
    }
    people, _, assessed, selected = (values[1:] for values in counts.values())
    eligible = find_eligible(assessed)
    wilson = wilson_interval(selected, assessed)
    reference = find_reference(wilson.value, eligible)
    marks = mark_categories(selected, assessed, people=people, eligible=eligible, reference=reference)
    judged = np.isin(marks, JUDGED)
    null = shuffle_labels(tally, judged=judged, seed=seed)
    compared = _compare_categories(tally, eligible, reference, seed=seed)
    rows = [
        {
            "category": category,
            **{name: int(values[c + 1]) for name, values in counts.items()},
            **wilson.pick(c).spread("rate"),
            **compared[c],
            **null.ratios.pick(c).spread("null_ratio"),
            "p_shuffled": float(null.p_values[c]),
            "mark": str(marks[c]),
        }
        for c, category in enumerate(attribute.categories)
    ]
    return {
        "rows": rows,
        "unknown": {name: int(values[0]) for name, values in counts.items()},
        "reference": attribute.categories[reference] if reference != NO_REFERENCE else "",
        "smallest_ratio": float(ratios_and_smallest(selected, assessed, judged)[-1]),
        **null.smallest.spread("null_smallest"),
        "p_smallest": null.p_smallest,
    }


def _compare_categories(tally: Tally, eligible: Bool[Array, "C"], reference: int, *, seed: int) -> list[Row]:
    """Return each category's ratios to the reference and to everyone else, with intervals and tests."""
    assessed, selected = tally.totals()
    over_postings = _bootstrap([tally], lambda sums: ratios_to(sums, eligible, reference), seed=seed)
    numbers = np.arange(len(assessed))
    parts = [find_influence(tally, numbers == c) for c in numbers]
    rows = []
    for c, part in enumerate(parts):
        rest = find_influence(tally, numbers != c)
        crossed, resampled, p_value, test = UNDEFINED, UNDEFINED, np.nan, ""
        if reference not in (NO_REFERENCE, c) and eligible[c]:
            crossed, resampled = crossed_ratio(part, parts[reference]), over_postings.pick(c)
            p_value, test = two_proportion_test(*(int(n[i]) for i in (c, reference) for n in (selected, assessed)))
        rows.append(
            {
                "impact_ratio": float(over_postings.value[c]),
                **crossed.ends("ratio"),
                **resampled.ends("postings"),
                **crossed_ratio(part, rest).spread("versus_rest"),
                "p_independent": p_value,
                "test": test,
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
    assessed, selected = old.totals()
    eligible = find_eligible(assessed)
    reference = find_reference(wilson_interval(selected, assessed).value, eligible)
    if reference == NO_REFERENCE:
        return []
    parts = [[find_influence(tally, np.arange(n) == c) for c in range(n)] for tally in (old, new)]
    shared = [sum_shared(before, after, parts[0][c], parts[1][c]) for c in range(n)]

    def compare(sums: Num[Array, "... F"]) -> Float[Array, "... C"]:
        return divide(*(ratios_to(half, eligible, reference) for half in (sums[..., 2 * n :], sums[..., : 2 * n])))

    over_postings = _bootstrap([old, new], compare, seed=seed)
    rows = []
    for c, category in enumerate(attribute.categories):
        if c == reference or not eligible[c]:
            continue
        first, second = ((part[c], part[reference]) for part in parts)
        change = crossed_change(first, second, shared=shared[c] + shared[reference])
        rows.append(
            {
                "category": category,
                "reference": attribute.categories[reference],
                **change.spread("change"),
                **over_postings.pick(c).ends("postings"),
            }
        )
    return rows


def adjust_for_many(rows: Sequence[Row], *, name: str, adjusted: str) -> None:
    """Add the p-values adjusted for their number after Holm (1979) to the rows; an undefined one is not a test.

    Worked: .01, .04, .03 become 3 * .01 = .03, then 2 * .03 = .06 for .03, and max(.06, 1 * .04) = .06 for .04.
    """
    p_values = np.array([row[name] for row in rows], float)
    tested = ~np.isnan(p_values)
    if tested.any():
        p_values[tested] = multipletests(p_values[tested], method="holm")[1]
    for row, p_value in zip(rows, p_values.tolist(), strict=True):
        row[adjusted] = p_value


def _bootstrap(tallies: Sequence[Tally], statistic: Callable[..., Float[Array, "..."]], *, seed: int) -> Estimate:
    """Return a statistic of each category's counts, with intervals that resample postings; none in a ready table."""
    rows = np.hstack([part for tally in tallies for part in (tally.posting_assessed, tally.posting_selected)])
    if not len(rows):
        value = statistic(np.hstack([part for tally in tallies for part in tally.totals()]))
        return Estimate(value, *np.full((2, len(value)), np.nan))
    return cluster_bootstrap(rows, statistic, seed=seed, n_resamples=N_RESAMPLES)
