"""Guardrails against planted damage, on the whole sample and on real posts: what is false must not pass as a gain."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ilqljax.hiring.edits.operators import ALL_OPERATORS, rewrite_posting
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.findings import list_sentences, list_words
from ilqljax.hiring.guardrails.lexicon import find_technologies
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.hackernews import load_hackernews
from ilqljax.hiring.postings.posting import build_prompt, normalize_spaces

OFFER = " We pay $4,500 a month. Write to jobs@oak.example. Visa sponsorship is available."


def swap_company(posting, other, rng):
    return re.sub(re.escape(posting.company), other.company, posting.description) if posting.company else ""


def hire_for_another(posting, other, rng):
    return f"{posting.description} {other.company} is hiring." if other.company else ""


def raise_salary(posting, other, rng):
    return (posting.description + OFFER).replace("4,500", "5,400")


def change_currency(posting, other, rng):
    return (posting.description + OFFER).replace("$4,500", "€4,500")


def change_period(posting, other, rng):
    return (posting.description + OFFER).replace("a month", "a week")


def drop_link(posting, other, rng):
    return (posting.description + OFFER).replace("jobs@oak.example", "us")


def deny_visa(posting, other, rng):
    return (posting.description + OFFER).replace("is available", "is not available")


def drop_statement(posting, other, rng):
    return (posting.description + OFFER).replace(" Visa sponsorship is available.", "")


def invent_technology(posting, other, rng):
    return f"{posting.description} You know COBOL well."


def paste_sentence(posting, other, rng):
    own = set(list_words(posting.description))
    # A sentence whose words the posting has anyway says nothing new.
    foreign = [s for s, _ in list_sentences(other.description) if len(own.union(list_words(s))) >= len(own) + 5]
    return f"{posting.description} {foreign[rng.integers(len(foreign))]}" if foreign else ""


def shuffle_words(posting, other, rng):
    return " ".join(rng.permutation(posting.description.split()))


def echo_prompt(posting, other, rng):
    return build_prompt(posting)


def add_fields(posting, other, rng):
    return f"{posting.description} {' '.join(build_prompt(posting).splitlines()[1:-1])}"


def translate(posting, other, rng):
    return f"{posting.description} Wir suchen eine Person, die mit uns in einem kleinen Team arbeitet und nicht allein."


OFFERED = (raise_salary, change_currency, change_period, drop_link, deny_visa, drop_statement)
DAMAGES = (swap_company, hire_for_another, *OFFERED, invent_technology, paste_sentence, shuffle_words)
DAMAGES += (echo_prompt, add_fields, translate)


def measure_detection(damage, postings, *, seed=0):
    """Return the share of damaged texts that fail a check, and how many there were."""
    rng = np.random.default_rng(seed)
    others = rng.permutation(len(postings))
    caught = []
    for posting, i in zip(postings, others, strict=True):
        other = postings[i]
        text = normalize_spaces(damage(posting, other, rng))
        original = replace(posting, description=posting.description + OFFER) if damage in OFFERED else posting
        if other.company == posting.company or not text or text == normalize_spaces(original.description):
            continue
        if damage is drop_statement and "visa" in posting.description.lower():  # said twice, it may be said once
            continue
        caught.append(bool(check_rewrite(original, text, build_prompt(original))))
    return float(np.mean(caught)), len(caught)


# Three kinds every time, of a name, a number and a statement, on every third posting.
ALWAYS = (swap_company, raise_salary, drop_statement)
DAMAGES_TRIED = [(each, 3) for each in ALWAYS] + [pytest.param(each, 1, marks=pytest.mark.slow) for each in DAMAGES]


@pytest.fixture(scope="module")
def sample():
    return make_market(n_candidates=1)[0]


@pytest.fixture(scope="module")
def posts(shared_dir):
    postings = load_hackernews(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz")
    rows = np.random.default_rng(0).permutation(len(postings))[:500]
    return [postings[row] for row in rows]


@pytest.mark.parametrize(("damage", "step"), DAMAGES_TRIED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_damage_is_caught_on_the_sample(damage, step, sample):
    rate, n = measure_detection(damage, sample[::step])
    assert n > 200 / step and rate >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_caught_on_real_posts(damage, posts):
    rate, n = measure_detection(damage, posts)
    assert n > 100 and rate >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("operator", ALL_OPERATORS)
def test_honest_edits_of_real_posts_pass(operator, posts):
    n_failed = n = 0
    for posting in posts:
        for name, text in rewrite_posting(posting, operators=[operator]):
            if name == operator:
                n_failed += bool(check_rewrite(posting, text, build_prompt(posting)))
                n += 1
    assert n_failed <= 0.01 * n


@pytest.mark.slow
def test_every_real_post_passes_as_it_is(shared_dir):
    for posting in load_hackernews(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz")[::4]:
        flat = normalize_spaces(posting.description)
        assert check_rewrite(posting, flat, build_prompt(posting)) == [], posting.id
        assert check_rewrite(posting, posting.description, build_prompt(posting)) == [], posting.id


def test_cobol_is_a_technology():
    assert set(find_technologies("You know COBOL well.")) == {"cobol"}
