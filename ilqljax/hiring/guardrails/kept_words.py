"""Check that an edit of single words leaves the words alone that say what the job is.

Whatever a damage is about (a degree of another subject, a lost perk, "may" for "must", another month), it takes a noun,
a verb or a word of strength away, or brings one. So those are counted, wherever they stand: sentences may be moved.
Adjectives and adverbs may be exchanged, since that is what rewriting is for; those that matter (levels, traits, times)
have checks of their own. `lemminflect` has the dictionary that says what a word may be. A word that it does not know
counts, as a name or a slip ("shrewm"); in a sentence of another language only if it is capitalised.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import drop_demands, replace_phrases, split_sentences
from ilqljax.hiring.guardrails.clauses import (
    ADJECTIVES,
    GENERIC,
    STOP_WORDS,
    blank_statements,
    get_meaning,
    list_clauses,
    stem,
)
from ilqljax.hiring.guardrails.facts import YEARS
from ilqljax.hiring.guardrails.findings import WORD, Failure, Span, blank_links, list_sentences, list_words
from ilqljax.hiring.guardrails.lexicon import find_places, find_technologies
from ilqljax.hiring.guardrails.wording import detect_language
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

_WORDS = load_words("guardrails/words.ini")["words kept"]
_STRENGTHS, _STYLE = (frozenset(_WORDS[name]) for name in ("strengths", "style"))
_DESCRIBING = frozenset({"ADJ", "ADV"})
MAX_YEARS_WORDS = 3
MIN_GONE_SHARE = 0.8  # of a clause's words, for it to have gone
_EASING_OPERATORS = ("ease_demands", "plain_seniority", "plain_location")  # besides those of `drop_demands`


class Kept(NamedTuple):
    """Hold how often each word that counts stands in a text, by its stem, and how it is first written and where."""

    counts: Counter[str]
    first: Mapping[str, tuple[str, Span]]


@cache
def _find_parts(word: str) -> frozenset[str]:
    """Return the parts of speech that a lower-case word may be: "fight" is "NOUN" and "VERB", a name is nothing."""
    from lemminflect import getAllLemmas  # its dictionary takes half a second to read

    return frozenset(getAllLemmas(word))


@cache
def _is_free(word: str) -> bool:
    """Return whether a lower-case word may come, go and change."""
    if word in _STRENGTHS:
        return False
    if (
        word in _STYLE
        or word in STOP_WORDS
        or word.endswith(("n't", "n’t", "cannot"))
        or word in CODED_VOCABULARY
        or get_meaning(word) in ADJECTIVES
    ):
        return True
    return word[0].isdigit() or stem(word) in GENERIC or not _DESCRIBING.isdisjoint(_find_parts(word))


@lru_cache(maxsize=4096)
def list_kept_words(text: str) -> Kept:
    """Return the words of a text that an edit must keep: "We need a calm nurse" has "need" and "nurse"."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, Span]] = {}
    blank = blank_links(text)
    for sentence, span in list_sentences(text):
        is_foreign = detect_language(sentence) not in ("", "English")
        for match in WORD.finditer(blank, *span):
            word = match[0].lower()
            if _is_free(word) or (is_foreign and match[0].islower() and not _find_parts(word)):
                continue
            name = word if word in _STRENGTHS else stem(word)
            counts[name] += 1
            first.setdefault(name, (match[0], match.span()))
    return Kept(counts, first)


def _asks_for_years(sentence: str) -> bool:
    return bool(YEARS.search(sentence)) and list_kept_words(sentence).counts.total() <= MAX_YEARS_WORDS


@lru_cache(maxsize=1024)
def _list_explained(original: str) -> tuple[Counter[str], Counter[str]]:
    """Return what the operators take from a posting's words that must be kept, and what they bring.

    A sentence that asks for years ("You need 5 years of practice.") and for little else may go, too.
    """
    counts = list_kept_words(original).counts
    made = [drop_demands(original)]
    made += [
        " ".join(replace_phrases(s, name) for s in split_sentences(original))
        for name in ("soften", "drop_barriers", *_EASING_OPERATORS)
    ]
    taken, brought = Counter[str](), Counter[str]()
    for sentence in filter(_asks_for_years, split_sentences(original)):
        taken |= list_kept_words(sentence).counts
    for text in made:
        found = list_kept_words(text).counts
        taken |= counts - found
        brought += found - counts
    return taken, brought


