"""Intervals and tests for rates over postings *and* candidates.

The same candidates come back in the shortlists of many postings, so neither pairs nor postings are the whole story:
with 300 postings a bootstrap over postings says how the ratio would vary *for these very candidates*, and it shrinks to
nothing as postings are added, while which candidates happen to carry which label stays a draw of luck. The interval
here counts both, after Cameron, Gelbach and Miller, "Robust inference with multiway clustering" (2011): the variance of
a log ratio is V(postings) + V(candidates) - V(pairs), each a sum of squared influences within clusters, and never
less than the larger of the first two.

The influence of a pair on ln(rate of a) is (selected - rate * assessed) / (selected pairs of a).

Where nobody or everybody of a category is selected, its influences are all 0 or undefined, and its rate is as certain
as the number of its clusters allows. There, and in a ready table, whose people are independent, the interval is the
score interval of two shares (`proportions`). Unless each row is another person's, it is of effective counts: as many
independent trials as give the rate the variance that it has, or as many as there are clusters of the scarcer kind where
the rate is 0 or 1. A rate that is nearly so, for fewer than five people or postings have a selected pair or one that is
not, is taken for no surer than that. Without postings that number is made smaller by (z / t)^2, for the variance is
itself estimated from the people (Korn and Graubard 1998). With weights, too, it is of effective counts, at most as many
as people; a rate of 0 or 1 is then of (sum w)^2 / sum w^2 people (Kish 1965).

A pair is one of a posting and a candidate:

| measure      | assessed                                | selected                                             |
|--------------|-----------------------------------------|------------------------------------------------------|
| shortlisting | every candidate of the pool             | members of the shortlist                             |
| selection    | members of the shortlist                | its first places                                     |
| scoring      | members of the shortlist                | with a score strictly above the full sample's median |

The full sample of the scoring rate is every (posting, member) pair of a phase, unknown categories included. In a ready
table without postings every row is assessed, and every candidate, with all of that candidate's rows, is a cluster.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Bool, Float, Int, Num
from scipy.sparse import csr_array

from ilqljax.data.types import Array
from ilqljax.hiring.attributes import Numbering
from ilqljax.hiring.matching.matcher import NOBODY, Matches
from ilqljax.hiring.proportions import ratio_interval, ratio_test
from ilqljax.hiring.statistics import LEVEL, UNDEFINED, Estimate, divide, wilson_interval

NO_REFERENCE = -1
NO_WEIGHTS = np.empty(0)
FEW_CLUSTERS = 5  # people or postings whose influences are too few to say how much others vary


class Pairs(NamedTuple):
    """Hold the assessed and selected pairs of one measure: sparse numbers of rows, a column a candidate.

    With postings these are zeros and ones; with weights, sums of weights.
    """

    selected: csr_array  # a row a posting; in a ready table, one for all
    assessed: csr_array | None  # ones wherever `selected` has them; None where every candidate is assessed in every row
    has_postings: bool = True


def pair_measures(matches: Matches, *, n_candidates: int, n_selected: int) -> dict[str, Pairs]:
    """Return the pairs of every measure of shortlists; the first `n_selected` places count as selected."""
    indices, scores = matches
    members = indices != NOBODY
    high = members & (scores > median_of_members(matches))
    assessed = _pair_places(indices, members, n_candidates)
    return {
        "shortlisting": Pairs(assessed, None),
        "selection": pair_selection(indices, n_candidates=n_candidates, n_selected=n_selected),
        "scoring": Pairs(_pair_places(indices, high, n_candidates), assessed),
    }


def pair_selection(indices: Int[Array, "G k"], *, n_candidates: int, n_selected: int) -> Pairs:
    """Return the pairs of selection."""
    members = indices != NOBODY
    first = members & (np.arange(indices.shape[1]) < n_selected)
    return Pairs(_pair_places(indices, first, n_candidates), _pair_places(indices, members, n_candidates))


def median_of_members(matches: Matches) -> float:
    """Return the full sample's median score; infinity where nobody is a member."""
    members = matches.scores[matches.indices != NOBODY]
    return float(np.median(members)) if members.size else np.inf


