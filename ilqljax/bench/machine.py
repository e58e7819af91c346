"""What the machine itself can do, measured in the same run as the items: rate of products, and memory traffic.

`python -m ilqljax.bench.machine DTYPE` prints both as JSON; a process of its own gives its memory back.
"""

import json
import sys

import jax
import jax.numpy as jnp

from ilqljax.bench.clock import measure_seconds


def measure_product_rate(*, dtype: str = "float32") -> float:
    """Return the best rate of a chain of square matrix products, in operations a second.

    On an accelerator the products are large and many, so that starting them takes no share of the time.
    """
    size, n = (2048, 1) if jax.default_backend() == "cpu" else (8192, 20)
    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a, b: jax.lax.fori_loop(0, n, lambda _, product: product @ b, a))
    multiply(x, x).block_until_ready()
    return n * 2.0 * size**3 / min(measure_seconds(lambda: multiply(x, x).block_until_ready()) for _ in range(8))


def measure_bandwidth(*, n_bytes: int = 1 << 29, repeats: int = 5) -> float:
    """Return the best rate of a copy, in bytes a second, read and written bytes both counted."""
    x = jnp.ones(n_bytes // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    copy(x).block_until_ready()
    return 2.0 * n_bytes / min(measure_seconds(lambda: copy(x).block_until_ready()) for _ in range(repeats))


if __name__ == "__main__":
    limits = {"product_rate": measure_product_rate(dtype=sys.argv[1]), "bandwidth": measure_bandwidth()}
    sys.stdout.write(json.dumps(limits) + "\n")
