"""Products of rows with kernels and embeddings, in the shapes that XLA does well on a CPU.

Processors with units for bfloat16 matrices (Intel's AMX) multiply these several times as fast as float32. XLA uses the
units only if the sums are asked for in float32, the contracted axis is the last of the left matrix, and that has two
rows or more; other products are done number by number (docs/performance.md).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.models.chunks import Scores, count_chunks, join_rows, reduce_scores, scan_vocabulary, split_rows
from ilqljax.models.cpu import trick


def is_half(dtype: jax.typing.DTypeLike) -> bool:
    """Tell whether a dtype is one of half precision."""
    return jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)


@trick
def apply_dense(layer: dict, x: Float[Array, "*B D"], dtype: str, out_dtype: str) -> Float[Array, "*B F"]:
    """Apply a linear layer, whichever way its kernel lies (`transpose_kernels`).

    The product is one of two matrices, over rows [BT D]: the gradient of a kernel over x [B T D] would contract two
    axes at once, which XLA does at 0.4 times the rate.
    """
    name, axis = ("kernel_t", 1) if "kernel_t" in layer else ("kernel", 0)
    rows, kernel, bias = x.reshape(-1, x.shape[-1]).astype(dtype), layer[name], layer.get("bias")
    if is_half(dtype):
        bias = jnp.zeros(kernel.shape[1 - axis]) if bias is None else bias
        return apply_affine(rows, kernel, bias, axis, out_dtype).reshape(*x.shape[:-1], -1)
    dimensions = (((1,), (axis,)), ((), ()))
    out = jax.lax.dot_general(rows, kernel.astype(dtype), dimensions, preferred_element_type=out_dtype)
    out = out.reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias.astype(out_dtype).reshape((1,) * (x.ndim - 1) + (-1,))


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
    return d_rows, d_kernel.astype(kernel.dtype), sum_rows(d_out).astype(bias.dtype)


apply_affine.defvjp(_apply_forward, _apply_backward)


@trick
def transpose(x: Float[Array, "N D"]) -> Float[Array, "D N"]:
    """Transpose a matrix that is to be multiplied from the left: in memory, where a product needs it."""
    return with_layout_constraint(x.T, Layout(major_to_minor=(0, 1))) if is_half(x.dtype) else x.T


@trick
def sum_rows(x: Float[Array, "N F"]) -> Float[Array, "F"]:
    """Sum over rows in float32, by a product with ones: XLA sums columns of converted numbers in windows."""
    return contract(jnp.ones((1, len(x)), x.dtype), x, 0)[0]


@trick
def contract(
    left: Float[Array, "N D"], right: Float[Array, "D F"] | Float[Array, "F D"], axis: int
) -> Float[Array, "N F"]:
    """Contract the last axis of one matrix and an `axis` of another, with sums in float32."""
    n, dimensions = len(left), (((1,), (axis,)), ((), ()))
    if n == 1 and is_half(left.dtype):
        left = jnp.concatenate([left, left])
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)[:n]


@trick
def compute_logits(hidden: Float[Array, "*B D"], embedding: Float[Array, "V D"]) -> Float[Array, "*B V"]:
    """Multiply by an embedding as it lies: of its transpose XLA makes a copy where there is one row, at every token."""
    if is_half(hidden.dtype):
        return contract(hidden.reshape(-1, hidden.shape[-1]), embedding, 1).reshape(*hidden.shape[:-1], -1)
    over_width = (((hidden.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(hidden, embedding, over_width, preferred_element_type=jnp.float32)


@trick
def transpose_kernels(params: dict) -> dict:
    """Lay all kernels of linear layers transposed, as "kernel_t" [F D], for products of few rows.

    XLA's products of one to 32 rows read such a kernel at 1.4 to 1.6 times the rate (docs/performance.md).
    """
    turned = {}
    for name, value in params.items():
        if isinstance(value, dict):
            turned[name] = transpose_kernels(value)
        elif name == "kernel":
            turned["kernel_t"] = jnp.swapaxes(value, -1, -2)
        else:
            turned[name] = value
    return turned


@trick
def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, "V"],
    ids: Int[Array, "N"],
    axis: int,
    temperature: float,
) -> Scores:
    """Compute what `ilqljax.rl.objectives.likelihood.score_rows` documents, with a gradient of its own.

    Softmax and one-hot become one array that three products read. (Of an embedding given transposed XLA would turn the
    gradient's product into one that a CPU's half-precision units lack.)
    """
    return _score_rows(axis, temperature, features, kernel, bias, ids)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _score_rows(axis, temperature, features, kernel, bias, ids):
    kernel = kernel.astype(features.dtype)  # once, not in each chunk
    return scan_vocabulary(
        lambda x, i: reduce_scores(_multiply(x, kernel, bias, axis), i, temperature=temperature),
        features,
        ids,
        vocab_size=len(bias),
    )


def _multiply(features, kernel, bias, axis):
    dimensions = (((1,), (axis,)), ((), ()))
    return jax.lax.dot_general(features, kernel, dimensions, preferred_element_type=jnp.float32) + bias[None]


def _score_rows_forward(axis, temperature, features, kernel, bias, ids):
    """Keep the scores for the gradient where all rows fit at a time; else they are computed again."""
    if count_chunks(len(ids), len(bias)) > 1:
        out = _score_rows(axis, temperature, features, kernel, bias, ids)
        return out, (features, kernel, bias, ids, out[1], None)
    scores = _multiply(features, kernel.astype(features.dtype), bias, axis)
    out = reduce_scores(scores, ids, temperature=temperature)
    return out, (features, kernel, bias, ids, out[1], scores)


def _score_rows_backward(axis, temperature, residuals, gradients):
    """Turn d taken and d log_normalizer [N] into those of features, kernel and bias."""
    features, kernel, bias, ids, log_normalizer, scores = residuals
    rounded = kernel.astype(features.dtype)

    def rows(x, i, log_z, d_taken, d_log_z, scores=None):
        scores = _multiply(x, rounded, bias, axis) if scores is None else scores
        log_p = jnp.minimum(scores / temperature - log_z[:, None], 0.0)  # above 0 only in the filler of a chunk
        d_scores = jnp.exp(log_p) * (d_log_z / temperature)[:, None]
        taken = jnp.arange(scores.shape[1])[None] == i[:, None]
        d_scores = jnp.where(taken, d_scores + d_taken[:, None], d_scores).astype(x.dtype)
        left, right = (x, d_scores) if axis == 0 else (d_scores, x)
        shared = contract(transpose(left), right, 0), sum_rows(d_scores)
        return shared, contract(d_scores, rounded, 1 - axis).astype(x.dtype)

    def accumulate(totals, xs):
        shared, d_x = rows(*xs)
        return jax.tree.map(jnp.add, totals, shared), d_x

    per_row = (features, ids, log_normalizer, *gradients)
    if scores is not None:
        (d_kernel, d_bias), d_features = rows(*per_row, scores)
    else:
        n_chunks = count_chunks(len(ids), len(bias))
        zero = (jnp.zeros(kernel.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
        (d_kernel, d_bias), stacked = jax.lax.scan(accumulate, zero, split_rows(per_row, n_chunks))
        d_features = join_rows(stacked, len(ids))
    return d_features, d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype), None


_score_rows.defvjp(_score_rows_forward, _score_rows_backward)
