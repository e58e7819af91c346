"""Shortlists that do not depend on the order of the files: equal scores stand in a random order of their own.

A matcher puts equal scores in the order of its candidates' rows. Where they share the last place of a shortlist, or a
posting has no word that any candidate has, whoever comes first in the file would be shortlisted; sort the file by sex,
and it is an effect. Here such places are drawn: the order of equal scores follows from the seed, the posting's id and
the candidates' ids, and from nothing else, so a posting and its unchanged rewrite have one shortlist.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilqljax.hiring.matching.matcher import NOBODY, Matcher, Matches, check_k, match_texts


def match_shortlists(
    matcher: Matcher,
    texts: Sequence[str],
    k: int,
    *,
    n_selected: int,
    postings: Sequence[str],
    ids: Sequence[str],
    seed: int,
) -> tuple[Matches, dict[str, int]]:
    """Return each text's k best candidates, equal scores in a random order, and how many lists ties decide.

    The matcher is asked for one candidate more than k, and for all that share the k-th place where that one does.

    Args:
        matcher: ranks the candidates.
        texts: one a posting.
        k: length of a shortlist.
        n_selected: how many of a shortlist are selected, for the count.
        postings: their ids.
        ids: the candidates' ids, by row.
        seed: of the order.

    Returns:
        The matches, and the numbers of postings of which "shortlist" and "selected" have a last place that is shared
        with somebody outside, of which "all" k and one more have equal scores, and which are "empty" and reach nobody.
        A k that is not from 1 to the number of candidates raises a `UserError`.
    """
    n = matcher.n_candidates
    check_k(k, n_candidates=n)
    found = match_texts(matcher, texts, min(k + 1, n))
    indices, scores = found.indices[:, :k].copy(), found.scores[:, :k].copy()
    place = np.empty(n, np.int64)
    place[np.argsort(np.asarray(ids), kind="stable")] = np.arange(n)  # of a row among the sorted ids
    is_shared = (found.scores[:, k - 1] == found.scores[:, -1]) & (n > k)
    for row, posting in enumerate(postings):
        if (scores[row][1:] == scores[row][:-1]).any() or is_shared[row]:
            near = _find_all(matcher, texts[row], k) if is_shared[row] else Matches(indices[row], scores[row])
            digest = hashlib.sha256(f"{seed} {posting}".encode("utf-8", "surrogatepass")).digest()
            luck = np.random.default_rng(int.from_bytes(digest)).permutation(n)[place[near.indices]]
            order = np.lexsort((luck, -near.scores))[:k]
            indices[row], scores[row] = near.indices[order], near.scores[order]
    counts = {
        "shortlist": is_shared,
        "selected": scores[:, n_selected - 1] == scores[:, n_selected],
        "all": scores[:, 0] == found.scores[:, -1],
        "empty": (indices == NOBODY).all(axis=1),
    }
    return Matches(indices, scores), {name: int(values.sum()) for name, values in counts.items()}


def describe_medians(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say which score is the one to be above, and how many scores equal it; a name and a value a phase."""
    said = f"{'weighted ' if audit['is_weighted'] else ''}median of all scores"
    return [
        (
            f"Above the median{f', {phase}' if len(audit['phases']) > 1 else ''}",
            f"strictly above {median:.6g}, the {said}; {audit['n_at_median'][phase]:,} scores equal it: not above",
        )
        for phase, median in audit["medians"].items()
        if math.isfinite(median)
    ]


def _find_all(matcher: Matcher, text: str, k: int) -> Matches:
    """Return the k best candidates of one text and everybody whose score equals the k-th."""
    n, size = matcher.n_candidates, k + 1
    while True:
        size = min(2 * size, n)
        indices, scores = (part[0] for part in matcher.top_k([text], size))
        if scores[-1] < scores[k - 1] or size == n:
            near = scores >= scores[k - 1]
            return Matches(indices[near], scores[near])


def describe_ties(ties: dict[str, int], n_postings: int, *, seed: int) -> str:
    """Say how many postings' lists ties decide, and how."""
    of = f"{n_postings:,} posting{'s' if n_postings > 1 else ''}"
    parts = [
        f"the last place of the shortlist is shared in {ties['shortlist']:,} of {of}, the last selected in "
        f"{ties['selected']:,}"
    ]
    parts += [f"{ties['all']:,} rank nobody, for all scores are equal"] if ties["all"] else []
    parts += [f"{ties['empty']:,} are empty and reach nobody"] if ties["empty"] else []
    return f"{'; '.join(parts)}. Equal scores stand in a random order (seed {seed}), whatever the order of the files"
