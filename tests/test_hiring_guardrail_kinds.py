"""Kinds of damage that one changed word makes: perks, demands, times, levels, traits, articles, addresses."""

import pytest

from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.clauses import list_stems, restore_lines
from ilqljax.hiring.guardrails.deadlines import find_dates
from ilqljax.hiring.guardrails.demands import list_demands
from ilqljax.hiring.guardrails.facts import find_links
from ilqljax.hiring.postings.posting import Posting, build_prompt

START = "Blue Oak needs a nurse. "


def find_failures(original, rewrite, **fields):
    posting = Posting("p", "", original, **fields)
    return {failure.check for failure in check_rewrite(posting, rewrite, build_prompt(posting))}


@pytest.mark.parametrize(
    ("original", "rewrite", "check"),
    [
        ("We pay a competitive salary.", "We pay a reasonable salary.", "perks_kept"),
        ("We pay a competitive salary.", "We pay a salary.", "perks_kept"),
        ("Pay is competitive.", "Pay is generous.", "perks_kept"),
        ("You get health insurance and a pension.", "You get health insurance.", "perks_kept"),
        ("You get a pension.", "You get a pension and a sign-on bonus.", "perks_kept"),
        ("We offer full benefits.", "We offer some benefits.", "perks_kept"),
        ("You hold a bachelor's degree.", "You hold a master's degree.", "credentials_kept"),
        ("You hold a driver's license.", "You hold a forklift license.", "credentials_kept"),
        ("You have BLS and ACLS.", "You have BLS.", "credentials_kept"),
        ("You speak Spanish and English.", "You speak English.", "credentials_kept"),
        ("You work night shifts.", "You work day shifts.", "schedule_kept"),
        ("You work weekends.", "You work weekends and evenings.", "schedule_kept"),
        ("Shifts are on Monday and Friday.", "Shifts are on Tuesday and Friday.", "schedule_kept"),
        ("Reports are due weekly.", "Reports are due monthly.", "schedule_kept"),
        ("You are on call.", "You are never on call.", "schedule_kept"),
        ("You join a junior role.", "You join a senior role.", "level_kept"),
        ("You will be a team lead.", "You will be in the team.", "level_kept"),
        ("You care for patients.", "You are young and care for patients.", "trait_added"),
        ("You speak English.", "You are a native English speaker.", "trait_added"),
        ("We want people who care.", "We want women who care.", "trait_added"),
        ("You lift patients.", "You are physically fit and lift patients.", "trait_added"),
        ("You join our team.", "You join our Christian team.", "trait_added"),
        ("You join our team.", "You have no small children and join our team.", "trait_added"),
        ("You travel to clinics.", "You often travel to clinics.", "frequency_added"),
        ("You join our team.", "You join our team as a manager.", "role_added"),
        ("Apply by 3 May.", "Apply after 3 May.", "deadlines_kept"),
        ("Apply by 3 May.", "Apply before 3 May.", "deadlines_kept"),
        ("You start on Monday.", "You start before Monday.", "deadlines_kept"),
        ("You share 2 wards with 5 nurses.", "You share 5 wards with 2 nurses.", "counts_kept"),
        ("We want a good nurse.", "We want a good good nurse.", "doubled_words"),
        ("We want a calm nurse.", "We want a calm and calm nurse.", "doubled_words"),
        ("We want a good nurse.", "We want an good nurse.", "articles_right"),
        ("We want a good nurse.", "We want a assertive nurse.", "articles_right"),
        ("We want a good unit.", "We want an unit.", "articles_right"),
    ],
)
def test_changed_word_fails_by_name(original, rewrite, check):
    assert check in find_failures(START + original, START + rewrite)


@pytest.mark.parametrize(
    ("original", "rewrite"),
    [
        ("Pay is competitive.", "We pay competitively."),
        ("Paid vacation, dental care and a pension.", "Dental care, a pension and paid vacation."),
        ("You hold a driver's licence.", "You hold a driving license."),
        ("You work Monday to Friday.", "You work on weekdays."),
        ("You check charts every day.", "You check charts daily."),
        ("Apply by 3 May.", "The deadline is May 3."),
        ("You start on 3 May.", "You start from May 3."),
        ("We want an hour of a user's time.", "We want a user's time for an hour."),
        ("You said that that is so.", "You said, that that is so."),
        ("You work with children.", "You work with the children."),
        ("You build native apps.", "Native apps are what you build."),
    ],
)
def test_same_statement_in_other_words_fails_none_of_these(original, rewrite):
    kinds = {"perks_kept", "credentials_kept", "schedule_kept", "deadlines_kept", "counts_kept", "level_kept"}
    kinds |= {"trait_added", "frequency_added", "role_added", "doubled_words", "articles_right", "demands_kept"}
    assert not kinds & find_failures(START + original, START + rewrite)


