"""Text from outside is read in time that grows with its length, not with its square, and up to a stated length."""

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.audit.columns import NUMBER
from ilqljax.hiring.data.splits import find_ties
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.edits.operators import ALL_OPERATORS
from ilqljax.hiring.guardrails import CHECKS
from ilqljax.hiring.guardrails.facts import find_pay
from ilqljax.hiring.guardrails.findings import blank_links, list_sentences, list_words
from ilqljax.hiring.guardrails.statements import find_negations, find_statements
from ilqljax.hiring.postings.hackernews import decode_text, guess_company, guess_title
from ilqljax.hiring.postings.html import strip_html
from ilqljax.hiring.postings.posting import MAX_CHARACTERS, Posting, build_prompt, load_postings
from ilqljax.hiring.rewrite import read_job

TEXT = "Blue Oak needs a warm nurse in Berlin for $100k a year. No calls. See http://oak.example."
PLAIN = Posting("1", "Ward Nurse", TEXT, "Blue Oak", "Berlin, DE", "DE", "patience, Java")
OPERATORS = {
    name: lambda text, make=make: make(_describe(f"First. {text}"), np.random.default_rng(0))
    for name, make in ALL_OPERATORS.items()
}
CACHES = (blank_links, list_sentences, list_words, find_pay, find_negations, find_statements)
LONGEST = 24_000


def _describe(text: str) -> Posting:
    """Return a posting that has a text in every field."""
    return Posting("1", text[:1000], text, text[:1000], text[:1000], "", text)


def _check_rewrite(text: str) -> None:
    prompt = build_prompt(PLAIN)
    for check in CHECKS.values():
        check(PLAIN, text, prompt)


def _check_original(text: str) -> None:
    posting = _describe(text)
    prompt = build_prompt(posting)
    for check in CHECKS.values():
        check(posting, TEXT, prompt)
        check(posting, text, prompt)


def _edit(text: str) -> None:
    for apply in OPERATORS.values():
        apply(text)


READERS: dict[str, Callable[[str], object]] = {
    "html": lambda text: strip_html(text + text.replace("<div>", "</p>")),
    "api": lambda text: decode_text(f"{text}<p>"),
    "first line": lambda text: (guess_company(text), guess_title(text)),
    "rewrite": _check_rewrite,
    "original": _check_original,
    "edits": _edit,
    "reposts": lambda text: list(find_ties([PLAIN, _describe(text)])),
    "differences": lambda text: diff_words(TEXT + text, text + TEXT),
    "score": NUMBER.fullmatch,
}


# fmt: off
PARTS = (
    " ", "<", "&", "[", "(", "7", ",", "a", "A", "\n", ".", "?x", "1,", "1 ", "1%", "$1 ", "$1-", "Ab ", "Ab\n", "not ",
    "no, ",
    "don't ", "www.", "a@", "a.", "<a", "<b>", "<!--", "<ul><li>", "remote ", "5 years ", "an ambitious ",
    "a rockstar ",
    "Posting: ", "We are x. ", "• ", "'", '"', ")",
)
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


def _measure(read: Callable[[str], object], text: str) -> float:
    """Return the processor's seconds of reading a text for the first time."""
    for cache in CACHES:
        cache.cache_clear()
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        read(text)
        return time.process_time() - start
    finally:
        gc.enable()


def _check_growth(read: Callable[[str], object], start: str, part: str, end: str, length: int) -> None:
    """Compare a text with one that has four times the repeats: 4 is linear, 16 is the square."""
    short, long = (start + part * (n // len(part)) + end for n in (length, 4 * length))
    read(short)  # what is loaded once
    assert _measure(read, long) < 10.0 * max(0.02, _measure(read, short))


@pytest.mark.parametrize(("reader", "start", "part", "end", "length"), FOUND, ids=range(len(FOUND)))
def test_what_once_took_the_square_of_its_length_is_read_in_linear_time(reader, start, part, end, length):
    check = CHECKS.get(reader)
    read = (lambda text: check(PLAIN, text, build_prompt(PLAIN))) if check else READERS[reader]
    _check_growth(read, start, part, end, length)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("reader", READERS)
def test_hostile_text_is_read_in_linear_time(reader, part):
    for start, end in (("", ""), ("1", "x"), ("Ab", "!x"), ("a@", "x")):
        _check_growth(READERS[reader], start, part, end, LONGEST // 4)


def test_distinct_names_and_requirements_are_looked_for_in_linear_time():
    def read(n: int) -> Callable[[str], object]:
        items = ", ".join(f"a{i}" for i in range(n))
        posting = Posting("1", items, items, items, items, "", items)
        return lambda _: [check(posting, items, build_prompt(posting)) for check in CHECKS.values()]

    read(100)("")
    assert _measure(read(2400), "") < 10.0 * max(0.02, _measure(read(600), ""))


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
