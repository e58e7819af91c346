"""The Llama family (Touvron et al. 2023, arXiv 2302.13971) as a flax.linen trunk: RMSNorm, rotary positions, SwiGLU.

Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen2.5 and Qwen3 are this trunk with other settings (`LlamaConfig`). Layers are
stacked, padding and caches are as in `ilqljax.models.gpt2`:

    wte [V D]   lm_head [V D]?   h/{ln_1, attn/{q_proj, k_proj, v_proj, q_norm?, k_norm?, o_proj},
                                    ln_2, mlp/{gate_proj, up_proj, down_proj}} [L ...]   ln_f
"""

import math
from dataclasses import dataclass, field

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_divisible, check_known, check_range
from ilqljax.models.backbone import CacheSlots, KVCache, TrunkOutput, embed, run_blocks, self_attend
from ilqljax.models.chunks import keep_rows
from ilqljax.models.dense import Dense


@dataclass(frozen=True)
class LlamaConfig:
    """Size and numerics of a Llama, and in what its relatives differ.

    Attributes:
        vocab_size: rows of the embedding; in a config the tokenizer says how many.
        n_positions: longest row.
        n_embd: width.
        n_layer: depth.
        n_head: attention heads.
        n_kv_head: heads of keys and values, each for `n_head / n_kv_head` of queries.
        head_size: width of one attention head; 0 is `n_embd / n_head`.
        n_inner: width of a block's hidden layer.
        rms_norm_epsilon: added to the mean square.
        rope_theta: base of the rotary wavelengths.
        rope_scaling: how these are stretched: "none", "linear" (all of them) or "llama3" (the long ones).
        rope_factor: by how much.
        rope_low_factor: "llama3": wavelengths above `rope_length / rope_low_factor` are stretched whole.
        rope_high_factor: "llama3": those below `rope_length / rope_high_factor` are left alone.
        rope_length: "llama3": positions that the model was first trained with.
        qkv_bias: biases of queries, keys and values (Qwen2).
        output_bias: a bias of attention's output.
        mlp_bias: biases of the hidden layer.
        qk_norm: RMSNorm of each head's queries and keys (Qwen3).
        tied: the language-model head is the token embeddings.
        dtype: of the activations, "float32" or "bfloat16"; parameters, norms' statistics, rotations and softmax stay
            float32.
        remat: recompute blocks in the backward pass, to save memory.
        unroll: layers per step of the scan over layers.
    """

    vocab_size: int = field(metadata=NO_OPTION)
    n_positions: int = 2048
    n_embd: int = 576
    n_layer: int = 30
    n_head: int = 9
    n_kv_head: int = 3
    head_size: int = 0
    n_inner: int = 1536
    rms_norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: str = "none"
    rope_factor: float = 1.0
    rope_low_factor: float = 1.0
    rope_high_factor: float = 4.0
    rope_length: int = 8192
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = True
    dtype: str = "float32"
    remat: bool = False
    unroll: int = 1

    dropout = 0.0  # the family has none

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_kv_head")
        check_range(self, "[1, inf)", "n_inner", "rope_factor", "rope_length", "unroll")
        check_range(self, "[0, inf)", "head_size")
        check_range(self, "(0, inf)", "rms_norm_epsilon", "rope_low_factor", "rope_high_factor")
        check_range(self, "[1, 1e38]", "rope_theta")  # its powers are float32
        check_known(("none", "linear", "llama3"), rope_scaling=self.rope_scaling)
        check_known(("float32", "bfloat16", "float16"), dtype=self.dtype)
        check_divisible(self, "n_head", "n_kv_head")
        if not self.head_size:
            check_divisible(self, "n_embd", "n_head")
            object.__setattr__(self, "head_size", self.n_embd // self.n_head)
        if self.head_size % 2:
            raise UserError(f"head_size={self.head_size} is odd, and rotary positions turn pairs. Use an even one.")
        if self.rope_high_factor <= self.rope_low_factor:
            raise UserError(
                f"rope_high_factor={self.rope_high_factor} must be above rope_low_factor={self.rope_low_factor}."
            )
        # No family has others, so that no other model could read what a run exports.
        llama = self.qkv_bias == self.output_bias and not (self.qk_norm and self.mlp_bias)
        qwen2 = self.qkv_bias and not (self.output_bias or self.mlp_bias or self.qk_norm)
        if not (llama or qwen2):
            options = ("qkv_bias", "output_bias", "mlp_bias", "qk_norm")
            raise UserError(
                f"No model of transformers has {', '.join(f'{name}={getattr(self, name)}' for name in options)}. "
                "Set output_bias as qkv_bias, or leave it and the other two False; qk_norm excludes mlp_bias."
            )

    @property
    def inner_size(self) -> int:
        """Width of a block's hidden layer."""
        return self.n_inner


def rotary_frequencies(config: LlamaConfig) -> Float[np.ndarray, " pairs"]:
    """Compute the angle that each pair of a head turns by per position (Su et al. 2021, arXiv 2104.09864, eq. 15).

    "linear" divides all of them by `rope_factor` (Chen et al. 2023, arXiv 2306.15595); "llama3" divides those that
    turn less than `rope_low_factor` times in `rope_length` positions, leaves alone those that turn more than
    `rope_high_factor` times, and mixes both for those between (Llama 3.1, Dubey et al. 2024, arXiv 2407.21783).
    """
    c = config
    # Rounded as in torch, with which models are trained: at position 8,000 one rounding is an angle of 5e-4.
    frequencies = 1.0 / np.float32(c.rope_theta ** (np.arange(0, c.head_size, 2) / c.head_size))
    if c.rope_scaling == "linear":
        frequencies = frequencies / c.rope_factor
    elif c.rope_scaling == "llama3":
        turns = c.rope_length * frequencies / (2 * math.pi)
        kept = np.clip((turns - c.rope_low_factor) / (c.rope_high_factor - c.rope_low_factor), 0.0, 1.0)
        frequencies = kept * frequencies + (1.0 - kept) * frequencies / c.rope_factor
    return np.float32(frequencies)


def rotate(
    x: Float[Array, "B T H K"], rotation: tuple[Float[Array, "#B T pairs"], Float[Array, "#B T pairs"]]
) -> Float[Array, "B T H K"]:
    """Turn pairs of each head by (cosines, sines) of its position's angles; a pair is an entry of each half."""
    cosines, sines = (table[:, :, None] for table in rotation)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
    return turned.astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions, causal over a row, or of new tokens over a cache."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x, cache_layer, slots, rotation, *, return_kv: bool):
        c = self.config

        def heads(n: int, name: str) -> Array:
            return dense(c, n * c.head_size, c.qkv_bias, name=name)(x).reshape(*x.shape[:2], n, c.head_size)

        query, key, value = heads(c.n_head, "q_proj"), heads(c.n_kv_head, "k_proj"), heads(c.n_kv_head, "v_proj")
        if c.qk_norm:
            query, key = rms_norm(c, "q_norm")(query), rms_norm(c, "k_norm")(key)
        query, key = rotate(query, rotation), rotate(key, rotation)
        mixed, new_kv = self_attend(*(jnp.swapaxes(h, 1, 2) for h in (query, key, value)), cache_layer, slots)
        out = dense(c, c.n_embd, c.output_bias, scale=(2 * c.n_layer) ** -0.5, name="o_proj")(mixed)
        return out, new_kv if return_kv else None


class MLP(nn.Module):
    """A gated hidden layer, SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        gate = nn.silu(dense(c, c.n_inner, c.mlp_bias, name="gate_proj")(x))
        hidden = gate * dense(c, c.n_inner, c.mlp_bias, name="up_proj")(x)
        return dense(c, c.n_embd, c.mlp_bias, scale=(2 * c.n_layer) ** -0.5, name="down_proj")(hidden)


class Block(nn.Module):
    """One pre-norm transformer block."""

    config: LlamaConfig
    return_kv: bool
    deterministic: bool

    @nn.compact
    def __call__(self, x, cache_layer, slots, rotation):
        c = self.config
        attended, new_kv = Attention(c, name="attn")(
            rms_norm(c, "ln_1")(x), cache_layer, slots, rotation, return_kv=self.return_kv
        )
        x = x + attended
        return x + MLP(c, name="mlp")(rms_norm(c, "ln_2")(x)), new_kv


class Llama(nn.Module):
    """The trunk: embeddings, blocks, final norm. `ilqljax.models.backbone.compute_logits` applies the head."""

    config: LlamaConfig

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
        """Map tokens to hidden states, as `ilqljax.models.gpt2.GPT2.__call__` documents."""
        c = self.config
        wte = self.param("wte", nn.initializers.normal(0.02), (c.vocab_size, c.n_embd))
        if not c.tied and self.is_initializing():  # where values are read a trunk has none
            self.param("lm_head", nn.initializers.normal(0.02), (c.vocab_size, c.n_embd))
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
        angles = positions[..., None] * rotary_frequencies(c)[None, None]
        x = embed(self, wte, tokens) if hidden is None else keep_rows(hidden)
        x, new_kv = run_blocks(
            self,
            Block,
            x.astype(c.dtype),
            cache,
            slots,
            (jnp.cos(angles), jnp.sin(angles)),
            return_kv=return_kv or cache is not None,
            deterministic=deterministic,
        )
        return TrunkOutput(rms_norm(c, "ln_f")(x), x, new_kv)


def dense(config: LlamaConfig, features: int, use_bias: bool, *, name: str, scale: float = 1.0) -> Dense:
    """Make a linear layer, initialised as GPT-2's: normal(0.02 x scale), zero bias."""
    init = nn.initializers.normal(0.02 * scale)
    return Dense(features, dtype=config.dtype, kernel_init=init, use_bias=use_bias, name=name)


def rms_norm(config: LlamaConfig, name: str) -> nn.RMSNorm:
    """Make an RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467); its mean square is computed in float32."""
    return nn.RMSNorm(epsilon=config.rms_norm_epsilon, dtype=config.dtype, name=name)
