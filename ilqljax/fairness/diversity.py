"""How far a shortlist's attribute distribution lies from a target: counts, targets, distances, score, noise floor.

Members whose attribute is unknown are counted apart and left out of every distribution. A distribution of nobody is
undefined (NaN).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.fairness.attributes import UNKNOWN
from ilqljax.fairness.statistics import Estimate, divide, split_draws
from ilqljax.types import Array

WORST_SCORE = -100.0


class CategoryCounts(NamedTuple):
    """Hold how many members of each shortlist are of each category, and how many are unknown."""

    counts: Int[Array, "... C"]
    n_unknown: Int[Array, "..."]


def count_categories(codes: Int[Array, "... k"], n_categories: int) -> CategoryCounts:
    """Count the categories of shortlists given as codes (-1 is unknown).

    Raises:
        UserError: a code is not between -1 and `n_categories - 1`.
    """
    codes = np.asarray(codes)
    if codes.size and not (codes.min() >= UNKNOWN and codes.max() < n_categories):
        raise UserError(
            f"Codes run from {codes.min()} to {codes.max()}, expected {UNKNOWN} (unknown) to {n_categories - 1}. "
            "Take the codes and the number of categories from the same attribute."
        )
    leading = codes.shape[:-1]
    n_rows = int(np.prod(leading, dtype=np.int64))
    n_bins = n_categories + 1  # bin 0 is unknown
    bins = np.arange(n_rows)[:, None] * n_bins + (codes.reshape(n_rows, codes.shape[-1]) + 1)
    counts = np.bincount(bins.ravel(), minlength=n_rows * n_bins).reshape(*leading, n_bins)
    return CategoryCounts(counts[..., 1:], counts[..., 0])


def normalize_counts(counts: Int[Array, "... C"]) -> Float[Array, "... C"]:
    """Return shares of the known members; NaN throughout where nobody is known."""
    counts = np.asarray(counts)
    return divide(counts, counts.sum(axis=-1, keepdims=True))


def pool_share(codes: Int[Array, "N"], n_categories: int) -> Float[Array, "C"]:
    """Return the target that mirrors the pool: the share of each category among its known members.

    Raises:
        UserError: nobody in the pool is known.
    """
    shares = normalize_counts(count_categories(codes, n_categories).counts)
    if np.isnan(shares).any() or not shares.size:
        raise UserError("The pool's share is undefined: no candidate declares this attribute. Use another attribute.")
    return shares


def uniform_target(n_categories: int) -> Float[Array, "C"]:
    """Return the target that gives every category the same share."""
    if n_categories < 1:
        raise UserError(f"A uniform target needs at least one category, got {n_categories}.")
    return np.full(n_categories, 1.0 / n_categories)


def fixed_target(shares: Mapping[str, float], categories: Sequence[str]) -> Float[Array, "C"]:
    """Return named shares in the order of the categories.

    Raises:
        UserError: a category lacks a share or is unknown, a share is negative, or they do not add up to 1.
    """
    if set(shares) != set(categories):
        raise UserError(
            f"The target names {sorted(shares)}, but the attribute's categories are {sorted(categories)}. "
            "Give every category a share (0 is allowed)."
        )
    target = np.array([shares[category] for category in categories], float)
    if not (target >= 0.0).all() or not abs(target.sum() - 1.0) <= 1e-6:
        raise UserError(f"The target's shares {dict(shares)} must not be negative and must add up to 1.")
    return target / target.sum()


def total_variation(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return half the sum of absolute differences: the share of members who would have to change category."""
    return 0.5 * np.abs(np.asarray(shares) - np.asarray(target)).sum(axis=-1)


