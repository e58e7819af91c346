"""GPT-2 (Radford et al. 2019) as a flax.linen trunk: tokens to hidden states, with a key/value cache.

The layers are stacked on a leading axis L and scanned, so a parameter tree has one `h` entry whatever the depth:

    wte [V D]   wpe [P D]   h/{ln_1, attn/c_attn, attn/c_proj, ln_2, mlp/c_fc, mlp/c_proj} [L ...]   ln_f

Padding is at a row's end, and attention is causal, so no valid position can see padding and no padding mask is needed
in training. In decoding the caller says where the token's keys go and which slots count (`CacheSlots`).
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.types import Array
from ilqljax.errors import check_divisible, check_known, check_range
from ilqljax.models.attention import attend_cached, attend_causally
from ilqljax.models.cpu import decoding as on_cpu
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.dense import Dense


@dataclass(frozen=True)
class GPT2Config:
    """Size and numerics of a GPT-2.

    Attributes:
        vocab_size: rows of the embedding; in a config the tokenizer says how many.
        n_positions: longest row.
        n_embd: width.
        n_layer: depth.
        n_head: attention heads.
        n_inner: width of a block's hidden layer; 0 is 4 x `n_embd`.
        dropout: rate in training.
        layer_norm_epsilon: added to the variance.
        dtype: of the activations, "float32" or "bfloat16"; parameters, layer norms' statistics and softmax stay
            float32.
        remat: recompute blocks in the backward pass, to save memory.
        unroll: layers per step of the scan over layers.
    """

    vocab_size: int = field(metadata=NO_OPTION)
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int = 0
    dropout: float = 0.0
    layer_norm_epsilon: float = 1e-5
    dtype: str = "float32"
    remat: bool = False
    unroll: int = 1

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "n_positions", "n_embd", "n_layer", "n_head", "unroll")
        check_range(self, "[0, inf)", "n_inner")
        check_range(self, "[0, 1)", "dropout")
        check_range(self, "(0, inf)", "layer_norm_epsilon")
        check_known(("float32", "bfloat16", "float16"), dtype=self.dtype)
        check_divisible(self, "n_embd", "n_head")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def inner_size(self) -> int:
        """Width of a block's hidden layer: `n_inner`, or 4 x `n_embd` where that is 0."""
        return self.n_inner or 4 * self.n_embd


class KVCache(NamedTuple):
    """Keys and values of the tokens seen so far, in slots: a slot's number is storage, not a position.

    On a CPU rows and heads are one axis, [L BH S K], and the layers of a trunk that is laid out for acting have arrays
    of their own, L times [BH S K] (`ilqljax.models.cpu.decoding`).
    """

    keys: Float[Array, "L B H S K"] | Float[Array, "L B*H S K"] | tuple[Float[Array, "B*H S K"], ...]
    values: Float[Array, "L B H S K"] | Float[Array, "L B*H S K"] | tuple[Float[Array, "B*H S K"], ...]


class CacheSlots(NamedTuple):
    """Where one new token's keys and values go, in all rows, and which slots it sees: `seen` should hold its own."""

    new: Int[Array, ""]
    seen: Bool[Array, "B S"]


class TrunkOutput(NamedTuple):
    """What a trunk computes: hidden states after and before the final layer norm, and the cache with what is new."""

    hidden: Float[Array, "B T D"]
    block_output: Float[Array, "B T D"]
    cache: KVCache | None


class Attention(nn.Module):
    """Multi-head self-attention, causal over a whole row, or of one new token over a cache."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x, cache_layer, slots: CacheSlots | None, *, return_kv: bool, deterministic: bool):
        c = self.config
        batch, length, _ = x.shape
        qkv = dense(c, 3 * c.n_embd, name="c_attn")(x).reshape(batch, length, 3, c.n_head, c.head_size)
        query, key, value = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each [B H T K]
        drop = nn.Dropout(c.dropout, deterministic=False) if c.dropout and not deterministic else None
        keys, values = (on_cpu.store(x) if use_cpu_tricks() else x for x in (key, value))
        if slots is None:
            mixed = attend_causally(query, key, value, drop)
        else:
            # Written before it is read: the other way round both would be copied whole.
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, new, slots.new, axis=-2)
                for old, new in zip(cache_layer, (keys, values), strict=True)
            )
            mixed = attend_cached(query, keys, values, slots.seen)
        mixed = jnp.swapaxes(mixed, 1, 2).reshape(batch, length, c.n_embd)
        out = dense(c, c.n_embd, scale=(2 * c.n_layer) ** -0.5, name="c_proj")(mixed)
        return out, (keys, values) if return_kv else None


class MLP(nn.Module):
    """Two dense layers around GPT-2's tanh-approximated GELU."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x):
        c = self.config
        hidden = nn.gelu(dense(c, c.inner_size, name="c_fc")(x), approximate=True)
        return dense(c, c.n_embd, scale=(2 * c.n_layer) ** -0.5, name="c_proj")(hidden)


