"""Check that a rewrite is still a true and readable posting, before any reward counts.

An unbounded score alone prefers gibberish to an inclusive sentence (DOMAIN.md 2.12). Each check is named, looks at
one thing, and returns failures that say why and where. A rewrite with a failure is never an improvement.

| check           | fails when                                                                               |
|-----------------|------------------------------------------------------------------------------------------|
| not_empty       | there is no word                                                                         |
| company_kept    | the original text names the company, the rewrite does not                                |
| title_kept      | likewise the title                                                                       |
| location_kept   | likewise the location, or its part before the comma                                      |
| numbers_kept    | a number of the original is gone (years of experience may go), or a new one has appeared |
| links_kept      | a link or e-mail address is gone, or a new one has appeared                              |
| template_leak   | it holds a special token, the prompt's instruction, or a field label of the prompt       |
| repetition      | a three-word phrase occurs more often than `MAX_PHRASE_COUNT`, or a word thrice in a row |
| length          | fewer than 0.4 or more than 2.5 times the original's words                               |
| incoherent      | more than 40 % unknown words, or fewer than 20 % of its word pairs are known             |

A word is known if the original, the prompt, the operators of `rewrites` or a short list of common words has it; a
pair of neighbouring words if the original has it, with all coded words counted as one. The pair rule refuses shuffled
words; it also refuses a free paraphrase, which is the safe side to err on.
"""

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from ilqljax.tasks.hiring.coded_words import CODED_VOCABULARY
from ilqljax.tasks.hiring.postings import Posting, normalize_spaces
from ilqljax.tasks.hiring.prompts import INSTRUCTION
from ilqljax.tasks.hiring.rewrites import INCLUSIVE_STATEMENTS

SPECIAL_TOKENS = ("<|pad|>", "<s>", "</s>", "<a>", "</a>", "</eod>", "<|endoftext|>")
MIN_LENGTH_RATIO, MAX_LENGTH_RATIO = 0.4, 2.5
MAX_PHRASE_COUNT = 3
MAX_UNKNOWN_SHARE = 0.4
MIN_KNOWN_PAIR_SHARE = 0.2
_CODED = "\0coded"

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]+|[\w.+-]+@[\w-]+\.[\w.-]+", re.IGNORECASE)
# Numbers of years are a barrier, not a fact of the job; `soften` removes them.
_YEARS = re.compile(r"(?<![\d.,])\d[\d.,]*\s*(?:(?:-|–|to)\s*\d+\s*)?\+?\s*(?:years?|yrs?)\b", re.IGNORECASE)
_FIELD_LABEL = re.compile(r"(?:^|(?<=\s))(?:Posting|Requirements|Remote):\s")
_COMMON_TEXT = (
    "a about all also am an and any apply are as at available be been being better both but by can come could day do "
    "each every everyone expert experts experience fluent for from full good great has have help here hire hiring his "
    "her how if in into is it its job join like look looking make more most must need needs new no not now of on one "
    "open opportunity or other our out over people person please position posting role salesperson seek seeks should "
    "so some such team than that the their them there these they this those time to together up us use very want was "
    "we welcome well what when where which who will with work working would year years you your "
)
_STATEMENT_WORDS = frozenset(word for text in INCLUSIVE_STATEMENTS for word in _WORD.findall(text.lower()))
KNOWN_WORDS = frozenset(_COMMON_TEXT.split()) | _STATEMENT_WORDS | CODED_VOCABULARY


class Failure(NamedTuple):
    """Report one failed check.

    Attributes:
        check: its name in `CHECKS`.
        reason: what is wrong, for a person.
        span: start and end of the offending part of the rewrite; (0, 0) where something is missing.
    """

    check: str
    reason: str
    span: tuple[int, int] = (0, 0)


Check = Callable[[Posting, str, str], list[Failure]]


