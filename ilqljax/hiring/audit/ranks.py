"""Ranking measures of an attribute as rows, each beside the value that a random order has."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from ilqljax.hiring.audit.ranking import (
    expected_ndkl,
    expected_skew,
    expected_skew_range,
    exposure_ratio,
    ndkl,
    skew,
    skew_range,
)
from ilqljax.hiring.audit.rates import Row, spread
from ilqljax.hiring.reward.diversity import normalize_counts
from ilqljax.hiring.reward.scores import ScoreTerm, codes_or_unknown
from ilqljax.hiring.statistics import Estimate, bootstrap_mean, divide
from ilqljax.types import Array

UNDEFINED = Estimate(math.nan, math.nan, math.nan)


class Ranked(Protocol):
    """Describe what is ranked: row numbers of candidates, best first, below 0 for nobody."""

    indices: Int[Array, "G k"]


def tabulate_ranking(
    phases: Mapping[str, Ranked], term: ScoreTerm, targets: Float[Array, "G C"], *, n_selected: int, seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Return a row a category (skew at the selected and at the whole list, exposure), and the measures of whole lists.

    Numbers are means over postings. The ends of intervals resample postings.
    """
    codes = {name: codes_or_unknown(term.attribute.codes, phase.indices) for name, phase in phases.items()}
    distinct, repeats = np.unique(targets.round(12), axis=0, return_counts=True)
    k = next(iter(codes.values())).shape[1]
    rows = _tabulate_categories(codes, term, targets, (distinct, repeats), k=k, n_selected=n_selected)
    has_ndkl = bool((targets > 0.0).all())
    n_draws = max(200, 4000 // len(distinct))

    def average(expect: Callable[[Float[Array, "C"]], float]) -> float:
        return float(np.average([expect(target) for target in distinct], weights=repeats))

    lists: dict[str, Any] = {
        "expected_min_skew": average(
            lambda q: expected_skew_range(q, n_selected, pool=term.pool, seed=seed, n_draws=n_draws).smallest
        ),
        "expected_max_skew": average(
            lambda q: expected_skew_range(q, n_selected, pool=term.pool, seed=seed, n_draws=n_draws).largest
        ),
        "expected_ndkl": average(lambda q: expected_ndkl(q, k, pool=term.pool, seed=seed, n_draws=n_draws))
        if has_ndkl
        else math.nan,
    }
    for name, of_phase in codes.items():
        extremes = skew_range(skew(of_phase, targets, n_selected))
        lists[name] = spread("min_skew", _mean(extremes.smallest, seed=seed))
        lists[name] |= spread("max_skew", _mean(extremes.largest, seed=seed))
        lists[name] |= spread("ndkl", _mean(ndkl(of_phase, targets), seed=seed) if has_ndkl else UNDEFINED)
    return rows, lists


def _tabulate_categories(
    codes: Mapping[str, Int[Array, "G k"]],
    term: ScoreTerm,
    targets: Float[Array, "G C"],
    distinct: tuple[Float[Array, "U C"], Int[Array, "U"]],
    *,
    k: int,
    n_selected: int,
) -> list[Row]:
    kinds, repeats = distinct
    pool = normalize_counts(term.pool.counts)
    expected = {
        f"expected_skew_{at}": np.average(
            [expected_skew(q, at, pool=term.pool) for q in kinds], axis=0, weights=repeats
        )
        for at in (n_selected, k)
    }
    expected["expected_exposure"] = np.average([divide(pool, q) for q in kinds], axis=0, weights=repeats)
    found = {}
    for name, of_phase in codes.items():
        for at in (n_selected, k):
            found[f"skew_{at}_{name}"] = _mean_defined(skew(of_phase, targets, at))
        found[f"exposure_{name}"] = _mean_defined(exposure_ratio(of_phase, targets))
    return [
        {"category": category} | {key: float(values[c]) for key, values in (expected | found).items()}
        for c, category in enumerate(term.attribute.categories)
    ]


def _mean_defined(values: Float[Array, "G C"]) -> Float[Array, "C"]:
    """Return the mean over the postings where a value is defined; NaN where it never is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def _mean(values: Float[Array, "G"], *, seed: int) -> Estimate:
    values = values[np.isfinite(values)]
    return bootstrap_mean(values, seed=seed, n_resamples=2000) if len(values) else UNDEFINED
