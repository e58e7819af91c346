"""Read declared categories: what counts as unknown, and one spelling for each.

`Female`, `female ` and `FEMALE` are one category, written as it is most often. Surveys and exports have many words for
"not known"; left as they are, each would be a category with a rate of its own, and might even set the highest one.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ilqljax.hiring.attributes import Column
from ilqljax.hiring.postings.posting import Candidate, normalize_spaces

logger = logging.getLogger(__name__)

_NOT = ("answer", "disclose", "identify", "respond", "say", "self-identify", "self identify", "specify", "state")
_REFUSALS = ("prefer not to", "decline to", "declined to", "do not wish to", "don't wish to", "choose not to")
_REFUSALS += ("do not want to", "don't want to", "rather not")
# Whatever the case and the spaces; "I " may stand in front of a refusal.
UNKNOWN_WORDS = (
    *("unknown", "not known", "missing", "missing/unknown", "unknown/missing", "blank", "undefined", "declined"),
    *(f"not {word}" for word in ("answered", "applicable", "available", "declared", "disclosed", "given", "provided")),
    *("not reported", "not specified", "not stated", "unspecified", "undeclared", "undisclosed", "unreported"),
    *("no answer", "no response", "n/a", "n / a", "#n/a", "n.a.", "na", "<na>", "nan", "nat", "none", "null", "(null)"),
    *("-", "--", "–", "—", ".", "?", "??", "???"),
    *(f"{i}{refusal} {word}" for i in ("", "i ") for refusal in _REFUSALS for word in _NOT),
)
Taken = dict[str, Counter[str]]  # which values were taken as unknown, and in how many rows, by column


def fold_spelling(value: str) -> str:
    """Return what spellings of one category have in common: no case, no spaces around it, one between words."""
    return normalize_spaces(unicodedata.normalize("NFKC", value).replace("’", "'")).casefold()


def unify_values(values: Sequence[str], unknown: Iterable[str] = UNKNOWN_WORDS) -> tuple[list[str], Counter[str]]:
    """Return a column's values with one spelling a category and "" for the unknown, and what was taken as unknown.

    The spelling is the most frequent one (of equals, the last in the order of characters). An empty value is always
    unknown, and is not among those that were taken as such.
    """
    spelling, taken = _unify_words(Counter(values), unknown)
    return [spelling[value] for value in values], taken


def unify_column(column: Column, unknown: Iterable[str] = UNKNOWN_WORDS) -> tuple[Column, Counter[str]]:
    """Do what `unify_values` does of a column whose words are numbered."""
    counts = np.bincount(column.codes, minlength=len(column.words)).tolist()
    spelling, taken = _unify_words(dict(zip(column.words, counts, strict=True)), unknown)
    return column.rename([spelling[word] for word in column.words]), taken


def _unify_words(counts: Mapping[str, int], unknown: Iterable[str]) -> tuple[dict[str, str], Counter[str]]:
    """Return each value's one spelling, and what was taken as unknown, from how often each value occurs."""
    own, folded = ({value: of(value) for value in counts} for of in (normalize_spaces, fold_spelling))
    is_unknown = {"", *map(fold_spelling, unknown)}
    frequency, taken = Counter[str](), Counter[str]()
    for value, n in counts.items():
        frequency[own[value]] += n
        if folded[value] and folded[value] in is_unknown:
            taken[own[value]] += n
    by_frequency = sorted(frequency.items(), key=lambda item: (item[1], item[0]))
    spelling = {fold_spelling(text): text for text, _ in by_frequency}
    return {value: "" if key in is_unknown else spelling[key] for value, key in folded.items()}, taken


def unify_candidates(
    candidates: Sequence[Candidate], *, unknown: Iterable[str] = UNKNOWN_WORDS, names: Iterable[str] = ()
) -> tuple[list[Candidate], Taken]:
    """Return candidates with their attributes as `unify_values` has them; those of `names` only, if any are named."""
    unknown, names = list(unknown), set(names)
    attributes: list[dict[str, str]] = [dict(candidate.attributes) for candidate in candidates]
    taken = {}
    for name in sorted({name for own in attributes for name in own if name in names or not names}):
        values, taken[name] = unify_values([own.get(name, "") for own in attributes], unknown)
        for own, value in zip(attributes, values, strict=True):
            own[name] = value
    unified = [replace(candidate, attributes=own) for candidate, own in zip(candidates, attributes, strict=True)]
    return unified, {name: found for name, found in taken.items() if found}


def warn_of_unknown(taken: Mapping[str, Counter[str]], *, where: str) -> None:
    """Log which values of which column were taken as unknown."""
    for name, found in taken.items():
        listed = ", ".join(f"{value!r} ({n:,} row{'s' if n > 1 else ''})" for value, n in sorted(found.items()))
        logger.warning("%s: of '%s' these were taken as unknown: %s. --unknown names others.", where, name, listed)


def list_values(taken: Mapping[str, Counter[str]]) -> dict[str, list[str]]:
    """Return which values were taken as unknown, by column, without their numbers: these may be cells to hide."""
    return {name: sorted(found) for name, found in taken.items()}
