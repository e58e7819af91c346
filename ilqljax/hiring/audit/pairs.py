"""Who was assessed and who was selected, as pairs of a posting and a candidate, for each thing an audit measures.

| measure      | assessed                                | selected                                             |
|--------------|-----------------------------------------|------------------------------------------------------|
| shortlisting | every candidate of the pool             | members of the shortlist                             |
| selection    | members of the shortlist                | its first places                                     |
| scoring      | members of the shortlist                | with a score strictly above the full sample's median |

The full sample of the scoring rate is every (posting, member) pair of a phase, unknown categories included. In a ready
table (one row a candidate) there are no postings: every row is assessed, and every candidate is a cluster.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from ilqljax.types import Array

NOBODY = -1


class Pairs(NamedTuple):
    """Hold the assessed and selected pairs of one measure.

    Attributes:
        selected: sparse zeros and ones, a row a posting (one row for a ready table) and a column a candidate.
        assessed: likewise, ones wherever `selected` has them; None where every candidate is assessed in every row.
        has_postings: the rows are postings.
    """

    selected: csr_array
    assessed: csr_array | None
    has_postings: bool = True

    def by_candidate(self) -> tuple[Int[Array, "N"], Int[Array, "N"]]:
        """Return how often each candidate was assessed and selected."""
        n_rows, n_candidates = self.selected.shape
        assessed = np.full(n_candidates, n_rows) if self.assessed is None else self.assessed.sum(axis=0)
        return assessed, self.selected.sum(axis=0)

    def by_posting(self, codes: Int[Array, "N"], n_categories: int) -> tuple[Int[Array, "G C"], Int[Array, "G C"]]:
        """Return the counts of each category, assessed and selected, a posting; unknown ones are left out."""
        if not self.has_postings:
            return np.zeros((0, n_categories), np.int64), np.zeros((0, n_categories), np.int64)
        is_of = (codes[:, None] == np.arange(n_categories)).astype(np.int64)
        everybody = np.tile(is_of.sum(axis=0), (self.selected.shape[0], 1))
        return everybody if self.assessed is None else self.assessed @ is_of, self.selected @ is_of


def pair_shortlisting(indices: Int[Array, "G k"], *, n_candidates: int) -> Pairs:
    """Return the pairs of shortlisting: the pool is assessed for every posting."""
    return Pairs(_pair_places(indices, indices != NOBODY, n_candidates), None)


def pair_selection(indices: Int[Array, "G k"], *, n_candidates: int, n_selected: int) -> Pairs:
    """Return the pairs of selection: the first `n_selected` of a shortlist's members."""
    members = indices != NOBODY
    first = members & (np.arange(indices.shape[1]) < n_selected)
    return Pairs(_pair_places(indices, first, n_candidates), _pair_places(indices, members, n_candidates))


def pair_scoring(indices: Int[Array, "G k"], scores: Float[Array, "G k"], *, n_candidates: int) -> Pairs:
    """Return the pairs of scoring: members whose score is strictly above the median of all members of all postings."""
    members = indices != NOBODY
    high = members & (scores > median_of_members(indices, scores))
    return Pairs(_pair_places(indices, high, n_candidates), _pair_places(indices, members, n_candidates))


def median_of_members(indices: Int[Array, "G k"], scores: Float[Array, "G k"]) -> float:
    """Return the full sample's median score; infinity where nobody is a member."""
    members = scores[indices != NOBODY]
    return float(np.median(members)) if members.size else np.inf


def pair_rows(selected: Bool[Array, "N"]) -> Pairs:
    """Return the pairs of a ready table: every row is assessed once."""
    return Pairs(csr_array(selected[None].astype(np.int64)), None, has_postings=False)


def _pair_places(indices: Int[Array, "G k"], chosen: Bool[Array, "G k"], n_candidates: int) -> csr_array:
    posting, place = np.nonzero(chosen)
    ones = np.ones(len(posting), np.int64)
    return csr_array((ones, (posting, indices[posting, place])), shape=(len(indices), n_candidates))
