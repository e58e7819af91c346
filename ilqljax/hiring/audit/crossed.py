"""Intervals and tests for rates over postings *and* candidates.

The same candidates come back in the shortlists of many postings, so neither pairs nor postings are the whole story:
with 300 postings a bootstrap over postings says how the ratio would vary *for these very candidates*, and it shrinks to
nothing as postings are added, while which candidates happen to carry which label stays a draw of luck. The interval
here counts both, after Cameron, Gelbach and Miller, "Robust inference with multiway clustering" (2011): the variance of
a log ratio is V(postings) + V(candidates) - V(pairs), each a sum of squared influences within clusters, and never
less than the larger of the first two.

The influence of a pair on ln(rate of a) is (selected - rate * assessed) / (selected pairs of a).
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from ilqljax.hiring.audit.pairs import Pairs
from ilqljax.hiring.statistics import Estimate, check_level, divide
from ilqljax.types import Array


class Influence(NamedTuple):
    """Hold what a set of categories adds to a log ratio: the log rate, and its influences by cluster.

    Attributes:
        log_rate: logarithm of selected over assessed pairs; NaN or minus infinity where there are none.
        postings: sum of influences a posting; empty in a ready table.
        candidates: sum of influences a candidate; 0 outside the set.
        selected: selected pairs of the set.
        rate: selected over assessed.
        members: which candidates are of the set and were assessed at all: only these are clusters.
    """

    log_rate: float
    postings: Float[Array, "G"]
    candidates: Float[Array, "N"]
    selected: int
    rate: float
    members: Bool[Array, "N"]


class Tally(NamedTuple):
    """Hold the counts of a measure that every category's influence is made of."""

    pairs: Pairs
    codes: Int[Array, "N"]
    posting_assessed: Int[Array, "G C"]
    posting_selected: Int[Array, "G C"]
    candidate_assessed: Int[Array, "N"]
    candidate_selected: Int[Array, "N"]

    @property
    def n_categories(self) -> int:
        """Return the number of categories."""
        return self.posting_assessed.shape[1]


def tally_pairs(pairs: Pairs, codes: Int[Array, "N"], *, n_categories: int) -> Tally:
    """Count a measure's pairs by posting and by candidate."""
    return Tally(pairs, codes, *pairs.by_posting(codes, n_categories), *pairs.by_candidate())


def category_totals(tally: Tally) -> tuple[Int[Array, "C"], Int[Array, "C"]]:
    """Return the assessed and selected pairs of each category."""
    known = tally.codes >= 0
    totals = [
        np.bincount(tally.codes[known], weights=counts[known], minlength=tally.n_categories).astype(np.int64)
        for counts in (tally.candidate_assessed, tally.candidate_selected)
    ]
    return totals[0], totals[1]


def find_influence(tally: Tally, chosen: Bool[Array, "C"]) -> Influence:
    """Return the influences on the log rate of a set of categories, taken together."""
    members = np.append(chosen, False)[tally.codes] & (tally.candidate_assessed > 0)  # code -1 is the last: unknown
    assessed = tally.candidate_assessed[members].sum()
    selected = tally.candidate_selected[members].sum()
    rate = float(divide(selected, assessed))
    if not selected:
        return Influence(np.nan, np.full(tally.pairs.n_postings, np.nan), np.zeros(len(members)), 0, rate, members)
    by_candidate = np.where(members, tally.candidate_selected - rate * tally.candidate_assessed, 0.0) / selected
    by_posting = (tally.posting_selected[:, chosen] - rate * tally.posting_assessed[:, chosen]).sum(axis=1) / selected
    return Influence(float(np.log(rate)), by_posting, by_candidate, int(selected), rate, members)


def crossed_ratio(a: Influence, b: Influence, *, level: float = 0.95) -> Estimate:
    """Return the ratio of two rates with its interval over postings and candidates (module docstring).

    The interval is symmetric on the log scale, with Student's t of the scarcest kind of cluster. It is undefined (NaN)
    where a rate is 0 or there are fewer than two clusters of a kind.
    """
    check_level(level)
    value = float(divide(a.rate, b.rate))
    error, freedom = _log_error(a, b)
    return _interval(value, np.log(value) if value > 0 else np.nan, error, freedom=freedom, level=level)


