"""Hold the gender-coded words (`coded_words.ini`) that the sample, the rewriting operators and the guardrails share.

Each row is an aligned triple, (masculine-coded, neutral, feminine-coded), so that any word has a counterpart of each
kind in the same grammatical place. A table of a user's own words takes their place in the operators
(`load_word_table`).
"""

import configparser
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ilqljax.errors import UserError
from ilqljax.hiring.word_files import load_words, parse_words

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


def make_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Make the pattern of whole words, in any case, where they are plain and describe a person or a team."""
    alternatives = []
    for word in sorted(dict.fromkeys(words), key=len, reverse=True):
        before = "".join(rf"(?<!\b{prefix}[ ])" for prefix in _NOT_AFTER.get(word, ()))
        after = rf"(?!\s+(?:{'|'.join(_NOT_BEFORE[word])})\b)" if word in _NOT_BEFORE else ""
        alternatives.append(f"{before}{re.escape(word)}{after}")
    # A hyphen, an "@", a slash or a dot on either side means a compound, an address or a name, not the plain adjective.
    return re.compile(rf"(?<![\w@/.\-])(?:{'|'.join(alternatives)})(?![\w@/\-])(?!\.\w)", re.IGNORECASE)


@dataclass(frozen=True)
class WordTable:
    """Hold which words the operators exchange, and for what: by code, each lower-case word's counterpart."""

    pattern: re.Pattern[str]
    to_code: Mapping[str, Mapping[str, str]]


BUILT_IN = WordTable(
    make_pattern([w for triple in SAMPLE_TRIPLES for w in triple] + [t[c] for t in REAL_TEXT_TRIPLES for c in (0, 2)]),
    {code: make_replacements(code) for code in CODES},
)


def load_word_table(path: str | Path) -> WordTable:
    """Read a table of words from an `.ini` file, whose words may be exchanged in every direction:

        [words]
        rockstar = skilled, dedicated

    A row is a masculine-coded word, its neutral and its feminine-coded counterpart. A file that cannot be read, has
    another form, or names a word twice raises a `UserError`.
    """
    advice = "Write a section [words] with rows 'rockstar = skilled, dedicated'."
    try:
        rows = parse_words(Path(path).read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise UserError(f"{path}: is not a table of words ({str(error).splitlines()[0]}). {advice}") from error
    if set(rows) != {"words"} or not rows["words"]:
        raise UserError(
            f"{path}: has the sections {sorted(rows) or 'none'}, and [words] with a row is needed. {advice}"
        )
    triples = [(first, *others) for first, others in rows["words"].items()]
    seen: dict[str, tuple[str, ...]] = {}
    for triple in triples:
        if len(triple) != len(CODES) or not all(re.fullmatch(r"[^\W\d_]+(?:[ '’-][^\W\d_]+)*", w) for w in triple):
            raise UserError(f"{path}: '{triple[0]} = {', '.join(triple[1:])}' is not a row of three words. {advice}")
        for word in map(str.lower, triple):
            if seen.setdefault(word, triple) is not triple or triple.count(word) > 1:
                raise UserError(f"{path}: '{word}' stands in the table twice. Keep one.")
    lowered = [tuple(map(str.lower, triple)) for triple in triples]
    to_code = {code: {w: t[i] for t in lowered for w in t if w != t[i]} for i, code in enumerate(CODES)}
    return WordTable(make_pattern(seen), to_code)


CODED_VOCABULARY = frozenset(w for triple in SAMPLE_TRIPLES + REAL_TEXT_TRIPLES for w in triple)
