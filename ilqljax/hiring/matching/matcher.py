"""Match texts to candidates: what every matcher and its config object are, and a TF-IDF one without download.

    config.matcher.name   ranks by                                            needs
    tfidf                 words in common (here)                              nothing
    callable              a Python function of the user's (`user_supplied`)   `function`, as package.module:function
    http                  the user's own matcher over HTTP (`http`)           `url`
    encoder, embeddings   vectors (`encoders`)                                an encoder, and jax

Equal scores are ordered by the lower row, also where the k-th place is shared; `select_top_k` does this for any matrix.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from ilqljax.config import register
from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Candidate
from ilqljax.types import Array

# Letters and digits, then any + and # that end the word: "c++" and "c#" stay whole, "a+b" is two words.
WORD = re.compile(r"[^\W_]+(?:[+#]++(?!\w))?")

NOBODY = -1
_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


class Matches(NamedTuple):
    """Hold the row numbers of each text's k best candidates, best first, and their scores, which do not increase."""

    indices: Int[Array, "B k"]
    scores: Float[Array, "B k"]


@runtime_checkable
class Matcher(Protocol):
    """Rank a fixed list of candidates for any text.

    Its `fingerprint` changes whenever the ranking could, for caches: a hash of the method, its settings and the
    candidates. It may also have `texts_at_once`, how many texts keep it busy.
    """

    fingerprint: str
    n_candidates: int

    def top_k(self, texts: Sequence[str], k: int) -> Matches:
        """Return each text's k best candidates, best first; equal scores go by the lower index."""
        ...


@runtime_checkable
class MatcherSource(Protocol):
    """Describe a matcher before it knows its candidates: the `matcher` object of a config.

    Its `name` is for tables and messages; its `fingerprint` changes whenever the ranking of the same candidates could.
    """

    name: str
    fingerprint: str

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Make the matcher; what is worth keeping (vectors) is kept in `folder`."""
        ...


class CheckedMatcher:
    """Check what a matcher is asked; a subclass has the attributes of `Matcher`, and ranks in `_rank`."""

    fingerprint: str
    n_candidates: int

    def top_k(self, texts: Sequence[str], k: int) -> Matches:
        """Return each text's k best candidates; a wrong k, texts or answer of a user's matcher raise a `UserError`."""
        check_texts(texts, name="texts")
        check_k(k, n_candidates=self.n_candidates)
        return self._rank(texts, k) if texts else join_matches([], k)

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        raise NotImplementedError


def match_texts(matcher: Matcher, texts: Sequence[str], k: int) -> Matches:
    """Return each text's k best candidates; an empty text reaches nobody (`NOBODY`), with scores that are NaN."""
    indices, scores = np.full((len(texts), k), NOBODY, np.int64), np.full((len(texts), k), np.nan)
    filled = [row for row, text in enumerate(texts) if text.strip()]
    if filled:
        indices[filled], scores[filled] = matcher.top_k([texts[row] for row in filled], k)
    return Matches(indices, scores)


