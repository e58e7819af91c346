"""Rows on the devices that they were dealt to, and their scores over the whole vocabulary, as many rows at a time as a
device has memory for.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int, Shaped

from ilqljax.data.types import BATCH_AXES, Array

# An array over the vocabulary is built for at most this many entries on a device at a time (float32: 128 MiB).
MAX_LOGITS = 2**25


class Scores(NamedTuple):
    """Of each row's scores over the vocabulary: the taken entry, and log sum exp(scores / temperature)."""

    taken: Float[Array, " N"]
    log_normalizer: Float[Array, " N"]


def keep_rows(x: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
    """Keep rows on the devices that they were dealt to, in a function that knows its mesh; elsewhere change nothing.

    The embeddings are split over their width. Left alone, the compiler splits all hidden states as these, and every
    device computes its share of all rows: what a step needs on each, and what they tell each other of a vocabulary's
    scores, then grow with the number of devices. Fewer rows than devices, as microbatches may have, are left alone.
    """
    return x if count_shards(len(x)) == 1 else jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def keep_width(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Take embeddings that were looked up as the table's parts hold them: of a group's rows, its share of the width.

    They are exchanged within groups that share parameters then, and so are gradients on their way back; without this
    stop on the way to `keep_rows` the compiler may send all rows to all devices.
    """
    n_data, n_fsdp = _measure_batch_axes()
    if min(n_data, n_fsdp) == 1 or len(x) % n_data or x.shape[-1] % n_fsdp:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec("data", None, "fsdp"))


def keep_scores(scores: Float[Array, "N V"]) -> Float[Array, "N V"]:
    """Keep rows of scores as `keep_rows` does; how their vocabulary is split is the compiler's matter."""
    if count_shards(len(scores)) == 1:
        return scores
    return jax.lax.with_sharding_constraint(scores, PartitionSpec(BATCH_AXES, PartitionSpec.UNCONSTRAINED))


def gather_kernel(kernel: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Bring the contracted axis of an output matrix together, whose parts other devices of `keep_rows` hold.

    Once a step, for all rows: the alternative is to add up every row's partial scores over all devices.
    """
    n_shards = math.prod(_measure_batch_axes())
    if n_shards == 1:
        return kernel
    is_whole = jax.sharding.get_abstract_mesh().size == n_shards  # no further axis splits the vocabulary
    spec: list[Any] = [None if is_whole else PartitionSpec.UNCONSTRAINED] * 2
    spec[axis] = None
    return jax.lax.with_sharding_constraint(kernel, PartitionSpec(*spec))


def count_shards(n_rows: int) -> int:
    """Count the devices that so many rows are dealt out to evenly, by the mesh that the function knows; 1 without."""
    n = math.prod(_measure_batch_axes())
    return 1 if n_rows % n else n


def _measure_batch_axes() -> tuple[int, int]:
    """Return how many devices the axes `data` and `fsdp` of the function's mesh have; 1 each without one."""
    mesh = jax.sharding.get_abstract_mesh()
    n_data, n_fsdp = (mesh.shape.get(axis, 1) for axis in BATCH_AXES)
    return n_data, n_fsdp


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

    def run(*rows: Array) -> Any:
        return jax.tree.map(keep_rows, function(*map(keep_rows, rows)))

    if n_chunks == 1:
        return run(*rows)
    body = jax.checkpoint(lambda carry, xs: (carry, run(*xs)))
    _, stacked = jax.lax.scan(body, None, split_rows(rows, n_chunks))
    return jax.tree.map(lambda x: join_rows(x, n), stacked)


def count_chunks(n_rows: int, vocab_size: int) -> int:
    """Count the chunks that so many rows make."""
    return -(-(n_rows // count_shards(n_rows)) // max(1, MAX_LOGITS // vocab_size))


def split_rows(rows: tuple[Array, ...], n_chunks: int) -> tuple[Array, ...]:
    """Deal rows out into chunks [C chunk ...] of one size, those of each device filled up with zeros.

    | 7 rows, 2 chunks            | 0 2 4 6 and 1 3 5 (filler)          |
    |-----------------------------|-------------------------------------|
    | 6 rows, 2 devices, 2 chunks | 0 2, 3 5 and 1 (filler), 4 (filler) |

    Dealt out, not cut: each device keeps its own rows, and all of them work on every chunk.
    """
    n_shards = count_shards(len(rows[0]))
    n_own = len(rows[0]) // n_shards
    chunk = -(-n_own // n_chunks)

    def split(x: Array) -> Array:
        own = x.reshape(n_shards, n_own, *x.shape[1:])
        padded = jnp.pad(own, [(0, 0), (0, chunk * n_chunks - n_own)] + [(0, 0)] * (x.ndim - 1))
        dealt = padded.reshape(n_shards, chunk, n_chunks, *x.shape[1:])
        return jnp.moveaxis(dealt, 2, 0).reshape(n_chunks, n_shards * chunk, *x.shape[1:])

    return tuple(map(split, rows))


def join_rows(chunks: Float[Array, "C chunk ..."], n: int) -> Float[Array, "N ..."]:
    """Undo `split_rows`."""
    n_chunks, n_shards = len(chunks), count_shards(n)
    dealt = jnp.moveaxis(chunks.reshape(n_chunks, n_shards, -1, *chunks.shape[2:]), 0, 2)
    return dealt.reshape(n_shards, -1, *chunks.shape[2:])[:, : n // n_shards].reshape(n, *chunks.shape[2:])
