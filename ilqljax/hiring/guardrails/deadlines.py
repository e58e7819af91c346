"""Check that a date, weekday or time is still what it was: the last one, the first one, or the one before; that no
month or weekday is new; and that numbers count and bound what they did.

| original            | rewrite                  | verdict |
|---------------------|--------------------------|---------|
| "apply by 3 May"    | "the deadline is May 3"  | same    |
| "apply by 3 May"    | "apply before 3 May"     | changed |
| "start on Monday"   | "start after Monday"     | changed |
| "2 nurses, 3 wards" | "3 nurses on 2 wards"    | changed |
| "at least 2 shifts" | "about 2 shifts"         | changed |
"""

import re
from functools import lru_cache

from ilqljax.hiring.guardrails.clauses import DIGITS, list_stems
from ilqljax.hiring.guardrails.findings import NUMBER, Failure, Span, blank_links
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.word_files import load_words

_WORDS = load_words("guardrails/words.ini")
_RELATION = re.compile(
    "|".join(rf"(?P<{name}>\b(?:{'|'.join(patterns)})\b)" for name, patterns in _WORDS["deadlines"].items()), re.I
)
_MONTHS = [(month, month[:3]) for month in _WORDS["dates"]["months"]]
_MONTH = "|".join(f"{month}|{short}" for month, short in _MONTHS)
_WEEKDAY = "|".join(_WORDS["dates"]["weekdays"])
_DATE = re.compile(
    rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>{_MONTH})\b\.?"
    rf"|\b(?P<month2>{_MONTH})\b\.?\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\b"
    rf"|\b(?P<month3>(?!May|Mar\b|March|Sep\b|Dec\b|Jan\b)(?:{_MONTH}))\b"
    rf"|\b(?P<weekday>(?i:{_WEEKDAY}))s?\b"
    r"|\b(?P<time>\d{1,2}(?::\d\d)?\s*(?:[ap]\.?m\b)|noon|midnight|\d{1,2}:\d\d)"
)
_NAMED = re.compile(rf"\b(?:{'|'.join(month for month, _ in _MONTHS if month != 'May')}|(?i:{_WEEKDAY}))\b")
_COUNT = re.compile(rf"{NUMBER.pattern}|\b(?:{'|'.join(DIGITS)})\b", re.IGNORECASE)
_BOUND = re.compile(
    "|".join(rf"(?P<{n.replace(' ', '_')}>\b(?:{'|'.join(p)})\.?\s$)" for n, p in _WORDS["bounds"].items()), re.I
)
_WINDOW = 30

# What is bound, its relation, and where that first stands.
Relations = dict[tuple[str, str], Span]


@lru_cache(maxsize=4096)
def find_dates(text: str) -> Relations:
    """Find (date, its relation: "by", "before", "after", "on" or "") and where each first stands.

    The relation is the last such word in the same sentence before the date, up to another date; "on" is the weakest.
    """
    found: Relations = {}
    end = 0
    for match in _DATE.finditer(text):
        before = re.split(r"[.,;|!?]\s", text[max(end, match.start() - _WINDOW) : match.start()])[-1]
        relations = [relation.lastgroup for relation in _RELATION.finditer(before)]
        strong = [relation for relation in relations if relation != "on"]
        found.setdefault((_name_date(match), (strong or relations or [""])[-1]), match.span())
        end = match.end()
    return found


def _name_date(match: re.Match[str]) -> str:
    month = match["month"] or match["month2"] or match["month3"]
    if month:
        return f"{month[:3]} {match['day'] or match['day2'] or ''}".strip()
    return re.sub(r"[\s.]", "", match["weekday"] or match["time"]).lower().removesuffix("s")


def check_deadlines(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no "by", "before" or "after" of a date has become another one, and that no month or weekday is new."""
    said = posting.description + prompt
    new = [
        Failure("deadlines_kept", f"'{match[0]}' is not in the original.", match.span())
        for match in _NAMED.finditer(text)
        if not re.search(rf"\b{match[0][:3]}(?:{match[0][3:]}s?|t|s|rs|urs)?\b", said, re.IGNORECASE)
    ]
    return new + _compare_relations(
        "deadlines_kept", find_dates(normalize_spaces(posting.description)), find_dates(text)
    )


def _compare_relations(check: str, original: Relations, found: Relations) -> list[Failure]:
    """Report what stands in no relation that the original gives it; where the original gives none, any will do."""
    failures = []
    for (what, relation), span in found.items():
        known = {r for other, r in original if other == what}
        if relation and known and relation not in known and "" not in known:
            reason = f"'{relation} {what}' is '{' or '.join(sorted(known))} {what}' in the original."
            failures.append(Failure(check, reason, span))
    return failures


@lru_cache(maxsize=4096)
def find_bounds(text: str) -> Relations:
    """Find (number, "at least", "at most", "about" or "") and where each first stands; "5+" is "at least"."""
    found: Relations = {}
    for match in _COUNT.finditer(text):
        before = _BOUND.search(text[max(0, match.start() - _WINDOW) : match.start()])
        bound = before.lastgroup.replace("_", " ") if before else "at least" if text[match.end() :][:1] == "+" else ""
        found.setdefault((DIGITS.get(match[0].lower(), match[0]), bound), match.span())
    return found


def check_bounds(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no "at least", "at most" or "about" of a number has become another one."""
    original, found = (find_bounds(blank_links(part)) for part in (normalize_spaces(posting.description), text))
    return _compare_relations("bounds_kept", original, found)


@lru_cache(maxsize=4096)
def list_counts(text: str) -> tuple[tuple[str, tuple[str, ...], Span], ...]:
    """Return a text's numbers in digits, the stems of the two content words after each, and where each stands."""
    text, found = blank_links(text), []
    for match in _COUNT.finditer(text):
        clause = re.split(r"[.,;:|()\n]", text[match.end() : match.end() + 40])[0]
        found.append((DIGITS.get(match[0].lower(), match[0]), list_stems(clause)[:2], match.span()))
    return tuple(found)


def check_counts(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that no number counts what only other numbers of the original count ("3 nurses" for "2 nurses")."""
    original = [*list_counts(normalize_spaces(posting.description)), *list_counts(posting.description)]
    numbers = {number for number, _, _ in original}
    counted_by = {stems[0]: number for number, stems, _ in original if stems}
    pairs = {(number, stem) for number, stems, _ in original for stem in stems}
    failures = []
    for number, stems, span in list_counts(text):
        if stems and number in numbers and stems[0] in counted_by and pairs.isdisjoint((number, s) for s in stems):
            reason = (
                f"{number} counts what {counted_by[stems[0]]} does in the original ('{text[span[0] : span[1] + 12]}')."
            )
            failures.append(Failure("counts_kept", reason, span))
    return failures
