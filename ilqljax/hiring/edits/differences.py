"""Show what changed between two texts, word by word."""

import difflib
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

MAX_PIECES = 2000  # words and spaces; comparing them all takes time in the square of their number
_PIECE = re.compile(r"\w+(?:['’]\w+)*|\s+|[^\w\s]")


class Segment(NamedTuple):
    """Hold a run of text that both have ("same"), only the first ("removed") or only the second ("added")."""

    kind: Literal["same", "removed", "added"]
    text: str


def diff_words(before: str, after: str) -> list[Segment]:
    """Return the segments that turn one text into another; a replacement is "removed", then "added".

    Longer texts than `MAX_PIECES` have in common only how they begin and end.

    The texts of "same" and "removed" give `before` exactly, those of "same" and "added" give `after` exactly. Words
    and punctuation marks are compared whole; white space alone never counts as something in common.

    | before          | after            | segments                                        |
    |-----------------|------------------|-------------------------------------------------|
    | "a strong team" | "a kind team"    | same "a ", removed "strong", added "kind", same " team" |
    """
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    if max(len(old), len(new)) <= MAX_PIECES:
        operations = difflib.SequenceMatcher(str.isspace, old, new, autojunk=False).get_opcodes()
    else:
        shared = min(len(old), len(new))
        start = _count_equal(old[:shared], new)
        end = _count_equal(old[::-1][: shared - start], new[::-1])
        a, b = len(old) - end, len(new) - end
        operations = [("equal", 0, start, 0, start), ("replace", start, a, start, b), ("equal", a, a + end, b, b + end)]
    segments = []
    for operation, a, b, c, d in operations:
        if operation == "equal":
            segments.append(Segment("same", "".join(old[a:b])))
        else:
            segments += [Segment("removed", "".join(old[a:b])), Segment("added", "".join(new[c:d]))]
    return [segment for segment in segments if segment.text]


def _count_equal(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many pieces are the same from the start on."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
