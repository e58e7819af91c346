"""What chance alone gives: labels shuffled among the candidates who were assessed at all.

A shuffled label stays with its candidate through all postings, so that people who are in many shortlists stay in many.
The null says: among those who were assessed, labels have nothing to do with how often they were assessed and selected.
It is exact for every measure and needs no model; a small p-value says that labels and outcomes go together, not why.

Whoever was never assessed (nobody in shortlisting and in a ready table) has no part in a rate of those who were. Labels
drawn from the whole pool would leave a small category with nobody assessed in many shuffles, hence without a rate, and
such a shuffle is neither more nor less extreme than the data. Here every category keeps its number of different people.
A number can still be undefined in a shuffle, where no known member is selected: such shuffles are left out of it and of
its p-value, which is exact given that there is a number.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ilqljax.hiring.audit.crossed import Tally, category_totals
from ilqljax.hiring.audit.impact_ratio import find_eligible, ratios_and_smallest
from ilqljax.hiring.reward.diversity import diversity_score
from ilqljax.hiring.reward.scores import ScoreTerm
from ilqljax.hiring.reward.targets import codes_or_unknown
from ilqljax.hiring.statistics import Estimate, divide, mean_of_defined, quantiles_of_defined
from ilqljax.types import Array

TOLERANCE = 1e-12  # of ties: equal rates may differ in their last digit


class ShuffledNull(NamedTuple):
    """Hold what shuffled labels give.

    Attributes:
        ratios: each category's impact ratio: mean and 95 % range.
        smallest: the smallest impact ratio among the judged categories: mean and 95 % range.
        p_values: of each category, two-sided: how often its rate is as far from the overall rate.
        p_smallest: how often the smallest ratio is as small; one test for the whole attribute. NaN with fewer than two
            judged categories.
    """

    ratios: Estimate
    smallest: Estimate
    p_values: Float[Array, "C"]
    p_smallest: float


def shuffle_labels(tally: Tally, *, judged: Bool[Array, "C"], seed: int, n_shuffles: int = 2000) -> ShuffledNull:
    """Shuffle the candidates' labels and return the null of a measure's impact ratios.

    Args:
        tally: the measure's counts.
        judged: the categories that the smallest ratio is taken of: those of enough people.
        seed: of the shuffles.
        n_shuffles: their number.
    """
    assessed, selected = category_totals(tally)
    drawn_assessed, drawn_selected = _draw_totals(tally, seed=seed, n_shuffles=n_shuffles)
    eligible = find_eligible(assessed)
    observed = ratios_and_smallest(selected, assessed, judged)[-1]
    draws = ratios_and_smallest(drawn_selected, drawn_assessed, eligible)
    draws[:, -1] = ratios_and_smallest(drawn_selected, drawn_assessed, judged)[:, -1]
    low, high = quantiles_of_defined(draws, (0.025, 0.975))
    mean = mean_of_defined(draws)
    overall = divide(drawn_selected.sum(axis=1), drawn_assessed.sum(axis=1))
    distance = abs(divide(drawn_selected, drawn_assessed) - overall[:, None])
    seen = abs(divide(selected, assessed) - divide(selected.sum(), assessed.sum()))
    return ShuffledNull(
        Estimate(mean[:-1], low[:-1], high[:-1]),
        Estimate(float(mean[-1]), float(low[-1]), float(high[-1])),
        _find_p_values(distance, seen),
        float(_find_p_values(-draws[:, -1], -observed)),
    )


def _find_p_values(draws: Float[Array, "R ..."], seen: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """Return how often a draw is as large as what was seen, which counts as a draw, of the draws that are defined."""
    as_large, defined = (draws >= seen - TOLERANCE).sum(axis=0), (~np.isnan(draws)).sum(axis=0)
    return np.where(np.isnan(seen), np.nan, (1 + as_large) / (1 + defined))


def _draw_totals(tally: Tally, *, seed: int, n_shuffles: int) -> tuple[Int[Array, "R C"], Int[Array, "R C"]]:
    """Draw each category's assessed and selected pairs, with labels shuffled among the assessed candidates."""
    rng = np.random.default_rng(seed)
    n_categories = tally.posting_assessed.shape[1]
    people = np.bincount(tally.codes + 1, minlength=n_categories + 1)  # first: unknown
    assessed, selected = tally.candidate_assessed, tally.candidate_selected
    same_for_all = bool((assessed == assessed[:1]).all())
    if same_for_all and selected.max(initial=0) <= 1:  # then only how many are selected matters
        drawn = rng.multivariate_hypergeometric(people, int(selected.sum()), size=n_shuffles, method="marginals")[:, 1:]
        return np.broadcast_to(people[1:] * assessed[:1].sum(), drawn.shape), drawn
    active = np.flatnonzero(selected > 0) if same_for_all else np.flatnonzero(assessed > 0)
    given = tally.codes if same_for_all else tally.codes[active]
    totals = np.zeros((2, n_shuffles, n_categories + 1), np.int64)
    for i in range(n_shuffles):
        labels = given[rng.choice(len(given), len(active), replace=False)] + 1
        for counts, total in zip((assessed, selected), totals, strict=True):
            total[i] = np.bincount(labels, weights=counts[active], minlength=n_categories + 1)
    if same_for_all:
        totals[0] = people * assessed[0]
    return totals[0, :, 1:], totals[1, :, 1:]


class ScoreNull(NamedTuple):
    """Hold the mean score under shuffled labels (mean and 95 % range), and how often it is as low as the real one."""

    mean: Estimate
    p_value: float


def shuffle_scores(
    term: ScoreTerm,
    indices: Int[Array, "G k"],
    targets: Float[Array, "G C"],
    *,
    weights: Float[Array, "k"] | None,
    seed: int,
    n_shuffles: int = 400,
) -> ScoreNull:
    """Shuffle the candidates' labels and return what becomes of the mean score over postings.

    Unlike the pooled rates, a score sees imbalances that cancel over postings: one posting's list all of one category
    and the next one's all of another. The p-value is one-sided: lists are *less* like their targets than chance gives.
    """
    rng = np.random.default_rng(seed)

    def average(codes: Int[Array, "N"]) -> float:
        scores = diversity_score(codes_or_unknown(codes, indices), targets, distance=term.distance, weights=weights)
        return float(np.mean(scores))

    observed = average(term.attribute.codes)
    draws = np.array([average(rng.permutation(term.attribute.codes)) for _ in range(n_shuffles)])
    low, high = np.quantile(draws, (0.025, 0.975))
    as_low = int((draws <= observed + TOLERANCE).sum())
    return ScoreNull(Estimate(float(draws.mean()), float(low), float(high)), (1 + as_low) / (1 + n_shuffles))