def check_rewrite(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Return what is wrong with a rewrite: nothing, or a failure of each check that it does not pass.

    Args:
        posting: the original.
        text: the rewrite.
        prompt: what the rewriter saw; its words count as known, its instruction must not come back.
    """
    if not _WORD.search(text):
        return [Failure("not_empty", "The rewrite holds no word.", (0, len(text)))]
    return [failure for check in CHECKS.values() for failure in check(posting, text, prompt)]


def _check_not_empty(posting: Posting, text: str, prompt: str) -> list[Failure]:
    del posting, prompt
    return [] if _WORD.search(text) else [Failure("not_empty", "The rewrite holds no word.", (0, len(text)))]


def make_fact_check(name: str, field: str) -> Check:
    """Make the check that a field of the posting that its text mentions is mentioned by the rewrite too."""

    def check(posting: Posting, text: str, prompt: str) -> list[Failure]:
        del prompt
        value = getattr(posting, field)
        for fact in dict.fromkeys((value, value.split(",")[0])):
            if fact.strip() and _mentions(posting.description, fact):
                return [] if _mentions(text, fact) else [Failure(name, f"The {field} '{fact}' is missing.")]
        return []

    return check


def _mentions(text: str, fact: str) -> bool:
    words = r"\s+".join(map(re.escape, fact.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _check_numbers(posting: Posting, text: str, prompt: str) -> list[Failure]:
    # A number that only the prompt's other fields hold is not invented.
    original = set(_NUMBER.findall(posting.description))
    required = set(_NUMBER.findall(_YEARS.sub(" ", posting.description)))
    found = set(_NUMBER.findall(text))
    failures = [
        Failure("numbers_kept", f"The number {number} of the original is missing.")
        for number in sorted(required - found)
    ]
    known = original | set(_NUMBER.findall(prompt))
    for match in _NUMBER.finditer(text):
        if match[0] not in known:
            failures.append(Failure("numbers_kept", f"The number {match[0]} is not in the original.", match.span()))
    return failures


def _find_links(text: str) -> dict[str, tuple[int, int]]:
    return {match[0].rstrip(".,;:!?").lower(): match.span() for match in _LINK.finditer(text)}


def _check_links(posting: Posting, text: str, prompt: str) -> list[Failure]:
    del prompt
    original, found = _find_links(posting.description), _find_links(text)
    missing = [Failure("links_kept", f"{link} is missing.") for link in original if link not in found]
    return missing + [
        Failure("links_kept", f"{link} is not in the original.", span)
        for link, span in found.items()
        if link not in original
    ]


def _check_template_leak(posting: Posting, text: str, prompt: str) -> list[Failure]:
    del prompt
    leaks = [(token, at, at + len(token)) for token in SPECIAL_TOKENS if (at := text.find(token)) >= 0]
    leaks = [leak for leak in leaks if leak[0] not in posting.description]
    # Four words of the instruction in a row give it away even when the sampler mangled the rest.
    start = " ".join(INSTRUCTION.split()[:4])
    for part in (start, " ".join(INSTRUCTION.split()[-4:])):
        match = re.search(r"\s+".join(map(re.escape, part.rstrip(".").split())), text, re.IGNORECASE)
        if match and not _mentions(posting.description, part.rstrip(".")):
            leaks.append((part, *match.span()))
    for match in _FIELD_LABEL.finditer(text):
        if match[0].strip().lower() not in posting.description.lower():
            leaks.append((match[0].strip(), *match.span()))
    return [Failure("template_leak", f"'{part}' belongs to the prompt.", (start, end)) for part, start, end in leaks]


def _check_repetition(posting: Posting, text: str, prompt: str) -> list[Failure]:
    del prompt
    matches = list(_WORD.finditer(text.lower()))
    words = [match[0] for match in matches]
    original = _count_phrases([w.lower() for w in _WORD.findall(posting.description)], 3)
    failures = []
    for i in range(len(words) - 2):
        if words[i] == words[i + 1] == words[i + 2] and original[tuple(words[i : i + 3])] == 0:
            span = (matches[i].start(), matches[i + 2].end())
            failures.append(Failure("repetition", f"'{words[i]}' stands three times in a row.", span))
            break
    for phrase, n in _count_phrases(words, 3).items():
        if n > max(MAX_PHRASE_COUNT, original[phrase]):
            at = next(i for i in range(len(words)) if tuple(words[i : i + 3]) == phrase)
            span = (matches[at].start(), matches[at + 2].end())
            failures.append(Failure("repetition", f"'{' '.join(phrase)}' occurs {n} times.", span))
            break
    return failures


def _count_phrases(words: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))


def _check_length(posting: Posting, text: str, prompt: str) -> list[Failure]:
    del prompt
    n_original, n = len(normalize_spaces(posting.description).split()), len(text.split())
    ratio = n / max(1, n_original)
    if MIN_LENGTH_RATIO <= ratio <= MAX_LENGTH_RATIO:
        return []
    return [Failure("length", f"{n} words for {n_original} of the original ({ratio:.2f} times).", (0, len(text)))]


def _check_coherence(posting: Posting, text: str, prompt: str) -> list[Failure]:
    # A link's parts would count as known pairs wherever it stands; `links_kept` judges links.
    original = [w.lower() for w in _WORD.findall(_blank_links(posting.description))]
    matches = list(_WORD.finditer(_blank_links(text).lower()))
    words = [match[0] for match in matches]
    known = KNOWN_WORDS.union(original, (w.lower() for w in _WORD.findall(prompt)))
    unknown = [match for match in matches if match[0] not in known and not match[0].isdigit()]
    if len(unknown) > MAX_UNKNOWN_SHARE * len(words):
        reason = (
            f"{len(unknown)} of {len(words)} words are neither in the original nor common, first '{unknown[0][0]}'."
        )
        return [Failure("incoherent", reason, unknown[0].span())]
    # The statements that `include` appends are readable by construction.
    pairs = list(_pair_words(words))
    known_pairs = set(_pair_words(original)).union(
        *(_pair_words(_WORD.findall(statement.lower())) for statement in INCLUSIVE_STATEMENTS)
    )
    n_known = sum(pair in known_pairs for pair in pairs)
    if n_known < MIN_KNOWN_PAIR_SHARE * len(pairs):
        reason = f"Only {n_known} of {len(pairs)} neighbouring word pairs occur in the original: shuffled or made up."
        return [Failure("incoherent", reason, (0, len(text)))]
    return []


def _blank_links(text: str) -> str:
    return _LINK.sub(lambda match: " " * len(match[0]), text)  # the same length, so that spans stay right


def _pair_words(words: list[str]) -> list[tuple[str, str]]:
    # Articles follow the coded word after them ("a warm", "an assertive"), so they are one word here as well.
    same = ["a" if word == "an" else _CODED if word in CODED_VOCABULARY else word for word in words]
    return list(pairwise(same))


CHECKS: dict[str, Check] = {
    "not_empty": _check_not_empty,
    "company_kept": make_fact_check("company_kept", "company"),
    "title_kept": make_fact_check("title_kept", "title"),
    "location_kept": make_fact_check("location_kept", "location"),
    "numbers_kept": _check_numbers,
    "links_kept": _check_links,
    "template_leak": _check_template_leak,
    "repetition": _check_repetition,
    "length": _check_length,
    "incoherent": _check_coherence,
}
