import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.models import attention
from ilqljax.models.cpu import attention as on_cpu
from ilqljax.models.cpu import compile_for


def draw(*shape, dtype=np.float32, n=4):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(n)]


def attend_whole(query, keys, values):
    causal = jnp.tril(jnp.ones((query.shape[2],) * 2, bool))[None, None]
    return attention.attend(query, keys, values, causal)


@pytest.mark.slow
@pytest.mark.parametrize("block", [4, 5, 11, 20])  # of 11 tokens: ragged, one short, exact, and one block alone
def test_blocks_equal_the_whole_square_and_its_gradients(block):
    *qkv, d_out = draw(2, 3, 11, 4)
    ours, ours_vjp = jax.vjp(lambda *x: on_cpu.attend_in_blocks(*x, block), *qkv)
    whole, whole_vjp = jax.vjp(attend_whole, *qkv)
    for a, b in zip((ours, *ours_vjp(d_out)), (whole, *whole_vjp(d_out)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_blocks_do_not_overflow_on_huge_scores():
    query, keys, values, d_out = draw(1, 1, 8, 4)
    out, vjp = jax.vjp(lambda *x: on_cpu.attend_in_blocks(*x, 4), 200 * query, 200 * keys, values)
    assert all(np.isfinite(x).all() for x in (out, *vjp(d_out)))


@pytest.mark.slow
def test_blocks_keep_half_precision():
    whole, half = draw(1, 2, 40, 16), draw(1, 2, 40, 16, dtype=jnp.bfloat16)
    expected, expected_vjp = jax.vjp(attend_whole, *whole[:3])
    out, vjp = jax.vjp(lambda *x: on_cpu.attend_in_blocks(*x, 16), *half[:3])
    for a, b in zip((out, *vjp(half[3])), (expected, *expected_vjp(whole[3])), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.linalg.norm(a.astype(np.float32) - b) < 0.02 * np.linalg.norm(b)


def test_long_rows_go_in_blocks_and_short_ones_do_not(monkeypatch):
    lengths = []

    def record(query, keys, values, block):
        lengths.append(query.shape[2])
        return values

    monkeypatch.setattr(on_cpu, "attend_in_blocks", record)
    for length in (on_cpu.BLOCK, on_cpu.BLOCK + 1):
        attention.attend_causally(*draw(1, 1, length, 2, n=3))
    assert lengths == [on_cpu.BLOCK + 1]


@pytest.mark.slow
def test_an_accelerators_own_attention_is_causal_and_equals_the_whole_square():
    *qkv, d_out = draw(2, 3, 11, 4)
    with compile_for("tpu"):
        ours, ours_vjp = jax.vjp(attention.attend_causally, *qkv)
    whole, whole_vjp = jax.vjp(attend_whole, *qkv)
    for a, b in zip((ours, *ours_vjp(d_out)), (whole, *whole_vjp(d_out)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
