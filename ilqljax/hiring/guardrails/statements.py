"""Check that legal statements and the conditions of the work stand in the rewrite exactly as they stood before.

`statements.ini` says what they are. A statement also has a sign: "we sponsor visas" and "we cannot sponsor visas" are
two statements. Remote work and the right to work have their places as well: "remote (US)" and "remote (EU)".

`check_negations` compares all else that a text denies: a lost "not" turns a sentence round, yet changes a single word.
Words are compared by their first letters there, so that "not required" and "does not require" are the same.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ilqljax.hiring.edits.coded_words import CODED_VOCABULARY
from ilqljax.hiring.edits.operators import drop_demands
from ilqljax.hiring.guardrails.clauses import GENERIC, STOP_WORDS, StemIndex, list_clauses, shorten, stem
from ilqljax.hiring.guardrails.findings import Check, Failure, Span, blank_links, list_words, report
from ilqljax.hiring.guardrails.lexicon import find_places
from ilqljax.hiring.guardrails.prefilter import fold, list_literals, may_match
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

_WORDS = load_words("guardrails/words.ini")
_SPELT = {
    name: f"(?:{'|'.join(_WORDS[section][line])})"
    for name, section, line in (
        ("PAY", "pay words", "nouns"),
        ("PERSON", "person words", "nouns"),
        ("DEMONYM", "person words", "demonyms"),
    )
}
_NAMES = re.compile("|".join(_SPELT))
_PATTERNS = {
    check: {
        name: re.compile(_NAMES.sub(lambda match: _SPELT[match[0]], "|".join(patterns)), re.IGNORECASE)
        for name, patterns in table.items()
    }
    for check, table in load_words("guardrails/statements.ini").items()
}
_LITERALS = {pattern: list_literals(pattern) for table in _PATTERNS.values() for pattern in table.values()}
_WINDOW = 40
_NOT_BEFORE = re.compile(
    r"(?:\b(?:no|not|never|cannot|without|unable|neither|nor|none|unfortunately|non)\b|n['’]t\b)[^.!?|*•]{0,24}$",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r"\b([^\W\d_]+(?:['’]s)?)[- ](?:certificates?|certifications?|licen[cs]es?|degrees?|diplomas?|exams?)\b",
    re.IGNORECASE,
)
_NO_KIND = GENERIC.union(
    map(stem, ("valid", "full", "clean", "good", "new", "similar", "university", "college", "school"))
)
_SMALL_WORDS = frozenset({"a", "an", "the", "of", "for", "and", "your", "our", "is", "are"})
_WEEKDAYS = frozenset({"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"})
# The same where what is denied stands among much else: at most two words away, and not beyond an "and".
_CLOSELY_SIGNED = frozenset({"perks_kept", "schedule_kept"})
_NOT_CLOSE = re.compile(
    r"(?:\b(?:no|not|never|cannot|without|nor|neither|except|closed on)\b|n['’]t\b)"
    r"(?:\s+(?!and\b|but\b|or\b)[\w'’-]+){0,2}\s*$"
    r"|\b(?:off|free) on(?:\s+\w+,?)?(?:\s+and)?\s*$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"^(?:[^.!?|,;*•]{0,16}?(?:\b(?:is|are|will be|can)(?:\s+\w+ly)? not\b|\b(?:isn|aren|won|can)['’]t\b|\bcannot\b"
    r"|\bnot (?:available|possible|offered|provided)\b)"
    # "Remote: No", "Visa sponsorship? None", "Remote - no |".
    r"|\s+(?:and \w+ )?(?:it )?(?:(?:is|are|stays) )?(?:off|free|closed)\b(?! of)"
    r"|[^.!?|,;*•:]{0,16}?(?:\s*[:?=]\s*(?:no|n|none|not)\b|\s*[–-]\s*(?:no|none)\s*(?:[|,.;)/]|$)))",
    re.IGNORECASE,
)
# Whether these are denied is for `demands` to say ("German is no must").
_UNSIGNED = frozenset({"level_kept", "credentials_kept"})
_WITH_PLACES = frozenset({"remote work", "work authorization"})
# What may stand between a statement and its places: "remote (anywhere in the US)".
_BEFORE_PLACE = re.compile(r"\W*(?:\b(?:work|role|position|job|only|anywhere|in|within|from|inside|for|the)\b\W*)*")
_STEM_LENGTH = 5
_CLAUSE_LENGTH = 400  # on each side of a negator
_NEGATOR = re.compile(
    r"\b(?:not|no|none|never|cannot|without|neither|nor|non|dont|doesnt|isnt|cant|wont)\b(?!['’])|\b(?:[^\W\d_]+n['’]t)\b"
    r"|(?<=[:?=])\s*n(?=\s*(?:[|,.;)/]|$))",
    re.IGNORECASE,
)
# Denies nothing.
_EMPTY = re.compile(
    r"not\s+(?:only|just|merely|simply|solely|limited to|to mention)\b"
    r"|no\s+(?:doubt|matter|(?:later|less|fewer|earlier|more) than)\b",
    re.I,
)
# An answer after its label: "Dogs: No.", and "Dogs: No Cats: Yes", but not "German? No worries".
_LABEL = re.compile(r"([^\W_]+)\W{0,3}[:?=]\s*$")
_ANSWER_END = re.compile(r"\s*(?:[|,.;!)/]|$|\s[A-Z0-9*•-])")
_CLAUSE_END = re.compile(r"(?<![.!?])[.!?]++(?=\s|$)|[|,;:()\[\]*•–—]|\s-\s")
_NEGATIONS = _WORDS["negations"]
_AUXILIARY, _SKIPPED = frozenset(_NEGATIONS["auxiliary"]), frozenset(_NEGATIONS["skipped"])
_SAME_WORD = {word: name for name in ("required", "expert") for word in _NEGATIONS[name]}

Statement = tuple[str, bool]


@lru_cache(maxsize=8192)
def find_statements(text: str, check: str) -> dict[Statement, Span]:
    """Find a table's statements: (name, whether it is affirmed), and where each first stands.

    "No visa sponsorship. Remote is fine." has ("visa sponsorship", False) of "statements_kept" and ("remote work",
    True) of "conditions_kept". "Remote (US only)" has ("remote work in united states", True).
    """
    found: dict[Statement, Span] = {}
    folded = fold(text)
    for name, pattern in _PATTERNS[check].items():
        for match in pattern.finditer(text) if may_match(_LITERALS[pattern], folded) else ():
            before = text[max(0, match.start() - _WINDOW) : match.start()]
            after = text[match.end() : match.end() + _WINDOW]
            is_denied = _NOT_CLOSE.search(before) if check in _CLOSELY_SIGNED else _NOT_BEFORE.search(before)
            affirmed = check in _UNSIGNED or not (is_denied or _NOT_AFTER.search(after))
            places = _find_places(match, text) if name in _WITH_PLACES else ""
            found.setdefault((name + places, affirmed), match.span())
    return found


def _find_places(match: re.Match[str], text: str) -> str:
    """Return the places that a statement names ("US citizens") or that follow it at once ("remote (US or EU)")."""
    after = re.split(r"[|;)\]\n]|\.\s", text[match.end() : match.end() + _WINDOW])[0]
    following = find_places(after)
    if following and min(following.values())[0] > _BEFORE_PLACE.match(after).end():
        following = {}
    places = sorted({*find_places(match[0]), *following})
    return f" in {' and '.join(places)}" if places else ""


def make_statement_check(check: str, *, in_any_form: bool = False) -> Check:
    """Make the check that a table's statements are kept with their sign, and that none has appeared.

    In any form ("costs of relocation" for "relocation costs") one whose words the other text has, too, is kept.

    Those of demands that only keep people away may go with them (`operators.drop_demands`).
    """

    def run(posting: Posting, text: str, prompt: str) -> list[Failure]:
        original, found = find_statements(posting.description, check), find_statements(text, check)
        if original.keys() == found.keys():
            return []
        # A statement that only a line break makes need not be kept. Patterns know single spaces only.
        flat = find_statements(normalize_spaces(posting.description), check)
        found = dict.fromkeys(find_statements(normalize_spaces(text), check), (0, 0)) | found
        known = {*original, *flat, *find_statements(prompt, check)}
        if not _WEEKDAYS.isdisjoint(name for name, _ in original):
            known.add(("weekly", True))  # "every Friday" is said as "on Friday, each week"
        if not posting.remote:  # the prompt's own line "Remote: no" says nothing
            known -= {("remote work", True), ("remote work", False)} - original.keys() - flat.keys()
        signed = {key: key[0] + " (denied)" * (not key[1]) for key in (*original, *found)}
        needed = flat.keys() & find_statements(drop_demands(posting.description), check).keys()
        if in_any_form:
            texts = (posting.description, original, text), (text, found, f"{posting.description} {prompt}")
            said, known_here = (_list_said(*each, check) for each in texts)
            needed, known = needed - said, known | known_here
        gone = [signed[key] for key in original if key in needed and key not in found]
        added = [(signed[key], span) for key, span in found.items() if key not in known]
        missing = "What the original says about {} is missing."
        return report(check, gone, missing, added, "The original says nothing like this about {}.")

    return run


def _list_said(text: str, statements: Mapping[Statement, Span], other: str, check: str) -> frozenset[Statement]:
    """Return a text's statements whose every word another text has; not those that it has with the other sign."""
    forms = {shorten(word) for word in list_words(other)}
    signed = find_statements(other, check)
    found = {
        key: {shorten(word) for word in list_words(text[slice(*span)])} - _SMALL_WORDS
        for key, span in statements.items()
        if (key[0], not key[1]) not in signed
    }
    return frozenset(key for key, words in found.items() if words and words <= forms)


