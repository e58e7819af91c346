import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax import vocabulary
from ilqljax.models.products import multiply_rows


@pytest.mark.parametrize("max_logits", [9 * 3, 9 * 7])  # 7 rows of 9 scores: three chunks, the last padded; or one
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_scores_and_their_gradients_equal_the_plain_ones(monkeypatch, max_logits, temperature):
    monkeypatch.setattr(vocabulary, "MAX_LOGITS", max_logits)
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=s).astype(np.float32) for s in ((7, 4), (4, 9), (9,)))
    ids = rng.integers(0, 9, 7)
    weights = rng.normal(size=(2, 7)).astype(np.float32)

    def plain(x, kernel, bias):
        scores = x @ kernel + bias[None]
        out = scores[jnp.arange(7), ids], jax.nn.logsumexp(scores / temperature, axis=1)
        return sum((w * o).sum() for w, o in zip(weights, out, strict=True)), out

    def ours(x, kernel, bias):
        out = tuple(vocabulary.score_rows(x, kernel, bias, ids, temperature=temperature))
        return sum((w * o).sum() for w, o in zip(weights, out, strict=True)), out

    got, expected = (jax.jit(jax.grad(f, argnums=(0, 1, 2), has_aux=True))(x, kernel, bias) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def test_the_filler_of_a_chunk_contributes_nothing_even_where_its_scores_are_huge(monkeypatch):
    monkeypatch.setattr(vocabulary, "MAX_LOGITS", 4 * 2)  # 3 rows of 4 scores: the second chunk has one filler row
    bias = jnp.array([0.0, 200.0, 0.0, 0.0])

    def loss(bias):
        return vocabulary.score_rows(jnp.zeros((3, 2)), jnp.zeros((2, 4)), bias, jnp.zeros(3, int)).taken.sum()

    np.testing.assert_array_equal(jax.grad(loss)(bias), [3.0, 0.0, 0.0, 0.0])


def test_scores_of_a_half_precision_layer_are_float32_and_its_gradients_half():
    x, kernel = jnp.ones((2, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)

    def loss(x, kernel):
        out = vocabulary.score_rows(x, kernel, None, jnp.array([1, 2]))
        return (out.log_normalizer - out.taken).sum(), out

    gradients, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
    assert {o.dtype.name for o in out} == {"float32"}
    assert {g.dtype.name for g in gradients} == {"bfloat16"}


def test_products_of_rows_equal_a_dense_layer_and_its_gradients():
    rng = np.random.default_rng(1)
    x, kernel, out = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (4, 5), (2, 3, 5)))
    ours = jax.vjp(lambda x, kernel: multiply_rows(x, kernel, (((2,), (0,)), ((), ()))), x, kernel)
    plain = jax.vjp(lambda x, kernel: x @ kernel, x, kernel)
    for a, b in zip((ours[0], *ours[1](out)), (plain[0], *plain[1](out)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def row_losses(weights, x, ids):
    logits = x @ weights
    taken = jnp.take_along_axis(logits, ids[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - taken, jnp.square(logits).sum(-1)


@pytest.mark.parametrize("chunk", [3, 6])  # 7 rows: the last chunk is padded
def test_scanned_rows_equal_the_direct_call_and_its_gradients(chunk):
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=(4, 9)).astype(np.float32), rng.normal(size=(7, 4)).astype(np.float32)
    ids = rng.integers(0, 9, size=7)
    cotangent = rng.normal(size=7).astype(np.float32)

    def scanned(weights, x):
        first, second = vocabulary.scan_rows(lambda *rows: row_losses(weights, *rows), x, ids, chunk=chunk)
        return (first * cotangent).sum() + second.sum(), (first, second)

    def direct(weights, x):
        first, second = row_losses(weights, x, ids)
        return (first * cotangent).sum() + second.sum(), (first, second)

    got, expected = (jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))(weights, x) for f in (scanned, direct))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)


@pytest.mark.parametrize("chunk", [7, 100])
def test_few_rows_are_not_scanned(chunk):
    calls = []

    def double(x):
        calls.append(x.shape)
        return 2 * x

    np.testing.assert_array_equal(vocabulary.scan_rows(double, jnp.arange(7.0), chunk=chunk), 2 * np.arange(7))
    assert calls == [(7,)]
