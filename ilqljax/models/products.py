"""Matrix products in the shape that a CPU's compiler does well."""

import jax
from jaxtyping import Float

from ilqljax.types import Array


def multiply_rows(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dimension_numbers: tuple, **options: object
) -> Float[Array, "*B F"]:
    """Multiply by a kernel as one product of two matrices; for flax's `Dense(dot_general=...)`.

    The values are `Dense`'s own. What differs is the gradient of the kernel: over x [B T D] it would contract two axes
    at once, which XLA on a CPU does at 0.4 times the rate of the same product over rows [BT D].
    """
    rows = x.reshape(-1, x.shape[-1])
    out = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])
