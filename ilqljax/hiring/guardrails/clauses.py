"""Take a text apart into clauses, and say how much of what one says another says, too.

What a clause says are the stems of its content words. Words that say the same in a posting (`synonyms.ini`) have one
stem, number words that of their digits; words that say nothing about the job have none.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import INCLUSIVE_STATEMENTS
from ilqljax.hiring.guardrails.findings import Span, blank_links, list_sentences, list_words
from ilqljax.hiring.word_files import load_words

_WORDS = load_words("guardrails/synonyms.ini")
_NUMBERS = load_words("guardrails/words.ini")["known"]["numbers"]
DIGITS = {word: str(n) for word, n in zip(_NUMBERS, (*range(2, 20), *range(20, 100, 10), 100, 1000), strict=False)}
ADJECTIVES = frozenset(_WORDS["adjectives"]["lines"])
STOP_WORDS = frozenset(_WORDS["stop words"]["words"])


def _inflect(phrase: str) -> list[str]:
    """Return a phrase with its first word as it is, in -s and in -ing: "look over", "looks over", "looking over"."""
    first, space, rest = phrase.partition(" ")
    return [phrase, f"{first}s {rest}", f"{first.removesuffix('e')}ing {rest}"] if space else [phrase]


_SAME = {form: name for name, words in _WORDS["same"].items() for word in words for form in _inflect(word)}
VOCABULARY = frozenset(_SAME) | STOP_WORDS  # ordinary words, which name nobody
_PHRASE = re.compile(
    rf"\b(?:{'|'.join(sorted((re.escape(word) for word in _SAME if not word.isalpha()), key=len, reverse=True))})\b"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,:]\d+)*")
_SUFFIX = re.compile(r"(?<=[a-z]{4})(?:ations?|itions?|ments?|ings?|ers?|ors?|ies|ied|es|ed|ly|s|e|y)$|(?<=[a-z]{3})s$")
_STEM_LENGTH = 6
_CLAUSE_END = re.compile(
    r"\s*(?:[,:](?!\d)|[;|()•*–—])\s*|\s-\s|\s+(?=(?:but|while|although|though|whereas|however|because|since)\b)"
)


class Clause(NamedTuple):
    """Hold a clause: its text and place, its sentence's number, and the stems of what it says."""

    text: str
    span: Span
    sentence: int
    stems: frozenset[str]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return the stem that words of one meaning share: "planning" and "designs" have that of "design"."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    if word in CODED_VOCABULARY:  # any may stand for any other: that is what rewriting is for
        return "coded"
    name = _SAME.get(word) or DIGITS.get(word) or _SAME_STEM.get(shorten(word), word)
    return shorten(name)[:_STEM_LENGTH]


def get_meaning(word: str) -> str:
    """Return the name of the line of adjectives of `synonyms.ini` that has a lower-case word, or the word itself."""
    name = _SAME.get(word, word)
    return name if name in ADJECTIVES else word


@lru_cache(maxsize=4096)
def list_meanings(text: str) -> frozenset[str]:
    """Return what `get_meaning` says of each of a text's words."""
    return frozenset(map(get_meaning, list_words(text)))


def shorten(word: str) -> str:
    """Return a word without its ending: "planning" and "plans" become "plan"."""
    short = _SUFFIX.sub("", re.sub(r"abilit(?:y|ies)$", "able", word))
    is_doubled = len(short) > 3 and short != word and short[-1] == short[-2] and short[-1] not in "aeiouls"
    return short[:-1] if is_doubled else short


# A form that no line has ("reliability") counts as what shares its stem.
_SAME_STEM = {shorten(word): name for name, words in reversed(_WORDS["same"].items()) for word in reversed(words)}


# What tells how strongly something is asked says nothing else.
STRENGTHS = {
    strength: re.compile(rf"\b(?:{'|'.join(patterns)})", re.IGNORECASE)
    for strength, patterns in load_words("guardrails/words.ini")["strengths"].items()
}
GENERIC = frozenset(map(stem, _WORDS["generic"]["lines"]))


@lru_cache(maxsize=16384)
def list_stems(text: str) -> tuple[str, ...]:
    """Return the stems of a text's content words, in order; generic ones only where there is no other."""
    for name, pattern in STRENGTHS.items():
        text = text if name == "not required" else pattern.sub(" ", text)
    text = _PHRASE.sub(lambda match: f" {_SAME[match[0]]} ", blank_links(text).lower().replace("’", "'"))
    stems = tuple(stem(word) for word in _WORD.findall(text) if word not in STOP_WORDS)
    return tuple(each for each in stems if each not in GENERIC) or stems


@lru_cache(maxsize=4096)
def list_clauses(text: str) -> tuple[Clause, ...]:
    """Return the clauses of a text: its sentences, split at commas, colons and the like."""
    clauses = []
    for number, (sentence, (start, _)) in enumerate(list_sentences(text)):
        blank = blank_links(sentence)
        ends = [(0, 0), *(match.span() for match in _CLAUSE_END.finditer(blank)), (len(blank), len(blank))]
        for (_, begin), (end, _) in pairwise(ends):
            if part := sentence[begin:end].strip():
                stems = frozenset(list_stems(part))
                clauses.append(Clause(part, (start + begin, start + end), number, stems))
    return tuple(clauses)


@lru_cache(maxsize=4096)
def restore_lines(text: str, original: str) -> str:
    """Break a text at spaces where a line of the original starts or ends, known by its three words there.

    Offsets stay. In "a list\nof skills" and "a list of skills" the space becomes the line break.
    """
    if "\n" not in original:
        return text
    lines = [words for line in original.splitlines() if (words := line.split())]
    firsts, lasts = ({tuple(words[part]) for words in lines} for part in (slice(0, 3), slice(-3, None)))
    places = [match.span() for match in re.finditer(r"\S+", text)]
    words = [text[start:end] for start, end in places]
    letters = list(text)
    for row, (start, end) in enumerate(places):
        if start and any(tuple(words[row : row + n]) in firsts for n in (1, 2, 3)):
            letters[start - 1] = "\n"
        if end < len(text) and any(tuple(words[max(0, row - n + 1) : row + 1]) in lasts for n in (1, 2, 3)):
            letters[end] = "\n"
    return "".join(letters)


def blank_statements(text: str) -> str:
    """Replace what `include` appends by as many line breaks: it is no clause, and spans stay right."""
    for statement in INCLUSIVE_STATEMENTS:
        text = text.replace(statement, "\n" * len(statement))
    return text


class StemIndex:
    """Count what many sets of stems share with another, without a look at those that share nothing."""

    def __init__(self, sets: Iterable[frozenset[str]]) -> None:
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, stems in enumerate(sets):
            for each in stems:
                self._places[each].append(place)

    def find_most(self, stems: Iterable[str]) -> tuple[int, list[int]]:
        """Return the most stems that a set shares, and the places of all sets that share so many; none for 0."""
        shared = Counter(place for each in stems for place in self._places.get(each, ()))
        most = max(shared.values(), default=0)
        return most, sorted(place for place, n in shared.items() if n == most)


def measure_overlap(stems: Iterable[str], others: Iterable[str]) -> float:
    """Return the share of the stems that the others hold; 1 where there is none."""
    stems, others = set(stems), set(others)
    return len(stems & others) / len(stems) if stems else 1.0