def join_matches(parts: Iterable[Matches], k: int) -> Matches:
    """Put the matches of several batches of texts into one."""
    none = Matches(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    return Matches(*map(np.concatenate, zip(none, *parts, strict=True)))


def hash_texts(texts: Iterable[str], *, header: str = "") -> str:
    """Return the SHA-256 of a header and texts, in order, so that no two lists of texts run into each other."""
    digest = hashlib.sha256(header.encode())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def select_top_k(scores: Float[Array, "B N"], k: int) -> Matches:
    """Select the k highest scores of each row; equal scores are ordered by the lower index, also at the k-th place.

    Scores are compared as float32. Those that are equal in exact arithmetic but were summed in another order then tie,
    provided that they were computed in float64. A k that is not from 1 to N, and a NaN, raise a `UserError`.
    """
    scores = np.asarray(scores)
    check_k(k, n_candidates=scores.shape[-1])
    return _unpack(_largest(_pack(scores, first_index=0), k))


def check_k(k: int, *, n_candidates: int) -> None:
    """Raise a `UserError` unless 1 <= k <= n_candidates."""
    if not 1 <= k <= n_candidates:
        raise UserError(
            f"A shortlist of k={k} was asked for, but there are {n_candidates} candidates. "
            f"Use a k from 1 to {n_candidates}, or give more candidates."
        )


@register("matcher", "tfidf")
@dataclass(frozen=True)
class TfidfSource:
    """Rank by words in common, with nothing to download."""

    name = fingerprint = "tfidf"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Index the candidates' texts."""
        return TfidfMatcher([candidate.text for candidate in candidates])


class TfidfMatcher(CheckedMatcher):
    """Rank candidates by the cosine between TF-IDF vectors of words.

    A word (`split_words`) that occurs n times in a text weighs (1 + ln n) (1 + ln((1 + N) / (1 + df))), where df is the
    number of the N candidates that have it; words that no candidate has are ignored. Vectors have length 1. A text
    without a known word scores 0 everywhere, so its shortlist is the first k candidates.

    The search is exact, in blocks of texts x candidates, so that no array grows with their product or with texts x
    vocabulary; a text's result does not depend on the texts beside it.
    """

    def __init__(self, candidate_texts: Sequence[str], *, max_block_bytes: int = 1 << 26):
        """Index candidates by their profile texts; if these are none, or not a list of texts, raise a `UserError`.

        `max_block_bytes` bounds each of the two dense work arrays (a block of texts, a block of scores).
        """
        from sklearn.feature_extraction.text import TfidfVectorizer  # here, for it takes a second

        check_texts(candidate_texts, name="candidate_texts")
        if not candidate_texts:
            raise UserError("The list of candidates is empty. A matcher needs at least one candidate.")
        self.n_candidates = len(candidate_texts)
        self.fingerprint = f"tfidf-{hash_texts(candidate_texts, header=f'tfidf 1 {WORD.pattern}')[:32]}"
        self._vectorizer = TfidfVectorizer(analyzer=split_words, sublinear_tf=True)
        # Candidates without any word score 0 whatever is known, and scikit-learn insists on knowing a word.
        self._vectorizer.fit(candidate_texts if any(map(WORD.search, candidate_texts)) else ["word"])
        self._candidates = self._vectorizer.transform(candidate_texts)
        self._text_block = max(1, min(256, max_block_bytes // (8 * self._candidates.shape[1])))
        self._candidate_block = max(1, max_block_bytes // (8 * self._text_block))

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        vectors = self._vectorizer.transform(texts)
        blocks = range(0, len(texts), self._text_block)
        return _unpack(np.concatenate([self._search(vectors[at : at + self._text_block], k) for at in blocks]))

    def _search(self, vectors: scipy.sparse.csr_matrix, k: int) -> Int[Array, "B k"]:
        # Sparse candidates times dense texts: each non-zero of a candidate updates all texts of the block at once,
        # which is several times faster than sparse times sparse when common words occur in most candidates.
        dense = np.ascontiguousarray(vectors.toarray().T)  # [V B]
        best = np.empty((dense.shape[1], 0), np.int64)
        for start in range(0, self.n_candidates, self._candidate_block):
            scores = (self._candidates[start : start + self._candidate_block] @ dense).T  # [B n]
            keys = _largest(_pack(scores, first_index=start), k)
            best = _largest(np.concatenate([best, keys], axis=1), k)
        return best


def split_words(text: str) -> list[str]:
    """Return the lower-cased words of a text, in order: `"C++ and C#"` gives `["c++", "and", "c#"]`."""
    return WORD.findall(text.lower())


def check_texts(texts: Sequence[str], *, name: str) -> None:
    """Raise a `UserError` unless `texts` is a sequence of texts (and not one text, whose letters would be matched)."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} must be a list of texts, got {texts!r:.60}. Put a single text into a list.")


def _pack(scores: Float[Array, "B N"], *, first_index: int) -> Int[Array, "B N"]:
    """Pack a float32 score (high bits) and an index (low bits, reversed) into one integer that sorts as the pair does.

    | score | index | high bits       | low bits    |                                        |
    |-------|-------|-----------------|-------------|----------------------------------------|
    | 0.5   | 3     | bits of 0.5     | 2^32 - 1 - 3 | best: higher score                     |
    | 0.0   | 1     | 0               | 2^32 - 1 - 1 | next: of equal scores, the lower index |
    | 0.0   | 2     | 0               | 2^32 - 1 - 2 | last                                   |
    """
    scores = scores.astype(np.float32) + np.float32(0.0)  # the sum turns -0.0 into 0.0, which must tie with it
    if np.isnan(scores).any():
        raise UserError("The matcher returned a score that is NaN; it cannot be ranked. Every score must be a number.")
    bits = scores.view(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF  # makes the integers of negative floats increase as the floats do
    last = _INDEX_MASK - first_index
    return (bits.astype(np.int64) << _INDEX_BITS) | np.arange(last, last - scores.shape[1], -1, dtype=np.int64)


def _unpack(keys: Int[Array, "B k"]) -> Matches:
    bits = (keys >> _INDEX_BITS).astype(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return Matches(indices=_INDEX_MASK - (keys & _INDEX_MASK), scores=bits.view(np.float32))


def _largest(keys: Int[Array, "B N"], k: int) -> Int[Array, "B k"]:
    if keys.shape[1] > k:
        keys = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    return np.sort(keys, axis=1)[:, ::-1]
