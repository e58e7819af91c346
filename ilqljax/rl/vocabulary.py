"""The layer over the whole vocabulary, the widest of a small model: what losses need of it.

A loss needs two numbers of each row's scores [V]: the taken entry and the log of their normalizer. Scores exist for as
many rows at a time as `ilqljax.models.chunks.MAX_LOGITS` allows.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.models.chunks import Scores, reduce_scores, scan_vocabulary
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.cpu import vocabulary as on_cpu
from ilqljax.types import Array


def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, "V"] | None,
    ids: Int[Array, "N"],
    *,
    axis: int = 0,
    temperature: float = 1.0,
) -> Scores:
    """Compute scores = features @ kernel + bias, and of each row what `Scores` holds; sums are float32.

    Args:
        features: one row for each action.
        kernel: the layer's weights, rounded to the features' dtype for the products; its gradient stays in its own.
        bias: added to the scores.
        ids: the taken entry of each row.
        axis: of the kernel that is contracted; 1 for a language model's embedding as it lies.
        temperature: divides the scores of the normalizer.
    """
    if bias is None:
        bias = jnp.zeros(kernel.shape[1 - axis], jnp.float32)

    def score(x: Array, i: Array) -> Scores:
        return reduce_scores(multiply(axis, x, kernel) + bias[None], i, temperature=temperature)

    with jax.named_scope("vocabulary"):
        if use_cpu_tricks():
            return on_cpu.score_rows(features, kernel, bias, ids, axis, temperature)
        return scan_vocabulary(score, features, ids, vocab_size=len(bias))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def multiply(axis: int, x: Float[Array, "N F"], kernel: Float[Array, "F V"] | Float[Array, "V F"]) -> Array:
    """Multiply by a kernel whose `axis` is contracted, in the dtype of `x` with sums in float32, its gradient alike.

    JAX's own gradient would multiply float32 by float32, several times as slowly on an accelerator.
    """
    dimensions = (((1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, kernel.astype(x.dtype), dimensions, preferred_element_type=jnp.float32)


def _multiply_backward(axis: int, residuals: tuple[Array, Array], d_scores: Float[Array, "N V"]) -> tuple[Array, Array]:
    x, kernel = residuals
    d_scores = d_scores.astype(x.dtype)
    d_x = multiply(1 - axis, d_scores, kernel).astype(x.dtype)
    left, right = (x, d_scores) if axis == 0 else (d_scores, x)
    return d_x, jnp.matmul(left.T, right, preferred_element_type=jnp.float32).astype(kernel.dtype)


multiply.defvjp(lambda axis, x, kernel: (multiply(axis, x, kernel), (x, kernel)), _multiply_backward)