def pair_rows(
    selected: Bool[Array, " R"],
    people: Sequence[Hashable] = (),
    postings: Sequence[Hashable] = (),
    weights: Float[Array, " R"] | Float[Array, "0"] = NO_WEIGHTS,
) -> Pairs:
    """Return the pairs of a table of decisions, a column a person in the order in which they first occur.

    Without people every row is somebody else; without postings a person may have several rows. With weights, which
    postings exclude, each row counts as much as its weight.
    """
    if not len(people) and not len(postings) and not len(weights):
        return Pairs(csr_array(selected[None].astype(np.int64)), None, has_postings=False)
    columns = number_keys(people) if len(people) else np.arange(len(selected))
    places = number_keys(postings) if len(postings) else np.zeros(len(selected), np.int64), columns
    each = weights if len(weights) else np.ones(len(selected), np.int64)
    assessed = csr_array((each, places))
    chosen = csr_array((each * selected, places), shape=assessed.shape)
    chosen.eliminate_zeros()
    return Pairs(chosen, assessed, has_postings=bool(len(postings)))


def number_keys(keys: Sequence[Hashable]) -> Int[Array, " R"]:
    """Number keys in the order in which they first occur."""
    return Numbering().number(keys.tolist() if isinstance(keys, np.ndarray) else keys)


def _pair_places(indices: Int[Array, "G k"], chosen: Bool[Array, "G k"], n_candidates: int) -> csr_array:
    posting, place = np.nonzero(chosen)
    ones = np.ones(len(posting), np.int64)
    return csr_array((ones, (posting, indices[posting, place])), shape=(len(indices), n_candidates))


class Influence(NamedTuple):
    """Hold what a set of categories adds to a log ratio: the log rate, and its influences by cluster."""

    log_rate: float  # of selected over assessed pairs; NaN or minus infinity where there are none
    postings: Float[Array, " G"]  # the sum of influences; empty in a ready table
    candidates: Float[Array, " N"]  # likewise; 0 outside the set
    assessed: float | int  # rows, or the sum of their weights
    selected: float | int
    rate: float
    members: Bool[Array, " N"]  # who is of the set and was assessed at all: only these are clusters
    n_even: float  # people of equal weight whose mean is as certain (Kish 1965): (sum w)^2 / sum w^2, of each one's w
    n_selected: int = 0  # people with a selected pair or, if they are fewer, postings
    n_lacking: int = 0  # likewise, with a pair that is not selected


class Tally(NamedTuple):
    """Hold the counts of a measure that every category's influence is made of; a ready table has no postings."""

    codes: Int[Array, " N"]
    posting_assessed: Num[Array, "G C"]  # unknown ones are left out
    posting_selected: Num[Array, "G C"]
    candidate_assessed: Num[Array, " N"]
    candidate_selected: Num[Array, " N"]

    def sum_by_category(self, counts: Num[Array, " N"] | Bool[Array, " N"]) -> Num[Array, " C1"]:
        """Add up what is counted of each candidate: of the unknown, then of each category."""
        n = self.posting_assessed.shape[1]
        sums = np.bincount(self.codes + 1, weights=counts, minlength=n + 1)
        return sums if counts.dtype.kind == "f" else sums.astype(np.int64)

    def totals(self) -> tuple[Num[Array, " C"], Num[Array, " C"]]:
        """Return the assessed and selected pairs of each category."""
        return self.sum_by_category(self.candidate_assessed)[1:], self.sum_by_category(self.candidate_selected)[1:]


def tally_pairs(pairs: Pairs, codes: Int[Array, " N"], *, n_categories: int) -> Tally:
    """Count a measure's pairs by posting and by candidate."""
    selected, assessed = pairs.selected, pairs.assessed
    if not pairs.has_postings:
        by_candidate = np.ones(len(codes), np.int64) if assessed is None else assessed.sum(axis=0)
        none = np.empty((0, n_categories), selected.dtype)
        return Tally(codes, none, none, by_candidate, selected.sum(axis=0))
    is_of = (codes[:, None] == np.arange(n_categories)).astype(np.int64)  # [N C]
    if assessed is None:
        by_posting = np.tile(is_of.sum(axis=0), (selected.shape[0], 1))
        by_candidate = np.full(selected.shape[1], selected.shape[0])
    else:
        by_posting, by_candidate = assessed @ is_of, assessed.sum(axis=0)
    return Tally(codes, by_posting, selected @ is_of, by_candidate, selected.sum(axis=0))


