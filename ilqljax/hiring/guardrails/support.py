"""Check a free paraphrase sentence by sentence: what it says the original says, and what the original says it says.

These take the place of the checks by known words and word pairs, which refuse every true paraphrase. A sentence is
supported if a few sentences of the original hold most of its stems (`clauses`), and covered if a few sentences of the
rewrite do. It is entailment by words: it knows no grammar, so who does what to whom is the other checks' matter.
"""

from collections.abc import Sequence
from itertools import chain

from ilqljax.hiring.edits.operators import INCLUSIVE_STATEMENTS, drop_demands
from ilqljax.hiring.guardrails.clauses import GENERIC, StemIndex, list_clauses, list_stems, restore_lines
from ilqljax.hiring.guardrails.demands import MAY, WISH, Demand, DemandIndex, list_demands
from ilqljax.hiring.guardrails.facts import YEARS
from ilqljax.hiring.guardrails.findings import Failure, list_sentences
from ilqljax.hiring.guardrails.statements import is_denied
from ilqljax.hiring.postings.posting import Posting

MAX_SOURCES = 3  # sentences that one may be made of
MIN_SUPPORT = 0.6  # share of a sentence's stems that its sources hold
MIN_CLAUSE_SUPPORT = 0.5  # the same of a clause
MIN_COVER = 0.6  # share of an original clause's stems that the rewrite's sentences hold


def _miss(stems: frozenset[str], sources: Sequence[frozenset[str]], index: StemIndex) -> frozenset[str]:
    """Return the stems that the best few sources, chosen one after the other, do not hold."""
    for _ in range(MAX_SOURCES):
        _, best = index.find_most(stems)
        if not best:
            break
        stems = stems - sources[best[0]]
    return stems


def _list_sentence_stems(text: str) -> list[frozenset[str]]:
    return [frozenset(list_stems(sentence)) for sentence, _ in list_sentences(text)]


def check_support(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that sentences of the original say what each sentence and each clause of the rewrite says."""
    known = frozenset(
        chain(*map(list_stems, (posting.title, posting.company, posting.location, *INCLUSIVE_STATEMENTS)))
    )
    sources = _list_sentence_stems(posting.description)
    index = StemIndex(sources)
    text = restore_lines(text, posting.description)
    parts = [(sentence, span, MIN_SUPPORT) for sentence, span in list_sentences(text)]
    parts += [(clause.text, clause.span, MIN_CLAUSE_SUPPORT) for clause in list_clauses(text)]
    for part, span, least in parts:
        stems = frozenset(list_stems(part))
        new = _miss(stems - known, sources, index)
        if len(new) > 1 and len(stems) - len(new) < least * len(stems):
            reason = f"Of '{part}' the original says nothing: {', '.join(sorted(new))}."
            return [Failure("sentence_unsupported", reason, span)]
    return []


def check_coverage(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that the rewrite says what each clause of the original says; years and demands that exclude may go."""
    found = _list_sentence_stems(restore_lines(text, posting.description))
    index, failures = StemIndex(found), []
    for clause in list_clauses(YEARS.sub(" ", drop_demands(posting.description))):
        gone = _miss(clause.stems, found, index) - GENERIC
        is_label = len(clause.stems) < 2 and f"{clause.text}:" in posting.description
        if gone and not is_label and len(clause.stems) - len(gone) < MIN_COVER * len(clause.stems):
            failures.append(Failure("sentence_uncovered", f"The rewrite says nothing of '{clause.text}'."))
    return failures


def check_denials(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that clauses that deny something still do, and that no other does; "optional" will do for "not needed"."""
    old, new = list_demands(posting.description), list_demands(restore_lines(text, posting.description))
    of_old, of_new, failures = DemandIndex(old), DemandIndex(new), []
    for demand in filter(_denies, old):
        near = of_new.find_nearest(demand)
        if near and not any(_denies(other) or _is_free(demand, other) for other in near):
            reason = f"'{demand.clause.text}' is no longer denied."
            failures.append(Failure("negations_kept", reason, near[0].clause.span))
    for demand in filter(_denies, new):
        near = of_old.find_nearest(demand)
        if near and not any(_denies(other) or _is_free(demand, other) for other in near):
            reason = f"'{near[0].clause.text}' was not denied."
            failures.append(Failure("negations_kept", reason, demand.clause.span))
    return failures


def _denies(demand: Demand) -> bool:
    return is_denied(demand.clause.text)


def _is_free(*demands: Demand) -> bool:
    """Return whether none of the demands need be met: "not required", "optional"."""
    return {demand.strength for demand in demands} <= {MAY, WISH}
