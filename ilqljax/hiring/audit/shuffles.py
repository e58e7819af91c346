"""Shuffle labels among people: what each category would have assessed and selected if labels meant nothing.

People with the same counts are the same to every total, so labels are dealt to them together: how many of each label go
to a group is a multivariate hypergeometric draw from the labels that are left, exactly the law of a permutation, and a
million rows cost no more than their few different counts. Where nearly everybody's counts differ, people are permuted.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Num

from ilqljax.data.types import Array
from ilqljax.hiring.attributes import cross_codes
from ilqljax.hiring.audit.crossed import Tally
from ilqljax.hiring.statistics import divide

DRAW_COST = 8  # of one hypergeometric number, in people who are permuted


def deal_labels(
    rng: np.random.Generator, labels: Int[Array, " C"], sizes: Int[Array, " G"], *, n_shuffles: int
) -> Iterator[Int[Array, "S C"]]:
    """Yield how many of each label every group gets; the groups are at most as many people as there are labels."""
    left, n_left = np.tile(labels, (n_shuffles, 1)), int(labels.sum())
    for size in sizes.tolist():
        dealt, open_places, others = np.zeros_like(left), np.full(n_shuffles, size), np.full(n_shuffles, n_left)
        for c in np.flatnonzero(labels):
            others -= left[:, c]
            dealt[:, c] = rng.hypergeometric(left[:, c], others, open_places)
            open_places -= dealt[:, c]
        left -= dealt
        n_left -= size
        yield dealt


def draw_totals(tally: Tally, *, seed: int, n_shuffles: int) -> tuple[Num[Array, "S C"], Num[Array, "S C"]]:
    """Draw each category's assessed and selected pairs, with labels shuffled among the assessed candidates."""
    rng = np.random.default_rng(seed)
    n_categories = tally.posting_assessed.shape[1]
    people = np.bincount(tally.codes + 1, minlength=n_categories + 1)  # first: unknown
    assessed, selected = tally.candidate_assessed, tally.candidate_selected
    same_for_all = bool((assessed == assessed[:1]).all())
    is_count = selected.dtype.kind != "f"
    if same_for_all and is_count and selected.max(initial=0) <= 1:  # then only how many are selected matters
        drawn = rng.multivariate_hypergeometric(people, int(selected.sum()), size=n_shuffles, method="marginals")[:, 1:]
        return np.broadcast_to(people[1:] * assessed[:1].sum(), drawn.shape), drawn
    active = np.flatnonzero(selected > 0) if same_for_all else np.flatnonzero(assessed > 0)
    given = tally.codes if same_for_all else tally.codes[active]
    totals = np.zeros((2, n_shuffles, n_categories + 1), np.result_type(assessed, np.int64))
    values, groups = zip(*(np.unique(of[active], return_inverse=True) for of in (assessed, selected)), strict=True)
    numbers, group = cross_codes(groups)
    if len(numbers) * (n_categories + 1) * DRAW_COST < len(given):
        sizes, labels = np.bincount(group), np.bincount(given + 1, minlength=n_categories + 1)
        for places, dealt in zip(numbers, deal_labels(rng, labels, sizes, n_shuffles=n_shuffles), strict=True):
            for of, place, total in zip(values, places, totals, strict=True):
                total += dealt * of[place]
    else:
        for i in range(n_shuffles):
            labels = given[rng.choice(len(given), len(active), replace=False)] + 1
            for counts, total in zip((assessed, selected), totals, strict=True):
                total[i] = np.bincount(labels, weights=counts[active], minlength=n_categories + 1)
    if same_for_all:
        totals[0] = people * assessed[0]
    return totals[0, :, 1:], totals[1, :, 1:]


def draw_selected(
    blocks: Int[Array, " N"],
    codes: Int[Array, " N"],
    selected: Int[Array, " N"],
    *,
    n_categories: int,
    seed: int,
    n_shuffles: int,
) -> Int[Array, "S C"]:
    """Return each category's selections with labels shuffled within blocks of people."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n_shuffles, n_categories), np.int64)
    number = np.unique(blocks, return_inverse=True)[1]
    if selected.max(initial=0) <= 1:  # then only how many are selected of a block matters
        colours = np.zeros((number.max(initial=-1) + 1, n_categories), np.int64)
        np.add.at(colours, (number, codes), 1)
        for of, n in zip(colours, np.bincount(number, weights=selected).astype(int), strict=True):
            is_fixed = n in (0, of.sum()) or (of > 0).sum() < 2
            drawn += (
                divide(n * of, of.sum()).astype(np.int64)
                if is_fixed
                else rng.multivariate_hypergeometric(of, n, size=n_shuffles, method="marginals")
            )
        return drawn
    order = np.argsort(number, kind="stable")
    number, labels, counts = number[order], codes[order], selected[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    alike = [np.minimum.reduceat(of, starts) == np.maximum.reduceat(of, starts) for of in (labels, counts)]
    fixed = np.logical_or(*alike)[number]  # people of a block in which an exchange changes nothing
    drawn += np.bincount(labels[fixed], weights=counts[fixed], minlength=n_categories).astype(np.int64)
    number, labels, counts = number[~fixed], labels[~fixed], counts[~fixed]
    values, group = np.unique(counts, return_inverse=True)
    cells = cross_codes([number, group])[0]
    if len(cells) * n_categories * DRAW_COST < len(number):
        for of_block in np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1):
            sizes = np.bincount(group[of_block], minlength=len(values))
            given = np.bincount(labels[of_block], minlength=n_categories)
            for value, dealt in zip(values, deal_labels(rng, given, sizes, n_shuffles=n_shuffles), strict=True):
                drawn += dealt * value
        return drawn
    for row in drawn:
        places = np.argsort(number + rng.random(len(number)))
        row += np.bincount(labels, weights=counts[places], minlength=n_categories).astype(np.int64)
    return drawn
