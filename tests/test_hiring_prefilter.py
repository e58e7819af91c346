"""What tells that a pattern is not in a text never hides a match."""

import re
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilqljax.hiring.guardrails.prefilter import fold, list_literals, may_match
from ilqljax.hiring.guardrails.statements import _LITERALS, _PATTERNS

ALL_PATTERNS = [pattern for table in _PATTERNS.values() for pattern in table.values()]


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        (r"\b(?:visa|work permits?)\b", {"visa", "work permit"}),
        (r"Sponsor(?:ing)?", {"sponsor"}),
        (r"(?:a|b)+c", {"c"}),
        (r"(?:not )?paid (?=overtime|nights)", {"overtime", "nights"}),
        (r"(?<!un)paid", {"paid"}),
        (r"(?:bonus|\d+ days)?", set()),
        (r"[a-z]+|x", set()),
    ],
)
def test_literals_are_what_every_match_has_one_of(pattern, literals):
    assert list_literals(re.compile(pattern, re.IGNORECASE)) == literals


def test_letters_that_a_pattern_takes_for_ascii_are_folded_to_it():
    letters = re.compile(r"[a-z]", re.IGNORECASE)
    taken = [c for c in map(chr, range(sys.maxunicode + 1)) if letters.match(c)]
    assert len(taken) > 2 * len(string.ascii_lowercase)
    for c in taken:
        assert re.fullmatch(fold(c), c, re.IGNORECASE) and fold(c) in string.ascii_lowercase


def test_all_patterns_of_statements_have_literals():
    assert len(ALL_PATTERNS) > 100 and all(_LITERALS[pattern] for pattern in ALL_PATTERNS)


@given(st.data())
def test_no_match_is_hidden(data):
    pattern = data.draw(st.sampled_from(ALL_PATTERNS))
    text = data.draw(st.from_regex(pattern))
    assert may_match(_LITERALS[pattern], fold(text))
