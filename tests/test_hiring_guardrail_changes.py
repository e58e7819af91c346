"""Guardrails against small changes of fact: a lost "not", another country, period, currency or name."""

import pytest

from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.facts import find_pay
from ilqljax.hiring.guardrails.lexicon import find_places
from ilqljax.hiring.guardrails.statements import find_negations, find_statements
from ilqljax.hiring.postings.posting import Posting, build_prompt

TAIL = (
    "We build tools for farmers and need a Python developer who can work with our team on the web app. "
    "Email jobs@oak.com to apply or ask us."
)


def find_failures(original, rewrite):
    posting = Posting("p", "", f"{original} {TAIL}")
    return {failure.check for failure in check_rewrite(posting, f"{rewrite} {TAIL}", build_prompt(posting))}


@pytest.mark.parametrize(
    ("original", "rewrite", "check"),
    [
        ("Oak | Berlin | Remote: No | Full time.", "Oak | Berlin | Remote | Full time.", "conditions_kept"),
        ("Oak | Berlin | Remote: No | Full time.", "Oak | Berlin | Remote: Yes | Full time.", "conditions_kept"),
        ("Oak | Berlin | Visa: No | Full time.", "Oak | Berlin | Visa: Yes | Full time.", "statements_kept"),
        ("Visa sponsorship is unfortunately not possible.", "Visa sponsorship is possible.", "statements_kept"),
        ("Dogs: No.", "Dogs: Yes.", "negations_kept"),
        ("Dogs: Yes.", "Dogs: No.", "negations_kept"),
        ("A degree is not required.", "A degree is required.", "negations_kept"),
        ("No degree required.", "Degree required.", "negations_kept"),
        ("Degree required.", "No degree required.", "negations_kept"),
        ("We do not do whiteboard interviews.", "We do whiteboard interviews.", "negations_kept"),
        ("We don't track our users.", "We do track our users.", "negations_kept"),
        ("Do not hesitate to write.", "Do hesitate to write.", "negations_kept"),
        ("Some projects are remote, most aren't.", "Some projects are remote, most are.", "negations_kept"),
        ("SQL is required. A degree is not required.", "SQL is not required. A degree is required.", "negations_kept"),
    ],
)
def test_turned_statement_fails_by_name(original, rewrite, check):
    assert check in find_failures(original, rewrite)


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("We do not track our users.", "We don't track our users."),
        ("We can't wait to meet you.", "We cannot wait to meet you."),
        ("A degree is not required.", "A degree isn't required."),
        ("You write not only code but plans.", "You write code and plans."),
        ("We are not a competitive team.", "We are not a collaborative team."),
        ("You do not need 5+ years of experience.", "You do not need experience."),
        ("You work well, no exceptions.", "You work well."),
        ("Degrees matter. No job hoppers please.", "Degrees matter."),
    ],
)
def test_rewording_or_dropping_a_whole_negation_passes(original, rewrite):
    assert find_failures(original, rewrite) == set()


def test_negations_name_the_subject_and_what_is_denied():
    """The worked table of `find_negations`."""
    found = find_negations("A degree is not required. We don't track users. No calls. Dogs: No | We are not only nice.")
    assert [negation.key for negation in found] == [("degre", "requi"), ("we", "track"), ("", "calls"), ("dogs", ":")]
    assert [negation.name for negation in found] == ["degree required", "we track", "calls", "Dogs"]


@pytest.mark.parametrize(
    ("original", "rewrite", "check"),
    [
        ("Oak | Remote (EU only) | Full time.", "Oak | Remote (US only) | Full time.", "places_kept"),
        ("Oak | Remote (EU) | Full time.", "Oak | Remote (US) | Full time.", "places_kept"),
        ("Oak | Remote (U.S.) | Full time.", "Oak | Remote (EEA) | Full time.", "places_kept"),
        ("Oak | Remote (US) | Full time.", "Oak | Remote | Full time.", "places_kept"),
        ("Oak | US | Remote (US) | Full time.", "Oak | US | Remote | Full time.", "conditions_kept"),
        ("US citizens only. Our EU team is new.", "EU citizens only. Our US team is new.", "statements_kept"),
        ("Oak | Berlin | Contract.", "Oak | Berlin.", "conditions_kept"),
        ("Oak | Berlin | Full-time or contract | Python", "Oak | Berlin | Full-time | Python", "conditions_kept"),
    ],
)
def test_changed_country_or_contract_fails_by_name(original, rewrite, check):
    assert check in find_failures(original, rewrite)


def test_country_is_a_place_in_capitals_only():
    assert set(find_places("U.S., EU and EEA; write to us")) == {"united states", "eu", "eea"}


def test_remote_work_names_its_places():
    assert set(find_statements("Remote (US or Canada only). Berlin.", "conditions_kept")) == {
        ("remote work in canada and united states", True)
    }
    assert set(find_statements("Remote is fine, our office is in Berlin.", "conditions_kept")) == {
        ("remote work", True)
    }


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("£60k p.a.", "£60k p.m."),
        ("€5000 monthly.", "€5000 weekly."),
        ("£500pd.", "£500pw."),
        ("₹20 lakhs.", "₹20 crores."),
        ("$2 billion.", "$2 million."),
        ("600000 kr.", "600000 zł."),
        ("600000 CZK.", "600000 HUF."),
        ("R$ 9000 per month.", "9000 per month."),
        ("up to $150k.", "from $150k."),
        ("up to $150k.", "$150k."),
    ],
)
def test_changed_pay_fails_by_name(original, rewrite):
    assert "pay_kept" in find_failures(original, rewrite)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("£60k p.a.", {("£", "60k", "year", "")}),
        ("£500pd", {("£", "500", "day", "")}),
        ("45kEUR, 60000EUR yearly", {("€", "45k", "", ""), ("€", "60000", "year", "")}),
        ("20 lakhs", {("", "20lakh", "", "")}),
        ("Rs. 500 daily, R$ 9000 pcm", {("₹", "500", "day", ""), ("brl", "9000", "month", "")}),
        ("up to $150k", {("$", "150k", "", "at most ")}),
        ("from $100k to $150k", {("$", "100k", "", ""), ("$", "150k", "", "")}),
        ("$150k+", {("$", "150k", "", "at least ")}),
        ("9am to 5pm, 5 million users, Ruby 2.0", set()),
    ],
)
def test_pay_knows_short_periods_scales_and_bounds(text, found):
    assert set(find_pay(text)) == found


def test_long_run_of_digits_is_read_in_one_pass():
    assert find_pay("We pay " + "1" * 30_000 + "a") == {}


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("Zentix Labs (YC S19) | Berlin | Full time.", "Acme Labs (YC S19) | Berlin | Full time."),
        ("Zentix | Berlin | Full time.", "Acme | Berlin | Full time."),
        ("Zentix, Berlin. Full time.", "Acme, Berlin. Full time."),
        ("Zentix - Berlin - Full time.", "Acme - Berlin - Full time."),
        ("Zentix -https://oak.com/x - Berlin.", "Acme -https://oak.com/x - Berlin."),
        ("Oak | Kassel | Full time.", "Oak | Fulda | Full time."),
        ("Oak (Kassel). Full time.", "Oak (Fulda). Full time."),
    ],
)
def test_new_name_in_a_header_is_invented(original, rewrite):
    assert "name_invented" in find_failures(original, rewrite)


def test_new_first_word_of_a_sentence_is_no_name():
    assert find_failures("Oak | Berlin. You write code.", "Oak | Berlin. Creating code.") == set()
    assert find_failures("You write code.", "Creating code.") == set()
