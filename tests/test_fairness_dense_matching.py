"""Dense search: by hand, equal to a full sort in float64 whatever the blocks and devices, ties, and refusals."""

import jax
import numpy as np
import pytest
import shapes

from ilqljax.errors import UserError
from ilqljax.hiring.matching import dense as dense_matching
from ilqljax.hiring.matching.dense import DenseIndex, DenseMatcher, prepare_vectors, screen
from ilqljax.hiring.matching.matcher import Matcher, select_top_k


def rank_slowly(vectors, queries, k, *, metric):
    """Multiply everything in float64 and sort: the definition of the search."""
    vectors, queries = (prepare_vectors(x, metric=metric).astype(np.float64) for x in (vectors, queries))
    return select_top_k(np.stack([(vectors * query).sum(axis=1) for query in queries]), k)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_hand_worked_dot_and_cosine():
    vectors = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    dot = DenseIndex(vectors, metric="dot").top_k(np.array([[1.0, 0.5]]), 4)
    assert dot.indices.tolist() == [[0, 3, 1, 2]] and dot.scores.tolist() == [[5.0, 2.0, 1.0, 0.0]]
    cosine = DenseIndex(vectors).top_k(np.array([[2.0, 0.0]]), 4)
    assert cosine.indices.tolist() == [[1, 3, 0, 2]]
    np.testing.assert_allclose(cosine.scores, [[1.0, 1.0, 0.6, 0.0]], rtol=1e-7)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize(("n", "width", "k"), [(1, 3, 1), (7, 1, 7), (100, 5, 3), (1003, 24, 50), (2500, 17, 300)])
def test_search_equals_a_full_sort(n, width, k, metric):
    vectors, queries = draw(n, n, width), draw(k, 9, width)
    matches, expected = (
        DenseIndex(vectors, metric=metric).top_k(queries, k),
        rank_slowly(vectors, queries, k, metric=metric),
    )
    np.testing.assert_array_equal(matches.indices, expected.indices)
    np.testing.assert_array_equal(matches.scores, expected.scores)
    assert matches.scores.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [1, 3, 8])
