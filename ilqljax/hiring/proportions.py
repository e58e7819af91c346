"""The ratio of two shares: a score test of any value of it, and the interval of the values that the test accepts.

Koopman, "Confidence limits for the ratio of two binomial proportions" (1984); the shares under a given ratio after
Miettinen and Nurminen, "Comparative analysis of two rates" (1985), equations 10 and 11. The interval has a width where
nobody or everybody succeeds, and leaves out 1 exactly where the test of equal shares has p < 0.05, for they are one.

Chi squared gives the p-value as long as every count that the tested ratio lets expect is `MIN_EXPECTED_COUNT` or more.
With fewer, as with shares near 0 or 1, it is refused too seldom or too often: then the p-value is how likely a
statistic as large is for two binomial counts with those very shares, added up over all counts.
"""

from collections.abc import Callable

import numpy as np
import scipy  # its parts are loaded when they are used
from jaxtyping import Num

from ilqljax.data.types import Array
from ilqljax.hiring.statistics import LEVEL, Estimate

MIN_EXPECTED_COUNT = 5
SPREAD = 7.0  # counts farther from the mean than this many deviations, and `SPREAD` more, are not added up
TOLERANCE = 1e-9  # of ties between statistics
HALVINGS = 30
Numbers = Num[Array, "..."] | float | int


def score_statistic(
    successes_a: Numbers, trials_a: float | int, successes_b: Numbers, trials_b: float | int, *, ratio: float
) -> tuple[Numbers, Numbers, Numbers]:
    """Return Koopman's statistic of a ratio of the shares, a over b, and the most likely shares with that ratio.

    With the ratio 1 it is Pearson's chi squared of the two by two table.
    """
    a, b = (trials_a + trials_b) * ratio, trials_a * ratio + successes_a + trials_b + successes_b * ratio
    c = np.asarray(successes_a + successes_b, float)
    share_b = 2 * c / (b + np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)))  # the smaller root, without cancellation
    share_a, share_b = np.minimum(ratio * share_b, 1.0), np.minimum(share_b, 1.0)
    variance = share_a * (1 - share_a) / trials_a + ratio**2 * share_b * (1 - share_b) / trials_b
    distance = (successes_a / trials_a - ratio * successes_b / trials_b) ** 2
    is_zero = distance <= 1e-18 * (1 + ratio**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(is_zero, 0.0, distance / np.maximum(variance, 0.0)), share_a, share_b


def ratio_test(
    successes_a: float | int,
    trials_a: float | int,
    successes_b: float | int,
    trials_b: float | int,
    *,
    ratio: float = 1.0,
) -> tuple[float, str]:
    """Test whether the shares have a ratio; return the two-sided p-value and the name of the test.

    Trials are independent; counts need not be whole (effective ones are not). The p-value is undefined (NaN) when a
    group is empty, and 1 when equal shares are tested and nobody or everybody succeeded.
    """
    if trials_a <= 0 or trials_b <= 0:
        return np.nan, "none: a group is empty"
    if ratio == 1 and successes_a + successes_b in (0, trials_a + trials_b):
        return 1.0, "none: no difference possible"
    seen, *shares = score_statistic(successes_a, trials_a, successes_b, trials_b, ratio=ratio)
    sizes = np.maximum(np.rint([trials_a, trials_b]), 1).astype(int)
    if min(n * min(p, 1 - p) for n, p in zip((trials_a, trials_b), shares, strict=True)) >= MIN_EXPECTED_COUNT:
        return float(scipy.special.chdtrc(1, seen)), "score"
    counts, chances = zip(*(_list_counts(n, float(p)) for n, p in zip(sizes, shares, strict=True)), strict=True)
    scale = [n / size for n, size in zip((trials_a, trials_b), sizes, strict=True)]
    a, b = counts[0][:, None] * scale[0], counts[1][None] * scale[1]
    as_large = score_statistic(a, trials_a, b, trials_b, ratio=ratio)[0] >= seen * (1 - TOLERANCE)
    return float(min(1.0, chances[0] @ as_large @ chances[1])), "score, added up"


def _list_counts(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of a binomial that are not all but impossible, and their probabilities."""
    reach = SPREAD * (1 + np.sqrt(n * share * (1 - share)))
    counts = np.arange(max(0, int(n * share - reach)), min(n, int(n * share + reach) + 1) + 1)
    gamma, log = scipy.special.gammaln, scipy.special.xlogy
    choices = gamma(n + 1) - gamma(counts + 1) - gamma(n - counts + 1)
    return counts, np.exp(choices + log(counts, share) + log(n - counts, 1 - share))


def ratio_interval(
    successes_a: float | int, trials_a: float | int, successes_b: float | int, trials_b: float | int
) -> Estimate:
    """Return the ratio of two shares, a over b, with the interval that `ratio_test` accepts.

    Undefined (NaN) where b's share is 0 or a group is empty. The low end is 0 where a's share is.
    """
    if trials_a <= 0 or trials_b <= 0 or successes_b <= 0:
        return Estimate(np.nan, np.nan, np.nan)
    share_a, share_b = successes_a / trials_a, successes_b / trials_b

    def is_refused(ratio: float) -> bool:
        return ratio_test(successes_a, trials_a, successes_b, trials_b, ratio=ratio)[0] < 1 - LEVEL

    value, start = share_a / share_b, max(share_a, 0.5 / trials_a) / share_b
    low = find_end(is_refused, start, 0.5) if value > 0 else 0.0
    return Estimate(value, low, find_end(is_refused, start, 2.0))


def find_end(is_refused: Callable[[float], bool], start: float, factor: float) -> float:
    """Return where a ratio begins to be refused: going away from the start by a factor, then halving the last step."""
    inside, outside = start, start * factor
    while not is_refused(outside):
        inside, outside = outside, outside * factor
    for _ in range(HALVINGS):
        middle = float(np.sqrt(inside * outside))
        inside, outside = (inside, middle) if is_refused(middle) else (middle, outside)
    return inside
