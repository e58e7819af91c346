"""Everything that exists only because of how XLA compiles for a CPU, behind one switch.

The plain way of each computation stands where it belongs and asks `use_cpu_tricks` first; what is here computes the
same numbers up to rounding. On an accelerator none of it is traced. Why each trick exists, and what it gained, is in
docs/performance.md.

| module       | what XLA does on a CPU                                 | trick                                       |
|--------------|--------------------------------------------------------|---------------------------------------------|
| `products`   | multiplies half precision number by number, and few    | operands ordered and laid out for its fast  |
|              | rows, or over two axes, slowly                         | products, kernels in blocks for acting       |
|              | stacks all that a backward pass over a stack of layers | the products alone, and the rest again       |
|              | reads                                                  |                                             |
|              | sums over rows slowly, refuses half-precision products | a hand-written gradient of the widest layer |
| `attention`  | computes the whole square of causal attention          | blocks of queries, with their own gradient  |
| `decoding`   | copies layers and caches at every token, is slow to    | layers and caches with arrays of their own, |
|              | find the largest of a row                              | draws in two passes                         |
| here         | sums gradients in windows, copies parameters           | sums by row, updates after all gradients    |
|              | takes and gives back gigabytes at every step           | huge pages                                  |
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.data.types import Array

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


def restart_with_huge_pages() -> None:
    """Start this process again, once, with an allocator that asks the kernel for huge pages where it has to be asked.

    XLA takes gigabytes from the allocator at every step on a CPU and gives them back; a page fault for each 4 KiB of
    them cost a GPT-2-small step a sixth of its time. glibc reads the setting when a process starts, and not later. To
    be called before anything else, by a program that owns its process; GLIBC_TUNABLES in the environment keeps it from
    doing anything. It cannot ask which platform there will be, because several processes must find each other before
    JAX is asked for a device; with an accelerator the setting is of no use and does no harm.
    """
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if "GLIBC_TUNABLES" in os.environ or not setting.is_file() or "[madvise]" not in setting.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)
