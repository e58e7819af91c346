"""Match texts to candidates: what every matcher and its config object are, and a TF-IDF one without download.

    config.matcher.name   ranks by                                            needs
    tfidf                 words in common (here)                              nothing
    bm25, ngrams          words, or parts of words, in common (`lexical`)     nothing
    callable              a Python function of the user's (`user_supplied`)   `function`, as package.module:function
    http                  the user's own matcher over HTTP (`http`)           `url`
    postgres              a table of PostgreSQL (`postgres`)                  `table`, `id_column`, and psycopg
    encoder, embeddings   vectors (`encoders`)                                an encoder, and jax

Equal scores are ordered by the lower row, also where the k-th place is shared; `select_top_k` does this for any matrix.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from ilqljax.config import register
from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Candidate

# Letters and digits, then any + and # that end the word: "c++" and "c#" stay whole, "a+b" is two words.
WORD = re.compile(r"[^\W_]+(?:[+#]++(?!\w))?")

NOBODY = -1


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


class CheckedMatcher(Matcher):
    """Check what a matcher is asked; a subclass has the attributes of `Matcher`, and ranks in `_rank`."""

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


def rank_halves(
    matcher: Matcher, texts: Sequence[str], k: int, halves: Bool[Array, "S N"]
) -> tuple[Int[Array, "T k"], Int[Array, "S 2 T h"]]:
    """Return each text's k best people, and its k // 2 (at least one) best of either half, best first, of each split.

    Halves are told from one ranking of everybody, which is asked for more people until every half has enough.
    """
    n, half = matcher.n_candidates, max(1, k // 2)
    depth = min(n, 2 * k + 20)
    while True:
        ranking = np.asarray(matcher.top_k(list(texts), depth).indices)
        member = np.stack([halves[:, ranking], ~halves[:, ranking]], axis=1)  # [S, 2, T, depth]
        if depth == n or (member.sum(axis=-1) >= half).all():
            break
        depth = min(n, 2 * depth)
    first = np.argsort(~member, axis=-1, kind="stable")[..., :half]
    return ranking[:, :k], np.take_along_axis(np.broadcast_to(ranking, member.shape), first, axis=-1)


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
    scores = np.asarray(scores).astype(np.float32) + np.float32(0.0)  # the sum turns -0.0 into 0.0
    n = scores.shape[-1]
    check_k(k, n_candidates=n)
    if np.isnan(scores).any():
        raise UserError("The matcher returned a score that is NaN; it cannot be ranked. Every score must be a number.")
    least = np.partition(scores, n - k, axis=1)[:, n - k]
    rows = np.empty((len(scores), k), np.int64)
    for i, own in enumerate(scores):
        near = np.flatnonzero(own >= least[i])
        rows[i] = near[np.argsort(-own[near], kind="stable")[:k]]
    return Matches(rows, np.take_along_axis(scores, rows, axis=1))


def check_k(k: int, *, n_candidates: int) -> None:
    """Raise a `UserError` unless 1 <= k <= n_candidates."""
    if not 1 <= k <= n_candidates:
        raise UserError(
            f"A shortlist of k={k} was asked for, but there are {n_candidates} candidates. "
            f"Use a k from 1 to {n_candidates}, or give more candidates."
        )


def check_selected(n_selected: int, k: int, *, where: str) -> None:
    """Raise a `UserError`, which `where` begins, unless 1 <= n_selected < k."""
    if not 1 <= n_selected < k:
        raise UserError(
            f"{where}: {n_selected} are to be selected of a shortlist of {k}. Select 1 to {k - 1} of it, or nobody is "
            "turned down."
        )


@register("matcher", "tfidf")
@dataclass(frozen=True)
class TfidfSource:
    """Rank by words in common, with nothing to download."""

    name = fingerprint = "tfidf"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Index the candidates' texts."""
        return TfidfMatcher([candidate.text for candidate in candidates])


