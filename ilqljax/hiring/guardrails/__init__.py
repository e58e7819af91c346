"""Check that a rewrite is still a true and readable posting, before any reward counts.

An unbounded reward alone prefers gibberish to an inclusive sentence. Each check of `CHECKS` looks at one thing, which
its function's docstring tells, and returns failures that say why and where. A rewrite with a failure is never an
improvement.

`fluency` adds the one check that needs a language model.
"""

from collections.abc import Iterable

from ilqljax.hiring.guardrails import deadlines, demands, facts, kept_words, statements, support, wording
from ilqljax.hiring.guardrails.findings import Check, Failure
from ilqljax.hiring.postings.posting import Posting

__all__ = ("CHECKS", "FREE_TEXT_CHECKS", "MODES", "Check", "Failure", "check_rewrite", "is_damaged")

CHECKS: dict[str, Check] = {
    "not_empty": wording.check_not_empty,
    "company_kept": facts.make_fact_check("company_kept", "company"),
    "title_kept": facts.make_fact_check("title_kept", "title"),
    "location_kept": facts.make_fact_check("location_kept", "location"),
    "numbers_kept": facts.check_numbers,
    "pay_kept": facts.check_pay,
    "links_kept": facts.check_links,
    "places_kept": facts.check_places,
    "technologies_kept": facts.check_technologies,
    "requirements_kept": facts.check_requirements,
    "name_invented": facts.check_names,
    "sentence_invented": facts.check_sentences,
    "words_kept": kept_words.check_kept_words,
    "statements_kept": statements.make_statement_check("statements_kept"),
    "conditions_kept": statements.make_statement_check("conditions_kept"),
    "demands_kept": demands.check_demands,
    "perks_kept": statements.make_statement_check("perks_kept"),
    "credentials_kept": statements.make_statement_check("credentials_kept"),
    "credential_kinds_kept": statements.check_credential_kinds,
    "schedule_kept": statements.make_statement_check("schedule_kept"),
    "times_kept": statements.check_times,
    "deadlines_kept": deadlines.check_deadlines,
    "counts_kept": deadlines.check_counts,
    "bounds_kept": deadlines.check_bounds,
    "level_kept": statements.make_statement_check("level_kept"),
    "trait_added": statements.make_addition_check("trait_added"),
    "frequency_added": statements.make_addition_check("frequency_added"),
    "role_added": statements.make_addition_check("role_added"),
    "field_added": statements.make_addition_check("field_added"),
    "negations_kept": statements.check_negations,
    "sentence_uncovered": kept_words.check_kept_clauses,
    "template_leak": wording.check_template_leak,
    "copying": wording.check_copying,
    "repetition": wording.check_repetition,
    "doubled_words": wording.check_doubled_words,
    "articles_right": wording.check_articles,
    "length": wording.check_length,
    "language_kept": wording.check_language,
    "incoherent": wording.check_coherence,
}

# Checks that know only the original's words and word pairs, and what a paraphrase in other words is asked instead.
EDITS_ONLY = frozenset({"words_kept", "sentence_invented", "incoherent"})
FREE_TEXT_CHECKS: dict[str, Check] = {
    **{name: check for name, check in CHECKS.items() if name not in EDITS_ONLY},
    **{name: statements.make_statement_check(name, in_any_form=True) for name in ("perks_kept", "schedule_kept")},
    "negations_kept": support.check_denials,
    "sentence_unsupported": support.check_support,
    "sentence_uncovered": support.check_coverage,
}
MODES = {"edits": CHECKS, "free_text": FREE_TEXT_CHECKS}


def check_rewrite(posting: Posting, text: str, prompt: str, *, mode: str = "edits") -> list[Failure]:
    """Return what is wrong with a rewrite `text` of a posting: a failure of each check that it does not pass.

    The words of the prompt, which is what the rewriter saw, count as known; its instruction must not come back. The
    mode is a name of `MODES`: "edits" of single words, or "free_text", for paraphrases by a language model.
    """
    if empty := wording.check_not_empty(posting, text, prompt):
        return empty
    return [failure for check in MODES[mode].values() for failure in check(posting, text, prompt)]


def is_damaged(failures: Iterable[Failure]) -> bool:
    """Return whether a failure says more than that the text is a copy: that it is not a true and readable posting."""
    return any(failure.severity == "damage" for failure in failures)
