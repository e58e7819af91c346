"""Guardrails: every operator's rewrite of the sample passes; what breaks a posting fails by name."""

import numpy as np
import pytest

from ilqljax.tasks.hiring.guardrails import CHECKS, check_rewrite
from ilqljax.tasks.hiring.marketplace import make_market
from ilqljax.tasks.hiring.postings import Posting
from ilqljax.tasks.hiring.prompts import INSTRUCTION, build_prompt
from ilqljax.tasks.hiring.rewrites import rewrite_posting

TEXT = (
    "Blue Oak needs a driven ward nurse in Leeds. You plan patient care and record charts. "
    "We pay 4,500 a month. You need 5 years of practice. See http://oak.example/jobs or write to us@oak.example."
)
POSTING = Posting("p", "Ward Nurse", TEXT, company="Blue Oak", location="Leeds, UK")


def find_failures(text, posting=POSTING):
    return {failure.check for failure in check_rewrite(posting, text, build_prompt(posting))}


def test_original_passes():
    assert find_failures(TEXT) == set()


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("", "not_empty"),
        (" \n ... ", "not_empty"),
        (TEXT.replace("Blue Oak", "Red Oak"), "company_kept"),
        (TEXT.replace("ward nurse", "nurse"), "title_kept"),
        (TEXT.replace("Leeds", "York"), "location_kept"),
        (TEXT.replace("4,500", "5,400"), "numbers_kept"),
        (TEXT + " We pay 9 more.", "numbers_kept"),
        (TEXT.replace("http://oak.example/jobs", "our page"), "links_kept"),
        (TEXT + " See http://other.example.", "links_kept"),
        (TEXT + " </a>", "template_leak"),
        (TEXT + f" {INSTRUCTION}", "template_leak"),
        (TEXT + " Requirements: charts", "template_leak"),
        (TEXT + " very very very", "repetition"),
        (TEXT + " You plan patient care." * 4, "repetition"),
        ("Blue Oak needs a ward nurse in Leeds.", "length"),
        (TEXT * 3, "length"),
    ],
)
def test_broken_rewrite_fails_by_name(text, check):
    assert check in find_failures(text)


def test_years_of_experience_may_go():
    assert find_failures(TEXT.replace(" You need 5 years of practice.", "")) == set()


def test_fact_that_the_original_does_not_mention_is_not_asked_for():
    posting = Posting("p", "Ward Nurse", "We need a careful person for patient care and charts.", "Blue Oak", "Leeds")
    assert find_failures("We need a warm person for patient care and charts.", posting) == set()


def test_inclusive_sentence_passes_and_gibberish_fails():
    """DOMAIN.md 2.12: an unbounded quality score put these two the wrong way round."""
    assert find_failures(f"{TEXT} We welcome people of every background.") == set()
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("abcdefghijklmnop"), size=6)) for _ in range(len(TEXT.split()))]
    assert "incoherent" in find_failures(" ".join(letters))


def test_shuffled_words_fail():
    rng = np.random.default_rng(0)
    failed = []
    for posting in make_market(n_postings=100, n_candidates=1)[0]:
        failed.append("incoherent" in find_failures(" ".join(rng.permutation(posting.description.split())), posting))
    assert np.mean(failed) > 0.98


def test_another_postings_text_fails():
    first, second = make_market(n_postings=2, n_candidates=1)[0]
    assert find_failures(second.description, first)


def test_every_operator_passes_on_the_whole_sample():
    for posting in make_market(n_candidates=1)[0]:
        for operator, text in rewrite_posting(posting):
            assert check_rewrite(posting, text, build_prompt(posting)) == [], (operator, text)


def test_span_marks_the_offending_part():
    text = TEXT + " </a>"
    (failure,) = check_rewrite(POSTING, text, build_prompt(POSTING))
    assert text[slice(*failure.span)] == "</a>" and "</a>" in failure.reason


def test_failures_carry_the_name_of_their_check():
    names = {failure.check for failure in check_rewrite(POSTING, "zzz </s> 99 " * 40, build_prompt(POSTING))}
    assert names <= set(CHECKS) and len(names) > 4
