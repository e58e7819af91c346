"""How far a category is from the one that it is compared with: in further selections, and in standard deviations.

The **shortfall** is the least number of further selections in the category that brings its impact ratio to four fifths,
or to 1, with everyone else unchanged: those assessed stay, the reference keeps its rate, and nobody loses a place.

The **standard deviations** are those of the difference of the two rates, had both groups the same one: the rate of the
two together (pooled), with each assessment independent,

    (s/a - s'/a') / sqrt(p (1 - p) (1/a + 1/a')),   p = (s + s') / (a + a')

A difference of "more than two or three standard deviations" is suspect (Hazelwood School District v. United States,
433 U.S. 299, 308-309 n. 14 and 311 n. 17 (1977), after Castaneda v. Partida). The court compared a group with its known
share of a population; between two groups it is this pooled difference, whose square is Pearson's chi squared.
"""

import math

import numpy as np
from jaxtyping import Bool, Num

from ilqljax.data.types import Array

GAPS = ("shortfall_four_fifths", "shortfall_parity", "standard_deviations")


def measure_gaps(
    selected: Num[Array, " C"], assessed: Num[Array, " C"], judged: Bool[Array, " C"], reference: int
) -> list[dict[str, float]]:
    """Return each category's `GAPS` to the reference; NaN of one that is not judged, and of sums of weights."""
    undefined = dict.fromkeys(GAPS, math.nan)
    if assessed.dtype.kind == "f":
        return [undefined] * len(assessed)
    counts = [(s, a) for s, a in zip(selected.tolist(), assessed.tolist(), strict=True)]
    is_compared = judged & (np.arange(len(counts)) != reference)
    return [_measure(*own, *counts[reference]) if is_compared[c] else undefined for c, own in enumerate(counts)]


def _measure(selected: int, assessed: int, their_selected: int, their_assessed: int) -> dict[str, float]:
    four_fifths, parity = (
        max(0, -(-n * their_selected * assessed // (d * their_assessed)) - selected) for n, d in ((4, 5), (1, 1))
    )
    pooled = (selected + their_selected) / (assessed + their_assessed)
    variance = pooled * (1 - pooled) * (1 / assessed + 1 / their_assessed)
    difference = selected / assessed - their_selected / their_assessed
    deviations = difference / math.sqrt(variance) if variance else 0.0
    return dict(zip(GAPS, (four_fifths, parity, deviations), strict=True))