@pytest.mark.parametrize("max_block", [1, 40, 8192])
def test_blocks_and_devices_change_nothing(n_devices, max_block):
    vectors, queries = draw(0, 1501, 12), draw(1, 5, 12)
    index = DenseIndex(vectors, devices=jax.devices()[:n_devices], max_block=max_block)
    expected = rank_slowly(vectors, queries, 20, metric="cosine")
    for got, wanted in zip(index.top_k(queries, 20), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_more_devices_than_candidates_is_fine():
    matches = DenseIndex(draw(0, 3, 4), devices=jax.devices()[:8]).top_k(draw(1, 2, 4), 3)
    assert np.sort(matches.indices, axis=1).tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("n_distinct", [1, 3, 40])
def test_equal_candidates_tie_and_the_lower_row_wins(n_distinct):
    vectors = np.tile(draw(0, n_distinct, 33), (400 // n_distinct, 1))
    queries = draw(1, 6, 33)
    matches = DenseIndex(vectors, devices=jax.devices()[:2], max_block=64).top_k(queries, 21)
    expected = rank_slowly(vectors, queries, 21, metric="cosine")
    np.testing.assert_array_equal(matches.indices, expected.indices)


def test_few_levels_and_zero_vectors_tie_exactly():
    vectors = np.random.default_rng(0).integers(-1, 2, size=(900, 3)).astype(np.float32)
    queries = np.concatenate([np.random.default_rng(1).integers(-1, 2, size=(8, 3)), np.zeros((1, 3))])
    for metric in ("dot", "cosine"):
        matches = DenseIndex(vectors, metric=metric).top_k(queries, 30)
        np.testing.assert_array_equal(matches.indices, rank_slowly(vectors, queries, 30, metric=metric).indices)
    assert matches.indices[-1].tolist() == list(range(30))


def test_scores_that_differ_by_less_than_float32_products_can_tell_are_ranked_exactly():
    # Candidates along almost one direction: their scores differ in the last bits, where float32 sums are noise.
    rng = np.random.default_rng(0)
    vectors = (1.0 + 1e-6 * rng.normal(size=(500, 64))).astype(np.float32)
    queries = (1.0 + 0.1 * rng.normal(size=(4, 64))).astype(np.float32)
    matches = DenseIndex(vectors, metric="dot").top_k(queries, 10)
    np.testing.assert_array_equal(matches.indices, rank_slowly(vectors, queries, 10, metric="dot").indices)


def test_well_separated_scores_are_settled_without_a_full_search(monkeypatch):
    index = DenseIndex(draw(0, 3000, 48))
    monkeypatch.setattr(index, "_search_fully", None)
    index.top_k(draw(1, 40, 48), 50)


def test_long_shortlist_is_exact_too(monkeypatch):
    monkeypatch.setattr(dense_matching, "MAX_KEPT", 64)
    vectors, queries = draw(0, 900, 6), draw(1, 2, 6)
    matches = DenseIndex(vectors).top_k(queries, 700)
    np.testing.assert_array_equal(matches.indices, rank_slowly(vectors, queries, 700, metric="cosine").indices)


def test_result_of_a_text_does_not_depend_on_its_batch():
    index, queries = DenseIndex(draw(0, 800, 16)), draw(1, 300, 16)
    together = index.top_k(queries, 9)
    for i in (0, 17, 299):
        alone = index.top_k(queries[i : i + 1], 9)
        np.testing.assert_array_equal(together.indices[i], alone.indices[0])
        np.testing.assert_array_equal(together.scores[i], alone.scores[0])


def test_no_array_of_the_compiled_search_grows_with_candidates_times_texts():
    n_texts, n_rows, width = 256, 1 << 20, 8
    mesh = DenseIndex(draw(0, 2, width), devices=jax.devices()[:1])._mesh
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in (((n_rows, width), "float32"), ((n_texts, width), "float32"))]
    n_valid = jax.ShapeDtypeStruct((1,), "int32")
    program = screen.trace(*shapes, n_valid, mesh=mesh, block=8192, n_blocks=16, n_kept=64).jaxpr
    sizes = {v.aval.size for jaxpr in walk(program.jaxpr) for eqn in jaxpr.eqns for v in eqn.outvars}
    assert n_texts * 8192 in sizes  # a block of scores: the loops' insides were looked at
    assert max(sizes) <= n_rows * width < n_rows * n_texts // 16  # the largest is a view of the candidates


def walk(jaxpr):
    """Yield a jaxpr and those inside it."""
    yield jaxpr
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from walk(inner)


def test_matcher_encodes_and_follows_the_protocol():
    index = DenseIndex(np.eye(3), metric="dot")
    matcher = DenseMatcher(index, lambda texts: np.eye(3)[[len(t) for t in texts]], fingerprint="f")
    assert isinstance(matcher, Matcher) and matcher.n_candidates == 3
    assert matcher.top_k(["", "ab"], 1).indices.tolist() == [[0], [2]]
    assert matcher.top_k([], 2).indices.shape == (0, 2)
    with pytest.raises(UserError, match="list of texts"):
        matcher.top_k("ab", 1)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((0, 3)), "empty"),
        (np.zeros(3), "rows of numbers"),
        (np.zeros((3, 0)), "rows of numbers"),
        (np.array([["a"]]), "rows of numbers"),
        (np.array([[0.0], [np.nan]]), "row 1 holds a value that is NaN"),
        (np.array([[np.inf]]), "row 0"),
        (np.array([[1e20]]), "too large"),
    ],
)
def test_bad_vectors_are_refused(vectors, message):
    with shapes.unchecked(), pytest.raises(UserError, match=message):
        DenseIndex(vectors)


def test_bad_queries_and_settings_are_refused():
    index = DenseIndex(np.eye(3))
    with pytest.raises(UserError, match=r"texts' vectors have 2 numbers and the candidates' 3"):
        index.top_k(np.ones((1, 2)), 1)
    with pytest.raises(UserError, match="NaN"):
        index.top_k(np.full((1, 3), np.nan), 1)
    with pytest.raises(UserError, match="k=4"):
        index.top_k(np.ones((1, 3)), 4)
    with pytest.raises(UserError, match=r"metric='l2' is unknown"):
        DenseIndex(np.eye(3), metric="l2")
