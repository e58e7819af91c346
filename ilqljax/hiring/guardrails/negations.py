"""Check that what the original denies is not affirmed, and that nothing else is denied.

A lost "not" turns a sentence round, yet changes a single word. Words are compared by their first letters, so that "not
required" and "does not require" are the same.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.guardrails.findings import Failure, blank_links, list_words
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

_STEM_LENGTH = 5
_NEGATOR = re.compile(
    r"\b(?:not|no|none|never|cannot|without|neither|nor|non|dont|doesnt|isnt|cant|wont)\b(?!['’])|\b(?:[^\W\d_]+n['’]t)\b"
    r"|(?<=[:?=])\s*n(?=\s*(?:[|,.;)/]|$))",
    re.IGNORECASE,
)
# Denies nothing.
_EMPTY = re.compile(r"not\s+(?:only|just|merely|simply|solely|limited to|to mention)\b|no\s+(?:doubt|matter)\b", re.I)
# An answer after its label: "Dogs: No.", and "Dogs: No Cats: Yes", but not "German? No worries".
_LABEL = re.compile(r"([^\W_]+)\W{0,3}[:?=]\s*$")
_ANSWER_END = re.compile(r"\s*(?:[|,.;!)/]|$|\s[A-Z0-9*•-])")
_CLAUSE_END = re.compile(r"[.!?]+(?=\s|$)|[|,;:()\[\]*•–—]|\s-\s")
_WORDS = load_words("guardrails/words.ini")["negations"]
_AUXILIARY, _SKIPPED = frozenset(_WORDS["auxiliary"]), frozenset(_WORDS["skipped"])
_SAME_WORD = {word: name for name in ("required", "expert") for word in _WORDS[name]}


class Negation(NamedTuple):
    """Hold one denial.

    Attributes:
        key: the stems of its subject, where an auxiliary follows one, and of the word denied; ":" after a label.
        name: the same in whole words, for a person.
        clause: the stems of the words of its clause.
        span: where its negator stands.
    """

    key: tuple[str, str]
    name: str
    clause: tuple[str, ...]
    span: tuple[int, int]


@lru_cache(maxsize=4096)
def find_negations(text: str) -> tuple[Negation, ...]:
    """Find what a text denies.

    | text                        | key                |
    |-----------------------------|--------------------|
    | "A degree is not required." | ("degre", "requi") |
    | "We don't track users."     | ("we", "track")    |
    | "No calls."                 | ("", "calls")      |
    | "Dogs: No"                  | ("dogs", ":")      |
    | "not only nice"             | nothing is denied  |
    """
    blank, found = blank_links(text), []
    ends = [0, *(match.end() for match in _CLAUSE_END.finditer(blank)), len(blank)]
    for match in _NEGATOR.finditer(blank):
        if _EMPTY.match(blank, match.start()):
            continue
        label = _LABEL.search(blank[max(0, match.start() - 40) : match.start()])
        if label and _ANSWER_END.match(blank, match.end()):
            stem = _stem(label[1].lower())
            found.append(Negation((stem, ":"), label[1], (stem,), match.span()))
            continue
        before = list_words(blank[ends[bisect_right(ends, match.start()) - 1] : match.start()])
        after = list_words(blank[match.end() : ends[bisect_left(ends, match.end())]])
        denied = next((word for word in after if not _is_skipped(word)), "")
        subject = _find_subject(before, match[0])
        if subject or denied:
            key, name = (_stem(subject), _stem(denied)), f"{subject} {denied}".strip()
            found.append(Negation(key, name, tuple(map(_stem, before + after)), match.span()))
    return tuple(found)


def _find_subject(before: Sequence[str], negator: str) -> str:
    """Return the last word before "is not" or "don't"; "" before "no" or where no auxiliary shows it a subject."""
    if negator[0].isupper() or not negator.lower().endswith(("t", "never")):
        return ""
    has_auxiliary = negator.lower() not in ("not", "never")
    for word in reversed(before):
        if word in _AUXILIARY:
            has_auxiliary = True
        elif not _is_skipped(word):
            return word if has_auxiliary else ""
    return ""


def _is_skipped(word: str) -> bool:
    return word in _AUXILIARY or word in _SKIPPED or word.endswith("ly") or word.isdigit()


def _stem(word: str) -> str:
    return "coded" if word in CODED_VOCABULARY else _SAME_WORD.get(word, word)[:_STEM_LENGTH]


def check_negations(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that nothing denied is affirmed and nothing new is denied; a whole clause that denies may go."""
    description = normalize_spaces(posting.description)
    original, found = find_negations(description), find_negations(text)
    n_original, n_found = (Counter(negation.key for negation in part) for part in (original, found))
    if n_original == n_found:
        return []
    n_known = n_original | Counter(negation.key for negation in find_negations(prompt))
    words, words_found = (Counter(map(_stem, list_words(part))) for part in (description, text))
    # Only what is said less often than before has gone with its clause.
    n_gone = Counter(
        negation.key
        for negation in original
        if sum(words_found[word] < words[word] for word in negation.clause) > len(negation.clause) / 2
    )
    missing = {n.key: n for n in original if n_original[n.key] - n_found[n.key] > n_gone[n.key]}
    new = {n.key: n for n in found if n_found[n.key] > n_known[n.key]}
    return [
        *(
            Failure("negations_kept", f"The original denies '{n.name}', the rewrite does not.")
            for n in missing.values()
        ),
        *(Failure("negations_kept", f"The original does not deny '{n.name}'.", n.span) for n in new.values()),
    ]
