"""Half-precision products against float64 products of the same rounded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.models.cpu.products import apply_affine, cut_kernels, is_half, transpose
from ilqljax.models.dense import apply_dense

RNG = np.random.default_rng(5)
ROWS, KERNEL, BIAS = (RNG.normal(size=shape).astype(np.float32) for shape in ((40, 64), (64, 48), (48,)))
D_OUT = RNG.normal(size=(40, 48)).astype(np.float32)


def as_double(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_layer_and_gradients_are_those_of_the_rounded_numbers_rounded_once(dtype):
    rows, rounded, d_out = (jnp.asarray(x, dtype) for x in (ROWS, KERNEL, D_OUT))
    out, pull = jax.vjp(lambda *x: apply_affine(*x, jnp.dtype(dtype).name), rows, KERNEL, BIAS)
    d_rows, d_kernel, d_bias = pull(d_out)
    assert (out.dtype, d_rows.dtype, d_kernel.dtype, d_bias.dtype) == (dtype, dtype, jnp.float32, jnp.float32)
    eps = float(jnp.finfo(dtype).eps)
    expected = as_double(rows) @ as_double(rounded) + as_double(BIAS)
    np.testing.assert_allclose(as_double(out), expected, rtol=eps, atol=1e-5)
    expected = as_double(d_out) @ as_double(rounded).T
    np.testing.assert_allclose(as_double(d_rows), expected, rtol=eps, atol=1e-5)
    expected = as_double(rows).T @ as_double(d_out)
    np.testing.assert_allclose(d_kernel, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_bias, as_double(d_out).sum(0), rtol=1e-5, atol=1e-5)


def test_a_single_row_is_the_first_of_many():
    rows = jnp.asarray(ROWS, jnp.bfloat16)
    one, many = (as_double(apply_affine(x, KERNEL, BIAS, "bfloat16")) for x in (rows[:1], rows))
    assert one.shape == (1, 48)
    np.testing.assert_allclose(one, many[:1], rtol=2**-8, atol=1e-5)


def test_a_transposed_matrix_holds_the_same_numbers_on_one_device_and_on_eight():
    x = jnp.asarray(ROWS, jnp.bfloat16)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data", None)))
    for given in (x, split):
        np.testing.assert_array_equal(as_double(jax.jit(transpose)(given)), as_double(x).T)
    assert not is_half(jnp.float32)


def test_a_dense_layer_is_the_same_whichever_way_its_kernel_lies():
    layer = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}
    x = ROWS.reshape(4, 10, 64)
    one, other = (as_double(apply_dense(p, x, "bfloat16")) for p in (layer, cut_kernels(layer)))
    np.testing.assert_allclose(one, other, rtol=2**-8, atol=1e-5)
    single = as_double(apply_dense(layer, x))
    assert one.shape == single.shape == (4, 10, 48)
    assert 1e-4 < np.abs(one - single).max() < 0.2  # it is half precision, and of the same layer