class SparseMatcher(CheckedMatcher):
    """Rank candidates by the product of a text's sparse vector with theirs, exactly.

    The search goes in blocks of texts x candidates, so that no array grows with their product or with texts x
    vocabulary; a text's result does not depend on the texts beside it. A text without a known term scores 0 everywhere,
    so its shortlist is the first k candidates.

    Attributes:
        vectorize: makes vectors [B V] of texts.
        candidates: the candidates' vectors [N V].
    """

    def __init__(
        self,
        candidate_texts: Sequence[str],
        *,
        fingerprint: str,
        vectorize: Callable[[Sequence[str]], scipy.sparse.csr_matrix],
        candidates: scipy.sparse.csr_matrix,
        max_block_bytes: int = 1 << 26,
    ):
        """Index candidates; `max_block_bytes` bounds each of the two dense work arrays (texts, scores)."""
        self.n_candidates = len(candidate_texts)
        self.fingerprint = fingerprint
        self._vectorize, self._candidates = vectorize, candidates
        self._text_block = max(1, min(256, max_block_bytes // (8 * candidates.shape[1])))
        self._candidate_block = max(1, max_block_bytes // (8 * self._text_block))

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        vectors = self._vectorize(texts)
        blocks = range(0, len(texts), self._text_block)
        return join_matches([self._search(vectors[at : at + self._text_block], k) for at in blocks], k)

    def _search(self, vectors: scipy.sparse.csr_matrix, k: int) -> Matches:
        # Sparse candidates times dense texts: each non-zero of a candidate updates all texts of the block at once,
        # which is several times faster than sparse times sparse when common words occur in most candidates.
        dense = np.ascontiguousarray(vectors.toarray().T)  # [V B]
        best = Matches(np.empty((dense.shape[1], 0), np.int64), np.empty((dense.shape[1], 0), np.float32))
        for start in range(0, self.n_candidates, self._candidate_block):
            scores = (self._candidates[start : start + self._candidate_block] @ dense).T  # [B n]
            near = select_top_k(scores, min(k, scores.shape[1]))
            rows = np.concatenate([best.indices, start + near.indices], axis=1)
            at, top = select_top_k(np.concatenate([best.scores, near.scores], axis=1), min(k, rows.shape[1]))
            best = Matches(np.take_along_axis(rows, at, axis=1), top)
        return best


class TfidfMatcher(SparseMatcher):
    """Rank candidates by the cosine between TF-IDF vectors of words.

    A word (`split_words`) that occurs n times in a text weighs (1 + ln n) (1 + ln((1 + N) / (1 + df))), where df is the
    number of the N candidates that have it; words that no candidate has are ignored. Vectors have length 1.
    """

    def __init__(self, candidate_texts: Sequence[str], *, max_block_bytes: int = 1 << 26):
        """Index candidates by their profile texts; if these are none, or not a list of texts, raise a `UserError`."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # here, for it takes a second

        vectorizer = TfidfVectorizer(analyzer=split_words, sublinear_tf=True)
        candidates = index_candidates(vectorizer, candidate_texts)
        super().__init__(
            candidate_texts,
            fingerprint=f"tfidf-{hash_texts(candidate_texts, header=f'tfidf 1 {WORD.pattern}')[:32]}",
            vectorize=vectorizer.transform,
            candidates=candidates,
            max_block_bytes=max_block_bytes,
        )


def split_words(text: str) -> list[str]:
    """Return the lower-cased words of a text, in order: `"C++ and C#"` gives `["c++", "and", "c#"]`."""
    return WORD.findall(text.lower())


def index_candidates(vectorizer: Any, texts: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Let a vectorizer of scikit-learn learn its terms from the candidates' texts, and return their vectors [N V].

    Texts that are not a list of at least one raise a `UserError`.
    """
    check_texts(texts, name="candidate_texts")
    if not texts:
        raise UserError("The list of candidates is empty. A matcher needs at least one candidate.")
    # Candidates without any word score 0 whatever is known, and scikit-learn insists on knowing a word.
    return vectorizer.fit(texts if any(map(WORD.search, texts)) else ["word"]).transform(texts)


def check_texts(texts: Sequence[str], *, name: str) -> None:
    """Raise a `UserError` unless `texts` is a sequence of texts (and not one text, whose letters would be matched)."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} must be a list of texts, got {texts!r:.60}. Put a single text into a list.")
