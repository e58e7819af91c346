"""Compare categories within strata: jobs, companies, requisitions, levels.

Counts that are added up over jobs mix who is selected with who applies where: one sex may have the lower rate in total
and the same or a higher one in every job (Simpson's paradox; Bickel, Hammel and O'Connell 1975). Here each category is
compared with the reference *of the same stratum* only, and the strata are combined:

- The common ratio is Mantel and Haenszel's, sum_k a_k n0_k / N_k over sum_k b_k n1_k / N_k, with a of n1 selected of
  the category and b of n0 of the reference; a stratum that lacks one of the two says nothing.
- Its interval has the ratios that a stratified score test accepts (Miettinen and Nurminen 1985; weights n1 n0 / N). At
  a ratio of 1 that is the test of Cochran, Mantel and Haenszel, uncorrected: p < 0.05 just where 1 is outside.
- People with several rows: the statistic is divided by how much larger the variance is when a person's terms are added
  up first, times (t / z)^2 with t of the number of people.
- The shuffle exchanges labels among people of the same strata (and as many rows in each), so it keeps who applied
  where. Extreme is the distance of a category's selections from what its strata's rates would give it.

Worked: 8 of 10 women and 70 of 100 men in job A, 20 of 100 and 1 of 10 in job B.

|         | women    | men      | ratio                                                                |
|---------|----------|----------|----------------------------------------------------------------------|
| A       | 8 / 10   | 70 / 100 | 1.14                                                                 |
| B       | 20 / 100 | 1 / 10   | 2.00                                                                 |
| pooled  | 28 / 110 | 71 / 110 | 0.39                                                                 |
| A and B |          |          | (8 x 100 + 20 x 10) / 110 over (70 x 10 + 1 x 100) / 110 = 1000 / 800 = 1.25 |
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Bool, Float, Int, Num

from ilqljax.data.types import Array
from ilqljax.hiring.attributes import UNKNOWN, Attribute, AttributeTable, Column, cross_codes
from ilqljax.hiring.audit.crossed import crossed_ratio, find_influence, number_keys, pair_rows, tally_pairs
from ilqljax.hiring.audit.rates import FOUR_FIFTHS, TOLERANCE, Mark, Row, adjust_for_many
from ilqljax.hiring.audit.shuffles import draw_selected
from ilqljax.hiring.audit.suppression import merge_hidden
from ilqljax.hiring.proportions import find_end, ratio_test, score_statistic
from ilqljax.hiring.reward.scores import select_attribute
from ilqljax.hiring.statistics import LEVEL, UNDEFINED, Estimate, divide

MOST_STRATA = 20  # that are listed, the largest; all of them enter the common ratio
N_SHUFFLES = 2000
COMPARED = (Mark.REFERENCE, Mark.PASSED, Mark.BELOW, Mark.INSUFFICIENT)


class Strata(NamedTuple):
    """Hold in which stratum each decision was made, and about whom."""

    names: tuple[str, ...]  # of the columns that make the strata
    values: tuple[str, ...]  # of each stratum: the columns' values, joined
    codes: Int[Array, " R"]  # below 0 where a column says nothing
    people: Int[Array, " R"]


def make_strata(columns: Mapping[str, Column], people: Int[Array, " R"]) -> Strata:
    """Return the strata of the combinations that occur of the columns' values, one a decision; "" says nothing."""
    sorted_words = [sorted(column.words) for column in columns.values()]
    codes = []
    for words, column in zip(sorted_words, columns.values(), strict=True):
        code_of = {word: code for code, word in enumerate(words)} | {"": UNKNOWN}
        codes.append(np.array([code_of[word] for word in column.words], np.int64)[column.codes])
    combinations, crossed = cross_codes(codes)
    values = [[words[code] for words, code in zip(sorted_words, row, strict=True)] for row in combinations.tolist()]
    return Strata(tuple(columns), tuple(map(" / ".join, values)), crossed, people)


# --- Estimates --------------------------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """Hold the selected and assessed of a category and of its reference, of each stratum that has both."""

    a: Num[Array, " K"]
    n1: Num[Array, " K"]
    b: Num[Array, " K"]
    n0: Num[Array, " K"]


