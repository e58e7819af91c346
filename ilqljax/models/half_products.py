"""Products of half-precision matrices, with sums in float32.

Processors with units for bfloat16 matrices (Intel's AMX) multiply these several times as fast as float32. XLA uses the
units on a CPU only if the sums are asked for in float32, the contracted axis is the last of the left matrix, and that
has two rows or more; other products are done number by number (docs/performance.md). Other devices are left to their
own compilers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

from ilqljax.types import Array


def is_half(dtype: jax.typing.DTypeLike) -> bool:
    """Tell whether a dtype is one of half precision."""
    return jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)


def transpose(x: Float[Array, "N D"]) -> Float[Array, "D N"]:
    """Transpose a matrix that is to be multiplied from the left: in memory, where a product needs it."""
    if jax.default_backend() != "cpu" or not is_half(x.dtype):
        return x.T
    return with_layout_constraint(x.T, Layout(major_to_minor=(0, 1)))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def apply_affine(
    rows: Float[Array, "N D"],
    kernel: Float[Array, "D F"] | Float[Array, "F D"],
    bias: Float[Array, "F"],
    axis: int,
    out_dtype: str,
) -> Float[Array, "N F"]:
    """Multiply half-precision rows by a kernel whose `axis` is contracted, add the bias, and round once.

    Gradients of kernel and bias stay in their own dtype.
    """
    return (contract(rows, kernel.astype(rows.dtype), axis) + bias[None]).astype(out_dtype)


def _apply_forward(rows, kernel, bias, axis, out_dtype):
    return apply_affine(rows, kernel, bias, axis, out_dtype), (rows, kernel, bias)


def _apply_backward(axis, out_dtype, residuals, d_out):
    rows, kernel, bias = residuals
    d_out = d_out.astype(rows.dtype)
    d_rows = contract(d_out, kernel.astype(rows.dtype), 1 - axis).astype(rows.dtype)
    left, right = (rows, d_out) if axis == 0 else (d_out, rows)
    d_kernel = contract(transpose(left), right, 0)
    # A product with ones: XLA on a CPU sums columns of converted numbers in windows, many times as slowly.
    d_bias = contract(jnp.ones((1, len(rows)), rows.dtype), d_out, 0)[0]
    return d_rows, d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype)


apply_affine.defvjp(_apply_forward, _apply_backward)


def contract(
    left: Float[Array, "N D"], right: Float[Array, "D F"] | Float[Array, "F D"], axis: int
) -> Float[Array, "N F"]:
    """Contract the last axis of one matrix and an `axis` of another, with sums in float32."""
    n, dimensions = len(left), (((1,), (axis,)), ((), ()))
    if n == 1 and is_half(left.dtype) and jax.default_backend() == "cpu":
        left = jnp.concatenate([left, left])
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)[:n]
