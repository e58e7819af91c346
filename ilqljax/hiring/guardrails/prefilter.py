"""Tell without a search that a pattern cannot be found in a text, because none of its words is there.

164 patterns of statements look through every rewrite, and five in six find nothing: that a text has neither "visa" nor
"sponsor" is known 20 times sooner than that a pattern of them has no match.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

_parser, _codes = re._parser, re._constants  # how `re` itself reads a pattern; there is no other door to it
_REPEATS = (_codes.MAX_REPEAT, _codes.MIN_REPEAT, _codes.POSSESSIVE_REPEAT)
# All that `re.IGNORECASE` takes for an ASCII letter and `str.lower` does not make one.
_LOWER = str.maketrans({"ſ": "s", "İ": "i", "ı": "i"})


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Return a text in which letters that `re.IGNORECASE` takes for one ASCII letter are that letter."""
    return text.translate(_LOWER).lower()


def list_literals(pattern: re.Pattern) -> frozenset[str]:
    """Return strings of which every match of a pattern has one, `fold`ed; none where there is no such string.

    `\\b(?:visa|work permits?)\\b` has "visa" and "work permit".
    """
    return _list_literals(_parser.parse(pattern.pattern, pattern.flags))


def _list_literals(sequence: Iterable) -> frozenset[str]:
    found, run = [], ""
    for code, value in [*sequence, (None, None)]:
        if code is _codes.LITERAL:
            run += fold(chr(value))
            continue
        if code is _codes.AT:  # a boundary has no length
            continue
        found.append(frozenset({run}) if run else frozenset())
        run = ""
        if code is _codes.SUBPATTERN:
            found.append(_list_literals(value[-1]))
        elif code is _codes.BRANCH:
            of_each = [_list_literals(branch) for branch in value[1]]
            found.append(frozenset().union(*of_each) if all(of_each) else frozenset())
        elif code is _codes.ASSERT or (code in _REPEATS and value[0] > 0):
            found.append(_list_literals(value[-1]))
    # The rarest, by a guess: long strings, and few of them.
    return max(filter(None, found), key=lambda strings: (min(map(len, strings)), -len(strings)), default=frozenset())


def may_match(literals: frozenset[str], folded: str) -> bool:
    """Return whether a pattern of these literals may have a match in a text that was `fold`ed."""
    return not literals or any(literal in folded for literal in literals)
