"""The layer over the whole vocabulary, the widest of a small model: what losses need of it.

A loss needs two numbers of each row's scores [V]: the taken entry and the log of their normalizer. Scores exist for as
many rows at a time as `ilqljax.models.chunks.MAX_LOGITS` allows.
"""

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
        # Rounded in each chunk, so that chunks' gradients of the kernel are added up in its own dtype.
        weights = (kernel if axis == 0 else kernel.T).astype(x.dtype)
        scores = jnp.matmul(x, weights, preferred_element_type=jnp.float32) + bias[None]
        return reduce_scores(scores, i, temperature=temperature)

    with jax.named_scope("vocabulary"):
        if use_cpu_tricks():
            return on_cpu.score_rows(features, kernel, bias, ids, axis, temperature)
        return scan_vocabulary(score, features, ids, vocab_size=len(bias))