def stratified_statistic(counts: Counts, ratio: float) -> float:
    """Return the score statistic of a ratio common to all strata; chi squared with one degree of freedom if it holds.

    With the ratio 1 it is that of Cochran, Mantel and Haenszel.
    """
    a, n1, b, n0 = counts
    total, weights = n1 + n0, n1 * n0 / (n1 + n0)
    _, share_a, share_b = score_statistic(a, n1, b, n0, ratio=ratio)
    variances = (share_a * (1 - share_a) / n1 + ratio**2 * share_b * (1 - share_b) / n0) * total / (total - 1)
    variance = float((weights**2 * variances).sum())
    distance = float((weights * (a / n1 - ratio * b / n0)).sum()) ** 2
    return distance / variance if variance > 0 and distance > TOLERANCE**2 else 0.0


def common_ratio(counts: Counts, *, inflation: float = 1.0) -> tuple[Estimate, float]:
    """Return the ratio common to all strata with its interval, and the two-sided p-value of equal rates.

    The statistic is divided by `inflation`, that of its variance. Undefined (NaN) where no stratum has both, or the
    variance is not known; without anybody selected of the reference only the p-value is defined.
    """
    a, n1, b, n0 = counts
    above, below = float((a * n0 / (n1 + n0)).sum()), float((b * n1 / (n1 + n0)).sum())
    value = float(divide(above, below))
    if not len(a) or not np.isfinite(inflation):
        return UNDEFINED._replace(value=value), np.nan
    p_value = float(scipy.special.chdtrc(1, stratified_statistic(counts, 1.0) / inflation))
    if not below:
        return UNDEFINED, p_value
    limit = scipy.special.chdtri(1, 1 - LEVEL) * inflation

    def is_refused(ratio: float) -> bool:
        return stratified_statistic(counts, ratio) > limit

    start = value or 1.0
    while not value and is_refused(start):
        start /= 2
    low = find_end(is_refused, start, 0.5) if value else 0.0
    return Estimate(value, low, find_end(is_refused, start, 2.0)), p_value


def find_inflation(
    counts: Counts, places: Int[Array, " R"], people: Int[Array, " R"], selected: Bool[Array, " R"], is_category: Array
) -> float:
    """Return by how much the variance grows when a person's terms are added up first (module docstring).

    The rows are those of the category and of the reference in the strata of `counts`, which `places` numbers. Infinite
    where one of the two is fewer than two people with several rows.
    """
    if np.bincount(people, minlength=1).max() <= 1:
        return 1.0
    n_people = min(len(np.unique(people[of])) for of in (is_category, ~is_category))
    if n_people < 2:
        return np.inf
    a, n1, b, n0 = counts
    ratio = float(divide((a * n0 / (n1 + n0)).sum(), (b * n1 / (n1 + n0)).sum()))
    ratio = ratio if ratio > 0 else 1.0
    share = ((a + b) / (ratio * n1 + n0))[places]
    weights = np.where(is_category, n0[places], -ratio * n1[places]) / (n1 + n0)[places]
    terms = weights * (selected - np.where(is_category, ratio, 1.0) * share)
    alone = float((terms**2).sum())
    together = float((np.bincount(people, weights=terms) ** 2).sum())
    tails = scipy.stats.t.ppf(0.5 + LEVEL / 2, n_people - 1) / scipy.stats.norm.ppf(0.5 + LEVEL / 2)
    return max(1.0, together / alone if alone > 0 else 1.0) * float(tails) ** 2


