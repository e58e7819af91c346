"""Reading practice: nothing of a held-out posting is read."""

from types import SimpleNamespace

import pytest

from ilqljax.hiring.data.practice import select_practice
from ilqljax.hiring.postings.posting import Posting

OWN = "We build a drone that maps the fields of small farms from above."
DATA = SimpleNamespace(
    postings=(
        Posting("1", "", "Bread for all.", "Ash"),
        Posting("2", "", f"Oslo, full time.\n{OWN}", "Blue Oak"),
        Posting("3", "", f"Elm.\n{OWN.replace('drone', 'boat')}"),
    ),
    splits={"train": ["1"], "eval": ["2"], "test": ["3"]},
)


@pytest.mark.parametrize(
    ("posting", "kept"),
    [
        (Posting("9", "", "Bread and butter.", "Ash"), True),  # a company of the training split
        (Posting("1", "", "Bread and butter."), False),
        (Posting("9", "", "Bread  for all."), False),
        (Posting("9", "", "Bread and butter.", "blue  oak"), False),
        (Posting("9", "", f"Remote, part time.\n{OWN}"), False),  # a repost
        (Posting("9", "", f"Remote, part time.\n{OWN.replace('drone', 'kite')}"), True),
    ],
)
def test_practice_shares_nothing_with_held_out_postings(posting, kept):
    other = Posting("8", "", "We bake.")
    assert select_practice(DATA, [posting, other]) == [posting] * kept + [other]


def test_postings_tied_to_each_other_alone_are_kept():
    postings = [Posting("8", "", "We bake.", "Elm"), Posting("9", "", "We bake well.", "Elm")]
    assert select_practice(DATA, postings) == postings
