"""How categories are spread over the places of a ranked list: skew, NDKL and exposure, and what chance gives.

Sources: skew@k, MinSkew, MaxSkew and NDKL from Geyik, Ambler and Kenthapadi, "Fairness-Aware Ranking in Search &
Recommendation Systems" (KDD 2019, arXiv 1905.01989); exposure from Singh and Joachims, "Fairness of Exposure in
Rankings" (KDD 2018, arXiv 1802.07281).

**Smoothing.** ln 0 is minus infinity, and a category absent from ten places is nothing unusual. The share in a skew is
(n + s * target) / (k + s) with s = `SMOOTHING` = 1: one more member, split as the target is, so a list that equals the
target has a skew of exactly 0. NDKL needs no smoothing as long as every category has a target above 0: a category of
target 0 with members would make it infinite, and is refused.

**Unknown** members keep their place but belong to no category: k above, and the prefixes of NDKL, count known members
only. **Chance**: none of these numbers is neutral at 0 or 1 by itself except exposure against the pool's share; the
functions `expected_*` give the value of a random order, exact where it says so, otherwise simulated.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.audit.rates import Row
from ilqljax.hiring.reward.diversity import (
    CategoryCounts,
    check_draw,
    count_categories,
    draw_codes,
    exposure_weights,
    list_draws,
    normalize_counts,
    weigh_categories,
)
from ilqljax.hiring.reward.scores import ScoreTerm, codes_or_unknown
from ilqljax.hiring.statistics import UNDEFINED, bootstrap_mean, divide, mean_of_defined, split_draws

SMOOTHING = 1.0


def tabulate_ranking(
    lists: Mapping[str, Int[Array, "G k"]],
    term: ScoreTerm,
    targets: Float[Array, "G C"],
    *,
    n_selected: int,
    seed: int,
) -> tuple[list[Row], dict[str, Any]]:
    """Return a row a category (skew at the selected and at the whole list, exposure), and the measures of whole lists.

    Numbers are means over postings, each beside the value that a random order has. The ends of intervals resample
    postings. The lists are row numbers of candidates by phase, best first, below 0 for nobody.
    """
    codes = {phase: codes_or_unknown(term.attribute.codes, indices) for phase, indices in lists.items()}
    distinct, repeats = np.unique(targets.round(12), axis=0, return_counts=True)
    k, pool = next(iter(codes.values())).shape[1], term.pool
    draws = {"pool": pool, "seed": seed, "n_draws": max(200, 4000 // len(distinct))}

    def average(expect: Callable[[Float[Array, " C"]], Any]) -> Float[Array, "..."]:
        return np.average([expect(target) for target in distinct], axis=0, weights=repeats)

    columns = {
        f"expected_skew_{at}": average(lambda q, at=at: expected_skew(q, at, pool=pool)) for at in (n_selected, k)
    }
    columns["expected_exposure"] = average(lambda q: divide(normalize_counts(pool.counts), q))
    lowest, highest = average(lambda q: expected_skew_range(q, n_selected, **draws)).tolist()
    has_ndkl = bool((targets > 0.0).all())
    measures: dict[str, Any] = {
        "expected_min_skew": lowest,
        "expected_max_skew": highest,
        "expected_ndkl": float(average(lambda q: expected_ndkl(q, k, **draws))) if has_ndkl else math.nan,
    }
    for phase, of_phase in codes.items():
        for at in (n_selected, k):
            columns[f"skew_{at}_{phase}"] = mean_of_defined(skew(of_phase, targets, at))
        columns[f"exposure_{phase}"] = mean_of_defined(exposure_ratio(of_phase, targets))
        found = dict(zip(("min_skew", "max_skew"), skew_range(skew(of_phase, targets, n_selected)), strict=True))
        found["ndkl"] = ndkl(of_phase, targets) if has_ndkl else np.full(len(targets), math.nan)
        measures[phase] = {}
        for name, values in found.items():
            defined = values[np.isfinite(values)]
            mean = bootstrap_mean(defined, seed=seed, n_resamples=2000) if len(defined) else UNDEFINED
            measures[phase] |= mean.drop_empty().spread(name)
    return tabulate_columns(term.attribute.categories, columns), measures


def tabulate_columns(categories: Sequence[str], columns: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return a row a category of columns of numbers."""
    return [
        {"category": category} | {name: float(values[c]) for name, values in columns.items()}
        for c, category in enumerate(categories)
    ]


def skew(codes: Int[Array, "... n"], target: Float[Array, "... C"], k: int) -> Float[Array, "... C"]:
    """Return each category's skew@k: ln(share among the first k / target share), smoothed (module docstring).

    0 is the target's share, ln 2 = 0.69 twice it, -ln 2 half of it. Undefined (NaN) where the target share is 0, or
    where nobody known is among the first k: smoothing alone would make an empty list equal its target. A k beyond the
    list raises a `UserError`.
    """
    codes, target = np.asarray(codes), np.asarray(target, float)
    if not 1 <= k <= codes.shape[-1]:
        raise UserError(f"skew@{k} of a list of {codes.shape[-1]}: use a k from 1 to {codes.shape[-1]}.")
    return skew_of_counts(count_categories(codes[..., :k], target.shape[-1]).counts, target)


