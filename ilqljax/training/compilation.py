"""Compilation: the persistent cache, a count of compilations, and how much arithmetic a compiled function does."""

import math
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params

from ilqljax.data.files import find_cache

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompilationCounter:
    """Count all compilations of this process while it is open, and their seconds; also those read from the cache.

    A step that compiles again in the middle of a run (a batch of another shape) shows in the metrics by it.
    """

    def __init__(self) -> None:
        self.n, self.seconds = 0, 0.0

    def __enter__(self) -> "CompilationCounter":
        jax.monitoring.register_event_duration_secs_listener(self._count)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._count)

    def _count(self, event: str, seconds: float, **_: object) -> None:
        if event == COMPILE_EVENT:
            self.n += 1
            self.seconds += seconds

    def read(self) -> dict[str, float]:
        """Return the counts since the last reading, and begin again; nothing where nothing was compiled."""
        found = {"compilations": float(self.n), "compile_seconds": self.seconds} if self.n else {}
        self.n, self.seconds = 0, 0.0
        return found


def enable_compilation_cache() -> None:
    """Keep compiled programs in `~/.cache/ilqljax/xla`, unless JAX_COMPILATION_CACHE_DIR names another place.

    Programs are keyed by their content, the devices and the versions, so a stale one is never used. For the
    command-line programs only: a library leaves its user's process alone.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(find_cache("xla")))


def count_product_flops(function: Callable, *args: Any) -> float:
    """Count the operations of all matrix products in a function: a multiply-add is two, loops count every round.

    Everything in the trace counts, also what is masked away or computed a second time to save memory; what lies inside
    a device's own kernels (cuDNN's attention) does not. Of a condition, the dearest branch counts; of a loop
    without a known number of rounds, one round. The function is traced, not run; a jitted one keeps the trace for its
    first call.
    """
    traced = function if hasattr(function, "trace") else jax.jit(function)
    return _count_products(traced.trace(*args).jaxpr.jaxpr)


def _count_products(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [_count_products(each) for each in jaxprs_in_params(params)]
        if name == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            shared = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * shared * math.prod(equation.outvars[0].aval.shape)
        elif name == "cond":
            total += max(inner, default=0.0)
        else:
            total += params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)
    return total