@lru_cache(maxsize=4096)
def _list_listed(text: str) -> frozenset[str]:
    """Return the words of a text's technologies and places, which may be spelt otherwise and have their own checks."""
    spans = chain(*(find(text).values() for find in (find_technologies, find_places)))
    return frozenset(chain(*(list_words(text[slice(*span)]) for span in spans)))


def check_kept_words(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no noun, verb or word of strength ("must", "may") has gone altogether, come or been exchanged.

    A verb may be exchanged for another ("dominate" for "lead").
    """
    original, flat = normalize_spaces(posting.description), blank_statements(normalize_spaces(text))
    old, new = list_kept_words(original), list_kept_words(flat)
    if old.counts == new.counts:
        return []
    # Sentences of the original end at its lines; those of a posting read back from a prompt have none.
    (taken, brought), (taken_flat, brought_flat) = map(_list_explained, (posting.description, original))
    taken, brought = taken | taken_flat, brought | brought_flat
    less, more = old.counts - new.counts - taken, new.counts - old.counts - brought
    verbs = _list_verbs(less, old), _list_verbs(more, new)
    n_verbs = len(verbs[1]) + _count_free_verbs(original, flat)  # "use" for "utilize": the one does not count
    if verbs[0] and len(verbs[0]) <= n_verbs:
        less, more = less - Counter(verbs[0]), more - Counter(verbs[1][: len(verbs[0])])
    known = list_kept_words(prompt).counts - old.counts
    listed = _list_listed(original) | _list_listed(flat)
    less, more = (
        [name for name in names if kept.first[name][0].lower() not in listed]
        for names, kept in ((less, old), (more, new))
    )
    gone = [name for name in less if not new.counts[name]]
    come = [name for name in more if (name in _STRENGTHS or not old.counts[name]) and not known[name]]
    if not (gone or come) and less and more:  # "a senior designer and a junior developer", exchanged
        gone, come = less[:1], more[:1]
    missing = [Failure("words_kept", f"'{old.first[name][0]}' of the original is missing.") for name in gone]
    return missing + [
        Failure("words_kept", f"'{word}' is not in the original.", _find_word(word, span, text))
        for word, span in (new.first[name] for name in come)
    ]


def _find_word(word: str, span: Span, text: str) -> Span:
    """Return where a word stands, which had this span when line breaks were spaces."""
    found = None if text[slice(*span)] == word else re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    return found.span() if found else span


def _list_verbs(names: Counter[str], kept: Kept) -> list[str]:
    """Return those that may be verbs, each as often as it is counted."""
    return [n for n in names.elements() if n not in _STRENGTHS and "VERB" in _find_parts(kept.first[n][0].lower())]


def _count_free_verbs(before: str, after: str) -> int:
    """Count the verbs that have come of those that `list_kept_words` leaves out; what may describe is none."""
    come = Counter(list_words(after)) - Counter(list_words(before))
    parts = ((_find_parts(word), n) for word, n in come.items() if _is_free(word))
    return sum(n for found, n in parts if "VERB" in found and _DESCRIBING.isdisjoint(found))


def check_kept_clauses(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no clause of two words or more has gone: one of which nearly all words stand less often than before.

    What is said twice may be said once.
    """
    original, text = (YEARS.sub(" ", part) for part in (_drop_all(posting.description), blank_statements(text)))
    less = Counter(list_words(original)) - Counter(list_words(text))
    flat, failures = normalize_spaces(text), []
    for clause in list_clauses(original) if less.total() > 1 else ():
        words = frozenset(list_words(clause.text))
        n_gone = len(words & less.keys())
        if n_gone > 1 and n_gone >= MIN_GONE_SHARE * len(words) and normalize_spaces(clause.text) not in flat:
            failures.append(Failure("sentence_uncovered", f"The rewrite says nothing of '{clause.text}'."))
    return failures


@lru_cache(maxsize=1024)
def _drop_all(text: str) -> str:
    """Leave out all that operators may, and sentences that ask for little else than years."""
    sentences = [each for each in split_sentences(drop_demands(text)) if not _asks_for_years(each)]
    for name in _EASING_OPERATORS:
        sentences = [replace_phrases(sentence, name) for sentence in sentences]
    return "\n".join(sentences)
