"""Rates and impact ratios by category: what they are, their intervals and tests, and what chance alone gives.

This is the one place where impact ratios are computed: for an audit, and for a run's `impact_ratios.csv`. Vocabulary:
New York City Local Law 144 (6 RCNY 5-300) and the four-fifths rule (29 CFR 1607.4(D)). A ratio averaged over postings
would be far below 1 for perfectly fair labels, because ten selected of fifty leave small groups out by chance; so
counts are pooled first, and an absent category has no ratio (undefined, never 0). Unknown members are counted apart
and enter no rate. A category with under 2 % of the known assessed (or another share) is listed with its n and rate but
left out of the ratios.

**Two references.** The law's ratio is over the highest rate of all. Where that is the rate of fewer than 30 people, it
shows nothing, and would take every other category with it; so categories of 30 people or more are compared with the
highest rate among *them*: `compared_ratio`, which the marks and the smallest ratio are of. The two are the same where
the highest rate is that of enough people, or where the reference was named.

**Intervals.** Two stand beside each ratio. `ratio_low/high` counts postings and candidates (`crossed`) and is the one
to read: it covers the ratio of another set of postings *and* of candidates in 93 to 97 % of samples
(`benchmarks/audit_coverage.py`). `postings_low/high` resamples postings only, for these very candidates; as a statement
about other candidates it covers too seldom, in 85 to 95 %. With postings the Wilson intervals of the rates, and always
`p_independent`, treat assessments as independent, which they are not where people come back. `p_crossed` (against
everyone else) uses the error of `ratio_low/high`, and `p_shuffled` shuffled labels; where they differ from
`p_independent`, trust these. In a ready table of one row a person all of these but `p_shuffled` are one score test and
its interval (`proportions`).

`bound_low/high` is no interval: it is what the ratio could be, whoever the unknown are (`bounds`).

**Chance**: labels are shuffled among the candidates who were assessed at all. A label stays with its candidate through
all postings, so that people who are in many shortlists stay in many. The null says: among those who were assessed,
labels have nothing to do with how often they were assessed and selected. It is exact for every measure and needs no
model; a small p-value says that labels and outcomes go together, not why.

Whoever was never assessed (nobody in shortlisting and in a ready table) has no part in a rate of those who were. Labels
drawn from the whole pool would leave a small category with nobody assessed in many shuffles, hence without a rate, and
such a shuffle is neither more nor less extreme than the data. Here every category keeps its number of different people.
A number can still be undefined in a shuffle, where no known member is selected: such shuffles are left out of it and of
its p-value, which is exact given that there is a number.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ilqljax.data.types import Array
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.audit.bounds import bound_ratios
from ilqljax.hiring.audit.crossed import (
    NO_REFERENCE,
    Pairs,
    Tally,
    crossed_change,
    crossed_ratio,
    find_influence,
    rate_interval,
    sum_shared,
    tally_pairs,
)
from ilqljax.hiring.audit.shortfall import measure_gaps
from ilqljax.hiring.audit.shuffles import draw_totals
from ilqljax.hiring.proportions import ratio_test
from ilqljax.hiring.reward.diversity import diversity_score
from ilqljax.hiring.reward.scores import ScoreTerm, codes_or_unknown
from ilqljax.hiring.statistics import (
    UNDEFINED,
    Estimate,
    cluster_bootstrap,
    divide,
    mean_of_defined,
    quantiles_of_defined,
)

Row = dict[str, Any]
N_RESAMPLES = 2000
FOUR_FIFTHS = 0.8
LEAVE_OUT_BELOW = 0.02  # a category of a smaller share may be left out of the ratios (6 RCNY 5-301)
MIN_PEOPLE = 30  # a category or named reference with fewer different people assessed is "insufficient data"
TOLERANCE = 1e-12  # of ties: equal rates may differ in their last digit


class Mark(StrEnum):
    """Say how a category stands to the four-fifths rule."""

    REFERENCE = "reference"
    PASSED = "at least 0.8"
    BELOW = "below 0.8"
    INSUFFICIENT = "insufficient data"
    EXCLUDED = "excluded, small share"
    UNDEFINED = "undefined"


_RATIO = {"ratio": "impact_ratio", "low": "ratio_low", "high": "ratio_high"}
_OF_OTHERS = ("versus_rest", "versus_rest_low", "versus_rest_high", "p_crossed")
_OF_OTHERS += ("null_ratio", "null_ratio_low", "null_ratio_high", "p_shuffled")
_OF_SMALLEST = ("null_smallest", "null_smallest_low", "null_smallest_high", "p_smallest")
JUDGED = (Mark.REFERENCE, Mark.PASSED, Mark.BELOW)  # the marks of categories of enough members


class Comparison(NamedTuple):
    """Say which categories have a ratio, which are compared, and with which one; `NO_REFERENCE` is none."""

    eligible: Bool[Array, " C"]  # of the law's ratio
    enough: Bool[Array, " C"]  # of these, the ones of enough people
    reference: int  # of the law's ratio: the highest rate, or the named category
    compared_with: int  # the highest rate of those with enough people, or the named category if it is one of these


def choose_comparison(
    selected: Num[Array, " C"],
    assessed: Num[Array, " C"],
    *,
    people: Int[Array, " C"],
    named: int = NO_REFERENCE,
    leave_out_below: float = LEAVE_OUT_BELOW,
) -> Comparison:
    """Choose who is compared with whom."""
    eligible = find_eligible(assessed, named=named, leave_out_below=leave_out_below)
    enough, rates = eligible & (people >= MIN_PEOPLE), divide(selected, assessed)
    may_be = (np.arange(len(assessed)) == named) | (named == NO_REFERENCE)
    return Comparison(eligible, enough, *(find_reference(rates, of & may_be) for of in (eligible, enough)))


def find_eligible(
    assessed: Num[Array, " C"], *, named: int = NO_REFERENCE, leave_out_below: float = LEAVE_OUT_BELOW
) -> Bool[Array, " C"]:
    """Return which categories enter the ratios: those with members, and a share of the known assessed large enough.

    A named reference is not left out, whatever its share.
    """
    is_large = (assessed >= leave_out_below * assessed.sum()) | (np.arange(len(assessed)) == named)
    return (assessed > 0) & is_large


def find_reference(rates: Float[Array, " C"], eligible: Bool[Array, " C"]) -> int:
    """Return the eligible category with the highest rate (the first of equals), or `NO_REFERENCE` if all are 0."""
    if not (eligible & (rates > 0)).any():
        return NO_REFERENCE
    return int(np.argmax(np.where(eligible, rates, -np.inf)))


def ratios_to(sums: Num[Array, "... F"], eligible: Bool[Array, " C"], reference: int) -> Float[Array, "... C"]:
    """Return each eligible category's rate over the reference's, from counts assessed and then counts selected."""
    n = len(eligible)
    rates = divide(sums[..., n:], sums[..., :n])
    over = rates[..., [reference]] if reference != NO_REFERENCE else np.nan
    return np.where(eligible, divide(rates, over), np.nan)


def ratios_and_smallest(
    selected: Num[Array, "... C"],
    assessed: Num[Array, "... C"],
    eligible: Bool[Array, " C"],
    *,
    named: int = NO_REFERENCE,
) -> Float[Array, "... C+1"]:
    """Return each eligible category's rate over the highest of the same draw, and the smallest of these ratios.

    With a named reference, over its rate, and the smallest is of the others. A category of which a draw assesses nobody
    has no ratio in it and sets none. The smallest needs two ratios.
    """
    rates = np.where(eligible, divide(selected, assessed), np.nan)
    highest = np.fmax.reduce(rates, axis=-1, keepdims=True, initial=0.0)
    ratios = divide(rates, highest if named == NO_REFERENCE else rates[..., [named]])
    others = np.where(np.arange(len(eligible)) == named, np.nan, ratios)
    smallest = np.fmin.reduce(others, axis=-1, keepdims=True, initial=np.inf)
    comparable = (~np.isnan(ratios)).sum(axis=-1, keepdims=True) >= 2
    return np.concatenate([ratios, np.where(comparable, smallest, np.nan)], axis=-1)


def mark_categories(selected: Num[Array, " C"], assessed: Num[Array, " C"], comparison: Comparison) -> list[Mark]:
    """Return how categories stand to the four-fifths rule, compared in integers: exactly 4/5 is not below it.

    Whether a category has enough members is a matter of how many different people these are.
    """
    reference = comparison.compared_with

    def mark(c: int) -> Mark:
        if not comparison.eligible[c]:
            return Mark.EXCLUDED if assessed[c] > 0 else Mark.UNDEFINED
        if comparison.reference == NO_REFERENCE:
            return Mark.UNDEFINED
        if not comparison.enough[c] or reference == NO_REFERENCE:
            return Mark.INSUFFICIENT
        if c == reference:
            return Mark.REFERENCE
        ours, theirs = ([of[i].item() for of in (selected, assessed)] for i in (c, reference))
        left, right = 5 * ours[0] * theirs[1], 4 * theirs[0] * ours[1]
        is_weighted = isinstance(left, float)  # whose sums may differ in the last digit
        return Mark.BELOW if left < (right * (1 - TOLERANCE) if is_weighted else right) else Mark.PASSED

    return [mark(c) for c in range(len(assessed))]


# --- Tables -----------------------------------------------------------------------------------------------------------


def tabulate_rates(
    pairs: Pairs,
    attribute: Attribute,
    *,
    seed: int,
    reference: str = "",
    leave_out_below: float = LEAVE_OUT_BELOW,
) -> dict[str, Any]:
    """Return a measure's table of one attribute: a row a category, the unknown, the smallest ratio, and their null.

    The smallest ratio, its null and its p-value are those of the categories of enough people, which a finding names;
    `smallest_of_all` is what it would be with every category included, whatever its size. A reference that is not named
    is the highest rate.
    """
    named = attribute.categories.index(reference) if reference else NO_REFERENCE
    tally = tally_pairs(pairs, attribute.codes, n_categories=len(attribute.categories))
    counts = {
        "n_people": tally.sum_by_category(tally.candidate_assessed > 0),
        "n_people_selected": tally.sum_by_category(tally.candidate_selected > 0),
        "n_assessed": tally.sum_by_category(tally.candidate_assessed),
        "n_selected": tally.sum_by_category(tally.candidate_selected),
    }
    people, _, assessed, selected = (values[1:] for values in counts.values())
    chosen = choose_comparison(selected, assessed, people=people, named=named, leave_out_below=leave_out_below)
    numbers = np.arange(len(assessed))
    marks = mark_categories(selected, assessed, chosen)
    judged = np.isin(marks, JUDGED)
    null, p_values = shuffle_labels(tally, eligible=chosen.eligible, judged=judged, named=named, seed=seed)
    law = _compare_categories(tally, chosen.eligible, chosen.reference, seed=seed)
    is_same = chosen.compared_with == chosen.reference
    compared = law if is_same else _compare_categories(tally, judged, chosen.compared_with, seed=seed)
    bounds = bound_ratios(tally, chosen.eligible, chosen.reference)
    gaps = measure_gaps(selected, assessed, judged, chosen.compared_with)
    rows = [
        {
            "category": category,
            **{name: _plain_count(values[c + 1]) for name, values in counts.items()},
            **rate_interval(find_influence(tally, numbers == c)).spread("rate"),
            **law[c],
            **{f"compared_{end}": compared[c][key] if judged[c] else np.nan for end, key in _RATIO.items()},
            **gaps[c],
            "bound_low": float(bounds[0][c]),
            "bound_high": float(bounds[1][c]),
            **null.pick(c).spread("null_ratio"),
            "p_shuffled": float(p_values[c]),
            "mark": str(marks[c]),
        }
        for c, category in enumerate(attribute.categories)
    ]
    names = [*attribute.categories, ""]  # NO_REFERENCE is the last
    of_all = ratios_and_smallest(selected, assessed, assessed > 0, named=named)
    is_smallest = np.append(of_all[:-1] == of_all[-1], True)
    return {
        "rows": rows,
        "unknown": {name: _plain_count(values[0]) for name, values in counts.items()},
        "total": {name: _plain_count(values.sum()) for name, values in counts.items()},
        "reference": names[chosen.reference],
        "compared_with": names[chosen.compared_with],
        "named_reference": reference,
        "leave_out_below": leave_out_below,
        "smallest_ratio": float(ratios_and_smallest(selected, assessed, judged, named=named)[-1]),
        "smallest_of_all": float(of_all[-1]),
        "smallest_of_all_category": names[int(is_smallest.argmax())],
        **null.pick(-1).spread("null_smallest"),
        "p_smallest": float(p_values[-1]),
    }


def retest(table: dict[str, Any], pairs: Pairs, attribute: Attribute, *, seed: int) -> None:
    """Compute again what is said of the shown categories, in place, so that it is of the sum of the hidden ones only.

    That is all that labels of others take part in: the rate over everyone else's, and what shuffled labels give. The
    attribute has the hidden categories as its last one. Where the total is hidden these are left undefined, for they
    follow from it and give it away.
    """
    names = attribute.categories
    tally, numbers = tally_pairs(pairs, attribute.codes, n_categories=len(names)), np.arange(len(names))
    mark_of = {row["category"]: row["mark"] for row in table["rows"]}
    marks = [mark_of.get(name, Mark.UNDEFINED) for name in names]
    eligible, judged = ~np.isin(marks, (Mark.EXCLUDED, Mark.UNDEFINED)), np.isin(marks, JUDGED)
    named = names.index(table["named_reference"]) if table["named_reference"] in names else NO_REFERENCE
    null, p_values = shuffle_labels(tally, eligible=eligible, judged=judged, named=named, seed=seed)
    assessed, selected = tally.totals()
    for row in table["rows"]:
        c = names.index(row["category"])
        versus_rest, p_crossed = crossed_ratio(*(find_influence(tally, of) for of in (numbers == c, numbers != c)))
        row |= versus_rest.spread("versus_rest") | {"p_crossed": p_crossed}
        row |= null.pick(c).spread("null_ratio") | {"p_shuffled": float(p_values[c])}
        row |= {} if table["total"] else dict.fromkeys(_OF_OTHERS, np.nan)
    table |= null.pick(-1).spread("null_smallest") | {"p_smallest": float(p_values[-1])}
    table["smallest_ratio"] = float(ratios_and_smallest(selected, assessed, judged, named=named)[-1])
    table |= {} if table["total"] else dict.fromkeys(_OF_SMALLEST, np.nan)


def _plain_count(value: np.generic) -> int | float:
    """Return a count, or a sum of weights with two digits."""
    return round(value.item(), 2)


def _compare_categories(tally: Tally, eligible: Bool[Array, " C"], reference: int, *, seed: int) -> list[Row]:
    """Return each category's ratios to the reference and to everyone else, with intervals and tests."""
    assessed, selected = tally.totals()
    over_postings = _bootstrap([tally], lambda sums: ratios_to(sums, eligible, reference), seed=seed)
    numbers = np.arange(len(assessed))
    parts = [find_influence(tally, numbers == c) for c in numbers]
    rows = []
    for c, part in enumerate(parts):
        versus_rest, p_crossed = crossed_ratio(part, find_influence(tally, numbers != c))
        crossed, resampled, p_value, test = UNDEFINED, UNDEFINED, np.nan, ""
        if reference not in (NO_REFERENCE, c) and eligible[c]:
            crossed, p_value = crossed_ratio(part, parts[reference])
            resampled = over_postings.pick(c).drop_empty()  # it has no width where nobody or everybody is selected
            test = "score, effective counts"
            if assessed.dtype.kind != "f":
                p_value, test = ratio_test(*(n[i].item() for i in (c, reference) for n in (selected, assessed)))
        rows.append(
            {
                "impact_ratio": float(over_postings.value[c]),
                **crossed.ends("ratio"),
                **resampled.ends("postings"),
                **versus_rest.spread("versus_rest"),
                "p_independent": p_value,
                "test": test,
                "p_crossed": p_crossed,
            }
        )
    return rows


