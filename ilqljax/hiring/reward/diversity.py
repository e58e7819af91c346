"""How far a shortlist's attribute distribution lies from a target: counts, shares, score and noise floor.

Members whose attribute is unknown are counted apart and left out of every distribution. A distribution of nobody is
undefined (NaN).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Float, Int, Num

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import UNKNOWN
from ilqljax.hiring.matching.matcher import check_k
from ilqljax.hiring.reward.distances import Distance, total_variation
from ilqljax.hiring.statistics import Estimate, divide, split_draws


class CategoryCounts(NamedTuple):
    """Hold how many members of each shortlist are of each category, and how many are unknown."""

    counts: Int[Array, "... C"]
    n_unknown: Int[Array, "..."]


def count_categories(codes: Int[Array, "... k"], n_categories: int) -> CategoryCounts:
    """Count the categories of shortlists given as codes (-1 is unknown); others raise a `UserError`."""
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


def normalize_counts(counts: Num[Array, "... C"]) -> Float[Array, "... C"]:
    """Return shares of the known members; NaN throughout where nobody is known."""
    counts = np.asarray(counts)
    return divide(counts, counts.sum(axis=-1, keepdims=True))


def pool_share(codes: Int[Array, "..."], n_categories: int) -> Float[Array, " C"]:
    """Return the share of each category among all known members; NaN throughout where nobody is known."""
    return normalize_counts(count_categories(np.ravel(codes), n_categories).counts)


def fixed_target(shares: Mapping[str, float], categories: Sequence[str]) -> Float[Array, " C"]:
    """Return named shares in the order of the categories; they must name each category and add up to 1."""
    if set(shares) != set(categories):
        raise UserError(
            f"The target names {sorted(shares)}, but the attribute's categories are {sorted(categories)}. "
            "Give every category a share (0 is allowed)."
        )
    target = np.array([shares[category] for category in categories], float)
    if not (target >= 0.0).all() or not abs(target.sum() - 1.0) <= 1e-6:
        raise UserError(f"The target's shares {dict(shares)} must not be negative and must add up to 1.")
    return target / target.sum()


def exposure_weights(k: int) -> Float[Array, " k"]:
    """Return the attention that each rank of a list gets, 1 / log2(1 + rank): 1, 0.63, 0.5, ... (Singh & Joachims)."""
    return 1.0 / np.log2(2.0 + np.arange(k))


def weigh_categories(
    codes: Int[Array, "... k"], n_categories: int, *, weights: Float[Array, " k"]
) -> Float[Array, "... C"]:
    """Return the weight that each category's members hold together, by their place in the list; unknown ones apart."""
    codes = np.asarray(codes)
    return np.stack([(codes == category) @ weights for category in range(n_categories)], axis=-1)


def diversity_score(
    codes_of_topk: Int[Array, "... k"],
    target: Float[Array, "... C"],
    *,
    distance: Distance = total_variation,
    weights: Float[Array, " k"] | None = None,
) -> Float[Array, "..."] | float:
    """Score shortlists: -100 times the distance of their known members' distribution from the target.

    0 is best. A shortlist with no known member gets the worst score, -100 (or less, where the distance from the target
    can exceed 1): anything milder would reward retrieving people who declare nothing.

    The target is one distribution for all, or one a shortlist. `weights` are of the places in the list, best first
    (`exposure_weights`); without, all members count the same. A code outside the target's categories raises a
    `UserError`.
    """
    target = np.asarray(target, float)
    counts = count_categories(codes_of_topk, target.shape[-1]).counts
    if weights is not None:
        counts = weigh_categories(codes_of_topk, target.shape[-1], weights=weights)
    return _score_counts(counts, target, distance=distance)


def _score_counts(
    counts: Num[Array, "... C"], target: Float[Array, "... C"], *, distance: Distance
) -> Float[Array, "..."] | float:
    # Distances are convex, so the farthest distribution from a target is all of one category.
    worst = -100.0 * distance(np.eye(target.shape[-1]), target[..., None, :]).max(axis=-1, initial=1.0)
    target = np.broadcast_to(target, counts.shape)
    scores = -100.0 * distance(normalize_counts(counts), target)
    return np.where(counts.sum(axis=-1) > 0, scores, worst)


