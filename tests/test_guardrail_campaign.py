"""Hand-written paraphrases: how many honest ones pass as free text, and how many damaged ones are noticed."""

import pytest

from benchmarks.guardrail_campaign import SETS, list_reasons, load_cases

pytestmark = pytest.mark.slow  # all texts are checked once: twelve seconds


@pytest.fixture(scope="module")
def verdicts():
    return [(case, bool(list_reasons(case, mode="free_text"))) for case in load_cases()]


def measure(verdicts, sets):
    honest = [not refused for case, refused in verdicts if case.set in sets and case.kind == "honest"]
    damaged = [refused for case, refused in verdicts if case.set in sets and case.kind != "honest"]
    return sum(honest) / len(honest), sum(damaged) / len(damaged), len(honest), len(damaged)


def test_paraphrases_that_the_checks_were_developed_on(verdicts):
    passed, caught, n_honest, n_damaged = measure(verdicts, SETS[:2])
    assert (n_honest, n_damaged) == (300, 300)
    assert passed >= 0.95 and caught >= 0.97


def test_paraphrases_of_the_last_set_do_not_fall_below_what_the_docs_say(verdicts):
    passed, caught, n_honest, n_damaged = measure(verdicts, SETS[2:])
    assert (n_honest, n_damaged) == (60, 60)
    assert passed >= 0.7 and caught >= 0.9
