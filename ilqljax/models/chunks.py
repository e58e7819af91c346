"""Scores of rows over the whole vocabulary, for as many rows at a time as there is memory for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import Array

# An array over the vocabulary is built for at most this many entries at a time (float32: 128 MiB).
MAX_LOGITS = 2**25


class Scores(NamedTuple):
    """Of each row's scores over the vocabulary: the taken entry, and log sum exp(scores / temperature)."""

    taken: Float[Array, " N"]
    log_normalizer: Float[Array, " N"]


def reduce_scores(scores: Float[Array, "N V"], ids: Int[Array, " N"], *, temperature: float = 1.0) -> Scores:
    """Reduce scores over the vocabulary to what losses need of them."""
    taken = jnp.take_along_axis(scores, ids[:, None], axis=1, mode="clip")[:, 0]
    return Scores(taken, jax.nn.logsumexp(scores / temperature, axis=1))


def scan_vocabulary(
    function: Callable[..., Float[Array, "N ..."] | tuple], *rows: Array, vocab_size: int
) -> Float[Array, "N ..."] | tuple:
    """Apply a row-wise function that builds [N V] arrays to as many rows at a time as `MAX_LOGITS` allows.

    `function` maps arrays with a leading row axis to arrays (or a tuple of arrays) with the same leading axis. Neither
    its [chunk, V] intermediates nor their gradients are ever held for all rows: the backward pass recomputes them.
    Where all rows fit the function is called once, directly.
    """
    n = rows[0].shape[0]
    n_chunks = count_chunks(n, vocab_size)
    if n_chunks == 1:
        return function(*rows)
    body = jax.checkpoint(lambda carry, xs: (carry, function(*xs)))
    _, stacked = jax.lax.scan(body, None, split_rows(rows, n_chunks))
    return jax.tree.map(lambda x: join_rows(x, n), stacked)


def count_chunks(n_rows: int, vocab_size: int) -> int:
    """Count the chunks that so many rows make."""
    return -(-n_rows // max(1, MAX_LOGITS // vocab_size))


def split_rows(rows: tuple[Array, ...], n_chunks: int) -> tuple[Array, ...]:
    """Deal rows out into chunks [C chunk ...] of one size, filled up with zeros.

    | 7 rows, 2 chunks | 0 2 4 6 and 1 3 5 (filler) |
    |------------------|----------------------------|

    Dealt out, not cut: each device keeps its own rows, and all of them work on every chunk.
    """
    chunk = -(-rows[0].shape[0] // n_chunks)
    padded = [jnp.pad(x, [(0, chunk * n_chunks - len(x))] + [(0, 0)] * (x.ndim - 1)) for x in rows]
    return tuple(jnp.swapaxes(x.reshape(chunk, n_chunks, *x.shape[1:]), 0, 1) for x in padded)


def join_rows(chunks: Float[Array, "C chunk ..."], n: int) -> Float[Array, "N ..."]:
    """Undo `split_rows`."""
    return jnp.swapaxes(chunks, 0, 1).reshape(-1, *chunks.shape[2:])[:n]
