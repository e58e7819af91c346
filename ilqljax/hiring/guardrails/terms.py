"""Check that technologies, places and requirements are kept, and that no other name or topic has appeared."""

import re
from collections.abc import Callable
from itertools import pairwise

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import INCLUSIVE_STATEMENTS, OPERATOR_WORDS
from ilqljax.hiring.guardrails.facts import YEARS
from ilqljax.hiring.guardrails.findings import (
    Check,
    Failure,
    blank_links,
    list_sentences,
    list_words,
    mentions,
)
from ilqljax.hiring.guardrails.lexicon import Found, find_places, find_technologies
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.word_files import load_words

MAX_REQUIREMENT_WORDS = 6
MIN_INVENTED_WORDS, MAX_INVENTED_SHARE, MIN_SENTENCE_WORDS = 2, 0.15, 4
_STEM_LENGTH = 5

_WORDS = load_words("guardrails/words.ini")["known"]
_STATEMENT_WORDS = frozenset(word for text in INCLUSIVE_STATEMENTS for word in list_words(text))
KNOWN_WORDS = frozenset(_WORDS["common"]) | _STATEMENT_WORDS | CODED_VOCABULARY | OPERATOR_WORDS
_PLAIN_NAMES = frozenset(_WORDS["plain names"])
_NAME = re.compile(r"(?<![\w@/.'’-])[A-Z][\w'’&+#-]*")
_SENTENCE_START = re.compile(r"(?:^|\n|[.!?][\"'”’)]*\s)\s*[\"'“‘(]?$")
_MARKS_LENGTH = 20
# A header's first field is a name, not the start of a sentence: "Initech | Berlin", "Initech, Berlin".
_HEAD_START = re.compile(r"(?:^|\n)\s*$")
_HEAD_END = re.compile(r"(?:\s+[A-Z][\w'’&+#.-]*)*\s*(?:[|(:–—]|-\s|,\s*[A-Z])")
_VERB = r"\s+(?:is|are|has|was|needs?|seeks?|wants?|offers?|hires?|looks?|pays?)\b"
_COMPANY_VERB = re.compile(_VERB)
_COMPANY = re.compile(rf"(?:^|(?<=[.!?]\s))([A-Z][\w'’&-]*(?:\s+[A-Z][\w'’&-]*)+){_VERB}")


def _is_respelt(name: str, text: str) -> bool:
    """Return whether a name stands in a text in other capitals ("BERLIN"); in small letters "US" is another word."""
    return not name.isupper() and mentions(text, name)


def make_lexicon_check(name: str, what: str, find: Callable[[str], Found]) -> Check:
    """Make the check that a lexicon's names are kept, and that none has appeared."""

    def check(posting: Posting, text: str, prompt: str) -> list[Failure]:
        before, after = blank_links(posting.description), blank_links(text)
        original, found = find(before), find(after)
        if original.keys() == found.keys():
            return []
        missing = [
            Failure(name, f"The {what} '{term}' is missing.")
            for term, span in original.items()
            if term not in found and not _is_respelt(before[slice(*span)], after)
        ]
        new = [term for term in found if term not in original]
        known = find(blank_links(prompt)) if new else {}
        return missing + [
            Failure(name, f"The {what} '{term}' is not in the original.", found[term])
            for term in new
            if term not in known
        ]

    return check


check_technologies = make_lexicon_check("technologies_kept", "technology", find_technologies)
check_places = make_lexicon_check("places_kept", "place", find_places)


def check_requirements(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that each short requirement that the original's text mentions is mentioned still.

    A requirement of years of experience is a barrier and may go.
    """
    del prompt
    items = [item.strip(" .-*") for item in re.split(r"[,;\n•]|\band\b", posting.requirements)]
    return [
        Failure("requirements_kept", f"The requirement '{item}' is missing.")
        for item in dict.fromkeys(items)
        if 0 < len(item.split()) <= MAX_REQUIREMENT_WORDS and not YEARS.search(item)
        if mentions(posting.description, item) and not mentions(text, item)
    ]


def check_names(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no capitalised word has appeared that neither the original nor the prompt has in any case.

    The first word of a sentence has its capital anyway; it is judged only where it does what a company does ("Initech
    is hiring") or is the first field of a header ("Initech | Berlin"). So are known words that make a new name ("Green
    Valley" and "Blue Oak" become "Blue Valley is hiring").
    """
    original, blank = list_words(blank_links(posting.description)), blank_links(text)
    known_pairs = {*pairwise(original), *pairwise(list_words(prompt))}
    failures = [
        Failure("name_invented", f"The name '{match[1]}' is not in the original.", match.span(1))
        for match in _COMPANY.finditer(blank)
        if KNOWN_WORDS.isdisjoint(words := list_words(match[1])) and not known_pairs.issuperset(pairwise(words))
    ]
    return failures or _find_new_names(posting, text, prompt)


def _find_new_names(posting: Posting, text: str, prompt: str) -> list[Failure]:
    blank = blank_links(text)
    # Blanking a link may cut a word that runs into it.
    known = {*list_words(posting.description), *list_words(blank_links(posting.description)), *list_words(prompt)}
    failures = []
    for match in _NAME.finditer(blank):
        words = list_words(match[0])
        if all(word in known or word in KNOWN_WORDS or word in _PLAIN_NAMES for word in words):
            continue
        if find_technologies(match[0]) or find_places(match[0]):  # judged by their own checks
            continue
        before = text, max(0, match.start() - _MARKS_LENGTH), match.start()
        is_header = _HEAD_START.search(*before) and _HEAD_END.match(blank, match.end())
        if _SENTENCE_START.search(*before) and not (is_header or _COMPANY_VERB.match(blank, match.end())):
            continue
        failures.append(Failure("name_invented", f"The name '{match[0]}' is not in the original.", match.span()))
    return failures


def check_sentences(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no sentence is about something else: that few of its words are ones which the original lacks.

    A word that begins like one of the original's ("manages", "managing") is not new.
    """
    known = {*list_words(posting.description), *list_words(prompt)}
    stems = {word[:_STEM_LENGTH] for word in known}
    failures = []
    for sentence, span in list_sentences(text):
        words = list_words(blank_links(sentence))
        new = [word for word in words if not (word in known or word in KNOWN_WORDS or word[:_STEM_LENGTH] in stems)]
        if len(words) < MIN_SENTENCE_WORDS or len(new) < MIN_INVENTED_WORDS:
            continue
        if len(new) > MAX_INVENTED_SHARE * len(words):
            reason = f"{len(new)} of {len(words)} words of a sentence are not in the original, first '{new[0]}'."
            failures.append(Failure("sentence_invented", reason, span))
    return failures
