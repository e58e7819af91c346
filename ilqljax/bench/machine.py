"""What the machine itself can do, measured in the same run as the items: rate of products, and memory traffic.

`python -m ilqljax.bench.machine [DTYPE]` prints both as JSON; a process of its own gives its memory back.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np


def measure_product_rate(*, size: int = 2048, repeats: int = 8, dtype: str = "float32") -> float:
    """Return the best rate of a square matrix product, in operations a second."""
    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(x, x).block_until_ready()
    return 2.0 * size**3 / min(measure_seconds(lambda: multiply(x, x).block_until_ready()) for _ in range(repeats))


def measure_bandwidth(*, n_bytes: int = 1 << 29, repeats: int = 5) -> float:
    """Return the best rate of a copy, in bytes a second, read and written bytes both counted."""
    x = jnp.ones(n_bytes // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    copy(x).block_until_ready()
    return 2.0 * n_bytes / min(measure_seconds(lambda: copy(x).block_until_ready()) for _ in range(repeats))


def measure_seconds(function) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return median, least and greatest."""
    return float(np.median(values)), min(values), max(values)


if __name__ == "__main__":
    limits = {"product_rate": measure_product_rate(dtype=sys.argv[1]), "bandwidth": measure_bandwidth()}
    sys.stdout.write(json.dumps(limits) + "\n")
