"""Check that what is asked of an applicant is asked as strongly as before: must, may, or would be a plus.

A clause's strength is what its words say ("must", "is required", "may", "is a plus"; `words.ini`), or plain. A clause
without such a word within a sentence that has one may be meant by it ("Python, SQL and Go are required"), so it is
taken for either.

| original            | rewrite                   | verdict      |
|---------------------|---------------------------|--------------|
| "You must know SQL" | "SQL is required"         | the same     |
| "You know SQL"      | "SQL is a must"           | the same     |
| "You must know SQL" | "SQL is a plus"           | weakened     |
| "Go is a plus"      | "You know Go"             | strengthened |
| "Nights are a must" | "You may work nights"     | weakened     |
| "You must know SQL" | (nothing about SQL)       | missing      |
| (nothing about it)  | "You must own a car"      | not asked    |
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ilqljax.hiring.edits.operators import drop_demands, replace_phrases, split_sentences
from ilqljax.hiring.guardrails.clauses import (
    GENERIC,
    STRENGTHS,
    Clause,
    StemIndex,
    blank_statements,
    list_clauses,
    list_stems,
    measure_overlap,
    restore_lines,
    stem,
)
from ilqljax.hiring.guardrails.facts import YEARS
from ilqljax.hiring.guardrails.findings import Failure
from ilqljax.hiring.guardrails.statements import is_denied
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

_OF_STRENGTH = frozenset(map(stem, ("must", "plus", "seek", "hold", "give", "candidate", "choose")))
MUST, MAY, WISH, PLAIN = "required", "optional", "a plus", "plain"
MIN_OVERLAP = 0.5  # share of a clause's stems that another holds which says the same
# What a strength may be told as.
_SAME = {MUST: {MUST, PLAIN}, MAY: {MAY, PLAIN, WISH}, WISH: {WISH, MAY}, PLAIN: {MUST, MAY, PLAIN}}


class Demand(NamedTuple):
    """Hold a clause, its own strength, and the strengths that it may be meant with."""

    clause: Clause
    strength: str
    possible: frozenset[str]


@lru_cache(maxsize=4096)
def list_demands(text: str) -> tuple[Demand, ...]:
    """Return the clauses of a text that say something, with their strengths."""
    clauses, strengths = _spread_labels(
        [part for clause in list_clauses(blank_statements(text)) for part in _split(clause)]
    )
    demands, beside_of = [], defaultdict(set)
    for clause, strength in zip(clauses, strengths, strict=True):
        beside_of[clause.sentence].add(strength)
    for clause, strength in zip(clauses, strengths, strict=True):
        # What is denied without a word of strength ("but no Polish") may be what is not needed.
        denied = {WISH} if strength == PLAIN and is_denied(clause.text) else set()
        beside = beside_of[clause.sentence]
        demands.append(
            Demand(clause, strength, frozenset(beside | {PLAIN} if strength == PLAIN else {strength}) | denied)
        )
    return tuple(demands)


def _spread_labels(clauses: Sequence[Clause]) -> tuple[list[Clause], list[str]]:
    """Return the clauses that say something, with their strengths.

    One that only tells a strength tells that of the clauses after it, as a label does ("Required: SQL"), or before it
    ("If you know SQL, that is helpful").
    """
    kept, strengths, label, sentence = [], [], PLAIN, -1
    for clause in clauses:
        strength = _find_strength(clause.text)
        label, sentence = label if clause.sentence == sentence else PLAIN, clause.sentence
        if strength == PLAIN or not _is_bare(clause):
            kept.append(clause)
            strengths.append(label if strength == PLAIN else strength)
        elif kept and kept[-1].sentence == sentence:
            for i in range(len(kept) - 1, -1, -1):
                if kept[i].sentence != sentence or strengths[i] != PLAIN:
                    break
                strengths[i] = strength
        else:
            label = strength
    some = [i for i, clause in enumerate(kept) if clause.stems]
    return [kept[i] for i in some], [strengths[i] for i in some]


def _is_bare(clause: Clause) -> bool:
    return clause.stems <= _OF_STRENGTH


def _split(clause: Clause) -> list[Clause]:
    """Split "SQL is required and Go is a plus", whose parts differ in strength, at its "and"."""
    ends = [0, *(match.end() for match in re.finditer(r"\s+and\s+", clause.text)), len(clause.text)]
    parts = [(clause.text[start:end], start, end) for start, end in pairwise(ends)]
    strengths = {strength for part, _, _ in parts if (strength := _find_strength(part)) != PLAIN}
    if len(strengths) < 2 and len({is_denied(part) for part, _, _ in parts}) < 2:
        return [clause]
    at = clause.span[0]
    return [clause._replace(text=t, span=(at + a, at + b), stems=frozenset(list_stems(t))) for t, a, b in parts]


@lru_cache(maxsize=16384)
def _find_strength(text: str) -> str:
    # "not required" and "would be required" are no demands: the first pattern that fits decides.
    strength = next((name for name, pattern in STRENGTHS.items() if pattern.search(text)), PLAIN)
    return WISH if strength == "not required" else strength


def check_demands(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that what is required, optional or a plus stays so, and that nothing more is asked.

    The operators may leave out demands that only keep people away, and ease some ("must have" to "ideally have").
    """
    text = restore_lines(text, posting.description)
    original = restore_lines(posting.description, posting.description)
    failures = _compare(original, text, prompt)
    if failures:
        sentences = split_sentences(original)
        eased = [replace_phrases(sentence, "ease_demands") for sentence in sentences]
        flat = normalize_spaces(text)
        kept = [new if new in flat else old for old, new in zip(sentences, eased, strict=True)]
        return _compare("\n".join(kept), text, prompt) if kept != sentences else failures
    return failures


