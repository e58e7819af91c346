"""Show what changed between two texts, word by word."""

import difflib
import re
from typing import Literal, NamedTuple

_PIECE = re.compile(r"\w+(?:['’]\w+)*|\s+|[^\w\s]")


class Segment(NamedTuple):
    """Hold a run of text that both have ("same"), only the first ("removed") or only the second ("added")."""

    kind: Literal["same", "removed", "added"]
    text: str


def diff_words(before: str, after: str) -> list[Segment]:
    """Return the segments that turn one text into another; a replacement is "removed", then "added".

    The texts of "same" and "removed" give `before` exactly, those of "same" and "added" give `after` exactly. Words
    and punctuation marks are compared whole; white space alone never counts as something in common.

    | before          | after            | segments                                        |
    |-----------------|------------------|-------------------------------------------------|
    | "a strong team" | "a kind team"    | same "a ", removed "strong", added "kind", same " team" |
    """
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    segments = []
    for operation, a, b, c, d in difflib.SequenceMatcher(str.isspace, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            segments.append(Segment("same", "".join(old[a:b])))
        else:
            segments += [Segment("removed", "".join(old[a:b])), Segment("added", "".join(new[c:d]))]
    return [segment for segment in segments if segment.text]