def shuffle_within(
    strata: Strata, selected: Bool[Array, " R"], codes: Int[Array, " N"], *, n_categories: int, seed: int
) -> Float[Array, " C"]:
    """Return each category's p-value of the shuffle within strata; NaN where it can exchange nobody."""
    of_row = codes[strata.people]
    used = (of_row >= 0) & (strata.codes >= 0)
    place, who, of_row, chosen = strata.codes[used], strata.people[used], of_row[used], selected[used]
    assessed, picked = (
        _cross(place, of_row, weights, shape=(len(strata.values), n_categories)) for weights in (None, chosen)
    )
    expected = np.nansum(assessed * divide(picked.sum(axis=1), assessed.sum(axis=1))[:, None], axis=0)
    people, person = np.unique(who, return_inverse=True)
    blocks = _find_blocks(place, person, n_people=len(people))
    counts = np.bincount(person, weights=chosen, minlength=len(people)).astype(np.int64)
    options = {"n_categories": n_categories, "seed": seed, "n_shuffles": N_SHUFFLES}
    drawn = draw_selected(blocks, codes[people], counts, **options)
    seen = abs(picked.sum(axis=0) - expected)
    p_values = (1 + (abs(drawn - expected) >= seen - TOLERANCE * len(who)).sum(axis=0)) / (1 + len(drawn))
    return np.where(drawn.min(axis=0) < drawn.max(axis=0), p_values, np.nan)


def _find_blocks(place: Int[Array, " R"], person: Int[Array, " R"], *, n_people: int) -> Int[Array, " N"]:
    """Number the people by the strata of their rows: of one number may change labels."""
    if len(person) == n_people:
        blocks = np.empty(n_people, np.int64)
        blocks[person] = place
        return blocks
    order = np.lexsort((place, person))
    ends = np.searchsorted(person[order], np.arange(n_people + 1)).tolist()
    own = place[order].astype(np.int64)
    return number_keys([own[start:end].tobytes() for start, end in itertools.pairwise(ends)])


def _cross(place: Array, column: Array, weights: Any, *, shape: tuple[int, int]) -> Int[Array, "K C"]:
    flat = np.bincount(place * shape[1] + column, weights=weights, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.int64)


# --- Tables -----------------------------------------------------------------------------------------------------------


def add_within(
    audit: dict[str, Any],
    table: AttributeTable,
    strata: Strata,
    outcomes: Mapping[str, Bool[Array, " R"]],
    *,
    min_count: int,
    seed: int,
) -> None:
    """Add to each section of an audit what holds within strata, by phase and measure, in place.

    Categories that are hidden or not compared stay so, and the reference is the table's. Single strata are listed only
    where no small cells are hidden, for their cells are the smallest of all.
    """
    audit["within"] = {
        "names": list(strata.names),
        "n_strata": len(strata.values),
        "n_unknown": int((strata.codes < 0).sum()),
    }
    found = []
    for section in audit["attributes"]:
        attribute = select_attribute(table, section["name"])
        attribute = merge_hidden(attribute, section) if section["n_hidden"] else attribute
        section["within"] = {
            phase: {
                measure: tabulate_within(rates, attribute, strata, outcomes[phase], min_count=min_count, seed=seed)
                for measure, rates in of_phase.items()
            }
            for phase, of_phase in section["rates"].items()
        }
        found += [one for of_phase in section["within"].values() for one in of_phase.values()]
    adjust_for_many([row for one in found for row in one["rows"]], name="p_shuffled", adjusted="p_holm")


