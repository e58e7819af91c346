"""Hold the gender-coded words (`coded_words.ini`) that the sample, the rewriting operators and the guardrails share.

Each row is an aligned triple, (masculine-coded, neutral, feminine-coded), so that any word has a counterpart of each
kind in the same grammatical place.
"""

import re

from ilqljax.hiring.word_files import load_words

CODES = ("masculine", "neutral", "feminine")

_WORDS = load_words("edits/coded_words.ini")
SAMPLE_TRIPLES, REAL_TEXT_TRIPLES = (
    tuple((masculine, *others) for masculine, others in _WORDS[section].items()) for section in ("sample", "real text")
)
# What follows or precedes a word and shows that it does not describe a person or a team.
_NOT_BEFORE, _NOT_AFTER = _WORDS["not before"], _WORDS["not after"]


def make_replacements(code: str) -> dict[str, str]:
    """Map every lower-case source word to its counterpart of one code ("masculine", "neutral" or "feminine")."""
    column = CODES.index(code)
    mapping = {}
    for triples, sources in ((SAMPLE_TRIPLES, (0, 1, 2)), (REAL_TEXT_TRIPLES, (0, 2))):
        for triple in triples:
            for source in sources:
                if source != column:
                    mapping.setdefault(triple[source], triple[column])
    return mapping


def _make_pattern() -> re.Pattern[str]:
    words = [w for triple in SAMPLE_TRIPLES for w in triple] + [t[c] for t in REAL_TEXT_TRIPLES for c in (0, 2)]
    alternatives = []
    for word in dict.fromkeys(words):
        before = "".join(rf"(?<!\b{prefix}[ ])" for prefix in _NOT_AFTER.get(word, ()))
        after = rf"(?!\s+(?:{'|'.join(_NOT_BEFORE[word])})\b)" if word in _NOT_BEFORE else ""
        alternatives.append(f"{before}{word}{after}")
    # A hyphen, an "@", a slash or a dot on either side means a compound, an address or a name, not the plain adjective.
    return re.compile(rf"(?<![\w@/.\-])(?:{'|'.join(alternatives)})(?![\w@/\-])(?!\.\w)", re.IGNORECASE)


CODED_WORD = _make_pattern()
CODED_VOCABULARY = frozenset(w for triple in SAMPLE_TRIPLES + REAL_TEXT_TRIPLES for w in triple)
