"""Bound impact ratios over everything that the people of unknown category could have been.

Whoever declares nothing enters no rate, and a ratio of those who do says nothing of the others. Its bounds need no
guess: the ratio of a to b is lowest where a gets those of the unknown who were selected most seldom and b those who
were selected most often, each as long as this moves its rate, and highest the other way round.

Worked: 10 of 20 of a and 30 of 40 of b are selected, and 4 of 10 of the unknown, a row a person.

| the unknown are                       | rate of a       | rate of b       | ratio |
|---------------------------------------|-----------------|-----------------|-------|
| left out                              | 10 / 20         | 30 / 40         | 0.67  |
| 6 not selected: a, 4 selected: b      | 10 / 26 = 0.385 | 34 / 44 = 0.773 | 0.498 |
| 4 selected: a, 6 not selected: b      | 14 / 24 = 0.583 | 30 / 46 = 0.652 | 0.894 |

That is exact where every person is assessed once. One who is assessed for many postings goes to a category whole; only
where the same person would be needed in both are the bounds wider than can happen. In an intersection whoever lacks
one part counts as unknown altogether, so they may be wider there too.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ilqljax.data.types import Array
from ilqljax.hiring.audit.crossed import NO_REFERENCE, Tally
from ilqljax.hiring.statistics import divide


def bound_ratios(
    tally: Tally, eligible: Bool[Array, " C"], reference: int
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Return the lowest and the highest that each category's ratio to the reference could be.

    NaN for the reference itself and wherever there is no ratio. Both are the ratio itself where nobody is unknown.
    """
    assessed, selected = tally.totals()
    unknown = (tally.codes < 0) & (tally.candidate_assessed > 0)
    people = tally.candidate_selected[unknown], tally.candidate_assessed[unknown]
    if reference == NO_REFERENCE:
        return np.full(len(eligible), np.nan), np.full(len(eligible), np.nan)
    more = [[np.cumsum(of[by]) for of in people] for by in _order_people(*people)]
    low, high = np.array([extreme_rates(*counts, *more) for counts in zip(selected, assessed, strict=True)]).T
    has_ratio = eligible & (np.arange(len(eligible)) != reference)
    return tuple(
        np.where(has_ratio, divide(*ends), np.nan) for ends in ((low, high[reference]), (high, low[reference]))
    )


def _order_people(selected: Num[Array, " U"], assessed: Num[Array, " U"]) -> tuple[Int[Array, " U"], Int[Array, " U"]]:
    """Return who was selected most seldom first, and who most often first: the best people to add come first."""
    order = np.argsort(selected / assessed, kind="stable")
    return order, order[::-1]


def extreme_rates(
    selected: float | int, assessed: float | int, seldom: Sequence[Num[Array, " U"]], often: Sequence[Num[Array, " U"]]
) -> tuple[float, float]:
    """Return the lowest and the highest rate that counts can have once some people, or none, are added to them.

    A person raises a rate who was selected more often than it says. Sums of the selected and of the assessed are given
    of the first so many people, from those who were selected most seldom on, and from the others on.
    """
    low, high = (divide(selected + more, assessed + of) for more, of in (seldom, often))
    known = float(divide(selected, assessed))
    return float(np.fmin.reduce(low, initial=known)), float(np.fmax.reduce(high, initial=known))
