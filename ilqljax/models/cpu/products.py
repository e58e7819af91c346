"""Products of rows with kernels and embeddings, in the shapes that XLA does well on a CPU.

Processors with units for bfloat16 matrices (Intel's AMX) multiply these several times as fast as float32. XLA uses the
units only if the sums are asked for in float32, the contracted axis is the last of the left matrix, and that has two
rows or more; other products are done number by number (docs/performance.md).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.models.chunks import Scores, count_chunks, join_rows, reduce_scores, scan_vocabulary, split_rows
from ilqljax.models.cpu import trick

# Outputs of a block of a kernel that is laid out for acting, and the most rows that are multiplied by such blocks: of a
# layer, whose kernel is else joined first, and of the language-model head, whose many outputs are slow to put in order.
BLOCK, FEW_ROWS, FEW_HEAD_ROWS = 64, 192, 8


def is_half(dtype: jax.typing.DTypeLike) -> bool:
    """Tell whether a dtype is one of half precision."""
    return jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)


def keep_products(block: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Let the backward pass of stacked layers read a block's products alone, and compute the rest again.

    XLA stacks every number that a backward pass reads, three copies of one normed row among them; on a CPU the time
    goes into writing them.
    """
    return nn.remat(block, prevent_cse=False, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)


@trick
def apply_dense(layer: dict, x: Float[Array, "*B D"], dtype: str, out_dtype: str) -> Float[Array, "*B F"]:
    """Apply a linear layer, whichever way its kernel lies (`cut_kernels`).

    The product is one of two matrices, over rows [BT D]: the gradient of a kernel over x [B T D] would contract two
    axes at once, which XLA does at 0.4 times the rate.
    """
    rows, bias = x.reshape(-1, x.shape[-1]).astype(dtype), layer.get("bias")
    if "kernel_blocks" in layer and len(rows) <= FEW_ROWS:
        out = multiply_blocks(rows, layer["kernel_blocks"])
        out = out if bias is None else out[:, : len(bias)] + bias[None]
        return out.astype(out_dtype).reshape(*x.shape[:-1], -1)
    kernel = join_blocks(layer["kernel_blocks"], bias) if "kernel_blocks" in layer else layer["kernel"]
    if is_half(dtype):
        bias = jnp.zeros(kernel.shape[1]) if bias is None else bias
        return apply_affine(rows, kernel, bias, out_dtype).reshape(*x.shape[:-1], -1)
    dimensions = (((1,), (0,)), ((), ()))
    out = jax.lax.dot_general(rows, kernel.astype(dtype), dimensions, preferred_element_type=out_dtype)
    out = out.reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias.astype(out_dtype).reshape((1,) * (x.ndim - 1) + (-1,))


@trick
def multiply_blocks(rows: Float[Array, "N D"], blocks: Float[Array, "blocks D W"]) -> Float[Array, "N blocks*W"]:
    """Multiply few rows by a matrix that is cut into blocks of its outputs (`cut_outputs`), with sums in float32.

    A product of few rows is as fast as its kernel is read. XLA repacks a whole kernel for each; a block stays in cache.
    """
    n = len(rows)
    if n == 1 and is_half(rows.dtype):
        rows = jnp.concatenate([rows, rows])
    shared = jnp.broadcast_to(rows, (len(blocks), *rows.shape))
    dimensions = (((2,), (1,)), ((0,), (0,)))
    out = jax.lax.dot_general(shared, blocks.astype(rows.dtype), dimensions, preferred_element_type=jnp.float32)
    return jnp.swapaxes(out, 0, 1)[:n].reshape(n, -1)


def cut_outputs(kernel: Float[Array, "*L D F"]) -> Float[Array, "*L blocks D W"]:
    """Cut a matrix into blocks of `BLOCK` outputs, filled up with zeros, each of which lies in memory by itself."""
    *n_layer, width, n_outputs = kernel.shape
    n_blocks = -(-n_outputs // BLOCK)
    filled = jnp.pad(kernel, [(0, 0)] * (kernel.ndim - 1) + [(0, n_blocks * BLOCK - n_outputs)])
    return jnp.swapaxes(filled.reshape(*n_layer, width, n_blocks, BLOCK), -3, -2)


def join_blocks(blocks: Float[Array, "blocks D W"], bias: Float[Array, " F"] | None) -> Float[Array, "D F"]:
    """Undo `cut_outputs`, for products of many rows; without a bias all blocks are full."""
    kernel = jnp.swapaxes(blocks, 0, 1).reshape(blocks.shape[1], -1)
    return kernel if bias is None else kernel[:, : len(bias)]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def apply_affine(
    rows: Float[Array, "N D"], kernel: Float[Array, "D F"], bias: Float[Array, " F"], out_dtype: str
) -> Float[Array, "N F"]:
    """Multiply half-precision rows by a kernel, add the bias, and round once.

    Gradients of kernel and bias stay in their own dtype.
    """
    return (contract(rows, kernel.astype(rows.dtype), 0) + bias[None]).astype(out_dtype)


def _apply_forward(rows, kernel, bias, out_dtype):
    return apply_affine(rows, kernel, bias, out_dtype), (rows, kernel, bias)


def _apply_backward(out_dtype, residuals, d_out):
    rows, kernel, bias = residuals
    d_out = d_out.astype(rows.dtype)
    d_rows = contract(d_out, kernel.astype(rows.dtype), 1).astype(rows.dtype)
    d_kernel = contract(transpose(rows), d_out, 0)
    return d_rows, d_kernel.astype(kernel.dtype), sum_rows(d_out).astype(bias.dtype)


apply_affine.defvjp(_apply_forward, _apply_backward)


@trick
def transpose(x: Float[Array, "N D"]) -> Float[Array, "D N"]:
    """Transpose a matrix that is to be multiplied from the left: in memory, where a product needs it."""
    return with_layout_constraint(x.T, Layout(major_to_minor=(0, 1))) if is_half(x.dtype) else x.T


@trick
def sum_rows(x: Float[Array, "N F"]) -> Float[Array, " F"]:
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
def cut_kernels(params: dict) -> dict:
    """Lay all kernels of linear layers in blocks of outputs, as "kernel_blocks", for products of few rows.

    A layer whose outputs make no whole blocks, and which has no bias to tell how many there are, is left as it is.
    """
    laid = {}
    for name, value in params.items():
        if isinstance(value, dict):
            laid[name] = cut_kernels(value)
        elif name == "kernel" and ("bias" in params or value.shape[-1] % BLOCK == 0):
            laid["kernel_blocks"] = cut_outputs(value)
        else:
            laid[name] = value
    return laid


@trick
def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, " V"],
    ids: Int[Array, " N"],
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
