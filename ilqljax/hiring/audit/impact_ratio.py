"""Impact ratios of selection and scoring rates, pooled over postings before any ratio is taken.

Vocabulary: New York City Local Law 144 (6 RCNY 5-300) and the four-fifths rule (29 CFR 1607.4(D)). A ratio averaged
over postings would be far below 1 for perfectly fair labels, because ten selected of fifty leave small groups out by
chance; so counts are pooled first, an absent category has no ratio (undefined, never 0), and every table shows what
shuffled labels give.

Unknown members are counted apart and enter no rate. A category with under 2 % of the known assessed is listed with its
n and rate but left out of the ratios. The p-values and Wilson intervals treat members as independent; the bootstrap
intervals, which resample postings, do not, and are the ones to trust where they differ.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ilqljax.errors import UserError
from ilqljax.hiring.reward.diversity import count_categories
from ilqljax.hiring.statistics import (
    Estimate,
    cluster_bootstrap,
    divide,
    permutation_null,
    two_proportion_test,
    wilson_interval,
)
from ilqljax.types import Array

FOUR_FIFTHS = 0.8
MIN_SHARE = 0.02  # a smaller category may be left out of the ratios (6 RCNY 5-301)
MIN_ASSESSED = 30  # a category or reference with fewer assessed members is "insufficient data"
NO_REFERENCE = -1


class Mark(StrEnum):
    """Say how a category stands to the four-fifths rule."""

    REFERENCE = "reference"
    PASSED = "at least 0.8"
    BELOW = "below 0.8"
    INSUFFICIENT = "insufficient data"
    EXCLUDED = "excluded, under 2 %"
    UNDEFINED = "undefined"


JUDGED = (Mark.REFERENCE, Mark.PASSED, Mark.BELOW)  # the marks of categories of enough members


class SelectionCounts(NamedTuple):
    """Hold how many members of each category every posting (or other cluster) assessed and selected."""

    assessed: Int[Array, "G C"]
    selected: Int[Array, "G C"]
    unknown_assessed: Int[Array, "G"]
    unknown_selected: Int[Array, "G"]


@dataclass(frozen=True)
class CategoryRow:
    """Hold one line of an impact-ratio table; an undefined number is NaN.

    Attributes:
        category: its name.
        n_assessed: known members, pooled over postings.
        n_selected: of these, how many were selected.
        selection_rate: selected over assessed, with its Wilson interval.
        impact_ratio: the rate over the highest rate, with its cluster-bootstrap interval. The reference stays the same
            category in every resample, so the interval may reach above 1.
        null_ratio: the ratio when labels are shuffled within postings: mean and range.
        p_value: of the difference from the reference's rate; NaN for the reference itself.
        test: which test the p-value comes from.
        mark: how the category stands to the four-fifths rule.
    """

    category: str
    n_assessed: int
    n_selected: int
    selection_rate: Estimate
    impact_ratio: Estimate
    null_ratio: Estimate
    p_value: float
    test: str
    mark: Mark


@dataclass(frozen=True)
class ImpactRatioTable:
    """Hold an attribute's impact ratios.

    Attributes:
        rows: one a category, in the order of the categories.
        n_unknown_assessed: members without a known category, left out of every rate.
        n_unknown_selected: of these, how many were selected.
        smallest_ratio: the smallest ratio of the table; NaN with fewer than two categories to compare.
        null_smallest_ratio: the same when labels are shuffled within postings: mean and range.
    """

    rows: tuple[CategoryRow, ...]
    n_unknown_assessed: int
    n_unknown_selected: int
    smallest_ratio: float
    null_smallest_ratio: Estimate


def count_selection(
    shortlists: Sequence[Int[Array, "_"]] | Int[Array, "G k"], *, n_selected: int, n_categories: int
) -> SelectionCounts:
    """Count assessed and selected members: a shortlist's members are assessed, its first `n_selected` are selected.

    Args:
        shortlists: codes of each posting's shortlist, best first (-1 is unknown); an empty one counts nobody.
        n_selected: how many of a shortlist are selected.
        n_categories: number of categories.

    Raises:
        UserError: no shortlist, `n_selected` is not from 1 to one less than a shortlist's length, or a code is out of
        range.
    """
    if not len(shortlists):
        raise UserError("Selection rates need at least one shortlist, got none.")
    shortlists = [np.asarray(row, np.int64) for row in shortlists]
    shortest = min((len(row) for row in shortlists if len(row)), default=n_selected + 1)
    if not 1 <= n_selected < shortest:
        raise UserError(
            f"selected={n_selected}, but the shortest shortlist has {shortest} members. Select at least 1 and fewer "
            f"than {shortest}, or nobody is turned down and every rate is 1."
        )
    assessed = [count_categories(row, n_categories) for row in shortlists]
    selected = [count_categories(row[:n_selected], n_categories) for row in shortlists]
    return SelectionCounts(
        np.stack([row.counts for row in assessed]),
        np.stack([row.counts for row in selected]),
        np.array([row.n_unknown for row in assessed]),
        np.array([row.n_unknown for row in selected]),
    )


def count_above_median(scores: Float[Array, "N"], codes: Int[Array, "N"], *, n_categories: int) -> SelectionCounts:
    """Count members for scoring rates: "selected" means a score strictly above the full sample's median.

    The full sample includes members of unknown category. Every member is a cluster of its own.

    Raises:
        UserError: no score, a score is NaN, the lengths differ, or a code is out of range.
    """
    scores, codes = np.asarray(scores, float), np.asarray(codes, np.int64)
    if scores.shape != codes.shape or not scores.size or np.isnan(scores).any():
        raise UserError(
            f"Scoring rates need one score (not NaN) a member: got {scores.size} scores for {codes.size} members, "
            f"{int(np.isnan(scores).sum())} of them NaN. Fill in or delete these members."
        )
    assessed = count_categories(codes[:, None], n_categories)
    above = scores > np.median(scores)
    return SelectionCounts(
        assessed.counts, assessed.counts * above[:, None], assessed.n_unknown, assessed.n_unknown * above
    )


def compute_impact_ratios(
    counts: SelectionCounts,
    categories: Sequence[str],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    n_permutations: int = 1000,
    level: float = 0.95,
) -> ImpactRatioTable:
    """Compute pooled selection rates and impact ratios with intervals, tests, marks and the permuted-label null.

    Args:
        counts: per-posting counts.
        categories: their names.
        seed: of the bootstrap and the permutations.
        n_resamples: bootstrap resamples of postings.
        n_permutations: shuffles of the labels within every posting's shortlist.
        level: of all intervals.

    Raises:
        UserError: the number of categories differs from the counts'.
    """
    n_categories = counts.assessed.shape[1]
    if len(categories) != n_categories:
        raise UserError(f"Got {len(categories)} names for counts of {n_categories} categories. Pass one a column.")
    assessed, selected = counts.assessed.sum(axis=0), counts.selected.sum(axis=0)
    rates = wilson_interval(selected, assessed, level=level)
    eligible = find_eligible(assessed)
    reference = find_reference(rates.value, eligible)
    ratio = cluster_bootstrap(
        np.concatenate([counts.assessed, counts.selected], axis=1),
        make_ratio_statistic(eligible, reference),
        seed=seed,
        n_resamples=n_resamples,
        level=level,
    )
    null = permutation_null(
        np.column_stack([counts.assessed, counts.unknown_assessed]),
        counts.selected.sum(axis=1) + counts.unknown_selected,
        lambda drawn: ratios_and_smallest(drawn[:, :-1], assessed, eligible),
        seed=seed,
        n_permutations=n_permutations,
        level=level,
    )
    rows = []
    for c, category in enumerate(categories):
        is_tested = reference != NO_REFERENCE and c != reference and eligible[c]
        test = two_proportion_test(
            int(selected[c]),
            int(assessed[c]) if is_tested else 0,
            successes_b=int(selected[reference]),
            trials_b=int(assessed[reference]),
        )
        rows.append(
            CategoryRow(
                category=category,
                n_assessed=int(assessed[c]),
                n_selected=int(selected[c]),
                selection_rate=_take(rates, c),
                impact_ratio=_take(ratio, c),
                null_ratio=_take(null, c),
                p_value=test.p_value,
                test=test.method if is_tested else "",
                mark=mark_category(c, selected, assessed, eligible=eligible, reference=reference),
            )
        )
    return ImpactRatioTable(
        rows=tuple(rows),
        n_unknown_assessed=int(counts.unknown_assessed.sum()),
        n_unknown_selected=int(counts.unknown_selected.sum()),
        smallest_ratio=float(ratios_and_smallest(selected, assessed, eligible)[-1]),
        null_smallest_ratio=_take(null, n_categories),
    )


def find_eligible(assessed: Int[Array, "C"]) -> Bool[Array, "C"]:
    """Return which categories enter the ratios: those with members, and at least 2 % of the known assessed."""
    return (assessed > 0) & (assessed >= MIN_SHARE * assessed.sum())


def find_reference(rates: Float[Array, "C"], eligible: Bool[Array, "C"]) -> int:
    """Return the eligible category with the highest rate (the first of equals), or `NO_REFERENCE` if all are 0."""
    if not (eligible & (rates > 0)).any():
        return NO_REFERENCE
    return int(np.argmax(np.where(eligible, rates, -np.inf)))


def make_ratio_statistic(
    eligible: Bool[Array, "C"], reference: int
) -> Callable[[Num[Array, "... F"]], Float[Array, "... C"]]:
    n = len(eligible)

    def compute_ratios(sums: Num[Array, "... F"]) -> Float[Array, "... C"]:
        rates = divide(sums[..., n:], sums[..., :n])
        ratios = divide(rates, rates[..., [reference]]) if reference != NO_REFERENCE else np.full(rates.shape, np.nan)
        return np.where(eligible, ratios, np.nan)

    return compute_ratios


def ratios_and_smallest(
    selected: Int[Array, "... C"], assessed: Int[Array, "... C"], eligible: Bool[Array, "C"]
) -> Float[Array, "... C+1"]:
    """Return each eligible category's rate over the highest of the same draw, and the smallest of these ratios.

    A category of which a draw assesses nobody has no ratio in it and sets none. The smallest needs two ratios.
    """
    rates = np.where(eligible, divide(selected, assessed), np.nan)
    ratios = divide(rates, np.where(np.isnan(rates), 0.0, rates).max(axis=-1, keepdims=True, initial=0.0))
    defined = ~np.isnan(ratios)
    smallest = np.where(defined, ratios, np.inf).min(axis=-1, keepdims=True, initial=np.inf)
    comparable = defined.sum(axis=-1, keepdims=True) >= 2
    return np.concatenate([ratios, np.where(comparable, smallest, np.nan)], axis=-1)


def mark_category(
    c: int, selected: Int[Array, "C"], assessed: Int[Array, "C"], *, eligible: Bool[Array, "C"], reference: int
) -> Mark:
    """Return how a category stands to the four-fifths rule, compared in integers: exactly 4/5 is not below it."""
    if assessed[c] > 0 and not eligible[c]:
        return Mark.EXCLUDED
    if not eligible[c] or reference == NO_REFERENCE:
        return Mark.UNDEFINED
    if min(assessed[c], assessed[reference]) < MIN_ASSESSED:
        return Mark.INSUFFICIENT
    if c == reference:
        return Mark.REFERENCE
    is_below = 5 * int(selected[c]) * int(assessed[reference]) < 4 * int(selected[reference]) * int(assessed[c])
    return Mark.BELOW if is_below else Mark.PASSED


def _take(estimate: Estimate, index: int) -> Estimate:
    return Estimate(*(float(part[index]) for part in estimate))
