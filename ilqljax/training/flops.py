"""How much arithmetic a compiled function does: the matrix products in its trace, counted without running it."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def count_product_flops(function: Callable, *args: Any) -> float:
    """Count the operations of all matrix products in a function: a multiply-add is two, loops count every round.

    Everything in the trace counts, also what is masked away or computed a second time to save memory; what lies inside
    a device's own kernels (cuDNN's attention) does not. Of a condition, the dearest branch counts; of a loop
    without a known number of rounds, one round.

    Args:
        function: traced, not run. A jitted function keeps the trace for its first call.
        args: arrays, or `jax.ShapeDtypeStruct`s.
    """
    traced = function if hasattr(function, "trace") else jax.jit(function)
    return _count(traced.trace(*args).jaxpr.jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            shared = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * shared * math.prod(equation.outvars[0].aval.shape)
            continue
        inner = [_count(j) for j in _find_jaxprs(params)]
        if name == "cond":
            total += max(inner, default=0.0)
        else:
            total += params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)
    return total


def _find_jaxprs(params: dict[str, Any]) -> list[core.Jaxpr]:
    """List the traces among an equation's parameters, alone or in tuples; rules for derivatives are functions, not
    traces, and do not count.
    """
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