def tabulate_changes(
    before: Pairs,
    after: Pairs,
    attribute: Attribute,
    *,
    seed: int,
    reference: str = "",
    leave_out_below: float = LEAVE_OUT_BELOW,
) -> list[Row]:
    """Return how each category's impact ratio changed: ratio after over ratio before, 1 meaning no change.

    The reference is the category with the highest rate *before* (of those with enough people, if there are any), in
    both, so that a change of reference does not masquerade as a change of the category; or the one that is named.
    """
    n = len(attribute.categories)
    old, new = (tally_pairs(pairs, attribute.codes, n_categories=n) for pairs in (before, after))
    assessed, selected = old.totals()
    named = attribute.categories.index(reference) if reference else NO_REFERENCE
    people = old.sum_by_category(old.candidate_assessed > 0)[1:]
    chosen = choose_comparison(selected, assessed, people=people, named=named, leave_out_below=leave_out_below)
    eligible, against = chosen.eligible, chosen.compared_with
    against = chosen.reference if against == NO_REFERENCE else against
    if against == NO_REFERENCE:
        return []
    parts = [[find_influence(tally, np.arange(n) == c) for c in range(n)] for tally in (old, new)]
    shared = [sum_shared(before, after, parts[0][c], parts[1][c]) for c in range(n)]

    def compare(sums: Num[Array, "... F"]) -> Float[Array, "... C"]:
        return divide(*(ratios_to(half, eligible, against) for half in (sums[..., 2 * n :], sums[..., : 2 * n])))

    over_postings = _bootstrap([old, new], compare, seed=seed)
    rows = []
    for c, category in enumerate(attribute.categories):
        if c == against or not eligible[c]:
            continue
        first, second = ((part[c], part[against]) for part in parts)
        change = crossed_change(first, second, shared=shared[c] + shared[against])
        rows.append(
            {
                "category": category,
                "reference": attribute.categories[against],
                **change.spread("change"),
                **over_postings.pick(c).drop_empty().ends("postings"),
            }
        )
    return rows


