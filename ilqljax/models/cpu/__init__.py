"""Everything that exists only because of how XLA compiles for a CPU, behind one switch.

The plain way of each computation stands where it belongs and asks `use_cpu_tricks` first; what is here computes the
same numbers up to rounding. On an accelerator none of it is traced. Why each trick exists, and what it gained, is in
docs/performance.md.

| module       | what XLA does on a CPU                                 | trick                                       |
|--------------|--------------------------------------------------------|---------------------------------------------|
| `products`   | multiplies half precision number by number, and few    | operands ordered and laid out for its fast  |
|              | rows, or over two axes, slowly                         | products, kernels transposed for acting     |
| `attention`  | computes the whole square of causal attention          | blocks of queries, with their own gradient  |
| `vocabulary` | sums over rows slowly, refuses half-precision products | a hand-written gradient of the widest layer |
| `decoding`   | copies layers and caches at every token, is slow to    | layers and caches with arrays of their own, |
|              | find the largest of a row                              | draws in two passes                         |
| `updates`    | sums gradients in windows, copies parameters           | sums by row, updates after all gradients    |
| `allocator`  | takes and gives back gigabytes at every step           | huge pages                                  |
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P, R = ParamSpec("P"), TypeVar("R")

SCOPE = "cpu_tricks"
TRICKS: set[str] = set()  # names of all functions that `trick` marks

# A part of the key of everything that JAX traces and compiles, so no program outlives a change of it.
_platform = jax.make_user_context("")


def compile_for(platform: str) -> AbstractContextManager:
    """Trace programs for a platform, "cpu", "gpu" or "tpu", whatever the default one is; to lower for it from here."""
    return _platform(platform)


def find_platform() -> str:
    """Return the platform that programs are traced for: that of `compile_for`, else JAX's default one."""
    return _platform.value or jax.default_backend()


def use_cpu_tricks() -> bool:
    """Tell whether programs are traced for a CPU. This is the switch."""
    return find_platform() == "cpu"


def trick(function: Callable[P, R]) -> Callable[P, R]:
    """Name what a function computes `cpu_tricks/NAME` in lowered programs, where a test looks for it."""
    TRICKS.add(function.__name__)

    @wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.named_scope(f"{SCOPE}/{function.__name__}"):
            return function(*args, **kwargs)

    return named
