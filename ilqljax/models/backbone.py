"""What every backbone shares: its interface, key/value caches, self-attention with or without one, and stacked layers.

A backbone is one file (`gpt2`, `llama`): a config, a flax module from tokens to hidden states, and its blocks. What
runs it (losses, decoding, heads, meshes) sees `Backbone` alone. Its parameters are a dict, in which

    wte [V D]        token embeddings, and the language-model head where there is no other
    lm_head [V D]    a head of its own, which lies as the embeddings do
    h/...            the blocks' parameters, stacked on a leading axis L
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array
from ilqljax.models.attention import attend_cached, attend_causally
from ilqljax.models.chunks import keep_rows, keep_width
from ilqljax.models.cpu import decoding as on_cpu
from ilqljax.models.cpu import products, use_cpu_tricks


@runtime_checkable
class Backbone(Protocol):
    """What a trunk must offer; `ilqljax.models.gpt2.GPT2` and `ilqljax.models.llama.Llama` do.

    Its config tells `vocab_size`, `n_positions`, `n_embd`, `n_layer`, `n_kv_head`, `inner_size`, `dropout`, `dtype` and
    `unroll`.
    """

    config: Any

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Create `{"params": ...}` from a key and tokens [B T]."""

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Compute hidden states, a `TrunkOutput`, as `GPT2.__call__` documents."""


class KVCache(NamedTuple):
    """Keys and values of the tokens seen so far, in slots: a slot's number is storage, not a position.

    On a CPU rows and heads are one axis, [L BG S K], and the layers of a trunk that is laid out for acting have arrays
    of their own, L times [BG S K] (`ilqljax.models.cpu.decoding`).
    """

    keys: Float[Array, "L B G S K"] | Float[Array, "L BG S K"] | tuple[Float[Array, "BG S K"], ...]
    values: Float[Array, "L B G S K"] | Float[Array, "L BG S K"] | tuple[Float[Array, "BG S K"], ...]


class CacheSlots(NamedTuple):
    """Where new tokens' keys and values go, side by side, and which slots each sees: `seen` should hold its own.

    `new` is the first one's slot, in all rows or row by row.
    """

    new: Int[Array, ""] | Int[Array, " B"]
    seen: Bool[Array, "B T S"]


class TrunkOutput(NamedTuple):
    """What a trunk computes: hidden states after and before the final norm, and the cache with what is new."""

    hidden: Float[Array, "B T D"]
    block_output: Float[Array, "B T D"]
    cache: KVCache | None


def self_attend(
    query: Float[Array, "B H T K"],
    key: Float[Array, "B G T K"],
    value: Float[Array, "B G T K"],
    cache_layer: tuple[Array, Array] | None,
    slots: CacheSlots | None,
    dropout: nn.Module | None = None,
) -> tuple[Float[Array, "B T H*K"], tuple[Array, Array]]:
    """Attend causally over whole rows, or with `slots` of new tokens over a layer of a cache, which they join.

    Each of the G heads of keys and values serves H / G neighbouring heads of queries (grouped-query attention, Ainslie
    et al. 2023, arXiv 2305.13245). Returns what is mixed, and keys and values as a cache's layer.
    """
    keys, values = (on_cpu.store(x) if use_cpu_tricks() else x for x in (key, value))
    if slots is None:
        mixed = attend_causally(query, key, value, dropout)
    else:
        # Written before it is read: the other way round both would be copied whole.
        keys, values = (write_slots(*pair, slots.new) for pair in zip(cache_layer, (keys, values), strict=True))
        mixed = attend_cached(query, keys, values, slots.seen)
    mixed = jnp.swapaxes(mixed, 1, 2)
    return mixed.reshape(*mixed.shape[:2], -1), (keys, values)


def write_slots(
    old: Float[Array, "*BG S K"], new: Float[Array, "*BG T K"], first: Int[Array, ""] | Int[Array, " B"]
) -> Float[Array, "*BG S K"]:
    """Write new entries into a layer of a cache, from slot `first` on, of all rows or of each."""
    if first.ndim == 0:
        return jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=-2)
    first = jnp.repeat(first, len(old) // len(first))  # on a CPU rows and heads are one axis
    return jax.vmap(lambda *row: jax.lax.dynamic_update_slice_in_dim(*row, axis=-2))(old, new, first)


def run_blocks(
    trunk: nn.Module,
    block: Callable[..., nn.Module],
    x: Float[Array, "B T D"],
    cache: KVCache | None,
    *shared: Any,
    return_kv: bool,
    deterministic: bool,
) -> tuple[Float[Array, "B T D"], KVCache | None]:
    """Run a trunk's blocks, within its `__call__`: hidden states, and keys and values if `return_kv`.

    A block is made of the trunk's config, `return_kv` and `deterministic`, and maps hidden states, its layer of the
    cache and what all layers share to hidden states and its keys and values. Parameters may be laid out for acting
    (`ilqljax.models.cpu.decoding.split_layers`).
    """
    c = trunk.config
    layers: Any = trunk.get_variable("params", "h")
    n_layer = len(jax.tree.leaves(layers)[0]) if layers else c.n_layer  # a trunk may be cut (`take_layers`)
    if isinstance(layers, tuple):
        x, new_kv = on_cpu.run_layers(block(c, return_kv, deterministic, parent=None), layers, x, cache, *shared)
    else:
        if c.remat:
            block = nn.remat(block, prevent_cse=False)
        elif use_cpu_tricks() and c.unroll < n_layer:  # what is unrolled has nothing stacked
            block = products.keep_products(block)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, *[nn.broadcast] * len(shared)),
            length=n_layer,
            unroll=c.unroll,
        )
        x, new_kv = stack(c, return_kv, deterministic, name="h")(x, cache and tuple(cache), *shared)
    return x, KVCache(*new_kv) if return_kv else None


def take_layers(trunk: dict, first: int, end: int | None) -> dict:
    """Cut a trunk to its blocks from number `first` on and before `end`, or to the last; it runs as any other."""
    return {**trunk, "h": jax.tree.map(lambda x: x[first:end], trunk["h"])}


def take_cache_rows(x: Float[Array, "..."], rows: Int[Array, " N"], *, n_kv_head: int) -> Float[Array, "..."]:
    """Pick rows of a cache's array by number, each with all its heads."""
    if use_cpu_tricks():
        return on_cpu.take_cache_rows(x, rows, n_kv_head)
    return jnp.take(x, rows, axis=-4, mode="clip")