def adjust_for_many(rows: Sequence[Row], *, name: str, adjusted: str) -> None:
    """Add the p-values adjusted for their number after Holm (1979) to the rows; an undefined one is not a test.

    Worked: .01, .04, .03 become 3 * .01 = .03, then 2 * .03 = .06 for .03, and max(.06, 1 * .04) = .06 for .04.
    """
    from statsmodels.stats.multitest import multipletests  # with pandas, half a second: --help needs none

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


# --- Chance -----------------------------------------------------------------------------------------------------------


def shuffle_labels(
    tally: Tally,
    *,
    eligible: Bool[Array, " C"],
    judged: Bool[Array, " C"],
    named: int = NO_REFERENCE,
    seed: int,
    n_shuffles: int = 2000,
) -> tuple[Estimate, Float[Array, " C+1"]]:
    """Shuffle the candidates' labels; return a measure's impact ratios then (mean and 95 % range), and p-values.

    Each is of every category, and then of the smallest ratio among the judged ones, those of enough people. A
    category's p-value, two-sided, is how often its rate is as far from the overall rate, that of the smallest how often
    it is as small: one test an attribute; NaN with fewer than two judged.
    """
    assessed, selected = tally.totals()
    drawn_assessed, drawn_selected = draw_totals(tally, seed=seed, n_shuffles=n_shuffles)
    observed = ratios_and_smallest(selected, assessed, judged, named=named)[-1]
    draws = ratios_and_smallest(drawn_selected, drawn_assessed, eligible, named=named)
    draws[:, -1] = ratios_and_smallest(drawn_selected, drawn_assessed, judged, named=named)[:, -1]
    null = Estimate(mean_of_defined(draws), *quantiles_of_defined(draws, (0.025, 0.975)))
    overall = divide(drawn_selected.sum(axis=1), drawn_assessed.sum(axis=1))
    distance = abs(divide(drawn_selected, drawn_assessed) - overall[:, None])
    seen = abs(divide(selected, assessed) - divide(selected.sum(), assessed.sum()))
    return null, np.append(_find_p_values(distance, seen), _find_p_values(-draws[:, -1], -observed))