@pytest.mark.parametrize(
    ("original", "rewrite", "fails"),
    [
        ("You must know triage.", "Triage is required.", False),
        ("You know triage.", "Triage is a must.", False),
        ("Triage is a plus.", "Triage would be helpful.", False),
        ("You must know triage.", "Triage is a plus.", True),
        ("You know triage.", "Triage is preferred.", True),
        ("Triage is a plus.", "You know triage.", True),
        ("Nights are a must.", "You may work nights.", True),
        ("You may work nights.", "You must work nights.", True),
        ("A car is not required.", "A car is required.", True),
        ("You must know triage. We eat lunch.", "We eat lunch.", True),
        ("We eat lunch.", "We eat lunch. A car is required.", True),
        ("Triage is required and dosage is a plus.", "Dosage is required and triage is a plus.", True),
        ("The ideal nurse is driven.", "The ideal nurse is cooperative.", False),
        ("Triage, dosage and charts are required.", "Dosage, charts and triage are required.", False),
    ],
)
def test_demand_keeps_its_strength(original, rewrite, fails):
    assert ("demands_kept" in find_failures(START + original, START + rewrite)) == fails


def test_operators_may_ease_and_drop_what_only_keeps_people_away():
    original = START + "You must have charts in order.\nYou thrive under pressure.\nThree years of triage required."
    eased = START + "You ideally have charts in order. Three years of triage required."
    assert "demands_kept" not in find_failures(original, eased)


def test_clauses_of_a_list_are_meant_by_the_word_at_its_end():
    first, last = list_demands("Python, SQL are required.")
    assert (first.strength, last.strength) == ("plain", "required")
    assert first.possible == {"plain", "required"} and last.possible == {"required"}


def test_line_breaks_of_the_original_are_found_again():
    original = "Skills needed\nwriting clear notes for us\nApply soon"
    flat = "Skills needed writing clear notes for us Apply soon"
    assert restore_lines(flat, original) == original
    assert restore_lines("Apply soon Skills needed as well", original) == "Apply soon\nSkills needed\nas well"


def test_words_of_one_meaning_share_a_stem():
    assert list_stems("planning of invoices") == list_stems("design an invoice")
    assert list_stems("twelve pupils") == list_stems("12 students") != list_stems("twelve patients")


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("Apply no later than March 3rd.", {("Mar 3", "by")}),
        ("Interviews start after 12 June, on Friday.", {("Jun 12", "after"), ("friday", "on")}),
        ("You may start in May. Shifts end at 10 pm.", {("10pm", "by")}),
    ],
)
def test_dates_are_found_with_what_they_are_to_the_event(text, dates):
    assert set(find_dates(text)) == dates


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("Write to jobs [at] oak [dot] com. We answer.", {"jobs [at] oak [dot] com"}),
        ("Write to jobs (at) oak.com. We answer.", {"jobs (at) oak.com"}),
        ("Write to jobs at oak dot com. We answer.", {"jobs at oak dot com"}),
        ("Write to jobs [at] oak . com. We answer.", {"jobs [at] oak . com"}),
        ("We are at oak dot matrix fame.", set()),
    ],
)
def test_address_spelt_against_robots_ends_with_its_sentence(text, links):
    assert set(find_links(text)) == links


def test_sentence_after_such_an_address_may_move():
    original = START + "Write to jobs [at] oak [dot] com. We answer soon."
    assert "links_kept" not in find_failures(original, START + "We answer soon. Write to jobs [at] oak [dot] com.")
    assert "links_kept" in find_failures(original, START + "We answer soon. Write to jobs [at] oak [dot] org.")


FREE = Posting(
    "p", "Nurse", START + "You plan shifts every month and report every week. German is optional. Meals are free."
)


@pytest.mark.parametrize(
    ("rewrite", "fails"),
    [
        (START + "You plan the shifts every month, and report each week. You do not need German. Free meals.", set()),
        (START + "Every month you plan the shifts, and each week you report. German is optional.", {"perks_kept"}),
        (START + "Every month you plan shifts and report each week. Free meals.", {"sentence_uncovered"}),
        (START + "You plan shifts monthly, you report weekly, German is optional, meals are free. You get fit dancing.",
         {"sentence_unsupported"}),
    ],
)  # fmt: skip
def test_free_text_is_compared_sentence_by_sentence(rewrite, fails):
    found = {failure.check for failure in check_rewrite(FREE, rewrite, build_prompt(FREE), mode="free_text")}
    assert fails <= found and (fails or not found)


def test_paraphrase_that_edits_refuse_passes_as_free_text():
    original = "Blue Oak is looking for a nurse who takes blood samples from patients and writes down the results."
    posting = Posting("p", "", original)
    text = "Writing down results, taking samples of blood: for patients, Blue Oak needs this nurse."
    assert check_rewrite(posting, text, build_prompt(posting))
    assert check_rewrite(posting, text, build_prompt(posting), mode="free_text") == []


def test_times_belong_to_what_is_done_then():
    original = START + "You plan shifts every month. You report every week."
    assert "times_kept" in find_failures(original, START + "You plan shifts every week. You report every month.")