def noise_floor(
    target: Float[Array, " C"],
    k: int,
    *,
    pool: CategoryCounts,
    distance: Distance = total_variation,
    weights: Float[Array, " k"] | None = None,
    seed: int = 0,
    n_draws: int = 10_000,
) -> Estimate:
    """Return the score that random shortlists get: its mean, and the range that holds 95 % of them.

    Even a matcher that ignores attributes does not score 0, because k people seldom have exactly the target's shares.
    Simulated, not exact (`exact_noise_floor` is): `n_draws` shortlists of k distinct candidates from the whole pool,
    unknown ones included (multivariate hypergeometric draws). With 50 members, a large half-and-half pool and the
    target (.5, .5) the mean total variation score is about -5.61.

    A k that is not between 1 and the size of the pool raises a `UserError`.
    """
    target = np.asarray(target, float)
    colors = check_draw(k, pool=pool)
    rng = np.random.default_rng(seed)
    scores = np.concatenate(
        [
            _score_counts(_draw_masses(rng, colors, k, size=size, weights=weights), target, distance=distance)
            for size in split_draws(n_draws, width=len(colors) if weights is None else k * len(colors))
        ]
    )
    low, high = np.quantile(scores, (0.025, 0.975))
    return Estimate(scores.mean(), low, high)


def _draw_masses(
    rng: np.random.Generator, colors: Int[Array, " C1"], k: int, *, size: int, weights: Float[Array, " k"] | None
) -> Num[Array, "R C1-1"]:
    if weights is None:
        return rng.multivariate_hypergeometric(colors, k, size=size, method="marginals")[:, :-1]
    return weigh_categories(draw_codes(rng, colors, k, size=size), len(colors) - 1, weights=weights)


def draw_codes(rng: np.random.Generator, colors: Int[Array, " C1"], k: int, *, size: int) -> Int[Array, "R k"]:
    """Draw lists of k distinct members of a pool (`check_draw`), in a random order."""
    counts = rng.multivariate_hypergeometric(colors, k, size=size, method="marginals")
    codes = np.tile(np.append(np.arange(len(colors) - 1), UNKNOWN), size)
    return rng.permuted(np.repeat(codes, counts.ravel()).reshape(size, k), axis=1)


def check_draw(k: int, *, pool: CategoryCounts) -> Int[Array, " C1"]:
    """Return the pool's counts, unknown last, or raise a `UserError` if k members cannot be drawn from it."""
    colors = np.append(pool.counts, pool.n_unknown).astype(np.int64)
    check_k(k, n_candidates=colors.sum())
    return colors


def exact_noise_floor(target: Float[Array, " C"], k: int, *, pool: CategoryCounts) -> float:
    """Return the mean total-variation score of random shortlists, exactly.

    The number n of known members is hypergeometric, and so is each category's count given n; total variation is a sum
    over categories, so its mean needs no joint law: E = sum_n P(n) sum_c E|x_c / n - target_c| / 2. A shortlist of
    nobody known scores -100, as in `diversity_score`.
    """
    mean = 0.0
    for n, chance, x, p in list_draws(k, pool=pool):
        mean += chance * (0.5 * (p * np.abs(x / n - target)).sum() if n else 1.0)
    return -100.0 * float(mean)


def list_draws(k: int, *, pool: CategoryCounts) -> Iterator[tuple[int, float, Int[Array, "x 1"], Float[Array, "x C"]]]:
    """Yield each number n of known members among k drawn, its probability, and those of each category's count x."""
    colors = check_draw(k, pool=pool)
    known = int(colors[:-1].sum())
    sizes = np.arange(max(0, k - int(colors[-1])), min(k, known) + 1)
    chances = scipy.stats.hypergeom(int(colors.sum()), known, k).pmf(sizes)
    for n, chance in zip(sizes, chances, strict=True):
        x = np.arange(n + 1)[:, None]
        yield n, chance, x, scipy.stats.hypergeom(known, colors[:-1], n).pmf(x)
