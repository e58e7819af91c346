"""Check that legal statements and the conditions of the work stand in the rewrite exactly as they stood before.

Each row of `STATEMENTS` is a statement that an employer must or chose to make, each of `CONDITIONS` a fact of the
contract. A statement also has a sign: "we sponsor visas" and "we cannot sponsor visas" are two statements. Remote work
and the right to work have their places as well: "remote (US)" and "remote (EU)" are two statements.
"""

import re
from functools import lru_cache

from ilqljax.hiring.guardrails.findings import Check, Failure
from ilqljax.hiring.guardrails.lexicon import find_places
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

STATEMENTS = {
    "equal opportunity": r"\bequal[- ](?:employment[- ])?opportunit(?:y|ies)\b|\beeoc?\b|\beoe\b|\bm/f/d(?:/v)?\b"
    r"|\bwithout regard to\b|\baffirmative action\b|\b(?:do(?:es)?|will) not discriminate\b|\bnon-?discrimination\b",
    "visa sponsorship": r"\bvisas?\b|\bh-?1b\b|\bwork permits?\b"
    r"|\bsponsor(?:ship|s)?\b(?=.{0,25}\b(?:visa|h-?1b|permit))",
    "work authorization": r"\b(?:work|employment) authori[sz]ation\b|\bauthori[sz]ed to work\b|\bright to work\b"
    r"|\beligible to work\b|\be-?verify\b|\bgreen ?cards?\b"
    r"|\b(?:us|usa|u\.s\.|eu|eea|uk) (?:citizen(?:ship|s)?|residents?|only)\b",
    "background check": r"\bbackground (?:checks?|screening|investigations?)\b|\bcriminal (?:records?|history)\b"
    r"|\bdbs checks?\b",
    "drug test": r"\bdrug[- ](?:tests?|testing|screen(?:ing)?|free)\b",
    "accommodation": r"\breasonable (?:accommodations?|adjustments?)\b|\bamericans with disabilities\b"
    r"|\baccommodations?\b(?=.{0,60}\b(?:disabilit|applicants|interview))",
    "security clearance": r"\b(?:security|secret|top[- ]secret|dod) clearances?\b|\bts/sci\b",
    "age limit": r"\b(?:1[68]|21) years (?:old|of age)\b|\b(?:over|minimum age) (?:of )?(?:1[68]|21)\b",
    "recruiters": r"\b(?:recruiters?|agencies|recruiting firms|headhunters)\b"
    r"(?=,? (?:please|need not|will|calls|or)\b)",
    "privacy": r"\bgdpr\b|\bprivacy (?:policy|notice)\b|\bdata protection\b",
}
CONDITIONS = {
    "remote work": r"\bremote(?:ly)?\b|\btelecommut\w+|\bwork(?:ing)? from home\b|\bwfh\b|\bdistributed team\b",
    "work on site": r"\bon[- ]?site\b|\bin[- ]office\b|\brelocat\w+",
    "full time": r"\bfull[- ]?time\b",
    "part time": r"\bpart[- ]?time\b",
    "contract": r"\bcontractors?\b|\bfreelanc\w+|\bfixed[- ]term\b"
    r"|\bcontract[- ](?:work|position|role|basis|only|to[- ]hire)\b"
    # Alone between the separators of a header.
    r"|(?:(?<=[|/,(])|(?<=[|/,(] )|(?<=\bor ))contract\b(?=\s*(?:[|/,;).]|or\b|$))",
    "internship": r"\bintern(?:ship)?s?\b",
    "unpaid": r"\bunpaid\b|\bvolunteers?\b",
    "equity": r"\bequity\b|\bstock options?\b|\brsus?\b",
    "benefits": r"\b(?:health|medical|dental) (?:insurance|care|coverage|benefits)\b|\b401\(?k\)?|\bparental leave\b"
    r"|\bmaternity leave\b|\bpaid (?:time off|vacation|leave|holidays)\b|\bpto\b",
}
_PATTERNS = {
    check: {name: re.compile(pattern, re.IGNORECASE) for name, pattern in table.items()}
    for check, table in (("statements_kept", STATEMENTS), ("conditions_kept", CONDITIONS))
}
_WINDOW = 40
_NOT_BEFORE = re.compile(
    r"(?:\b(?:no|not|never|cannot|without|unable|neither|nor|none|unfortunately|non)\b|n['’]t\b)[^.!?|*•]{0,24}$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"^(?:[^.!?|,;*•]{0,16}?(?:\b(?:is|are|will be|can)(?:\s+\w+ly)? not\b|\b(?:isn|aren|won|can)['’]t\b|\bcannot\b"
    r"|\bnot (?:available|possible|offered|provided)\b)"
    # "Remote: No", "Visa sponsorship? None", "Remote - no |".
    r"|[^.!?|,;*•:]{0,16}?(?:\s*[:?=]\s*(?:no|n|none|not)\b|\s*[–-]\s*(?:no|none)\s*(?:[|,.;)/]|$)))",
    re.IGNORECASE,
)
_WITH_PLACES = frozenset({"remote work", "work authorization"})
# What may stand between a statement and its places: "remote (anywhere in the US)".
_BEFORE_PLACE = re.compile(r"\W*(?:\b(?:only|anywhere|in|within|from|inside|for|the)\b\W*)*")

Statement = tuple[str, bool]


@lru_cache(maxsize=8192)
def find_statements(text: str, check: str) -> dict[Statement, tuple[int, int]]:
    """Find a table's statements: (name, whether it is affirmed), and where each first stands.

    "No visa sponsorship. Remote is fine." has ("visa sponsorship", False) of "statements_kept" and ("remote work",
    True) of "conditions_kept". "Remote (US only)" has ("remote work in united states", True).
    """
    found: dict[Statement, tuple[int, int]] = {}
    for name, pattern in _PATTERNS[check].items():
        for match in pattern.finditer(text):
            before = text[max(0, match.start() - _WINDOW) : match.start()]
            after = text[match.end() : match.end() + _WINDOW]
            affirmed = not (_NOT_BEFORE.search(before) or _NOT_AFTER.search(after))
            places = _find_places(match, text) if name in _WITH_PLACES else ""
            found.setdefault((name + places, affirmed), match.span())
    return found


def _find_places(match: re.Match[str], text: str) -> str:
    """Return the places that a statement names ("US citizens") or that follow it at once ("remote (US or EU)")."""
    after = re.split(r"[|;)\]\n]|\.\s", text[match.end() : match.end() + _WINDOW])[0]
    following = find_places(after)
    if not following or min(following.values())[0] > _BEFORE_PLACE.match(after).end():
        following = {}
    places = sorted({*find_places(match[0]), *following})
    return f" in {' and '.join(places)}" if places else ""


def make_statement_check(check: str) -> Check:
    """Make the check that a table's statements are kept with their sign, and that none has appeared."""

    def run(posting: Posting, text: str, prompt: str) -> list[Failure]:
        original, found = find_statements(posting.description, check), find_statements(text, check)
        if original.keys() == found.keys():
            return []
        # A statement that only a line break makes need not be kept.
        flat = find_statements(normalize_spaces(posting.description), check)
        known = {*original, *flat, *find_statements(prompt, check)}
        if not posting.remote:  # the prompt's own line "Remote: no" says nothing
            known -= {("remote work", True), ("remote work", False)} - original.keys() - flat.keys()
        missing = [
            Failure(check, f"What the original says about {_show(key)} is missing.")
            for key in original
            if key in flat and key not in found
        ]
        return missing + [
            Failure(check, f"The original says nothing like this about {_show(key)}.", span)
            for key, span in found.items()
            if key not in known
        ]

    return run


def _show(statement: Statement) -> str:
    name, affirmed = statement
    return name if affirmed else f"{name} (denied)"
