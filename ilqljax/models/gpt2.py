"""GPT-2 (Radford et al. 2019) as a flax.linen trunk: tokens to hidden states, with a key/value cache.

The layers are stacked on a leading axis L and scanned, so a parameter tree has one `h` entry whatever the depth:

    wte [V D]   wpe [P D]   h/{ln_1, attn/c_attn, attn/c_proj, ln_2, mlp/c_fc, mlp/c_proj} [L ...]   ln_f

Padding is at a row's end, and attention is causal, so no valid position can see padding and no padding mask is needed
in training. In decoding the caller says where new tokens' keys go and which slots count (`CacheSlots`).
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.types import Array
from ilqljax.errors import check_divisible, check_known, check_range
from ilqljax.models.backbone import CacheSlots, KVCache, TrunkOutput, embed, run_blocks, self_attend
from ilqljax.models.chunks import keep_rows
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
    def n_kv_head(self) -> int:
        """Heads of keys and values: one for each of queries."""
        return self.n_head

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def inner_size(self) -> int:
        """Width of a block's hidden layer: `n_inner`, or 4 x `n_embd` where that is 0."""
        return self.n_inner or 4 * self.n_embd


class Attention(nn.Module):
    """Multi-head self-attention, causal over a whole row, or of new tokens over a cache."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x, cache_layer, slots: CacheSlots | None, *, return_kv: bool, deterministic: bool):
        c = self.config
        batch, length, _ = x.shape
        qkv = dense(c, 3 * c.n_embd, name="c_attn")(x).reshape(batch, length, 3, c.n_head, c.head_size)
        query, key, value = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each [B H T K]
        drop = nn.Dropout(c.dropout, deterministic=False) if c.dropout and not deterministic else None
        mixed, new_kv = self_attend(query, key, value, cache_layer, slots, drop)
        out = dense(c, c.n_embd, scale=(2 * c.n_layer) ** -0.5, name="c_proj")(mixed)
        return out, new_kv if return_kv else None


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
        hidden: Float[Array, "B T D"] | None = None,
        cache: KVCache | None = None,
        slots: CacheSlots | None = None,
        return_kv: bool = False,
        deterministic: bool = True,
    ) -> TrunkOutput:
        """Map tokens to hidden states.

        Without `cache`, attention is causal over the row and positions default to 0..T-1; `return_kv` gives the row's
        keys and values, to prefill a cache. With `cache`, `slots` says where the tokens go and what each sees; the
        returned cache has them in it. `hidden` enters the blocks in place of the tokens' embeddings: what the
        blocks before these gave, where a trunk is cut (`ilqljax.models.backbone.take_layers`).
        Parameters may be laid out for acting (`ilqljax.decoding.sampling`).
        """
        c = self.config
        wte = self.param("wte", nn.initializers.normal(0.02), (c.vocab_size, c.n_embd))
        wpe = self.param("wpe", nn.initializers.normal(0.01), (c.n_positions, c.n_embd))
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
        if hidden is None:
            x = (embed(self, wte, tokens) + wpe[positions]).astype(c.dtype)
            x = nn.Dropout(c.dropout, deterministic=deterministic)(x)
        else:
            x = keep_rows(hidden).astype(c.dtype)
        return_kv = return_kv or cache is not None
        x, new_kv = run_blocks(self, Block, x, cache, slots, return_kv=return_kv, deterministic=deterministic)
        return TrunkOutput(layer_norm(c, "ln_f")(x), x, new_kv)


def dense(config: GPT2Config, features: int, *, name: str, scale: float = 1.0) -> Dense:
    """Make a dense layer with GPT-2's initialisation: normal(0.02 x scale), zero bias."""
    init = nn.initializers.normal(0.02 * scale)
    return Dense(features, dtype=config.dtype, kernel_init=init, name=name)


def layer_norm(config: GPT2Config, name: str) -> nn.LayerNorm:
    """Make a layer norm; its statistics are computed in float32 whatever the activations' dtype."""
    return nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=config.dtype, use_fast_variance=False, name=name)
