"""Value heads over hidden states, split where it pays: features, and their product with an output matrix.

The split is what keeps the vocabulary cheap. A target Q needs Q(s, a) alone, so `take_outputs` gathers the taken
action's column and takes a dot product; only losses over all actions multiply by the whole matrix, chunk by chunk.

Products are of numbers of a head's `dtype`, the trunk's; outputs, the values, are float32 sums of them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.models.dense import Dense, apply_dense

# torch's default for a linear layer's weights: +-1 / sqrt(inputs).
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MLPHead(nn.Module):
    """Linear(D, 2D), ReLU, Linear(2D, n_outputs), as in the original."""

    n_outputs: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... O"]:
        """Map hidden states to outputs."""
        features = nn.relu(dense(2 * x.shape[-1], self.dtype, name="dense_in")(x))
        return dense(self.n_outputs, self.dtype, out_dtype="float32", name="dense_out")(features)


class ResidualMLPHead(nn.Module):
    """The original's `advanced_mlp`: output(LN2(x + ff2(gelu(ff1(LN1(x)))))), with the exact (erf) GELU.

    It reads the last block's output *before* the final layer norm. The hidden layer is `n_inner` wide, as a block's; 0
    is four times the input.
    """

    n_outputs: int
    dtype: str = "float32"
    n_inner: int = 0
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... O"]:
        """Map hidden states to outputs."""
        width = x.shape[-1]
        normed = nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="ln1")(x)
        inner = nn.gelu(dense(self.n_inner or 4 * width, self.dtype, name="ff1")(normed), approximate=False)
        residual = x + dense(width, self.dtype, name="ff2")(inner)
        norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, use_fast_variance=False, name="ln2")
        return dense(self.n_outputs, self.dtype, out_dtype="float32", name="dense_out")(norm(residual))


def dense(features: int, dtype: str, *, out_dtype: str = "", name: str) -> Dense:
    """Make a linear layer with torch's default initialisation of the weights, and zero bias."""
    return Dense(features, dtype, out_dtype, kernel_init=TORCH_UNIFORM, name=name)


def apply_features(head: nn.Module, params: dict, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
    """Compute a head's last features, the input of its output layer `dense_out`."""

    def skip_output(next_call, args, kwargs, context):
        if isinstance(context.module, Dense) and context.module.name == "dense_out":
            return args[0]
        return next_call(*args, **kwargs)

    with nn.intercept_methods(skip_output):
        return head.apply({"params": params}, x)


def project(params: dict, features: Float[Array, "... F"]) -> Float[Array, "... O"]:
    """Apply a head's output layer to all outputs."""
    return apply_dense(params["dense_out"], features, features.dtype, "float32")


def take_outputs(params: dict, features: Float[Array, "... F"], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """Apply a head's output layer to one output per position: a gathered column and a dot product."""
    columns = jnp.moveaxis(jnp.take(params["dense_out"]["kernel"], ids, axis=1), 0, -1)  # [... F]
    products = features.astype(jnp.float32) * columns.astype(features.dtype)  # of the numbers that `project` multiplies
    return jnp.sum(products, axis=-1) + params["dense_out"]["bias"][ids]