def skew_of_counts(counts: Int[Array, "... C"], target: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """Return each category's skew from its count among the members of known category; NaN without any."""
    target = np.where(target > 0.0, target, np.nan)
    known = counts.sum(axis=-1, keepdims=True)
    return np.log(divide(counts + SMOOTHING * target, np.where(known > 0, known + SMOOTHING, np.nan)) / target)


def skew_range(skews: Float[Array, "... C"]) -> tuple[Float[Array, "..."] | float, Float[Array, "..."] | float]:
    """Return MinSkew and MaxSkew, over the categories whose skew is defined; NaN if none is.

    They say how far the worst treated and the favoured category are from the target.
    """
    return np.fmin.reduce(skews, axis=-1), np.fmax.reduce(skews, axis=-1)


def ndkl(codes: Int[Array, "... n"], target: Float[Array, "... C"]) -> Float[Array, "..."] | float:
    """Return NDKL: (1 / Z) sum_i KL(shares of the first i || target) / log2(i + 1), with Z = sum_i 1 / log2(i + 1).

    In nats, 0 if every prefix has the target's shares. Worked, with the target (.5, .5):

    | list | KL of prefixes 1, 2        | weights 1, 1/log2(3) | NDKL                          |
    |------|----------------------------|----------------------|-------------------------------|
    | a b  | ln 2, 0                    | 1, 0.631             | 0.693 / 1.631 = 0.425         |
    | a a  | ln 2, ln 2                 | 1, 0.631             | 0.693                         |
    | ? a  | (nobody known yet), ln 2   | -, 0.631             | 0.693: prefix 1 is left out   |

    A category of target 0 that has members raises a `UserError`.
    """
    codes, target = np.asarray(codes), np.asarray(target, float)
    members = codes[..., None] == np.arange(target.shape[-1])  # [... n C]
    if (members.any(axis=-2) & (target == 0.0)).any():
        raise UserError("NDKL is infinite: a category with a target share of 0 has members. Give it a share above 0.")
    shares = normalize_counts(members.cumsum(axis=-2))
    divergence = scipy.special.rel_entr(shares, target[..., None, :]).sum(axis=-1)  # [... n]
    known = ~np.isnan(divergence)
    weights = exposure_weights(codes.shape[-1]) * known
    return divide((np.where(known, divergence, 0.0) * weights).sum(axis=-1), weights.sum(axis=-1))[()]


def exposure_ratio(codes: Int[Array, "... n"], target: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """Return each category's share of the exposure 1 / log2(1 + rank) of known members, over its target share.

    1 is proportional; NaN where the target is 0 or nobody is known. Worked: in the list a b b the weights are 1, 0.631
    and 0.5, so a holds 1 / 2.131 = 0.469 of the exposure.
    """
    codes, target = np.asarray(codes), np.asarray(target, float)
    weights = exposure_weights(codes.shape[-1])
    return divide(normalize_counts(weigh_categories(codes, target.shape[-1], weights=weights)), target)


def expected_skew(target: Float[Array, " C"], k: int, *, pool: CategoryCounts) -> Float[Array, " C"]:
    """Return the skew@k that a random order has on average, exactly (hypergeometric), for each category.

    It is below 0 even for a perfectly fair order, because the logarithm punishes a missing member more than it rewards
    one too many. Lists in which nobody is known are left out, as they have no skew. A k beyond the pool raises a
    `UserError`, as in the other expectations.
    """
    target = np.asarray(target, float)
    safe = np.where(target > 0.0, target, np.nan)
    mean, chances = np.zeros(len(target)), []
    for n, chance, x, p in list_draws(k, pool=pool):
        if n:
            logs = np.log((x + SMOOTHING * safe) / (n + SMOOTHING) / safe)
            mean += chance * np.where(p > 0.0, p * logs, 0.0).sum(axis=0)
            chances.append(chance)
    return np.where(target > 0.0, divide(mean, np.sum(chances)), np.nan)


def expected_skew_range(
    target: Float[Array, " C"], k: int, *, pool: CategoryCounts, seed: int = 0, n_draws: int = 4000
) -> tuple[float, float]:
    """Return the MinSkew@k and MaxSkew@k that random orders with anybody known have on average (simulated)."""
    colors = check_draw(k, pool=pool)
    counts = np.random.default_rng(seed).multivariate_hypergeometric(colors, k, size=n_draws, method="marginals")
    lowest, highest = skew_range(skew_of_counts(counts[:, :-1], np.asarray(target, float)))
    return float(mean_of_defined(lowest)), float(mean_of_defined(highest))


def expected_ndkl(
    target: Float[Array, " C"], n: int, *, pool: CategoryCounts, seed: int = 0, n_draws: int = 4000
) -> float:
    """Return the NDKL that random lists of n members of the pool have on average (simulated); it is above 0."""
    colors = check_draw(n, pool=pool)
    rng = np.random.default_rng(seed)
    sizes = split_draws(n_draws, width=n * len(colors))
    found = [ndkl(draw_codes(rng, colors, n, size=size), target) for size in sizes]
    return float(mean_of_defined(np.concatenate(found)))
