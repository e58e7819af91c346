"""Say what a guardrail found, and hold the patterns of words, numbers and links that several guardrails share."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from ilqljax.hiring.edits.operators import find_sentences
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
MAX_NAME_LENGTH = 300  # of what is looked for at every word; longer ones would take time in the square of their length
_TOP_LEVEL = "com|org|net|io|co|ai|edu|gov|me|us|uk|de|fr|nl|ca|au|eu|ch|tv|app|dev|ly|info|biz|example"
_DOT = r"(?:\.(?=\w)|\s+\.\s+|\s*[\[({<]\s*dot\s*[\])}>]\s*)"
LINK = re.compile(
    r"(?:https?://|www\.)[^\s<>\"')\]]+"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+"
    # An address spelt against robots: "jobs [at] oak [dot] com", "jobs at oak dot com". The dot of a sentence's end is
    # followed by a space, so it is no part of one.
    rf"|(?<![\w.+-])[\w.+-]+\s*[\[({{<]\s*at\s*[\])}}>]\s*[\w-]+(?:{_DOT}[\w-]+)+"
    rf"|(?<![\w.+-])[\w.+-]+ (?:at|-at-|- at -) [\w-]+(?: dot [\w-]+)* dot (?:{_TOP_LEVEL})\b"
    # A bare domain, "oak.com/jobs"; ASP.NET and its kind are not addresses.
    rf"|(?<![\w@.-])(?!(?:asp|ado|vb|socket)\.)(?:[a-z0-9][a-z0-9-]*\.)+(?:{_TOP_LEVEL})\b(?!\.\w)(?:/[^\s<>\"')\]]*)?",
    re.IGNORECASE,
)


Span = tuple[int, int]


class Failure(NamedTuple):
    """Report a check of `CHECKS` that failed, why, and where in the rewrite, which is (0, 0) for what is missing.

    A text with "damage" is no posting that may be published; a "copy" is a true posting, but not a rewrite.
    """

    check: str
    reason: str
    span: Span = (0, 0)
    severity: Literal["damage", "copy"] = "damage"


Check = Callable[[Posting, str, str], list[Failure]]


def report(check: str, gone: Iterable, missing: str, added: Iterable[tuple[object, Span]], new: str) -> list[Failure]:
    """Return a failure for all that is gone, and for all that was added, where it stands; `{}` is what it is about."""
    failures = [Failure(check, missing.format(fact)) for fact in gone]
    return failures + [Failure(check, new.format(fact), span) for fact, span in added]


@lru_cache(maxsize=4096)
def list_words(text: str) -> tuple[str, ...]:
    """Return the words and whole numbers of a text in lower case, in order."""
    return tuple(WORD.findall(text.lower()))


@lru_cache(maxsize=4096)
def list_sentences(text: str) -> tuple[tuple[str, Span], ...]:
    """Return the sentences of a text (`operators.find_sentences`), each with its span."""
    return tuple((normalize_spaces(text[slice(*span)]), span) for span in find_sentences(text))


@lru_cache(maxsize=4096)
def blank_links(text: str) -> str:
    """Replace links and addresses by as many spaces, so that spans stay right."""
    return LINK.sub(lambda match: " " * len(match[0]), text)


def mentions(text: str, fact: str) -> bool:
    """Return whether a text holds a fact as whole words, whatever its case and white space.

    Where a fact of more than `MAX_NAME_LENGTH` letters begins and ends is not looked at.
    """
    if len(fact) > MAX_NAME_LENGTH:
        return normalize_spaces(fact).lower() in normalize_spaces(text).lower()
    words = r"\s+".join(map(re.escape, fact.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None
