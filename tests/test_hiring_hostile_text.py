"""Text from outside is read in time that grows with its length, not with its square, and up to a stated length."""

from collections.abc import Callable

import pytest

from benchmarks.hostile_text import LEAST_SECONDS, PLAIN, READERS, SQUARE, measure_growth, measure_seconds
from ilqljax.errors import UserError
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.guardrails import CHECKS
from ilqljax.hiring.guardrails.findings import list_sentences
from ilqljax.hiring.postings.posting import MAX_CHARACTERS, Posting, build_prompt, load_postings
from ilqljax.hiring.rewrite import read_job

# fmt: off
FOUND = [  # what took time in the square of its length: reader, beginning, what is repeated, end, length
    ("html", "", "<div>", "", 20_000),
    ("first line", "Oak", " ", "x", 8_000),
    ("negations_kept", "", "not ", "", 6_000),
    ("numbers_kept", "3", " ", "x", 16_000),
    ("pay_kept", "", "1,", "1x", 16_000),
    ("name_invented", "", "Ab\n", "", 16_000),
    ("negations_kept", "", ".", "x", 12_000),
    ("edits", "", "an ambitious ", "", 8_000),
    ("reposts", "", ".", "x", 16_000),
    ("differences", "", "a b ", "", 12_000),
    ("score", "", "1", "x", 16_000),
]
# fmt: on


@pytest.mark.parametrize(("reader", "start", "part", "end", "length"), FOUND, ids=range(len(FOUND)))
def test_what_once_took_the_square_of_its_length_is_read_in_linear_time(reader, start, part, end, length):
    check = CHECKS.get(reader)
    read = (lambda text: check(PLAIN, text, build_prompt(PLAIN))) if check else READERS[reader]
    assert measure_growth(read, part, start=start, end=end, length=length) < SQUARE


def test_distinct_names_and_requirements_are_looked_for_in_linear_time():
    def read(n: int) -> Callable[[str], object]:
        items = ", ".join(f"a{i}" for i in range(n))
        posting = Posting("1", items, items, items, items, "", items)
        return lambda _: [check(posting, items, build_prompt(posting)) for check in CHECKS.values()]

    read(100)("")
    assert measure_seconds(read(2400), "") < SQUARE * max(LEAST_SECONDS, measure_seconds(read(600), ""))


def test_a_longer_posting_than_is_read_is_refused_in_one_line(tmp_path):
    path = tmp_path / "jobs.jsonl"
    row = '{{"id": "1", "title": "", "description": "{}"}}\n'.format("a" * MAX_CHARACTERS)
    path.write_text(row)
    with pytest.raises(UserError, match=r"jobs.jsonl:1: the posting has 100,001 characters, more than 100,000\."):
        load_postings(path)
    path.write_text(row.replace("aa", "a", 1))
    assert len(load_postings(path)[0].description) == MAX_CHARACTERS - 1
    path.write_text("a" * MAX_CHARACTERS)
    with pytest.raises(UserError, match="more than 100,000"):
        read_job(str(path), title="Nurse", company="", location="")


def test_longer_texts_have_in_common_how_they_begin_and_end():
    before, after = (f"We hire {'a nurse ' * 1000}{kind} to care." for kind in ("old", "new"))
    kinds = [(segment.kind, segment.text) for segment in diff_words(before, after)]
    assert kinds[1:3] == [("removed", "old"), ("added", "new")]
    assert [text for _, text in kinds if text.startswith("We")] == [before[: before.index("old")]]
    assert diff_words("a " * 2000, "a " * 1500)[1:] == [("removed", "a " * 500)]


def test_sentences_stand_where_their_spans_say():
    text = "We  hire. \n Come\tnow! "
    assert [(sentence, text[slice(*span)]) for sentence, span in list_sentences(text)] == [
        ("We hire.", "We  hire."),
        ("Come now!", "Come\tnow!"),
    ]