def _compare(original: str, text: str, prompt: str) -> list[Failure]:
    old, new = list_demands(original), list_demands(text)
    kept = list_demands(YEARS.sub(" ", drop_demands(original)))
    words = frozenset(list_stems(prompt)).union(*(demand.clause.stems for demand in old))
    of_old, of_new = DemandIndex(old), DemandIndex(new)
    failures = []
    for demand in kept:
        if demand.strength != PLAIN:
            found = of_new.find_nearest(demand)
            if not found:
                if not demand.clause.stems <= GENERIC:
                    failures.append(Failure("demands_kept", f"'{demand.clause.text}' is missing."))
            elif not _agree(demand, found):
                failures.append(_report(demand, found[0]))
    reported = {failure.span for failure in failures}
    for demand in new:
        if demand.strength == PLAIN or demand.clause.span in reported:
            continue
        found = of_old.find_nearest(demand)
        if found and not _agree(demand, found):
            failures.append(_report(found[0], demand))
        elif not found and _is_asked(demand) and measure_overlap(demand.clause.stems, words) < MIN_OVERLAP:
            reason = f"The original asks for nothing like '{demand.clause.text}'."
            failures.append(Failure("demands_kept", reason, demand.clause.span))
    return failures


def _is_asked(demand: Demand) -> bool:
    return demand.strength == MUST or (demand.strength == WISH and not demand.clause.stems <= GENERIC)


class DemandIndex:
    """Find which of many demands is nearest to another, once for demands of the same words."""

    def __init__(self, demands: Sequence[Demand]) -> None:
        self._demands = demands
        self._index = StemIndex(demand.clause.stems for demand in demands)
        self._found: dict[frozenset[str], list[Demand]] = {}

    def find_nearest(self, demand: Demand) -> list[Demand]:
        """Return the clauses that share the most with one, if they share enough of the shorter of the two."""
        stems = demand.clause.stems - _OF_STRENGTH
        if stems not in self._found:
            most, places = self._index.find_most(stems)
            near = [self._demands[place] for place in places]
            self._found[stems] = [o for o in near if most >= MIN_OVERLAP * min(len(stems), len(o.clause.stems))]
        return self._found[stems]


def _agree(demand: Demand, others: Sequence[Demand]) -> bool:
    told = frozenset().union(*(_SAME[strength] for strength in demand.possible))
    return any(told & other.possible for other in others)


def _report(old: Demand, new: Demand) -> Failure:
    reason = f"'{old.clause.text}' is {old.strength}, '{new.clause.text}' {new.strength}."
    return Failure("demands_kept", reason, new.clause.span)