def embed(trunk: nn.Module, wte: Float[Array, "V D"], tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Look tokens up, within a trunk's `__call__`; an adapter may have rows of its own (`ilqljax.models.lora`)."""
    if not trunk.has_variable("params", "wte_rows"):
        return keep_rows(keep_width(wte[tokens]))
    rows: Any = trunk.get_variable("params", "wte_rows")
    n_kept = len(wte) - len(rows)
    found = jnp.where((tokens >= n_kept)[..., None], rows[jnp.maximum(tokens - n_kept, 0)], wte[tokens])
    return keep_rows(keep_width(found))


def output_embedding(trunk: dict) -> tuple[Float[Array, "V D"], Float[Array, "N D"] | None]:
    """Return the language-model head of a trunk, its own or the token embeddings, and what its last N rows are.

    None is the head's own rows.
    """
    name = "lm_head" if "lm_head" in trunk else "wte"
    return trunk[name], trunk.get(f"{name}_rows")


def compute_logits(trunk: dict, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Apply the language-model head: float32 logits from hidden states of any dtype."""
    head, rows = output_embedding(trunk)
    if "head_blocks" in trunk and hidden.ndim == 2 and len(hidden) <= products.FEW_HEAD_ROWS:  # acting on a CPU
        logits = products.multiply_blocks(hidden, trunk["head_blocks"])[:, : len(head)]
    else:
        logits = _multiply_by_rows(hidden, head)
    if rows is None:
        return logits
    # Not of an embedding put together, which would be copied at every token.
    return jnp.concatenate([logits[..., : len(head) - len(rows)], _multiply_by_rows(hidden, rows)], axis=-1)


def _multiply_by_rows(hidden: Float[Array, "... D"], rows: Float[Array, "V D"]) -> Float[Array, "... V"]:
    if use_cpu_tricks():
        return products.compute_logits(hidden, rows.astype(hidden.dtype))
    return jnp.matmul(hidden, rows.astype(hidden.dtype).T, preferred_element_type=jnp.float32)
