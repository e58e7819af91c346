"""The layer over the whole vocabulary with its own gradient.

Softmax and one-hot become one array that three products read. (Of an embedding given transposed XLA would turn the
gradient's product into one that a CPU's half-precision units lack.)
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.models.chunks import Scores, count_chunks, join_rows, reduce_scores, scan_vocabulary, split_rows
from ilqljax.models.cpu import trick
from ilqljax.models.cpu.products import contract, sum_rows, transpose
from ilqljax.types import Array


@trick
def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, "V"],
    ids: Int[Array, "N"],
    axis: int,
    temperature: float,
) -> Scores:
    """Compute what `ilqljax.rl.vocabulary.score_rows` documents."""
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
