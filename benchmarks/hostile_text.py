"""Read hostile text with everything that reads postings, and look for time that grows faster than the text.

    python -m benchmarks.hostile_text                     every reader and pattern: half an hour
    python -m benchmarks.hostile_text --reader html       only this reader

Each pattern is repeated to 6,000 and to 24,000 characters between four beginnings and ends. Four times the text should
take about four times as long; sixteen is the square. Prints the steepest pattern of each reader, and ends with status 1
where one takes more than ten times as long.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable

import numpy as np

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
from ilqljax.hiring.postings.posting import Posting, build_prompt

TEXT = "Blue Oak needs a warm nurse in Berlin for $100k a year. No calls. See http://oak.example."
PLAIN = Posting("1", "Ward Nurse", TEXT, "Blue Oak", "Berlin, DE", "DE", "patience, Java")
CACHES = (blank_links, list_sentences, list_words, find_pay, find_negations, find_statements)
SHORT, LONG = 6_000, 24_000
SQUARE = 10.0  # between LONG / SHORT and its square
LEAST_SECONDS = 0.02  # what is shorter is not told from noise
FRAMES = (("", ""), ("1", "x"), ("Ab", "!x"), ("a@", "x"))
# fmt: off
PATTERNS = (
    " ", "<", "&", "[", "(", "7", ",", "a", "A", "\n", ".", "?x", "1,", "1 ", "1%", "$1 ", "$1-", "Ab ", "Ab\n", "not ",
    "no, ", "don't ", "www.", "a@", "a.", "<a", "<b>", "<!--", "<ul><li>", "remote ", "5 years ", "an ambitious ",
    "a rockstar ", "Posting: ", "We are x. ", "• ", "'", '"', ")",
)
# fmt: on


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
    for make in ALL_OPERATORS.values():
        make(_describe(f"First. {text}"), np.random.default_rng(0))


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


def measure_seconds(read: Callable[[str], object], text: str) -> float:
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


def measure_growth(
    read: Callable[[str], object], pattern: str, *, start: str = "", end: str = "", length: int = SHORT
) -> float:
    """Return how many times as long four times the repeats of a pattern take: 4 is linear, 16 is the square."""
    short, long = (start + pattern * (n // len(pattern)) + end for n in (length, 4 * length))
    read(short)  # what is loaded once
    return measure_seconds(read, long) / max(LEAST_SECONDS, measure_seconds(read, short))


def main() -> int:
    """Print each reader's steepest growth; return 1 where one grows with the square."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=READERS, help="only this reader")
    args = parser.parse_args()
    steep = 0
    for name in [args.reader] if args.reader else READERS:
        growths = [
            (measure_growth(READERS[name], pattern, start=start, end=end), start + pattern + "..." + end)
            for pattern in PATTERNS
            for start, end in FRAMES
        ]
        steep += sum(growth > SQUARE for growth, _ in growths)
        print("{:<12} {:5.1f} times, of {!r}".format(name, *max(growths)), flush=True)
    print(f"{steep} patterns take more than {SQUARE:.0f} times as long for {LONG // SHORT} times the text.")
    return int(steep > 0)


if __name__ == "__main__":
    sys.exit(main())
