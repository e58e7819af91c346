"""What the machine itself can do, measured in the same run as the items: rates of products and of reading memory.

`python -m benchmarks.speed.machine DTYPE` prints them as JSON; a process of its own gives its memory back.
"""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.speed.clock import measure_seconds
from ilqljax.data.types import Array
from ilqljax.models.cpu.products import cut_kernels
from ilqljax.models.dense import apply_dense

KERNEL = (768, 3072)  # of GPT-2 small's MLP
ROWS = (1, 8, 32)


def measure_product_rate(*, dtype: str = "float32") -> float:
    """Return the best rate of a chain of square matrix products, in operations a second.

    On an accelerator the products are large and many, so that starting them takes no share of the time.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, n = (2048, 1) if on_cpu else (8192, 20)
    x, sums = jnp.ones((size, size), dtype), jnp.float32 if on_cpu else dtype  # see `ilqljax.models.cpu.products`

    def step(_: int, product: Array, b: Array) -> Array:
        return jnp.matmul(product, b, preferred_element_type=sums).astype(dtype)

    multiply = jax.jit(lambda a, b: jax.lax.fori_loop(0, n, partial(step, b=b), a))
    multiply(x, x).block_until_ready()
    return n * 2.0 * size**3 / min(measure_seconds(lambda: multiply(x, x).block_until_ready()) for _ in range(8))


def measure_bandwidth(*, repeats: int = 8) -> float:
    """Return the best rate of reading memory, in bytes a second, by the product of a large matrix with a vector.

    That is what a decoding step does with its parameters. A copy into fresh memory would measure page faults instead.
    """
    n_bytes, width = 1 << (29 if jax.default_backend() == "cpu" else 32), 4096
    matrix, vector = jnp.ones((n_bytes // (4 * width), width), jnp.float32), jnp.ones(width, jnp.float32)
    multiply = jax.jit(jnp.dot)
    multiply(matrix, vector).block_until_ready()
    return n_bytes / min(measure_seconds(lambda: multiply(matrix, vector).block_until_ready()) for _ in range(repeats))


def measure_kernel_rate(rows: int, *, dtype: str = "float32", repeats: int = 4) -> float:
    """Return the best rate of reading GPT-2's kernels by products with so many rows, in bytes a second.

    Kernels lie as acting lays them out (`ilqljax.models.cpu.products.cut_kernels`). This is what bounds a
    decoding step built of XLA's products, whatever the memory could give.
    """
    n = 48  # half a gigabyte in float32: more than any cache holds
    # Arrays of their own: a stack would be copied from.
    layers = [cut_kernels({"kernel": jnp.full(KERNEL, 1e-6, dtype), "bias": jnp.zeros(KERNEL[1])}) for _ in range(n)]

    @jax.jit
    def multiply(x, layers):
        for layer in layers:  # each product waits for the one before it, as the layers of a model do
            x += apply_dense(layer, x, dtype)[:, : KERNEL[0]]
        return x

    x = jnp.ones((rows, KERNEL[0]), dtype)
    multiply(x, layers).block_until_ready()
    n_bytes = n * layers[0]["kernel_blocks"].nbytes
    return n_bytes / min(measure_seconds(lambda: multiply(x, layers).block_until_ready()) for _ in range(repeats))


if __name__ == "__main__":
    limits = {"product_rate": measure_product_rate(dtype=sys.argv[1]), "bandwidth": measure_bandwidth()}
    limits |= {"kernel_rates": {rows: measure_kernel_rate(rows, dtype=sys.argv[1]) for rows in ROWS}}
    sys.stdout.write(json.dumps(limits) + "\n")
