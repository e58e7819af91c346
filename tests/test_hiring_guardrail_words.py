"""Guardrails of edits: which words must stay, which may be exchanged, and how much damage to real posts is seen."""

import pytest

from benchmarks.guardrail_damage import KINDS, list_half, measure
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.facts import find_pay
from ilqljax.hiring.postings.hackernews import load_hackernews
from ilqljax.hiring.postings.posting import Posting, build_prompt

START = "Blue Oak in Leeds runs three wards for children. You keep charts with an eye for detail. "


def find_failures(original, rewrite):
    posting = Posting("p", "Nurse", START + original, company="Blue Oak", location="Leeds")
    return {failure.check for failure in check_rewrite(posting, START + rewrite, build_prompt(posting))}


@pytest.mark.parametrize(
    ("original", "rewrite", "check"),
    [
        ("A background in computer science helps.", "A background in mechanical engineering helps.", "field_added"),
        ("We need a front-end developer.", "We need a front-end tester.", "words_kept"),
        ("You get equity and lunch.", "You get lunch.", "words_kept"),
        ("We opened our ward in March this year.", "We opened our ward in April this year.", "deadlines_kept"),
        ("Candidates must understand triage.", "Candidates may understand triage.", "words_kept"),
        ("Must understand triage.", "May understand triage.", "demands_kept"),
        ("You plan 3 shifts at least 2 weeks ahead.", "You plan 3 shifts about 2 weeks ahead.", "bounds_kept"),
        ("A junior nurse and a senior designer.", "A senior nurse and a junior designer, senior too.", "words_kept"),
        ("A designer plans, and an analyst counts.", "An analyst plans, and an analyst counts.", "words_kept"),
        ("We have unlimited vacation.", "We have some vacation.", "words_kept"),
        ("You have experience with triage.", "You have interest in triage.", "words_kept"),
        ("Charts are read. You know how to read charts well.", "Charts are read.", "sentence_uncovered"),
        ("Engineers work here.", "Mature engineers work here.", "trait_added"),
        ("Engineers work here.", "Single engineers work here.", "trait_added"),
        ("Engineers work here.", "Polish engineers work here.", "trait_added"),
        ("A few guys run it. Ask our people.", "A few guys run it. Ask our male people.", "trait_added"),
        ("We have powerful tools.", "We have shrewm tools.", "words_kept"),
        ("You fight for every patient.", "You steady in every patient.", "words_kept"),
        ("Market salary.", "Good salary.", "perks_kept"),
        ("Full medical insurance.", "Some medical insurance.", "perks_kept"),
    ],
)
def test_a_changed_word_fails_by_name(original, rewrite, check):
    assert check in find_failures(original, rewrite)


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("We want a salesman.", "We want a salesperson."),
        ("The chairman leads the board.", "The chair leads the board."),
        ("We need manpower.", "We need staff."),
        ("The foreman plans the day.", "The supervisor plans the day."),
        ("He plans his own shifts.", "They plan their own shifts."),
        ("You guys will love it.", "You folks will love it."),
        ("You are a rockstar.", "You are an expert."),
        ("You dominate the market.", "You lead the market."),
        ("Utilize our tools.", "Use our tools."),
        ("Join our family.", "Join our team."),
        ("Competition drives us.", "Collaboration drives us."),
        ("You have strong communication skills.", "You have good communication skills."),
        ("You need 5 years of practice. We eat lunch.", "We eat lunch."),
        ("You know SQL, no exceptions.", "You know SQL."),
        ("Nous cherchons une personne agressive pour le bloc.", "Nous cherchons une personne attentive pour le bloc."),
    ],
)
def test_words_of_style_may_be_exchanged(original, rewrite):
    assert not {"words_kept", "sentence_uncovered"} & find_failures(original, rewrite)


def test_a_link_that_a_line_break_cuts_is_no_new_word():
    description = "See oak.example\n/d for more. Nurses wanted in Leeds."
    posting = Posting("p", "Nurse", description)
    assert check_rewrite(posting, description, build_prompt(posting)) == []


def test_an_item_of_pressure_on_a_line_of_its_own_may_go():
    posting = Posting("p", "Nurse", START + "\nable to cope under pressure with deadlines\nkeeps charts")
    found = check_rewrite(posting, START + "keeps charts", build_prompt(posting))
    assert "words_kept" not in {failure.check for failure in found}


def test_pay_before_which_annual_stands_has_a_period():
    assert set(find_pay("An annual salary of $95,000.")) == {("$", "95,000", "year", "")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_each_kind_is_seen_in_real_posts(kind, shared_dir):
    postings = list_half(load_hackernews(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz"), "b")
    caught = list(measure(postings, kind, "edits", 60, lambda damaged: None))
    assert len(caught) > 40 and sum(caught) >= 0.95 * len(caught)
