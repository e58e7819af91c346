"""Intervals and tests. Pure functions: every random one takes a seed.

The unit of resampling is the *posting* (cluster): the fifty people of one shortlist are not fifty independent
observations. What is said of other candidates too, as impact ratios are, needs `audit.crossed`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Float, Num

from ilqljax.data.types import Array
from ilqljax.errors import UserError

LEVEL = 0.95  # of every interval
MIN_DEFINED_SHARE = 0.95  # of the resamples; with fewer, an interval is undefined rather than made of the lucky ones
EMPTY = 1e-9  # a narrower interval, of values of 1, has no width but rounding
DRAWS_PER_BLOCK = 1 << 22  # bounds the memory of simulations


class Estimate(NamedTuple):
    """Hold a value and its interval; NaN means undefined."""

    value: Float[Array, "..."] | float
    low: Float[Array, "..."] | float
    high: Float[Array, "..."] | float

    def spread(self, name: str) -> dict[str, float]:
        """Return the three numbers of a row: `name`, `name_low`, `name_high`."""
        return {name: float(self.value), **self.ends(name)}

    def ends(self, name: str) -> dict[str, float]:
        """Return the interval of a row: `name_low`, `name_high`."""
        return {f"{name}_low": float(self.low), f"{name}_high": float(self.high)}

    def pick(self, index: int) -> "Estimate":
        """Return one of many estimates."""
        return Estimate(*(float(part[index]) for part in self))

    def drop_empty(self) -> "Estimate":
        """Return one estimate, without its interval if that has no width.

        Resamples of clusters that are all alike are all alike, which says nothing of other clusters.
        """
        is_empty = self.high - self.low <= EMPTY * max(1.0, abs(self.value))
        return self._replace(low=np.nan, high=np.nan) if is_empty else self


UNDEFINED = Estimate(np.nan, np.nan, np.nan)


def divide(
    numerator: Num[Array, "..."] | float | int, denominator: Num[Array, "..."] | float | int
) -> Float[Array, "..."] | float:
    """Divide, with NaN (undefined) and no warning wherever the denominator is 0 or NaN."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=quotient, where=(denominator != 0) & ~np.isnan(denominator))


def mean_of_defined(values: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Return the mean over the first axis, without NaN values; NaN where there is none else."""
    return divide(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0))


def weighted_median(values: Float[Array, " n"], weights: Float[Array, " n"] | Float[Array, "0"]) -> float:
    """Return the value that half of the weight is at or below, midway to the next where it is exactly half.

    Without weights it is the median.
    """
    if not len(weights):
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    at = int(np.searchsorted(below, below[-1] / 2 * (1 - 1e-12)))
    last = at + 1 if np.isclose(below[at], below[-1] / 2, rtol=1e-12) else at
    return float(values[order][[at, last]].mean())


def wilson_interval(successes: Num[Array, "..."] | float | int, trials: Num[Array, "..."] | float | int) -> Estimate:
    """Return shares with their Wilson score intervals (Wilson 1927); undefined (NaN) without trials.

    Wilson's interval stays within [0, 1] and is not empty at 0 or n successes. It assumes independent trials.
    """
    from statsmodels.stats.proportion import proportion_confint  # with pandas, half a second: --help needs none

    trials = np.asarray(trials, float)
    defined = np.where(trials > 0, trials, np.nan)
    low, high = proportion_confint(successes, defined, alpha=1.0 - LEVEL, method="wilson")
    return Estimate(divide(successes, trials), low, high)


def cluster_bootstrap(
    values_per_cluster: Num[Array, "clusters F"],
    statistic: Callable[[Num[Array, "... F"]], Float[Array, "..."] | float],
    *,
    seed: int,
    n_resamples: int = 10_000,
) -> Estimate:
    """Return a statistic of the clusters' summed values, with a bootstrap interval that resamples whole clusters.

    A paired difference of means is `statistic = sums[..., 0] / sums[..., 1]` on rows (difference, 1) (see
    `bootstrap_mean`); a pooled rate is the same on rows (selected, assessed). The statistic must work on any number of
    leading axes, and may return NaN.

    The interval is the *expanded* percentile interval (Hesterberg 2015, "What teachers should know about the
    bootstrap"): its tail probability is Phi(-t sqrt(n / (n - 1))) with t from n - 1 degrees of freedom, which repairs
    the percentile interval's too narrow width with few clusters. Resamples where the statistic is undefined are left
    out; if they are over 5 %, or there are fewer than two clusters, the interval is undefined (NaN).

    The same seed and number of clusters give the same resamples, so that results can be compared in pairs. Without any
    cluster a `UserError` is raised.
    """
    values = np.asarray(values_per_cluster, float)
    if not (n := len(values)):
        raise UserError("A bootstrap over postings needs at least one posting (two for an interval), got none.")
    value = np.asarray(statistic(values.sum(axis=0)))[()]
    if n < 2:
        undefined = np.full(value.shape, np.nan)[()]
        return Estimate(value, undefined, undefined)
    rng = np.random.default_rng(seed)
    draws = [
        np.asarray(statistic(rng.multinomial(n, np.full(n, 1.0 / n), size=size) @ values))
        for size in split_draws(n_resamples, width=n)
    ]
    tail = scipy.stats.norm.cdf(-np.sqrt(n / (n - 1)) * scipy.stats.t.ppf(0.5 + LEVEL / 2, df=n - 1))
    low, high = quantiles_of_defined(np.concatenate(draws), (tail, 1.0 - tail))
    return Estimate(value, low, high)


def bootstrap_mean(values: Num[Array, " clusters"], *, seed: int, n_resamples: int = 10_000) -> Estimate:
    """Return the mean of one value a cluster (such as a paired difference a posting) with its bootstrap interval."""
    rows = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    return cluster_bootstrap(rows, lambda sums: divide(sums[..., 0], sums[..., 1]), seed=seed, n_resamples=n_resamples)


def split_draws(n_draws: int, *, width: int) -> Iterator[int]:
    """Yield block sizes that add up to `n_draws`, each block of `width` numbers a draw bounded in memory."""
    block = max(1, DRAWS_PER_BLOCK // max(1, width))
    for start in range(0, n_draws, block):
        yield min(block, n_draws - start)


def quantiles_of_defined(
    draws: Float[Array, "R ..."], levels: tuple[float, float]
) -> tuple[Float[Array, "..."] | float, Float[Array, "..."] | float]:
    """Return two quantiles over the first axis, without NaN draws; NaN where over 5 % of the draws are NaN."""
    enough = (~np.isnan(draws)).mean(axis=0) >= MIN_DEFINED_SHARE
    if not enough.size:  # np.nanquantile drops the axis of the levels here
        return np.empty(enough.shape), np.empty(enough.shape)
    low, high = np.nanquantile(np.where(enough, draws, 0.0), levels, axis=0)
    return np.where(enough, low, np.nan)[()], np.where(enough, high, np.nan)[()]