def find_influence(tally: Tally, chosen: Bool[Array, " C"]) -> Influence:
    """Return the influences on the log rate of a set of categories, taken together."""
    members = np.append(chosen, False)[tally.codes] & (tally.candidate_assessed > 0)  # code -1 is the last: unknown
    each = tally.candidate_assessed[members]
    assessed, selected = each.sum().item(), tally.candidate_selected[members].sum().item()
    rate, n_even = float(divide(selected, assessed)), float(divide(assessed**2, (each.astype(float) ** 2).sum()))
    n_selected, n_lacking = _count_clusters(tally, members, chosen)
    if not selected:
        none = np.full(len(tally.posting_selected), np.nan), np.zeros(len(members))
        return Influence(np.nan, *none, assessed, 0, rate, members, n_even)
    by_candidate = np.where(members, tally.candidate_selected - rate * tally.candidate_assessed, 0.0) / selected
    by_posting = (tally.posting_selected[:, chosen] - rate * tally.posting_assessed[:, chosen]).sum(axis=1) / selected
    sums = assessed, selected, rate, members, n_even, n_selected, n_lacking
    return Influence(float(np.log(rate)), by_posting, by_candidate, *sums)


def _count_clusters(tally: Tally, members: Bool[Array, " N"], chosen: Bool[Array, " C"]) -> tuple[int, int]:
    """Return how many people (or postings, if fewer) have a selected pair, and one that is not; 0 of a table."""
    if not len(tally.posting_selected):
        return 0, 0
    people = tally.candidate_selected[members], tally.candidate_assessed[members]
    postings = (of[:, chosen].sum(axis=1) for of in (tally.posting_selected, tally.posting_assessed))
    found = [((some > 0).sum(), (some < of).sum()) for some, of in (people, tuple(postings))]
    return tuple(int(min(of)) for of in zip(*found, strict=True))


def crossed_ratio(a: Influence, b: Influence) -> tuple[Estimate, float]:
    """Return the ratio of two rates with its interval over postings and candidates, and the p-value of equal rates.

    The interval (module docstring) is symmetric on the log scale, with Student's t of the scarcest kind of cluster,
    unless it is the score interval. It is undefined (NaN) where b's rate is 0 or there are fewer than two clusters of a
    kind. The p-value is two-sided, by the same error or the same test; NaN where that is undefined.
    """
    members = [int(part.members.sum()) for part in (a, b)]
    value, p_value = float(divide(a.rate, b.rate)), np.nan
    has_clusters = min(len(a.postings), *members) > 1
    if not len(a.postings) or ((a.rate in (0, 1) or b.rate in (0, 1)) and has_clusters):
        counts = *_count_effective(a), *_count_effective(b)
        return ratio_interval(*counts)._replace(value=value), ratio_test(*counts)[0]
    pairs = _pair_variance(a) + _pair_variance(b)
    error, freedom = _combine(a.postings - b.postings, a.candidates - b.candidates, pairs, members=members)
    if not (error > 0 and freedom > 0):
        return _interval(value, np.log(value) if value > 0 else np.nan, error, freedom), p_value
    p_value = float(2 * scipy.stats.t.sf(abs(a.log_rate - b.log_rate) / error, df=freedom))
    return _widen_near_ends(_interval(value, np.log(value), error, freedom), p_value, a, b)


def _widen_near_ends(found: Estimate, p_value: float, a: Influence, b: Influence) -> tuple[Estimate, float]:
    """Return an interval and a p-value that are no surer than with a rate of 0 or 1 in place of one that is nearly so.

    Where fewer than `FEW_CLUSTERS` people or postings have a selected pair, or one that is not, their influences say
    little of how much others vary: that end is let out to where it would be with none (score interval).
    """
    ends = []
    for above, below, end in ((a, b, found.high), (b, a, 1 / found.low)):  # b over a has the inverse ends
        above_size, below_size = (float(min(len(part.postings), part.members.sum())) for part in (above, below))
        cases = [(0.0, above_size, *_count_effective(below))] if above.n_selected < FEW_CLUSTERS else []
        cases += [(*_count_effective(above), below_size, below_size)] if below.n_lacking < FEW_CLUSTERS else []
        for counts in cases:
            if ratio_test(*counts, ratio=end)[0] >= 1 - LEVEL:
                end = ratio_interval(*counts).high
                p_value = max(p_value, ratio_test(*counts)[0] if above.rate < below.rate else 0.0)
        ends.append(end)
    return found._replace(low=1 / ends[1], high=ends[0]), p_value


def rate_interval(part: Influence) -> Estimate:
    """Return a rate with Wilson's interval; without postings, of effective counts, with them as if independent."""
    counts = (part.selected, part.assessed) if len(part.postings) else _count_effective(part)
    return wilson_interval(*counts)._replace(value=part.rate)


def _count_effective(part: Influence) -> tuple[float, float]:
    """Return the selected and the assessed of as many independent trials as say as much of the rate."""
    size = _find_effective_size(part)
    return (part.selected if size in (0, part.assessed) else part.rate * size), size