def check_credential_kinds(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no degree, licence or certificate is of a kind (the word before it) that the original lacks."""
    known = {stem(word) for part in (posting.description, prompt) for word in list_words(part)}
    return [
        Failure("credential_kinds_kept", f"The original knows no '{match[0]}'.", match.span())
        for match in _CREDENTIAL.finditer(text)
        if match[1].lower() not in STOP_WORDS and stem(match[1]) not in known | _NO_KIND
    ]


def make_addition_check(check: str) -> Check:
    """Make the check that nothing of a table has appeared, affirmed or denied."""

    def run(posting: Posting, text: str, prompt: str) -> list[Failure]:
        known = {name for part in (posting.description, prompt) for name, _ in find_statements(part, check)}
        known |= {name for name, _ in find_statements(normalize_spaces(posting.description), check)}
        found = find_statements(text, check)
        added = [(f"{name} ('{text[slice(*span)]}')", span) for (name, _), span in found.items() if name not in known]
        return report(check, (), "", added, "The original says nothing about {}.")

    return run


class Negation(NamedTuple):
    """Hold one denial: the stems of its subject and of the word denied (":" after a label), and where it stands."""

    key: tuple[str, str]
    name: str  # the key in whole words
    clause: tuple[str, ...]  # stems
    span: Span  # of the negator


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
        first = max(ends[bisect_right(ends, match.start()) - 1], match.start() - _CLAUSE_LENGTH)
        before = list_words(blank[first : match.start()])
        after = list_words(blank[match.end() : min(ends[bisect_left(ends, match.end())], match.end() + _CLAUSE_LENGTH)])
        denied = next((word for word in after if not _is_skipped(word)), "")
        subject = _find_subject(before, match[0])
        if subject or denied:
            key, name = (_stem(subject), _stem(denied)), f"{subject} {denied}".strip()
            found.append(Negation(key, name, tuple(map(_stem, before + after)), match.span()))
    return tuple(found)


def is_denied(text: str) -> bool:
    """Return whether a text denies anything."""
    if re.search(r"\b(?:nobody|except)\b", text, re.IGNORECASE):
        return True
    return any(not _EMPTY.match(text, match.start()) for match in _NEGATOR.finditer(text))


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
    gone = {n.key: n.name for n in original if n_original[n.key] - n_found[n.key] > n_gone[n.key]}
    added = {n.key: (n.name, n.span) for n in found if n_found[n.key] > n_known[n.key]}
    missing, new = "The original denies '{}', the rewrite does not.", "The original does not deny '{}'."
    return report("negations_kept", gone.values(), missing, added.values(), new)


_TIMES = ("daily", "weekly", "every second week", "monthly", "quarterly", "yearly", "day shifts", "night work")
_TIMES += ("early work", "late work")
_TIME_STEMS = frozenset(map(stem, ("day", "week", "month", "year", "early", "late", "night", "shift")))
MIN_SHARED = 1  # stems that a clause shares with the one that it is compared with


def check_times(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that what is done at one time or as often is not said of another thing: each clause with its nearest one.

    "Plan shifts monthly, report weekly" and "plan shifts weekly, report monthly" state the same times.
    """
    original = list_clauses(posting.description)
    index, times_of, failures = StemIndex(clause.stems for clause in original), defaultdict(set), []
    for clause in original:
        times_of[clause.sentence] |= _list_times(clause.text)
    for clause in list_clauses(text):
        times = _list_times(clause.text)
        most, near = index.find_most(clause.stems - _TIME_STEMS) if times else (0, [])
        if most < MIN_SHARED:
            continue
        known = set().union(*(times_of[sentence] for sentence in {original[place].sentence for place in near}))
        if known and not times & known:
            reason = f"'{clause.text}' is {' and '.join(sorted(known))} in the original."
            failures.append(Failure("times_kept", reason, clause.span))
    return failures


@lru_cache(maxsize=16384)
def _list_times(text: str) -> frozenset[str]:
    patterns, folded = _PATTERNS["schedule_kept"], fold(text)
    return frozenset(
        name for name in _TIMES if may_match(_LITERALS[patterns[name]], folded) and patterns[name].search(text)
    )
