"""Split postings into train, eval and test so that no company, text or repost is in two of them; keep a manifest."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ilqljax.data.files import hash_file, hash_text, save_text
from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

SPLIT_NAMES = ("train", "eval", "test")
MIN_SENTENCE_WORDS = 8  # unrelated postings share shorter ones
MAX_SENTENCE_POSTINGS = 50  # a sentence in more of them is boilerplate

_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++\s+|\n+")
_PUNCTUATION = re.compile(r"[^\w\s]+")


def split_postings(
    postings: Sequence[Posting], *, seed: int, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
) -> dict[str, list[str]]:
    """Split postings into train, eval and test; a company's postings, equal texts and reposts stay together.

    The groups are visited in a seeded random order, and each goes to the split that is furthest below its share. The
    result does not depend on the order of the postings; ids within a split are in the order given. Fractions that do
    not add up to 1, and fewer groups than splits, raise a `UserError`.
    """
    if len(fractions) != len(SPLIT_NAMES) or min(fractions) < 0.0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise UserError(
            f"fractions={fractions}: give three numbers, for {SPLIT_NAMES}, none negative, that add up to 1."
        )
    groups = _group_postings(postings)
    n_wanted = sum(fraction > 0.0 for fraction in fractions)
    if len(groups) < n_wanted:
        raise UserError(
            f"{len(postings)} postings of {len(groups)} companies cannot be split {n_wanted} ways without sharing a "
            "company. Give more postings, or set the fraction of a split to 0."
        )
    shares, counts = np.array(fractions), np.zeros(len(SPLIT_NAMES))
    split_of: dict[str, int] = {}
    for n_done, number in enumerate(np.random.default_rng(seed).permutation(len(groups))):
        group, empty = groups[number], (shares > 0.0) & (counts == 0)
        # The last groups go to splits that have none.
        open_to = empty if empty.sum() >= len(groups) - n_done else shares != 0.0
        chosen = int(np.argmax(np.where(open_to, shares * len(postings) - counts, -np.inf)))
        counts[chosen] += len(group)
        split_of |= dict.fromkeys(group, chosen)
    return {
        name: [posting.id for posting in postings if split_of[posting.id] == i] for i, name in enumerate(SPLIT_NAMES)
    }


def _group_postings(postings: Sequence[Posting]) -> list[list[str]]:
    """Return ids in groups that are tied, directly or through other postings; sorted."""
    ties = [(tie.first, tie.second) for tie in find_ties(postings)]
    ends = np.array(ties, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(ties)), ends), shape=(len(postings), len(postings)))
    groups: dict[int, list[str]] = {}
    for group, posting in zip(connected_components(graph)[1], postings, strict=True):
        groups.setdefault(group, []).append(posting.id)
    return sorted(map(sorted, groups.values()))


class Tie(NamedTuple):
    """Name what two postings share; `first < second` are their rows."""

    kind: str
    value: str
    first: int
    second: int


def find_ties(postings: Sequence[Posting]) -> Iterator[Tie]:
    """Yield what keeps postings in one split, whatever their order.

    | kind      | what the two share                                                                        |
    |-----------|-------------------------------------------------------------------------------------------|
    | id        | the id                                                                                    |
    | company   | the company, if known, without regard to case and spaces                                  |
    | text      | the description, without regard to spaces                                                 |
    | sentences | sentences of 8 words or more that make up half of the words of one of them (a repost),    |
    |           | without regard to case, spaces and punctuation; none that stands in more than 50 postings |

    Of an id, a company or a text, each posting is tied to the first that has it.
    """
    first_of: dict[tuple[str, str], int] = {}
    for row, posting in enumerate(postings):
        company, text = normalize_spaces(posting.company).casefold(), normalize_spaces(posting.description)
        for kind, value in (("id", posting.id), ("company", company), ("text", text)):
            first = first_of.setdefault((kind, value), row)
            if first != row and value:
                yield Tie(kind, value, first, row)
    yield from _find_reposts(postings)


def _find_reposts(postings: Sequence[Posting]) -> Iterator[Tie]:
    texts = [_count_words(posting.description) for posting in postings]
    totals = [sum(text.values()) for text in texts]
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        for sentence, n_words in text.items():
            if n_words >= MIN_SENTENCE_WORDS:
                rows_of.setdefault(sentence, []).append(row)
    for row, text in enumerate(texts):
        shared: dict[int, list[str]] = {}
        for sentence in text:
            rows = rows_of.get(sentence, [])
            for other in rows if len(rows) <= MAX_SENTENCE_POSTINGS else []:
                if other < row:
                    shared.setdefault(other, []).append(sentence)
        for other, sentences in shared.items():
            if 2 * sum(text[sentence] for sentence in sentences) >= min(totals[row], totals[other]):
                yield Tie("sentences", sentences[0], other, row)


def _count_words(text: str) -> dict[str, int]:
    """Return the number of words of each distinct sentence; sentences without case and punctuation.

    "Build it!\\nBuild it. We pay well." gives {"build it": 2, "we pay well": 3}.
    """
    sentences = (_PUNCTUATION.sub("", sentence).split() for sentence in _SENTENCE_END.split(text.casefold()))
    return {" ".join(words): len(words) for words in sentences}


def check_leakage(splits: Mapping[str, Sequence[str]], postings: Sequence[Posting]) -> None:
    """Raise a `UserError` if an id does not belong to a posting, or two splits share what `find_ties` finds."""
    by_id = {posting.id: posting for posting in postings}
    listed = [(name, posting_id) for name, ids in splits.items() for posting_id in ids]
    for name, posting_id in listed:
        if posting_id not in by_id:
            raise UserError(f"The split '{name}' lists the posting '{posting_id}', which the data does not hold.")
    for kind, value, first, second in find_ties([by_id[posting_id] for _, posting_id in listed]):
        (name, posting_id), (other, other_id) = listed[first], listed[second]
        if name != other:
            raise UserError(
                f"Leakage: postings '{posting_id}' of '{name}' and '{other_id}' of '{other}' have the same {kind} "
                f"'{value[:60]}'. Split by company (split_postings) or drop one of them."
            )


def save_manifest(
    path: str | Path,
    postings: Sequence[Posting],
    splits: Mapping[str, Sequence[str]],
    *,
    seed: int,
    files: Sequence[str | Path] = (),
) -> None:
    """Write a split's manifest as JSON: which posting is where, and the SHA-256 of each posting and of `files`."""
    used = {posting_id for ids in splits.values() for posting_id in ids}
    manifest = {
        "seed": seed,
        "splits": splits,
        "posting_hashes": {p.id: hash_text(json.dumps(asdict(p), sort_keys=True)) for p in postings if p.id in used},
        "file_hashes": {Path(file).name: hash_file(file) for file in files},
    }
    save_text(path, json.dumps(manifest, indent=1) + "\n")
