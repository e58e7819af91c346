"""Rewriting operators on hand-written texts, on the sample and on real-looking posts."""

import hashlib

import numpy as np
import pytest
from coded_words import classify_wording

from ilqljax.errors import UserError
from ilqljax.hiring.edits.operators import (
    ALL_OPERATORS,
    OPERATORS,
    rewrite_posting,
    split_sentences,
)
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import Posting


def apply(operator, text, *, seed=0):
    return ALL_OPERATORS[operator](Posting("p", "", text), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("operator", "text", "expected"),
    [
        ("neutralize", "We need an aggressive nurse.", "We need a capable nurse."),
        ("neutralize", "Driven and Loyal. A DOMINANT team.", "Focused and Skilled. A STEADY team."),
        ("masculinize", "We need a warm  and\nskilled nurse.", "We need an assertive and fearless nurse."),
        ("feminize", "An ambitious and practical team.", "A thoughtful and thoughtful team."),
        ("neutralize", "They act aggressively.", "They act actively."),
        ("soften", "Join us. Ten years of experience required. Good pay.", "Join us. Good pay."),
        ("soften", "We want a rockstar engineer.", "We want an engineer."),
        ("soften", "We want a ninja.", "We want an expert."),
        ("soften", "You have 5+ years of Java experience.", "You have Java experience."),
        ("ease_demands", "You must have SQL. Go is a must, no exceptions.", "You ideally have SQL. Go would be good."),
        ("ease_demands", "You must have work authorization.", "You must have work authorization."),
        ("plain_seniority", "A seasoned, top-notch engineer.", "An experienced, good engineer."),
        ("plain_location", "You must live in Leeds.", "You will work in Leeds."),
        ("drop_barriers", "Oak hires. Able to work in a fast-paced office. You cook.", "Oak hires. You cook."),
        ("drop_barriers", "Oak hires. Ability to cope well under pressure!", "Oak hires."),
        (
            "drop_barriers",
            "Oak hires. You must learn Go and work under pressure.",
            "Oak hires. You must learn Go and work under pressure.",
        ),
        ("drop_barriers", "Oak hires. You work nights and weekends.", "Oak hires. You work nights and weekends."),
        ("drop_barriers", "A young, kind team in a fast-paced, warm office.", "A kind team in a warm office."),
        ("drop_barriers", "A degree from a top university.", "A degree."),
        ("move_boilerplate", "Oak hires. We offer equity. You cook.", "Oak hires. You cook. We offer equity."),
        ("original", " Two   lines\nof text. ", "Two lines of text."),
    ],
)
def test_operator_edits_words_case_and_articles(operator, text, expected):
    assert apply(operator, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A data-driven team, driven by results, test driven.",
        "Competitive salary and a competitive package.",
        "Write to loyal@warm.example or see http://a.example/warm/careful.html today.",
        "Backed by Collaborative Fund in Warm Springs.",
        "We are committed to you and focused on people.",
    ],
)
def test_words_that_do_not_describe_people_are_left_alone(text):
    assert apply("neutralize", text) == apply("masculinize", text) == apply("feminize", text) == text


def test_balance_alternates_codes():
    text = apply("balance", "A capable, steady, careful and focused nurse.")
    assert text in (
        "An aggressive, caring, decisive and cooperative nurse.",
        "A supportive, dominant, considerate and driven nurse.",
    )


def test_reorder_keeps_the_first_sentence_and_all_others():
    text = "Blue Oak hires. See http://a.example/b.html now. We pay 4.5 k. Ask J. Doe."
    for seed in range(5):
        sentences = split_sentences(apply("reorder", text, seed=seed))
        assert sentences[0] == "Blue Oak hires."
        assert sorted(sentences) == sorted(split_sentences(text))


def test_sentences_end_at_stops_and_lines_but_not_in_links_numbers_or_abbreviations():
    text = "See http://a.example/x.html today. Ask J. Doe, e.g. Mondays. v2.0 is out\nNo stop here (Really!) Yes."
    assert split_sentences(text) == [
        "See http://a.example/x.html today.",
        "Ask J. Doe, e.g. Mondays. v2.0 is out",
        "No stop here (Really!)",
        "Yes.",
    ]


def test_include_only_appends():
    assert apply("include", "Blue Oak hires.").startswith("Blue Oak hires. ")


def test_original_is_first_texts_differ_and_the_seed_decides():
    posting = make_market(n_postings=2, n_candidates=1)[0][1]
    rewrites = rewrite_posting(posting, seed=1)
    assert rewrites[0] == ("original", posting.description)
    assert len({text for _, text in rewrites}) == len(rewrites) >= 5
    assert rewrites == rewrite_posting(posting, seed=1)


def test_another_operator_changes_no_other_rewrite():
    posting = make_market(n_postings=1, n_candidates=1)[0][0]
    alone = dict(rewrite_posting(posting, operators=["reorder"], seed=5))
    assert dict(rewrite_posting(posting, seed=5))["reorder"] == alone["reorder"]


@pytest.mark.parametrize(
    ("operator", "code"), [("neutralize", "neutral"), ("masculinize", "masculine"), ("feminize", "feminine")]
)
def test_sample_wording_gets_the_operators_code_throughout(operator, code):
    for posting in make_market(n_postings=60, n_candidates=1)[0]:
        assert classify_wording(OPERATORS[operator](posting, np.random.default_rng(0))) == code


def test_unknown_operator_lists_the_known_ones():
    with pytest.raises(UserError, match=r"operators='shorten' is unknown\. Known: original, neutralize"):
        rewrite_posting(Posting("p", "", "Text."), operators=["shorten"])


def test_default_rewrites_of_the_sample_are_those_of_the_published_numbers():
    digest = hashlib.sha256()
    for posting in make_market(n_candidates=1)[0]:
        for operator, text in rewrite_posting(posting, seed=0):
            digest.update(f"{posting.id}\0{operator}\0{text}\n".encode())
    assert digest.hexdigest() == "867caeb0dda48765be7604c104c3422ce1226d4c72984de81b6cdfe5efd3b306"


@pytest.mark.parametrize(
    "text", ["Salary is competitive.", "We pay competitively.", "A competitive and fair base salary."]
)
def test_competitive_pay_is_a_statement_that_no_operator_rewords(text):
    posting = Posting("p", "", f"Blue Oak hires. {text}")
    assert [t for _, t in rewrite_posting(posting, operators=["neutralize", "feminize"])] == [posting.description]
