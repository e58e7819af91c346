"""Which n-grams a critic likes most and least, as the original's `TopAdvantageNGrams`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ilqljax.errors import UserError
from ilqljax.training.inspection.values import ActionValue


@dataclass(frozen=True)
class NGram:
    """An n-gram of actions, with what the critic thinks of it on average.

    Attributes:
        texts: its tokens (an utterance critic's n-grams have one entry, the utterance).
        count: how often it occurs.
        advantage: mean over its occurrences of the mean advantage of its tokens.
        error: standard error of that mean; NaN for one occurrence.
    """

    texts: tuple[str, ...]
    count: int
    advantage: float
    error: float


def rank_ngrams(rows: Sequence[Sequence[ActionValue]], *, longest: int = 3, min_count: int = 3) -> list[NGram]:
    """Return the n-grams of 1 to `longest` tokens within an utterance, most liked first; ties go by their text.

    Two rows "a b" and "a c" with the advantages (1, 3) and (2, 0), longest=2, min_count=1 give

    | n-gram    | b   | a b | a    | a c | c   |
    |-----------|-----|-----|------|-----|-----|
    | advantage | 3   | 2   | 1.5  | 1   | 0   |
    | count     | 1   | 1   | 2    | 1   | 1   |

    Raises:
        UserError: `longest` or `min_count` is not positive, or no n-gram occurs `min_count` times.
    """
    if longest < 1 or min_count < 1:
        raise UserError(f"longest={longest} and min_count={min_count}: both must be at least 1.")
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        for n in range(1, longest + 1):
            for start in range(len(row) - n + 1):
                gram = row[start : start + n]
                if gram[0].utterance == gram[-1].utterance:
                    found[tuple(a.text for a in gram)].append(float(np.mean([a.advantage for a in gram])))
    frequent = {texts: np.array(seen) for texts, seen in found.items() if len(seen) >= min_count}
    if not frequent:
        raise UserError(f"No n-gram occurs {min_count} times in {len(rows)} rows. Lower min_count, or give more rows.")
    ngrams = [
        NGram(texts, len(a), float(a.mean()), float(a.std(ddof=1) / np.sqrt(len(a))) if len(a) > 1 else float("nan"))
        for texts, a in frequent.items()
    ]
    return sorted(ngrams, key=lambda gram: (-gram.advantage, gram.texts))


def format_ngrams(ngrams: Sequence[NGram], *, k: int = 20) -> str:
    """Lay out the k most and the k least liked as plain text."""
    parts = (("most liked", ngrams[:k]), ("least liked", list(reversed(ngrams))[:k]))
    lines = []
    for title, chosen in parts:
        lines.append(f"{title:<12} advantage  +- error  count  n-gram")
        lines += [f"{'':<12} {g.advantage:>9.4f} {g.error:>9.4f} {g.count:>6}  {''.join(g.texts)!r}" for g in chosen]
    return "\n".join(lines)