def _find_effective_size(part: Influence) -> float:
    """Return how many independent trials say as much of a rate: the variance of its logarithm is (1 - r) / (r n)."""
    n_members, has_postings = int(part.members.sum()), bool(len(part.postings))
    is_count = isinstance(part.assessed, int)
    if not has_postings and ((is_count and part.assessed == n_members) or n_members < 2):
        return float(n_members)
    if part.rate in (0, 1):
        return float(min(len(part.postings), n_members)) if has_postings else part.n_even
    error, freedom = _combine(part.postings, part.candidates, _pair_variance(part), members=[n_members])
    size = (1 - part.rate) / (part.rate * error**2) if error > 0 else np.inf
    if not has_postings:
        size *= (scipy.stats.norm.ppf(0.5 + LEVEL / 2) / scipy.stats.t.ppf(0.5 + LEVEL / 2, df=freedom)) ** 2
    return min(float(part.assessed if is_count else n_members), size)


def crossed_change(
    before: tuple[Influence, Influence], after: tuple[Influence, Influence], *, shared: float
) -> Estimate:
    """Return the ratio after over the ratio before with its interval over postings and candidates.

    The interval is undefined where a rate is 0 or 1, whose error is not known. Before and after stand the influences of
    the category and of the reference; `shared` is `sum_shared` of both.
    """
    (a, b), (c, d) = before, after
    if any(part.rate in (0, 1) for part in (a, b, c, d)):
        return UNDEFINED._replace(value=float(divide(divide(c.rate, d.rate), divide(a.rate, b.rate))))
    change = (c.log_rate - d.log_rate) - (a.log_rate - b.log_rate)
    postings = (c.postings - d.postings) - (a.postings - b.postings)
    candidates = (c.candidates - d.candidates) - (a.candidates - b.candidates)
    pairs = sum(_pair_variance(part) for part in (a, b, c, d)) - 2 * shared
    members = [int((old.members | new.members).sum()) for old, new in ((a, c), (b, d))]
    error, freedom = _combine(postings, candidates, pairs, members=members)
    return _interval(float(np.exp(change)), change, error, freedom)


def sum_shared(before: Pairs, after: Pairs, old: Influence, new: Influence) -> float:
    """Return the sum over pairs of the product of a category's influences before and after.

    With s, a for selected and assessed and r for the rate, the product of (s - r a) and (s' - r' a') sums to
    |s s'| - r' |s a'| - r |a s'| + r r' |a a'|, each a count of pairs in both.
    """
    if not (old.selected and new.selected):
        return np.nan
    total = sum(
        weight * other_weight * _count_shared(some, other, old.members, n_rows=before.selected.shape[0])
        for some, weight in ((before.selected, 1.0), (before.assessed, -old.rate))
        for other, other_weight in ((after.selected, 1.0), (after.assessed, -new.rate))
    )
    return total / (old.selected * new.selected)


def _count_shared(some: csr_array | None, other: csr_array | None, members: Bool[Array, " N"], *, n_rows: int) -> int:
    """Return how many pairs of the members are in both; None has every pair of `n_rows` rows."""
    if some is None and other is None:
        return int(members.sum()) * n_rows
    both = other if some is None else some if other is None else some.multiply(other)
    return int(both.sum(axis=0)[members].sum())


def _pair_variance(part: Influence) -> float:
    # The sum over pairs of (s - r a)^2 / S^2: S (1 - r)^2 + (A - S) r^2 over S^2, which is (1 - r) / S.
    return (1.0 - part.rate) / part.selected if part.selected else np.nan


def _combine(
    postings: Float[Array, " G"], candidates: Float[Array, " N"], pairs: float, *, members: list[int]
) -> tuple[float, int]:
    n = min(members)
    of_candidates = float((candidates**2).sum()) * n / (n - 1) if n > 1 else np.nan
    if not len(postings):
        return float(np.sqrt(of_candidates)), n - 1
    g = len(postings)
    of_postings = float((postings**2).sum()) * g / (g - 1) if g > 1 else np.nan
    parts = (of_postings + of_candidates - pairs, of_postings, of_candidates)
    return float(np.sqrt(np.max(parts))), min(g, n) - 1


def _interval(value: float, log_value: float, error: float, freedom: int) -> Estimate:
    if not (np.isfinite(error) and np.isfinite(log_value) and freedom > 0):
        return Estimate(value, np.nan, np.nan)
    half = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, df=freedom)) * error
    return Estimate(value, float(np.exp(log_value - half)), float(np.exp(log_value + half)))
