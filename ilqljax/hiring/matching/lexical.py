"""Rank by words in common in two other ways than TF-IDF: BM25, and parts of words.

A rewrite that is rewarded by one engine learns what that engine counts. These two count the same words otherwise, so
that they can share a reward (`RewardConfig.engines`) or hold out a judgement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from ilqljax.config import register
from ilqljax.errors import check_range
from ilqljax.hiring.matching.matcher import (
    WORD,
    Matcher,
    SparseMatcher,
    hash_texts,
    index_candidates,
    split_words,
)
from ilqljax.hiring.postings.posting import Candidate

NGRAMS = (3, 5)


@register("matcher", "bm25")
@dataclass(frozen=True)
class Bm25Source:
    """Rank by Okapi BM25, as search engines do.

    Attributes:
        k1: how fast further occurrences of a word in a profile count less.
        b: how much a long profile's words count less, 0 to 1.
    """

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "k1")
        check_range(self, "[0, 1]", "b")

    name = "bm25"

    @property
    def fingerprint(self) -> str:
        """Of the two settings."""
        return f"bm25 {self.k1} {self.b}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Index the candidates' texts."""
        return Bm25Matcher([candidate.text for candidate in candidates], k1=self.k1, b=self.b)


class Bm25Matcher(SparseMatcher):
    """Rank candidates by the BM25 score of a text's distinct words.

    A word that occurs n times among a profile's L words scores (Robertson and Zaragoza 2009, eq. 3.15, with the
    logarithm above 0 that Lucene takes)

        ln(1 + (N - df + 0.5) / (df + 0.5)) n (k1 + 1) / (n + k1 (1 - b + b L / mean L)).
    """

    def __init__(self, candidate_texts: Sequence[str], *, k1: float = 1.2, b: float = 0.75):
        """Index candidates by their profile texts; if these are none, or not a list of texts, raise a `UserError`."""
        from sklearn.feature_extraction.text import CountVectorizer  # here, for it takes a second

        counter = CountVectorizer(analyzer=split_words, dtype=np.float64)
        counts = index_candidates(counter, candidate_texts)
        n, lengths = len(candidate_texts), np.asarray(counts.sum(axis=1)).ravel()
        df = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log1p((n - df + 0.5) / (df + 0.5))
        row_of = np.repeat(np.arange(n), np.diff(counts.indptr))
        norms = k1 * (1.0 - b + b * lengths / max(lengths.mean(), 1.0))
        weights = idf[counts.indices] * counts.data * (k1 + 1.0) / (counts.data + norms[row_of])

        def vectorize(texts: Sequence[str]) -> scipy.sparse.csr_matrix:
            return counter.transform(texts).sign().tocsr()

        super().__init__(
            candidate_texts,
            fingerprint=f"bm25-{hash_texts(candidate_texts, header=f'bm25 1 {k1} {b} {WORD.pattern}')[:32]}",
            vectorize=vectorize,
            candidates=scipy.sparse.csr_matrix((weights, counts.indices, counts.indptr), shape=counts.shape),
        )


@register("matcher", "ngrams")
@dataclass(frozen=True)
class NgramSource:
    """Rank by parts of words in common, so that "designer" and "design" are near."""

    name = fingerprint = "ngrams"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Index the candidates' texts."""
        return NgramMatcher([candidate.text for candidate in candidates])


class NgramMatcher(SparseMatcher):
    """Rank candidates by the cosine between TF-IDF vectors of the 3 to 5 letters in a row within words."""

    def __init__(self, candidate_texts: Sequence[str]):
        """Index candidates by their profile texts; if these are none, or not a list of texts, raise a `UserError`."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # here, for it takes a second

        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=NGRAMS, sublinear_tf=True)
        candidates = index_candidates(vectorizer, candidate_texts)
        super().__init__(
            candidate_texts,
            fingerprint=f"ngrams-{hash_texts(candidate_texts, header=f'ngrams 1 {NGRAMS}')[:32]}",
            vectorize=vectorizer.transform,
            candidates=candidates,
        )
