"""Gradients' norm and the order of a step's writes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.models.cpu import trick
from ilqljax.types import Array


@trick
def global_norm(tree: Any) -> Float[Array, ""]:
    """Compute the Euclidean norm over all leaves.

    Rows are summed first, behind a barrier: XLA made one windowed reduction of a gradient [1536, 50263] and the sum
    over it, which touched some 15 GB of fresh memory and took longer than the gradients themselves.
    """

    def sum_squares(x: Array) -> Float[Array, ""]:
        return jnp.sum(jax.lax.optimization_barrier(jnp.sum(jnp.square(x), axis=-1)))

    return jnp.sqrt(sum(sum_squares(jnp.atleast_1d(x)) for x in jax.tree.leaves(tree)))


@trick
def await_gradients(gradients: Any) -> Any:
    """Compare gradients with an infinite limit, which leaves them as they are.

    No update can then begin before all gradients are there, so that XLA writes new parameters and targets over the old
    ones instead of copying what some gradient might still read.
    """
    norm = global_norm(gradients)
    return jax.tree.map(lambda g: jnp.where(norm > jnp.inf, g / norm * jnp.inf, g), gradients)
