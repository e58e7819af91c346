"""BERT (Devlin et al. 2019) in flax.linen, and pooling: token ids and a mask to one vector a text.

The layers are stacked on a leading axis L and scanned, as in `gpt2`:

    word [V D]   position [P D]   token_type [2 D]   norm   layers/{query, key, value, attended, norm_1, inner, outer,
    norm_2} [L ...]

Attention goes both ways, so padding must be masked everywhere: as a key, and in the mean.

| tokens         | [CLS] nurse [SEP] [PAD] |
|----------------|-------------------------|
| mask           | 1     1     1     0     |
| weight in mean | 1/3   1/3   1/3   0     |
| weight in cls  | 1     0     0     0     |
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import check_divisible, check_known
from ilqljax.models.attention import attend

ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_new": partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(nn.gelu, approximate=True),
    "relu": nn.relu,
}
POOLINGS = ("mean", "cls")


@dataclass(frozen=True)
class BertConfig:
    """Size and numerics of a BERT; names are those of its `config.json`.

    `dtype` is that of the activations; parameters, layer norms' statistics and softmax stay float32.
    """

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_divisible(self, "hidden_size", "num_attention_heads")
        check_known(ACTIVATIONS, hidden_act=self.hidden_act)


class BertLayer(nn.Module):
    """One post-norm transformer layer with attention in both directions."""

    config: BertConfig

    @nn.compact
    def __call__(self, x, mask):
        c = self.config
        batch, length, _ = x.shape
        dense = partial(nn.Dense, dtype=c.dtype)

        def split_heads(name):
            heads = dense(c.hidden_size, name=name)(x).reshape(batch, length, c.num_attention_heads, -1)
            return jnp.swapaxes(heads, 1, 2)  # [B H T K]

        mixed = attend(*map(split_heads, ("query", "key", "value")), mask)
        mixed = jnp.swapaxes(mixed, 1, 2).reshape(x.shape)
        x = layer_norm(c, "norm_1")(x + dense(c.hidden_size, name="attended")(mixed))
        inner = ACTIVATIONS[c.hidden_act](dense(c.intermediate_size, name="inner")(x))
        return layer_norm(c, "norm_2")(x + dense(c.hidden_size, name="outer")(inner)), None


class Bert(nn.Module):
    """The encoder: embeddings and layers, without the pooler, which sentence encoders do not use."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """Map tokens (of one segment) to hidden states; those where `mask` is false mean nothing."""
        c = self.config
        init = nn.initializers.normal(0.02)
        word = self.param("word", init, (c.vocab_size, c.hidden_size))
        position = self.param("position", init, (c.max_position_embeddings, c.hidden_size))
        token_type = self.param("token_type", init, (c.type_vocab_size, c.hidden_size))
        x = word[tokens] + position[None, : tokens.shape[1]] + token_type[None, :1]
        x = layer_norm(c, "norm")(x.astype(c.dtype))
        layers = nn.scan(
            BertLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.num_hidden_layers,
        )
        return layers(c, name="layers")(x, mask[:, None, None, :])[0]


def layer_norm(config: BertConfig, name: str) -> nn.LayerNorm:
    """Make a layer norm; its statistics are computed in float32 whatever the activations' dtype."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=config.dtype, use_fast_variance=False, name=name)


def pool(
    hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"], *, pooling: str, normalize: bool
) -> Float[Array, "B D"]:
    """Make one float32 vector a text by `POOLINGS` (module docstring), of length 1 if `normalize`.

    A row of which no token counts gives zeros.
    """
    hidden = hidden.astype(jnp.float32)
    if pooling == "cls":
        vectors = hidden[:, 0] * mask[:, :1]
    else:
        total = jnp.where(mask[:, :, None], hidden, 0.0).sum(axis=1)
        vectors = total / jnp.maximum(mask.sum(axis=1), 1)[:, None]
    if normalize:
        vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


@partial(jax.jit, static_argnames=("model", "pooling", "normalize"))
def embed(
    params: dict, tokens: Int[Array, "B T"], lengths: Int[Array, " B"], *, model: Bert, pooling: str, normalize: bool
) -> Float[Array, "B D"]:
    """Encode token rows of which the first `lengths` count."""
    mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    return pool(model.apply({"params": params}, tokens, mask), mask, pooling=pooling, normalize=normalize)
