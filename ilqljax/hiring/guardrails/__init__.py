"""Check that a rewrite is still a true and readable posting, before any reward counts.

An unbounded score alone prefers gibberish to an inclusive sentence. Each check is named, looks at
one thing, and returns failures that say why and where. A rewrite with a failure is never an improvement.

| check             | fails when                                                                                 |
|-------------------|--------------------------------------------------------------------------------------------|
| not_empty         | there is no word                                                                           |
| company_kept      | the original text names the company, the rewrite does not                                  |
| title_kept        | likewise the title                                                                         |
| location_kept     | likewise the location, or its part before the comma                                        |
| numbers_kept      | a number is gone (years of experience may go), or a new one has appeared, also in words    |
| pay_kept          | an amount of money, its currency, scale or period is gone, has changed or has appeared     |
| links_kept        | a link or e-mail address is gone, or a new one has appeared                                |
| places_kept       | the same for a place that `lexicon` finds                                                  |
| technologies_kept | the same for a technology that `lexicon` finds                                             |
| requirements_kept | a short requirement that the original's text mentions is gone; years of experience may go  |
| name_invented     | a capitalised word has appeared, such as another company                                   |
| sentence_invented | a sentence consists largely of words that the original lacks                               |
| statements_kept   | a legal statement (`statements`) is gone, is denied where it was affirmed, or has appeared |
| conditions_kept   | the same for a condition of the work: remote, full time, equity ...                        |
| negations_kept    | what the original denies is affirmed, or the reverse; a clause that denies may go          |
| template_leak     | it holds a special token, the prompt's instruction, a field label or a run of its fields   |
| copying           | only case and punctuation differ; severity "copy". The original to the letter passes       |
| repetition        | a three-word phrase occurs more often than `MAX_PHRASE_COUNT`, or a word thrice in a row   |
| length            | fewer than 0.4 or more than 2.5 times the original's words                                 |
| language_kept     | it, or a sentence of it, is in a language that the original has nowhere                    |
| incoherent        | more than 40 % unknown words, or under 20 % known word pairs, in all or in one sentence    |

A word is known if the original, the prompt, the operators (`edits.operators`) or a short list of common words has it;
a pair of neighbouring words if the original has it, with all coded words counted as one. The pair rule refuses shuffled
words; it also refuses a free paraphrase, which is the safe side to err on. `fluency` adds the one check that
needs a language model.
"""

from collections.abc import Iterable

from ilqljax.hiring.guardrails import facts, statements, wording
from ilqljax.hiring.guardrails.findings import SEVERITIES, Check, Failure
from ilqljax.hiring.postings.posting import Posting

__all__ = ("CHECKS", "SEVERITIES", "Check", "Failure", "check_rewrite", "is_damaged")

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
    "statements_kept": statements.make_statement_check("statements_kept"),
    "conditions_kept": statements.make_statement_check("conditions_kept"),
    "negations_kept": statements.check_negations,
    "template_leak": wording.check_template_leak,
    "copying": wording.check_copying,
    "repetition": wording.check_repetition,
    "length": wording.check_length,
    "language_kept": wording.check_language,
    "incoherent": wording.check_coherence,
}


def check_rewrite(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Return what is wrong with a rewrite: nothing, or a failure of each check that it does not pass.

    Args:
        posting: the original.
        text: the rewrite.
        prompt: what the rewriter saw; its words count as known, its instruction must not come back.
    """
    if empty := wording.check_not_empty(posting, text, prompt):
        return empty
    return [failure for check in CHECKS.values() for failure in check(posting, text, prompt)]


def is_damaged(failures: Iterable[Failure]) -> bool:
    """Return whether a failure says more than that the text is a copy: that it is not a true and readable posting."""
    return any(failure.severity == "damage" for failure in failures)
