"""Value heads over hidden states, split where it pays: features, and their product with an output matrix.

    kind       a Q head's output for token a                     its output matrix
    full       w[a] . f(h) + b[a]                                "dense_out" [2D V]
    low_rank   w[a] . P f(h) + b[a]                              "dense_out" [R V], after "dense_rank" P [2D R]
    tied       e[a] . g(h) + u(h) + b[a]                         the token embeddings e [V D], which it does not train

The split is what keeps the vocabulary cheap. A target Q needs Q(s, a) alone, so `take_outputs` gathers the taken
action's column and takes a dot product; only losses over all actions multiply by the whole matrix, chunk by chunk.

Products are of numbers of a head's `dtype`, the trunk's; outputs, the values, are float32 sums of them.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.models.backbone import compute_logits
from ilqljax.models.dense import Dense, apply_dense

# torch's default for a linear layer's weights: +-1 / sqrt(inputs).
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MLPHead(nn.Module):
    """Linear(D, 2D), ReLU, Linear(2D, n_outputs), as in the original; with a `rank`, Linear(2D, R) before the last."""

    n_outputs: int
    dtype: str = "float32"
    rank: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... O"]:
        """Map hidden states to outputs."""
        features = nn.relu(dense(2 * x.shape[-1], self.dtype, name="dense_in")(x))
        return finish(features, self.n_outputs, self.dtype, self.rank)


class TiedHead(nn.Module):
    """Linear(D, 2D), ReLU, Linear(2D, D + 1): an embedding to compare tokens' with, and what all tokens share.

    Its output matrix is the token embeddings, which are given with its parameters (`ValueLM.get_q_head`), so that what
    is learnt of a word is learnt of words like it. It is made for a frozen trunk, whose embeddings stay as they are.
    """

    n_outputs: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D+1"]:
        """Map hidden states to features; `project` and `take_outputs` make values of them."""
        inner = nn.relu(dense(2 * x.shape[-1], self.dtype, name="dense_in")(x))
        features = dense(x.shape[-1] + 1, self.dtype, name="dense_tied")(inner)
        return TiedOutput(self.n_outputs, name="dense_out")(features)


class TiedOutput(nn.Module):
    """The biases of a tied head's outputs; the features pass."""

    n_outputs: int

    @nn.compact
    def __call__(self, features: Float[Array, "... F"]) -> Float[Array, "... F"]:
        self.param("bias", nn.initializers.zeros, (self.n_outputs,))
        return features


def finish(features: Float[Array, "... F"], n_outputs: int, dtype: str, rank: int) -> Float[Array, "... O"]:
    """Apply a head's output layer, within its `__call__`."""
    if rank:
        features = Dense(rank, dtype, kernel_init=TORCH_UNIFORM, use_bias=False, name="dense_rank")(features)
    return dense(n_outputs, dtype, out_dtype="float32", name="dense_out")(features)


class ResidualMLPHead(nn.Module):
    """The original's `advanced_mlp`: output(LN2(x + ff2(gelu(ff1(LN1(x)))))), with the exact (erf) GELU.

    It reads the last block's output *before* the final layer norm. The hidden layer is `n_inner` wide, as a block's; 0
    is four times the input.
    """

    n_outputs: int
    dtype: str = "float32"
    n_inner: int = 0
    rank: int = 0
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... O"]:
        """Map hidden states to outputs."""
        width = x.shape[-1]
        normed = nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="ln1")(x)
        inner = nn.gelu(dense(self.n_inner or 4 * width, self.dtype, name="ff1")(normed), approximate=False)
        residual = x + dense(width, self.dtype, name="ff2")(inner)
        norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, use_fast_variance=False, name="ln2")
        return finish(norm(residual), self.n_outputs, self.dtype, self.rank)


def dense(features: int, dtype: str, *, out_dtype: str = "", name: str) -> Dense:
    """Make a linear layer with torch's default initialisation of the weights, and zero bias."""
    return Dense(features, dtype, out_dtype, kernel_init=TORCH_UNIFORM, name=name)


def apply_features(head: nn.Module, params: dict, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
    """Compute a head's last features, the input of its output layer `dense_out`."""

    def skip_output(next_call, args, kwargs, context):
        if isinstance(context.module, (Dense, TiedOutput)) and context.module.name == "dense_out":
            return args[0]
        return next_call(*args, **kwargs)

    with nn.intercept_methods(skip_output):
        return head.apply({"params": params}, x)


def project(params: dict, features: Float[Array, "... F"]) -> Float[Array, "... O"]:
    """Apply a head's output layer to all outputs."""
    return project_each([params], [features])[0]


def project_each(heads: Sequence[dict], features: Sequence[Float[Array, "B ... F"]]) -> list[Float[Array, "B ... O"]]:
    """Apply the output layers of heads of one kind, each to its own features; tied ones read the embeddings once."""
    if "embedding" not in heads[0]:
        return [apply_dense(p["dense_out"], x, x.dtype, "float32") for p, x in zip(heads, features, strict=True)]
    own = jnp.concatenate([x[..., :-1] for x in features])
    values = jnp.split(compute_logits({"wte": heads[0]["embedding"]}, own), len(heads))
    shared = [x[..., -1:].astype(jnp.float32) for x in features]
    biases = [p["dense_out"]["bias"].reshape((1,) * (x.ndim - 1) + (-1,)) for p, x in zip(heads, features, strict=True)]
    return [value + u + b for value, u, b in zip(values, shared, biases, strict=True)]


def take_outputs(params: dict, features: Float[Array, "... F"], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """Apply a head's output layer to one output per position: a gathered column and a dot product."""
    if "embedding" in params:
        own, shared = features[..., :-1].astype(jnp.float32), features[..., -1].astype(jnp.float32)
        rows = params["embedding"][ids].astype(features.dtype)
        return jnp.sum(own * rows, axis=-1) + shared + params["dense_out"]["bias"][ids]
    columns = jnp.moveaxis(jnp.take(params["dense_out"]["kernel"], ids, axis=1), 0, -1)  # [... F]
    products = features.astype(jnp.float32) * columns.astype(features.dtype)  # of the numbers that `project` multiplies
    return jnp.sum(products, axis=-1) + params["dense_out"]["bias"][ids]
