"""Acting: layers and caches with arrays of their own, and draws in two passes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.models.cpu import trick
from ilqljax.models.cpu.products import cut_kernels, cut_outputs


@partial(jax.jit, static_argnames="split")
def lay_out(trunks: dict, heads: dict, *, split: bool) -> tuple[dict, dict]:
    """Lay out what acting reads: layers apart if `split`, their kernels and those of heads in blocks of outputs.

    These are copies of what they replace, made here once; within a sampler they would be made for every batch. Of the
    language-model head there is one besides, "head_blocks".
    """
    if not split:
        return trunks, cut_kernels(heads)
    laid = {role: split_layers(trunk) if trunk else trunk for role, trunk in trunks.items()}
    whole = laid["base"] or laid["policy"]
    whole["head_blocks"] = cut_outputs(whole["lm_head" if "lm_head" in whole else "wte"].T)
    return laid, cut_kernels(heads)


@trick
def split_layers(trunk: dict) -> dict:
    """Give each layer arrays of its own, for a loop that reads them at every turn.

    XLA copies a layer out of the stack at every use, which triples what a decoding step reads and writes. The caches of
    such a trunk are split too, and kernels lie in blocks (`cut_kernels`).
    """
    stack = cut_kernels(trunk["h"])
    n_layer = len(jax.tree.leaves(stack)[0])
    layers = tuple(jax.tree.map(lambda stacked, i=i: stacked[i], stack) for i in range(n_layer))
    return trunk | {"h": jax.lax.optimization_barrier(layers)}


def run_layers(block: Any, layers: tuple[dict, ...], x: Float[Array, "B T D"], cache: Any, *shared: Any) -> tuple:
    """Run the blocks of `split_layers`: hidden states, and keys and values as two tuples over layers."""
    new_kv = []
    for i, layer in enumerate(layers):
        x, kv = block.apply({"params": layer}, x, cache and tuple(x[i] for x in cache), *shared)
        new_kv.append(kv)
    return x, None if new_kv[0] is None else zip(*new_kv, strict=True)


@trick
def store(x: Float[Array, "B H T K"]) -> Float[Array, "B*H T K"]:
    """Give keys or values the shape and dtype of a cache.

    Rows and heads are one axis: of an axis of size 1 XLA would make a reshaped copy at every token. It would also
    convert the whole cache at every token where that is not float32.
    """
    return x.reshape(-1, *x.shape[2:]).astype(jnp.float32)


@trick
def take_cache_rows(
    x: Float[Array, "*L BH S K"], rows: Int[Array, " N"], n_kv_head: int
) -> Float[Array, "*L N*{n_kv_head} S K"]:
    """Pick rows of a cache's array by number, each with all its heads."""
    entries = rows[:, None] * n_kv_head + jnp.arange(n_kv_head)[None]
    return jnp.take(x, entries.reshape(-1), axis=-3, mode="clip")


@trick
def draw_tokens(keys: Array, scores: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Draw one token a row from softmax(scores), each row with its own key.

    The draws are those of `jax.random.categorical`, of which XLA makes one loop, number by number. The barrier parts
    noise and argmax.
    """
    noise = jax.vmap(lambda key, row: jax.random.gumbel(key, row.shape, row.dtype))(keys, scores)
    return find_largest(jax.lax.optimization_barrier(scores + noise))


@trick
def find_largest(scores: Float[Array, "B V"]) -> Int[Array, " B"]:
    """Find the first largest score of each row, in two passes: XLA's argmax takes three times as long."""
    largest, n_scores = scores.max(axis=-1, keepdims=True), scores.shape[-1]
    return jnp.where(scores == largest, jnp.arange(n_scores), n_scores - 1).min(axis=-1)