def crossed_p_value(a: Influence, b: Influence) -> float:
    """Return the two-sided p-value of equal rates, by the same error as the interval; NaN where that is undefined."""
    error, freedom = _log_error(a, b)
    if not (error > 0 and freedom > 0):
        return np.nan
    return float(2 * scipy.stats.t.sf(abs(a.log_rate - b.log_rate) / error, df=freedom))


def crossed_change(
    before: tuple[Influence, Influence], after: tuple[Influence, Influence], *, shared: float, level: float = 0.95
) -> Estimate:
    """Return the ratio after over the ratio before with its interval over postings and candidates.

    Args:
        before: the influences of the category and of the reference.
        after: the same, after.
        shared: sum over pairs of the product of the influences before and after (`sum_shared`).
        level: of the interval.
    """
    (a, b), (c, d) = before, after
    change = (c.log_rate - d.log_rate) - (a.log_rate - b.log_rate)
    postings = (c.postings - d.postings) - (a.postings - b.postings)
    candidates = (c.candidates - d.candidates) - (a.candidates - b.candidates)
    pairs = sum(_pair_variance(part) for part in (a, b, c, d)) - 2 * shared
    members = [int((old.members | new.members).sum()) for old, new in ((a, c), (b, d))]
    error, freedom = _combine(postings, candidates, pairs, members=members)
    return _interval(float(np.exp(change)), change, error, freedom=freedom, level=level)


def sum_shared(before: Pairs, after: Pairs, old: Influence, new: Influence) -> float:
    """Return the sum over pairs of the product of a category's influences before and after.

    With s, a for selected and assessed and r for the rate, the product of (s - r a) and (s' - r' a') sums to
    |s s'| - r' |s a'| - r |a s'| + r r' |a a'|, each a count of pairs in both.
    """
    if not (old.selected and new.selected):
        return np.nan
    n = before.n_candidates

    def count(keys: Int[Array, "P"]) -> int:
        return int(old.members[keys % n].sum())

    everyone = before.all_assessed and after.all_assessed
    both_selected = count(np.intersect1d(before.selected_keys, after.selected_keys, assume_unique=True))
    if everyone:
        old_in_new, new_in_old = old.selected, new.selected
        both_assessed = int(old.members.sum()) * max(1, before.n_postings)
    else:
        old_in_new = count(np.intersect1d(before.selected_keys, after.assessed_keys, assume_unique=True))
        new_in_old = count(np.intersect1d(before.assessed_keys, after.selected_keys, assume_unique=True))
        both_assessed = count(np.intersect1d(before.assessed_keys, after.assessed_keys, assume_unique=True))
    total = both_selected - new.rate * old_in_new - old.rate * new_in_old + old.rate * new.rate * both_assessed
    return total / (old.selected * new.selected)


def _pair_variance(part: Influence) -> float:
    # The sum over pairs of (s - r a)^2 / S^2: S (1 - r)^2 + (A - S) r^2 over S^2, which is (1 - r) / S.
    return (1.0 - part.rate) / part.selected if part.selected else np.nan


def _log_error(a: Influence, b: Influence) -> tuple[float, int]:
    pairs = _pair_variance(a) + _pair_variance(b)
    members = [int(part.members.sum()) for part in (a, b)]
    return _combine(a.postings - b.postings, a.candidates - b.candidates, pairs, members=members)


def _combine(
    postings: Float[Array, "G"], candidates: Float[Array, "N"], pairs: float, *, members: list[int]
) -> tuple[float, int]:
    n = min(members)
    of_candidates = float((candidates**2).sum()) * n / (n - 1) if n > 1 else np.nan
    if not len(postings):
        return float(np.sqrt(of_candidates)), n - 1
    g = len(postings)
    of_postings = float((postings**2).sum()) * g / (g - 1) if g > 1 else np.nan
    parts = (of_postings + of_candidates - pairs, of_postings, of_candidates)
    return float(np.sqrt(np.max(parts))), min(g, n) - 1


def _interval(value: float, log_value: float, error: float, *, freedom: int, level: float) -> Estimate:
    if not (np.isfinite(error) and np.isfinite(log_value) and freedom > 0):
        return Estimate(value, np.nan, np.nan)
    half = float(scipy.stats.t.ppf(0.5 + level / 2, df=freedom)) * error
    return Estimate(value, float(np.exp(log_value - half)), float(np.exp(log_value + half)))
