"""Word differences: worked examples, and that both texts can always be read back."""

import numpy as np
import pytest

from ilqljax.hiring.edits.differences import Segment, diff_words


def test_replaced_word():
    assert diff_words("a strong team", "a kind team") == [
        Segment("same", "a "),
        Segment("removed", "strong"),
        Segment("added", "kind"),
        Segment("same", " team"),
    ]


def test_punctuation_is_its_own_piece_and_apostrophes_are_not():
    assert diff_words("You'll lead.", "You'll lead!") == [
        Segment("same", "You'll lead"),
        Segment("removed", "."),
        Segment("added", "!"),
    ]


def test_space_between_two_changed_words_is_not_common_ground():
    assert diff_words("old thing", "new stuff") == [Segment("removed", "old thing"), Segment("added", "new stuff")]


@pytest.mark.parametrize(("before", "after"), [("", ""), ("", "a"), ("a", ""), (" a\n", "a "), ("a_b é", "é  a_b\t<")])
def test_edges_read_back(before, after):
    check_reads_back(before, after)


@pytest.mark.parametrize("seed", range(20))
def test_both_texts_read_back(seed):
    rng = np.random.default_rng(seed)
    pieces = ["a", "team", " ", "  ", "\n", ".", "don't", "é", "<b>", "42"]
    check_reads_back("".join(rng.choice(pieces, 30)), "".join(rng.choice(pieces, 30)))


def check_reads_back(before: str, after: str) -> None:
    segments = diff_words(before, after)
    assert "".join(s.text for s in segments if s.kind != "added") == before
    assert "".join(s.text for s in segments if s.kind != "removed") == after
    assert all(s.text for s in segments)
