"""Who was assessed and who was selected, as pairs of a posting and a candidate, for each thing an audit measures.

| measure      | assessed                                | selected                                             |
|--------------|-----------------------------------------|------------------------------------------------------|
| shortlisting | every candidate of the pool             | members of the shortlist                             |
| selection    | members of the shortlist                | its first places                                     |
| scoring      | members of the shortlist                | with a score strictly above the full sample's median |

The full sample of the scoring rate is every (posting, member) pair of a phase, unknown categories included. In a ready
table (one row a candidate) there are no postings: every row is assessed, and every candidate is a cluster.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ilqljax.types import Array

NOBODY = -1


@dataclass(frozen=True, eq=False)
class Pairs:
    """Hold the assessed and selected pairs of one measure, in the forms that the statistics need.

    Attributes:
        n_postings: number of postings; 0 in a ready table.
        n_candidates: size of the pool.
        assessed_keys: sorted `posting * n_candidates + candidate` of the assessed pairs; empty if `all_assessed`.
        selected_keys: likewise of the selected pairs, which are assessed too.
        all_assessed: every candidate is assessed for every posting (or, in a ready table, once).
    """

    n_postings: int
    n_candidates: int
    assessed_keys: Int[Array, "P"]
    selected_keys: Int[Array, "S"]
    all_assessed: bool

    def by_candidate(self) -> tuple[Int[Array, "N"], Int[Array, "N"]]:
        """Return how often each candidate was assessed and selected."""
        selected = np.bincount(self.selected_keys % self.n_candidates, minlength=self.n_candidates)
        if self.all_assessed:
            return np.full(self.n_candidates, max(1, self.n_postings)), selected
        return np.bincount(self.assessed_keys % self.n_candidates, minlength=self.n_candidates), selected

    def by_posting(self, codes: Int[Array, "N"], n_categories: int) -> tuple[Int[Array, "G C"], Int[Array, "G C"]]:
        """Return the counts of each category, assessed and selected, a posting; unknown ones are left out."""
        if not self.n_postings:
            return np.zeros((0, n_categories), np.int64), np.zeros((0, n_categories), np.int64)
        selected = self._count(self.selected_keys, codes, n_categories)
        if self.all_assessed:
            pool = np.bincount(codes[codes >= 0], minlength=n_categories)
            return np.tile(pool, (self.n_postings, 1)), selected
        return self._count(self.assessed_keys, codes, n_categories), selected

    def _count(self, keys: Int[Array, "P"], codes: Int[Array, "N"], n_categories: int) -> Int[Array, "G C"]:
        posting, candidate = np.divmod(keys, self.n_candidates)
        bins = posting * (n_categories + 1) + codes[candidate] + 1  # bin 0 is unknown
        counts = np.bincount(bins, minlength=self.n_postings * (n_categories + 1))
        return counts.reshape(self.n_postings, n_categories + 1)[:, 1:]


def make_keys(indices: Int[Array, "G k"], *, n_candidates: int, keep: Bool[Array, "G k"]) -> Int[Array, "P"]:
    """Return the sorted keys of the members that are kept; places of nobody are never."""
    posting = np.arange(len(indices))[:, None]
    return np.sort((posting * n_candidates + indices)[keep & (indices != NOBODY)])


def pair_shortlisting(indices: Int[Array, "G k"], *, n_candidates: int) -> Pairs:
    """Return the pairs of shortlisting: the pool is assessed for every posting."""
    keys = make_keys(indices, n_candidates=n_candidates, keep=np.ones(indices.shape, bool))
    return Pairs(len(indices), n_candidates, np.empty(0, np.int64), keys, True)


def pair_selection(indices: Int[Array, "G k"], *, n_candidates: int, n_selected: int) -> Pairs:
    """Return the pairs of selection: the first `n_selected` of a shortlist's members."""
    everybody = np.ones(indices.shape, bool)
    first = everybody & (np.arange(indices.shape[1]) < n_selected)
    return _pair_members(indices, first, n_candidates=n_candidates)


def pair_scoring(indices: Int[Array, "G k"], scores: Float[Array, "G k"], *, n_candidates: int) -> Pairs:
    """Return the pairs of scoring: members whose score is strictly above the median of all members of all postings."""
    return _pair_members(indices, scores > median_of_members(indices, scores), n_candidates=n_candidates)


def median_of_members(indices: Int[Array, "G k"], scores: Float[Array, "G k"]) -> float:
    """Return the full sample's median score; infinity where nobody is a member."""
    members = scores[indices != NOBODY]
    return float(np.median(members)) if members.size else np.inf


def pair_rows(selected: Bool[Array, "N"]) -> Pairs:
    """Return the pairs of a ready table: every row is assessed once."""
    return Pairs(0, len(selected), np.empty(0, np.int64), np.flatnonzero(selected), True)


def _pair_members(indices: Int[Array, "G k"], selected: Bool[Array, "G k"], *, n_candidates: int) -> Pairs:
    everybody = make_keys(indices, n_candidates=n_candidates, keep=np.ones(indices.shape, bool))
    chosen = make_keys(indices, n_candidates=n_candidates, keep=selected)
    return Pairs(len(indices), n_candidates, everybody, chosen, False)
