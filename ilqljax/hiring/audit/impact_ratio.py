"""What an impact ratio is: which categories have one, over which reference, and how it stands to four fifths.

Vocabulary: New York City Local Law 144 (6 RCNY 5-300) and the four-fifths rule (29 CFR 1607.4(D)). A ratio averaged
over postings would be far below 1 for perfectly fair labels, because ten selected of fifty leave small groups out by
chance; so counts are pooled first, and an absent category has no ratio (undefined, never 0).

Unknown members are counted apart and enter no rate. A category with under 2 % of the known assessed is listed with its
n and rate but left out of the ratios. `rates` makes tables of these, with intervals, tests and what chance gives.
"""

from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ilqljax.hiring.statistics import divide
from ilqljax.types import Array

FOUR_FIFTHS = 0.8
MIN_SHARE = 0.02  # a smaller category may be left out of the ratios (6 RCNY 5-301)
MIN_PEOPLE = 30  # a category or reference with fewer different people assessed is "insufficient data"
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


def find_eligible(assessed: Int[Array, "C"]) -> Bool[Array, "C"]:
    """Return which categories enter the ratios: those with members, and at least 2 % of the known assessed."""
    return (assessed > 0) & (assessed >= MIN_SHARE * assessed.sum())


def find_reference(rates: Float[Array, "C"], eligible: Bool[Array, "C"]) -> int:
    """Return the eligible category with the highest rate (the first of equals), or `NO_REFERENCE` if all are 0."""
    if not (eligible & (rates > 0)).any():
        return NO_REFERENCE
    return int(np.argmax(np.where(eligible, rates, -np.inf)))


def ratios_to(sums: Num[Array, "... F"], eligible: Bool[Array, "C"], reference: int) -> Float[Array, "... C"]:
    """Return each eligible category's rate over the reference's, from counts assessed and then counts selected."""
    n = len(eligible)
    rates = divide(sums[..., n:], sums[..., :n])
    over = rates[..., [reference]] if reference != NO_REFERENCE else np.nan
    return np.where(eligible, divide(rates, over), np.nan)


def ratios_and_smallest(
    selected: Int[Array, "... C"], assessed: Int[Array, "... C"], eligible: Bool[Array, "C"]
) -> Float[Array, "... C+1"]:
    """Return each eligible category's rate over the highest of the same draw, and the smallest of these ratios.

    A category of which a draw assesses nobody has no ratio in it and sets none. The smallest needs two ratios.
    """
    rates = np.where(eligible, divide(selected, assessed), np.nan)
    ratios = divide(rates, np.fmax.reduce(rates, axis=-1, keepdims=True, initial=0.0))
    smallest = np.fmin.reduce(ratios, axis=-1, keepdims=True, initial=np.inf)
    comparable = (~np.isnan(ratios)).sum(axis=-1, keepdims=True) >= 2
    return np.concatenate([ratios, np.where(comparable, smallest, np.nan)], axis=-1)


def mark_category(
    c: int,
    selected: Int[Array, "C"],
    assessed: Int[Array, "C"],
    *,
    people: Int[Array, "C"],
    eligible: Bool[Array, "C"],
    reference: int,
) -> Mark:
    """Return how category c stands to the four-fifths rule, compared in integers: exactly 4/5 is not below it.

    Whether a category has enough members is a matter of how many different people these are.
    """
    if assessed[c] > 0 and not eligible[c]:
        return Mark.EXCLUDED
    if not eligible[c] or reference == NO_REFERENCE:
        return Mark.UNDEFINED
    if min(people[c], people[reference]) < MIN_PEOPLE:
        return Mark.INSUFFICIENT
    if c == reference:
        return Mark.REFERENCE
    is_below = 5 * int(selected[c]) * int(assessed[reference]) < 4 * int(selected[reference]) * int(assessed[c])
    return Mark.BELOW if is_below else Mark.PASSED
