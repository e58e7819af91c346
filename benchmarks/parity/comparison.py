"""One compared quantity, and how arrays and trees of arrays are compared."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

TOLERANCE = 1e-4
TOLERANCE_AFTER_STEPS = 1e-3
# Arrays of dead gradients hold rounding noise only: errors below this are no errors.
NOISE = 1e-7
KEY_BIASES = "key biases left out: their gradient is zero in exact arithmetic"


class Comparison(NamedTuple):
    """One quantity's largest error, relative to the original array's largest value.

    An error of None says that nothing was compared, for the reason in `note`.
    """

    case: str
    quantity: str
    error: float | None
    tolerance: float = TOLERANCE
    note: str = ""

    @property
    def compared(self) -> bool:
        """Whether there is an error to judge."""
        return self.error is not None

    @property
    def ok(self) -> bool:
        """Whether the numbers agree, or could not be compared for the reason in `note`."""
        return self.error is None or self.error <= self.tolerance


def relative_error(ours: Any, theirs: Any, *, mask: Bool[np.ndarray, "..."] | None = None) -> float:
    """Return the largest difference over the largest finite expected value, where `mask` is true.

    A wrong shape, a NaN, and an infinity that the other side does not have are infinitely wrong.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    if mask is not None:
        ours, theirs = ours[mask], theirs[mask]
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite]) or not np.isfinite(ours[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(ours[finite] - theirs[finite]).max()) / largest(theirs[finite])


def largest(values: np.ndarray) -> float:
    """Return the largest magnitude, at least `NOISE`."""
    return max(float(np.abs(values).max()), NOISE)


def compare_texts(case: str, quantity: str, ours: list, theirs: list) -> Comparison:
    """Compare texts: equal, or infinitely wrong with the first difference in the note."""
    if ours == theirs:
        return Comparison(case, quantity, 0.0)
    first = next((f"{a!r} instead of {b!r}" for a, b in zip(ours, theirs, strict=False) if a != b), "")
    return Comparison(case, quantity, float("inf"), note=first or f"{len(ours)} instead of {len(theirs)}")


def compare_trees(case: str, what: str, ours: dict, expected: dict, *, tolerance: float) -> Iterator[Comparison]:
    """Compare two trees and report one row per top-level entry: its worst array.

    The key part of `c_attn`'s bias is left out: its gradient is zero in exact arithmetic (softmax ignores what is
    added to all scores of a query), and AdamW turns rounding noise of any size into full steps.
    """
    for name in sorted(expected):
        worst, note = 0.0, ""
        theirs = dict(jax.tree_util.tree_leaves_with_path(expected[name]))
        for path, value in jax.tree_util.tree_leaves_with_path(ours[name]):
            a, b = np.asarray(value), np.asarray(theirs[path])
            if [key.key for key in path][-2:] == ["c_attn", "bias"]:
                a, b = drop_keys(a), drop_keys(b)
                note = KEY_BIASES
            worst = max(worst, relative_error(a, b))
        yield Comparison(case, f"{what}/{name}", worst, tolerance, note)


def drop_keys(bias: np.ndarray) -> np.ndarray:
    """Drop the middle third of the last axis, the keys' part of a joint query, key and value bias."""
    third = bias.shape[-1] // 3
    return np.delete(bias, np.s_[third : 2 * third], axis=-1)


def select(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Pick the arrays under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