def _find_p_values(draws: Float[Array, "R ..."], seen: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """Return how often a draw is as large as what was seen, which counts as a draw, of the draws that are defined."""
    as_large, defined = (draws >= seen - TOLERANCE).sum(axis=0), (~np.isnan(draws)).sum(axis=0)
    return np.where(np.isnan(seen), np.nan, (1 + as_large) / (1 + defined))


def shuffle_scores(
    term: ScoreTerm,
    indices: Int[Array, "G k"],
    targets: Float[Array, "G C"],
    *,
    weights: Float[Array, " k"] | None,
    seed: int,
    n_shuffles: int = 400,
) -> tuple[Estimate, float]:
    """Shuffle the candidates' labels and return the mean score over postings (mean and 95 % range), and its p-value.

    Unlike the pooled rates, a score sees imbalances that cancel over postings: one posting's list all of one category
    and the next one's all of another. The p-value is one-sided: lists are *less* like their targets than chance gives.
    """
    rng = np.random.default_rng(seed)

    def average(codes: Int[Array, " N"]) -> float:
        scores = diversity_score(codes_or_unknown(codes, indices), targets, distance=term.distance, weights=weights)
        return float(np.mean(scores))

    observed = average(term.attribute.codes)
    draws = np.array([average(rng.permutation(term.attribute.codes)) for _ in range(n_shuffles)])
    low, high = np.quantile(draws, (0.025, 0.975))
    as_low = int((draws <= observed + TOLERANCE).sum())
    return Estimate(float(draws.mean()), float(low), float(high)), (1 + as_low) / (1 + n_shuffles)
