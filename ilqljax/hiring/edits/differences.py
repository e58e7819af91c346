"""Show what changed between two texts, word by word."""

import difflib
import re
from collections.abc import Iterator
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
    return list(_merge(_compare(_PIECE.findall(before), _PIECE.findall(after))))


def _compare(old: list[str], new: list[str]) -> Iterator[Segment]:
    matcher = difflib.SequenceMatcher(str.isspace, old, new, autojunk=False)
    for operation, a, b, c, d in matcher.get_opcodes():
        if operation == "equal":
            yield Segment("same", "".join(old[a:b]))
        else:
            yield Segment("removed", "".join(old[a:b]))
            yield Segment("added", "".join(new[c:d]))


def _merge(segments: Iterator[Segment]) -> Iterator[Segment]:
    waiting = Segment("same", "")
    for segment in segments:
        if not segment.text:
            continue
        if segment.kind == waiting.kind:
            waiting = Segment(waiting.kind, waiting.text + segment.text)
            continue
        if waiting.text:
            yield waiting
        waiting = segment
    if waiting.text:
        yield waiting
