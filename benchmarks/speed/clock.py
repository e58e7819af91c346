"""Timing without jax, which the other side of a comparison does not load."""

import time
from collections.abc import Callable, Sequence
from statistics import median


def measure_seconds(function: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, least and greatest."""
    return median(values), min(values), max(values)