class Block(nn.Module):
    """One pre-norm transformer block."""

    config: GPT2Config
    return_kv: bool
    deterministic: bool

    @nn.compact
    def __call__(self, x, cache_layer, slots):
        c = self.config
        attended, new_kv = Attention(c, name="attn")(
            layer_norm(c, "ln_1")(x), cache_layer, slots, return_kv=self.return_kv, deterministic=self.deterministic
        )
        x = x + nn.Dropout(c.dropout, deterministic=self.deterministic)(attended)
        transformed = MLP(c, name="mlp")(layer_norm(c, "ln_2")(x))
        return x + nn.Dropout(c.dropout, deterministic=self.deterministic)(transformed), new_kv


class GPT2(nn.Module):
    """The trunk: embeddings, blocks, final layer norm. The language-model head is `wte` transposed (`ValueLM`)."""

    config: GPT2Config

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "#B T"] | None = None,
        *,
        cache: KVCache | None = None,
        slots: CacheSlots | None = None,
        return_kv: bool = False,
        deterministic: bool = True,
    ) -> TrunkOutput:
        """Map tokens to hidden states.

        Without `cache`, attention is causal over the row and positions default to 0..T-1; `return_kv` gives the row's
        keys and values, to prefill a cache. With `cache`, T is 1 and `slots` says where the token goes and what it
        sees; the returned cache has it in it.
        Parameters may be laid out for acting (`ilqljax.decoding.sampling`).
        """
        c = self.config
        wte = self.param("wte", nn.initializers.normal(0.02), (c.vocab_size, c.n_embd))
        wpe = self.param("wpe", nn.initializers.normal(0.01), (c.n_positions, c.n_embd))
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
        x = (wte[tokens] + wpe[positions]).astype(c.dtype)
        x = nn.Dropout(c.dropout, deterministic=deterministic)(x)
        return_kv = return_kv or cache is not None
        layers: Any = self.get_variable("params", "h")
        if isinstance(layers, tuple):
            x, new_kv = on_cpu.run_layers(Block(c, return_kv, deterministic, parent=None), layers, x, cache, slots)
        else:
            x, new_kv = self.scan_layers(x, cache, slots, return_kv=return_kv, deterministic=deterministic)
        return TrunkOutput(layer_norm(c, "ln_f")(x), x, KVCache(*new_kv) if return_kv else None)

    def scan_layers(self, x, cache, slots, *, return_kv, deterministic):
        """Run the blocks of stacked parameters."""
        c = self.config
        block = nn.remat(Block, prevent_cse=False) if c.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=c.n_layer,
            unroll=c.unroll,
        )
        return layers(c, return_kv, deterministic, name="h")(x, cache and tuple(cache), slots)


def take_cache_rows(x: Float[Array, "..."], rows: Int[Array, "N"], *, n_head: int) -> Float[Array, "..."]:
    """Pick rows of a cache's array by number, each with all its heads."""
    if use_cpu_tricks():
        return on_cpu.take_cache_rows(x, rows, n_head)
    return jnp.take(x, rows, axis=-4, mode="clip")


def dense(config: GPT2Config, features: int, *, name: str, scale: float = 1.0) -> Dense:
    """Make a dense layer with GPT-2's initialisation: normal(0.02 x scale), zero bias."""
    init = nn.initializers.normal(0.02 * scale)
    return Dense(features, dtype=config.dtype, kernel_init=init, name=name)


def layer_norm(config: GPT2Config, name: str) -> nn.LayerNorm:
    """Make a layer norm; its statistics are computed in float32 whatever the activations' dtype."""
    return nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=config.dtype, use_fast_variance=False, name=name)
