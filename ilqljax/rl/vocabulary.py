"""The layer over the whole vocabulary, the widest of a small model: what losses need of it.

A loss needs two numbers of each row's scores [V]: the taken entry and the log of their normalizer. `score_rows`
computes both and has its own gradient: softmax and one-hot become one array that three products read. Scores exist for
as many rows at a time as `MAX_LOGITS` allows; where that is all of them they are kept for the gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.models.half_products import contract, transpose
from ilqljax.types import Array

# An array over the vocabulary is built for at most this many entries at a time (float32: 128 MiB).
MAX_LOGITS = 2**25


class Scores(NamedTuple):
    """Of each row's scores over the vocabulary: the taken entry, and log sum exp(scores / temperature)."""

    taken: Float[Array, "N"]
    log_normalizer: Float[Array, "N"]


def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, "V"] | None,
    ids: Int[Array, "N"],
    *,
    axis: int = 0,
    temperature: float = 1.0,
) -> Scores:
    """Compute scores = features @ kernel + bias, and of each row what `Scores` holds; sums are float32.

    Args:
        features: one row for each action.
        kernel: the layer's weights, rounded to the features' dtype for the products; its gradient stays in its own.
        bias: added to the scores.
        ids: the taken entry of each row.
        axis: of the kernel that is contracted; 1 for a language model's embedding as it lies. (Of an embedding given
            transposed XLA would turn the gradient's product into one that a CPU's half-precision units lack.)
        temperature: divides the scores of the normalizer.
    """
    if bias is None:
        bias = jnp.zeros(kernel.shape[1 - axis], jnp.float32)
    with jax.named_scope("vocabulary"):
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


def reduce_scores(scores: Float[Array, "N V"], ids: Int[Array, "N"], *, temperature: float = 1.0) -> Scores:
    """Reduce scores that are there already; `score_rows` documents the arguments."""
    taken = jnp.take_along_axis(scores, ids[:, None], axis=1, mode="clip")[:, 0]
    return Scores(taken, jax.nn.logsumexp(scores / temperature, axis=1))


def _score_rows_forward(axis, temperature, features, kernel, bias, ids):
    """Keep the scores for the gradient where all rows fit at a time; else they are computed again."""
    if _count_chunks(len(ids), len(bias)) > 1:
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
        d_kernel = contract(transpose(left), right, 0)
        # A product with ones: XLA on a CPU took 20 times as long for the same sum over rows.
        d_bias = contract(jnp.ones((1, len(i)), x.dtype), d_scores, 0)[0]
        d_x = contract(d_scores, rounded, 1 - axis).astype(x.dtype)
        return (d_kernel, d_bias), d_x

    def accumulate(totals, xs):
        shared, d_x = rows(*xs)
        return jax.tree.map(jnp.add, totals, shared), d_x

    per_row = (features, ids, log_normalizer, *gradients)
    if scores is not None:
        (d_kernel, d_bias), d_features = rows(*per_row, scores)
    else:
        n_chunks = _count_chunks(len(ids), len(bias))
        zero = (jnp.zeros(kernel.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
        (d_kernel, d_bias), stacked = jax.lax.scan(accumulate, zero, _split(per_row, n_chunks))
        d_features = _join(stacked, len(ids))
    return d_features, d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype), None


_score_rows.defvjp(_score_rows_forward, _score_rows_backward)


def scan_vocabulary(
    function: Callable[..., Float[Array, "N ..."] | tuple], *rows: Array, vocab_size: int
) -> Float[Array, "N ..."] | tuple:
    """Apply a row-wise function that builds [N V] arrays to as many rows at a time as `MAX_LOGITS` allows.

    `function` maps arrays with a leading row axis to arrays (or a tuple of arrays) with the same leading axis. Neither
    its [chunk, V] intermediates nor their gradients are ever held for all rows: the backward pass recomputes them.
    Where all rows fit the function is called once, directly.
    """
    n = rows[0].shape[0]
    n_chunks = _count_chunks(n, vocab_size)
    if n_chunks == 1:
        return function(*rows)
    body = jax.checkpoint(lambda carry, xs: (carry, function(*xs)))
    _, stacked = jax.lax.scan(body, None, _split(rows, n_chunks))
    return jax.tree.map(lambda x: _join(x, n), stacked)


def _count_chunks(n_rows: int, vocab_size: int) -> int:
    return -(-n_rows // max(1, MAX_LOGITS // vocab_size))


def _split(rows: tuple[Array, ...], n_chunks: int) -> tuple[Array, ...]:
    """Deal rows out into chunks [C chunk ...] of one size, filled up with zeros.

    | 7 rows, 2 chunks | 0 2 4 6 and 1 3 5 (filler) |
    |------------------|----------------------------|

    Dealt out, not cut: each device keeps its own rows, and all of them work on every chunk.
    """
    chunk = -(-rows[0].shape[0] // n_chunks)
    padded = [jnp.pad(x, [(0, chunk * n_chunks - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in rows]
    return tuple(jnp.swapaxes(x.reshape(chunk, n_chunks, *x.shape[1:]), 0, 1) for x in padded)


def _join(chunks: Float[Array, "C chunk ..."], n: int) -> Float[Array, "N ..."]:
    """Undo `_split`."""
    return jnp.swapaxes(chunks, 0, 1).reshape(-1, *chunks.shape[2:])[:n]
