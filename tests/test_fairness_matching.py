"""TF-IDF by hand, exact top-k with ties, blocks that change nothing, and refusals."""

import math

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.matching.matcher import TfidfMatcher, select_top_k, split_words


def select_slowly(scores: np.ndarray, k: int) -> np.ndarray:
    """Sort each row in full, by score and then by index: the definition of top-k."""
    return np.array([sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores])


def test_words_keep_plus_and_sharp_at_their_end():
    assert split_words("C++, C# and a+b; Größe_2 (R&D) c++x") == (
        ["c++", "c#", "and", "a", "b", "größe", "2", "r", "d", "c", "x"]
    )


def test_scores_of_a_hand_worked_example():
    matcher = TfidfMatcher(["python python sql", "python", "java"])
    idf = {"python": 1 + math.log(4 / 3), "sql": 1 + math.log(4 / 2)}
    first = np.array([(1 + math.log(2)) * idf["python"], idf["sql"]])
    matches = matcher.top_k(["Python, rust!"], 3)
    np.testing.assert_array_equal(matches.indices, [[1, 0, 2]])
    np.testing.assert_allclose(matches.scores, [[1.0, first[0] / np.linalg.norm(first), 0.0]], rtol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 7, 30])
def test_select_top_k_equals_a_full_sort_with_many_ties(k):
    scores = np.random.default_rng(0).integers(-2, 3, size=(40, 30)).astype(np.float32)
    scores[0] = -0.0
    scores[0, ::3] = 0.0  # minus zero ties with zero
    matches = select_top_k(scores, k)
    np.testing.assert_array_equal(matches.indices, select_slowly(scores, k))
    np.testing.assert_array_equal(matches.scores, np.take_along_axis(scores, matches.indices, axis=1))


def test_ties_at_the_last_place_go_to_the_lower_index():
    np.testing.assert_array_equal(select_top_k(np.array([[1.0, 0.5, 2.0, 1.0, 1.0]]), 2).indices, [[2, 0]])


def test_infinite_scores_are_ordered_and_nan_is_refused():
    np.testing.assert_array_equal(select_top_k(np.array([[-np.inf, 0.0, np.inf]]), 3).indices, [[2, 1, 0]])
    with pytest.raises(UserError, match="NaN"):
        select_top_k(np.array([[0.0, np.nan]]), 1)


def make_texts(seed: int, *, n: int) -> list[str]:
    """Draw short texts over few words, so that many candidates tie."""
    rng = np.random.default_rng(seed)
    words = ["python", "sql", "c++", "java", "care", "team", "lead"]
    return [" ".join(rng.choice(words, size=rng.integers(0, 5))) for _ in range(n)]


@pytest.mark.parametrize("max_block_bytes", [1, 500, 1 << 26])
def test_top_k_equals_dense_brute_force_whatever_the_blocks(max_block_bytes):
    candidates, texts = make_texts(1, n=200), make_texts(2, n=30)
    matcher = TfidfMatcher(candidates, max_block_bytes=max_block_bytes)
    matches = matcher.top_k(texts, 17)

    words = sorted({word for text in candidates for word in text.split()})
    counts = lambda rows: np.array([[text.split().count(word) for word in words] for text in rows], float)  # noqa: E731
    idf = 1 + np.log((1 + len(candidates)) / (1 + (counts(candidates) > 0).sum(axis=0)))

    def embed(rows):
        vectors = np.where(counts(rows) > 0, 1 + np.log(np.maximum(counts(rows), 1)), 0.0) * idf
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)

    scores = (embed(texts) @ embed(candidates).T).astype(np.float32)
    np.testing.assert_allclose(matches.scores, np.take_along_axis(scores, matches.indices, axis=1), rtol=1e-6)
    whole = TfidfMatcher(candidates).top_k(texts, len(candidates))
    restored = np.empty_like(scores)
    np.put_along_axis(restored, whole.indices, whole.scores, axis=1)
    np.testing.assert_array_equal(matches.indices, select_slowly(restored, 17))
    np.testing.assert_allclose(restored, scores, rtol=1e-6)


def test_equal_candidates_tie_and_the_first_wins():
    matcher = TfidfMatcher(["nurse", "sql python", "python sql", "SQL, Python"])
    matches = matcher.top_k(["python"], 3)
    np.testing.assert_array_equal(matches.indices, [[1, 2, 3]])
    assert len(set(matches.scores[0].tolist())) == 1


@pytest.mark.parametrize("text", ["", "  ", "unseen words", "!?"])
def test_text_without_known_word_scores_zero_and_takes_the_first(text):
    matches = TfidfMatcher(["python", "sql", "java"]).top_k([text, "sql"], 2)
    np.testing.assert_array_equal(matches.indices, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(matches.scores[0], [0.0, 0.0])


def test_result_of_a_text_does_not_depend_on_its_batch():
    candidates, texts = make_texts(3, n=100), make_texts(4, n=20)
    matcher = TfidfMatcher(candidates)
    together = matcher.top_k(texts, 9)
    alone = [matcher.top_k([text], 9) for text in texts]
    np.testing.assert_array_equal(together.indices, np.concatenate([row.indices for row in alone]))
    np.testing.assert_array_equal(together.scores, np.concatenate([row.scores for row in alone]))


def test_candidates_without_any_word_and_no_texts_are_fine():
    np.testing.assert_array_equal(TfidfMatcher(["", "?"]).top_k(["python"], 2).indices, [[0, 1]])
    assert TfidfMatcher(["python"]).top_k([], 1).indices.shape == (0, 1)


def test_fingerprint_follows_the_candidates():
    prints = [TfidfMatcher(texts).fingerprint for texts in (["a", "b"], ["a", "b"], ["b", "a"], ["ab", ""])]
    assert prints[0] == prints[1] == "tfidf-93d5a785cd7bbbefcf83645e101eebec"  # caches of earlier versions hold
    assert len(set(prints)) == 3


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="empty"):
        TfidfMatcher([])
    with pytest.raises(UserError, match="list of texts"):
        TfidfMatcher("python")
    matcher = TfidfMatcher(["python", "sql"])
    with pytest.raises(UserError, match="list of texts"):
        matcher.top_k("python", 1)
    for k in (0, 3):
        with pytest.raises(UserError, match=f"k={k}.*2 candidates"):
            matcher.top_k(["python"], k)