def jensen_shannon(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return the Jensen-Shannon distance: the root of the divergence in bits, a metric from 0 to 1."""
    shares, target = np.asarray(shares, float), np.asarray(target, float)
    middle = 0.5 * (shares + target)
    nats = 0.5 * (scipy.special.rel_entr(shares, middle) + scipy.special.rel_entr(target, middle)).sum(axis=-1)
    return np.sqrt(np.maximum(nats, 0.0) / np.log(2.0))


def original_wasserstein(shares: Float[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return the number the original code computed, for comparison only (`compat="original"`).

    It passed the two *vectors of shares* to `scipy.stats.wasserstein_distance`, which takes them as two samples of
    numbers. For equally long samples that is the mean absolute difference of the sorted values, so which category holds
    which share is lost: (.8, .2) against (.2, .8) gives 0.
    """
    differences = np.sort(np.asarray(shares), axis=-1) - np.sort(np.asarray(target), axis=-1)
    return np.abs(differences).mean(axis=-1)


Distance = Callable[[Float[Array, "... C"], Float[Array, "... C"]], Float[Array, "..."] | float]

DISTANCES: dict[str, Distance] = {
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
    "original_wasserstein": original_wasserstein,
}


def get_distance(name: str) -> Distance:
    """Return a distance by its name in `DISTANCES`; another name raises a `UserError` that lists the known ones."""
    if name not in DISTANCES:
        raise UserError(f"Unknown distance '{name}'. Known: {', '.join(DISTANCES)}.")
    return DISTANCES[name]


def diversity_score(
    codes_of_topk: Int[Array, "... k"], target: Float[Array, "C"], *, distance: str = "total_variation"
) -> Float[Array, "..."] | float:
    """Score shortlists: -100 times the distance of their known members' distribution from the target.

    0 is best. A shortlist with no known member scores -100, the worst score, because nothing shows that it is diverse;
    its distribution is undefined, and anything milder would reward retrieving people who declare nothing.

    Raises:
        UserError: a code outside the target's categories, or an unknown distance.
    """
    target = np.asarray(target, float)
    return _score_counts(count_categories(codes_of_topk, target.shape[-1]).counts, target, distance=distance)


def _score_counts(
    counts: Int[Array, "... C"], target: Float[Array, "C"], *, distance: str
) -> Float[Array, "..."] | float:
    target = np.broadcast_to(target, counts.shape)
    scores = WORST_SCORE * get_distance(distance)(normalize_counts(counts), target)
    return np.where(counts.sum(axis=-1) > 0, scores, WORST_SCORE)


def noise_floor(
    target: Float[Array, "C"],
    k: int,
    *,
    pool: CategoryCounts,
    distance: str = "total_variation",
    seed: int = 0,
    n_draws: int = 10_000,
) -> Estimate:
    """Return the score that random shortlists get: its mean, and the range that holds 95 % of them.

    Even a matcher that ignores attributes does not score 0, because k people seldom have exactly the target's shares.
    Simulated, not exact: `n_draws` shortlists of k distinct candidates from the whole pool, unknown ones included
    (multivariate hypergeometric draws). With 50 members, a large half-and-half pool and the target (.5, .5) the mean
    total variation score is about -5.61.

    Args:
        target: the target distribution.
        k: members of a shortlist.
        pool: how many candidates of each category there are, and how many unknown.
        distance: a name in `DISTANCES`.
        seed: same seed, same draws.
        n_draws: number of simulated shortlists.

    Raises:
        UserError: k is not between 1 and the size of the pool, or an unknown distance.
    """
    target = np.asarray(target, float)
    colors = np.append(pool.counts, pool.n_unknown).astype(np.int64)
    if not 1 <= k <= colors.sum():
        raise UserError(
            f"A shortlist of k={k} cannot be drawn from {colors.sum()} candidates. Use 1 to {colors.sum()}."
        )
    rng = np.random.default_rng(seed)
    scores = np.concatenate(
        [
            _score_counts(
                rng.multivariate_hypergeometric(colors, k, size=size, method="marginals")[:, :-1],
                target,
                distance=distance,
            )
            for size in split_draws(n_draws, width=len(colors))
        ]
    )
    low, high = np.quantile(scores, (0.025, 0.975))
    return Estimate(scores.mean(), low, high)