def tabulate_within(
    rates: Mapping[str, Any],
    attribute: Attribute,
    strata: Strata,
    selected: Bool[Array, " R"],
    *,
    min_count: int,
    seed: int,
) -> dict[str, Any]:
    """Return a row a category that is compared: its pooled and its common ratio, and whether these disagree.

    Numbers that would give away fewer than `min_count` people, as of no stratum or of one without the reference, are
    undefined.
    """
    reference = rates["compared_with"] or rates["reference"]
    if reference not in attribute.categories:
        return {"reference": reference, "rows": [], "strata": []}
    n, of_row, ref = len(attribute.categories), attribute.codes[strata.people], attribute.categories.index(reference)
    used = (of_row >= 0) & (strata.codes >= 0)
    place, column = strata.codes[used], of_row[used]
    shape = (len(strata.values), n)
    assessed, picked = (_cross(place, column, weights, shape=shape) for weights in (None, selected[used]))
    p_values = shuffle_within(strata, selected, attribute.codes, n_categories=n, seed=seed)
    shown = [row["category"] for row in rates["rows"] if row["mark"] in COMPARED and row["category"] != reference]
    rows = []
    for category in shown:
        c = attribute.categories.index(category)
        has_both = (assessed[:, c] > 0) & (assessed[:, ref] > 0)
        counts = Counts(*(of[has_both, i] for i in (c, ref) for of in (picked, assessed)))
        number = np.cumsum(has_both) - 1
        chosen = np.flatnonzero(used & np.isin(of_row, (c, ref)))
        chosen = chosen[has_both[strata.codes[chosen]]]
        inflation = find_inflation(
            counts, number[strata.codes[chosen]], strata.people[chosen], selected[chosen], of_row[chosen] == c
        )
        ratio, p_value = common_ratio(counts, inflation=inflation)
        totals = [of[:, i].sum() for i in (c, ref) for of in (picked, assessed)]
        pooled = float(divide(divide(*totals[:2]), divide(*totals[2:])))
        n_compared, n_assessed = int(assessed[has_both, c].sum()), int(assessed[:, c].sum())
        in_both = np.append(has_both, False)[strata.codes]  # code -1 is the last: no stratum
        apart = [np.flatnonzero(of & (of_row == i)) for of in (~used, used & ~in_both) for i in (c, ref)]
        if any(0 < len(np.unique(strata.people[of])) < min_count for of in apart):
            n_compared = n_assessed = pooled = np.nan
        rows.append(
            {
                "category": category,
                "pooled_ratio": pooled,
                **ratio.spread("ratio"),
                "n_strata": int(has_both.sum()),
                "n_compared": n_compared,
                "n_assessed": n_assessed,
                "p_mantel_haenszel": p_value,
                "p_shuffled": float(p_values[c]),
                "disagreement": find_disagreement(pooled, ratio.value),
            }
        )
    listed = _list_strata(attribute, strata, selected, used, shown, ref) if not min_count else []
    return {"reference": reference, "rows": rows, "strata": listed}


def find_disagreement(pooled: float, within: float) -> str:
    """Return how the ratio within strata contradicts the pooled one: "side", "vanishes", "appears", or "" (not).

    A ratio that is 1.00 in two digits is on no side.
    """
    if not (np.isfinite(pooled) and np.isfinite(within)):
        return ""
    if (round(pooled, 2) - 1) * (round(within, 2) - 1) < 0:
        return "side"
    if (pooled < FOUR_FIFTHS - TOLERANCE) == (within < FOUR_FIFTHS - TOLERANCE):
        return ""
    return "vanishes" if pooled < within else "appears"


def _list_strata(
    attribute: Attribute, strata: Strata, selected: Array, used: Array, shown: Sequence[str], ref: int
) -> list[Row]:
    """Return a row a stratum and category, each compared with the reference of that stratum; the largest strata."""
    sizes = np.bincount(strata.codes[used], minlength=len(strata.values))
    numbers, rows = np.arange(len(attribute.categories)), []
    for stratum in sorted(np.argsort(-sizes, kind="stable")[:MOST_STRATA].tolist()):
        chosen = np.flatnonzero(used & (strata.codes == stratum))
        people = strata.people[chosen]
        codes = attribute.codes[list(dict.fromkeys(people.tolist()))]
        tally = tally_pairs(pair_rows(selected[chosen], people), codes, n_categories=len(numbers))
        parts = [find_influence(tally, numbers == c) for c in numbers]
        for category in (attribute.categories[ref], *shown):
            part = parts[attribute.categories.index(category)]
            is_reference = part is parts[ref]
            ratio = UNDEFINED if is_reference else crossed_ratio(part, parts[ref])[0]
            counts = [(of.selected, of.assessed) for of in (part, parts[ref])]
            rows.append(
                {
                    "stratum": strata.values[stratum],
                    "category": category,
                    "n_people": int(part.members.sum()),
                    "n_assessed": part.assessed,
                    "n_selected": part.selected,
                    "rate": part.rate,
                    **ratio.spread("ratio"),
                    "p_independent": np.nan if is_reference else ratio_test(*counts[0], *counts[1])[0],
                }
            )
    return rows
