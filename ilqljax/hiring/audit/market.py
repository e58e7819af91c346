"""Audit ranked shortlists: every attribute's rates, composition, ranking measures and scores, before and after."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known, check_range, find_close
from ilqljax.hiring.attributes import Attribute, AttributeTable
from ilqljax.hiring.audit.categories import fold_spelling
from ilqljax.hiring.audit.crossed import Pairs, median_of_members, pair_measures
from ilqljax.hiring.audit.ranking import tabulate_columns, tabulate_ranking
from ilqljax.hiring.audit.rates import (
    LEAVE_OUT_BELOW,
    MIN_PEOPLE,
    adjust_for_many,
    retest,
    shuffle_scores,
    tabulate_changes,
    tabulate_rates,
)
from ilqljax.hiring.audit.suppression import merge_hidden, suppress
from ilqljax.hiring.audit.ties import match_shortlists
from ilqljax.hiring.evaluation.record import Rewrite, guard_gains
from ilqljax.hiring.matching.matcher import NOBODY, Matcher, check_selected
from ilqljax.hiring.postings.posting import Candidate, Posting, normalize_spaces
from ilqljax.hiring.reward.diversity import count_categories, pool_share
from ilqljax.hiring.reward.scores import (
    CROSS,
    RewardConfig,
    ShortlistScorer,
    codes_or_unknown,
    parse_shares,
    select_attribute,
    select_targets,
)
from ilqljax.hiring.statistics import bootstrap_mean

BEFORE, AFTER = "before", "after"
MOST_AUDITED = 1000  # categories of an attribute or a pair; a column of more is a name, a title or a number


@dataclass(frozen=True)
class AuditConfig:
    """Say how to audit.

    Attributes:
        attributes: declared attributes; every pair of them is audited as an intersection too, unless nobody declares
            both.
        top: length of a shortlist.
        n_selected: how many of a shortlist count as selected.
        score: target, distance and weights of the diversity score (its `attribute` is not used).
        min_count: hide categories of fewer people; 0 hides none.
        leave_out_below: categories with a smaller share of the known assessed enter no ratio; 0 leaves none out.
        reference: the category that an attribute's others are compared with; the highest rate where none is named.
        seed: of bootstrap, shuffles and simulations.

    A number that is out of its range, and a reference of an attribute that is not audited, raise a `UserError`.
    """

    attributes: tuple[str, ...]
    top: int = 50
    n_selected: int = 10
    score: RewardConfig = field(default_factory=RewardConfig)
    min_count: int = 0
    leave_out_below: float = LEAVE_OUT_BELOW
    reference: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        check_selected(self.n_selected, self.top, where=f"selected={self.n_selected} of top={self.top}")
        check_range(self, "[0, inf)", "min_count")
        check_range(self, "[0, 1)", "leave_out_below")
        for name in self.reference:
            check_known(self.list_names(), reference=name)

    def list_names(self) -> list[str]:
        """Return what is audited: the attributes, and every pair of them."""
        return [*self.attributes, *(CROSS.join(pair) for pair in itertools.combinations(self.attributes, 2))]


def audit_attributes(
    table: AttributeTable,
    config: AuditConfig,
    measures: Mapping[str, Mapping[str, Pairs]],
    audit_lists: Callable[[Attribute], dict[str, Any]] = lambda _: {},
) -> dict[str, Any]:
    """Return an audit of rates as plain data: a section an attribute, and places for what only shortlists have.

    P-values are adjusted for their number (Holm): a category's over all categories of all attributes of its measure and
    phase, that of a smallest ratio over all attributes and measures of its phase. Small cells are hidden before.

    Args:
        table: the candidates' attributes; a `UserError` is raised for one that it lacks.
        config: says which are audited.
        measures: the pairs of every measure by phase.
        audit_lists: returns what an attribute's section says beside its rates.
    """
    attributes = [select_attribute(table, name) for name in config.list_names()]
    check_categories(attributes)
    not_audited = [a.name for a in attributes if a.name not in config.attributes and not a.categories]
    sections = []
    for attribute in (a for a in attributes if a.name not in not_audited):
        beside = audit_lists(attribute)  # first, for it may refuse
        sections.append(_audit_rates(attribute, measures, config) | beside)
    suppress(sections, min_count=config.min_count)
    hidden_in = {section["name"]: section for section in sections if section["n_hidden"]}
    for attribute in (a for a in attributes if a.name in hidden_in):
        section = hidden_in[attribute.name]
        merged = merge_hidden(attribute, section)
        for phase, of_phase in measures.items():
            for name, pairs in of_phase.items():
                retest(section["rates"][phase][name], pairs, merged, seed=config.seed)
    for phase in measures if sections else ():
        tables = [table for section in sections for table in section["rates"][phase].values()]
        adjust_for_many(tables, name="p_smallest", adjusted="p_smallest_holm")
        for measure in measures[phase]:
            rows = [row for section in sections for row in section["rates"][phase][measure]["rows"]]
            adjust_for_many(rows, name="p_shuffled", adjusted="p_holm")
    return {
        "n_postings": 0,
        "n_candidates": len(table.ids),
        "n_assessments": 0,
        "is_weighted": False,
        "top": 0,
        "selected": 0,
        "phases": list(measures),
        "ties": {},
        "n_reached": {},
        "medians": {},
        "n_at_median": {},
        "taken_as_unknown": {},
        "attributes": sections,
        "not_audited": not_audited,
        "postings": [],
        "within": {},
    }


def check_categories(attributes: Sequence[Attribute]) -> None:
    """Ask whether an attribute is one where it has more categories than anybody reads; each has tests of its own."""
    for attribute in attributes:
        n = len(attribute.categories)
        if n > MOST_AUDITED:
            enough = int((np.bincount(attribute.codes[attribute.codes >= 0]) >= MIN_PEOPLE).sum())
            raise UserError(
                f"Is '{attribute.name}' an attribute? It has {n:,} categories, {enough:,} of them of {MIN_PEOPLE} "
                f"people or more; at most {MOST_AUDITED:,} are audited. Put its values in groups, or leave it out."
            )


def find_category(attribute: Attribute, name: str) -> str:
    """Return the category that a name spells, or a `UserError`; "" is none."""
    spelling = {fold_spelling(category): category for category in ("", *attribute.categories)}
    if fold_spelling(name) not in spelling:
        known = ", ".join(map(repr, attribute.categories))
        hint = find_close(name, attribute.categories)
        raise UserError(f"reference {attribute.name}={name}: no such category.{hint} There are {known}.")
    return spelling[fold_spelling(name)]


def _audit_rates(
    attribute: Attribute, measures: Mapping[str, Mapping[str, Pairs]], config: AuditConfig
) -> dict[str, Any]:
    reference = find_category(attribute, config.reference.get(attribute.name, ""))
    options = {"seed": config.seed, "reference": reference, "leave_out_below": config.leave_out_below}
    counts = count_categories(attribute.codes, len(attribute.categories))
    parts = attribute.values or [(name,) for name in attribute.categories]
    both = measures[BEFORE].items() if AFTER in measures else ()
    return {
        "name": attribute.name,
        "columns": list(attribute.sources or (attribute.name,)),
        "parts": dict(zip(attribute.categories, map(list, parts), strict=True)),
        "pool": dict(zip(attribute.categories, counts.counts.tolist(), strict=True)),
        "n_unknown": int(counts.n_unknown),
        "target": "",
        "rates": {
            phase: {name: tabulate_rates(pairs, attribute, **options) for name, pairs in of_phase.items()}
            for phase, of_phase in measures.items()
        },
        "changes": {name: tabulate_changes(old, measures[AFTER][name], attribute, **options) for name, old in both},
        "composition": [],
        "ranking": [],
        "lists": {},
        "scores": {},
    }


def audit_market(
    postings: Sequence[Posting],
    candidates: Sequence[Candidate],
    config: AuditConfig,
    *,
    matcher: Matcher,
    rewrites: Sequence[Rewrite] = (),
) -> dict[str, Any]:
    """Match the postings, and their rewrites if there are any (one a posting), and return the audit of the shortlists.

    It is `audit_attributes`' with rows of the postings.

    Raises:
        UserError: an unknown attribute, nothing to compare, a target that does not fit, or a shortlist that does not
            suit the number of candidates.
    """
    texts = {BEFORE: [normalize_spaces(posting.description) for posting in postings]}
    if rewrites:
        texts[AFTER] = [rewrite.text for rewrite in rewrites]
    who = {"postings": [posting.id for posting in postings], "ids": [candidate.id for candidate in candidates]}
    options = {"n_selected": config.n_selected, "seed": config.seed, **who}
    matched = {name: match_shortlists(matcher, of_phase, config.top, **options) for name, of_phase in texts.items()}
    phases = {name: found for name, (found, _) in matched.items()}
    counts = {"n_candidates": len(candidates), "n_selected": config.n_selected}
    measures = {name: pair_measures(phase, **counts) for name, phase in phases.items()}
    lists = {name: phase.indices for name, phase in phases.items()}
    table, groups = AttributeTable.from_candidates(candidates), [posting.group for posting in postings]
    failed = np.array([bool(rewrite.failed_checks) for rewrite in rewrites], bool)
    scores: dict[str, dict[str, np.ndarray]] = {}  # of each posting, by attribute and phase

    def audit_lists(attribute: Attribute) -> dict[str, Any]:
        section, scores[attribute.name] = _audit_lists(attribute, table, lists, config, groups=groups, failed=failed)
        return section

    medians = {name: median_of_members(phase) for name, phase in phases.items()}
    audit = audit_attributes(table, config, measures, audit_lists)
    told = {s["name"]: scores[s["name"]] for s in audit["attributes"] if s["scores"]}  # a score is of hidden cells too
    return audit | {
        "n_postings": len(postings),
        "top": config.top,
        "selected": config.n_selected,
        "ties": {name: counts for name, (_, counts) in matched.items()},
        "n_reached": {name: len(np.unique(rows[rows != NOBODY])) for name, rows in lists.items()},
        "medians": medians,
        "n_at_median": {
            name: int(((phase.scores == medians[name]) & (phase.indices != NOBODY)).sum())
            for name, phase in phases.items()
        },
        "postings": [
            {"id": posting.id, "n_shortlisted": int((lists[BEFORE][g] != NOBODY).sum())}
            | {f"score_{phase}": {name: float(of[phase][g]) for name, of in told.items()} for phase in lists}
            | ({"title": posting.title, "guardrail_failures": list(rewrites[g].failed_checks)} if rewrites else {})
            for g, posting in enumerate(postings)
        ],
    }


def choose_score(config: AuditConfig, name: str) -> RewardConfig:
    """Return how one attribute is scored: fixed shares and ground distances hold only for the attribute they name.

    An intersection that the shares do not name is measured against the pool, and equal ground distances.
    """
    score = replace(config.score, attribute=name)
    if CROSS not in name:
        return score
    is_named = score.target == "fixed" and name in parse_shares(score.shares)
    if (score.target == "fixed" and not is_named) or (score.target == "group" and score.shares):
        score = replace(score, target="pool")
    return replace(score, ground="")


def _audit_lists(
    attribute: Attribute,
    table: AttributeTable,
    lists: Mapping[str, Int[Array, "G k"]],
    config: AuditConfig,
    *,
    groups: Sequence[str],
    failed: Bool[Array, " G"] | Bool[Array, "0"],  # empty where there are no rewrites
) -> tuple[dict[str, Any], dict[str, Float[Array, " G"]]]:
    """Return what an attribute's section says of the lists beside rates, and each posting's score by phase."""
    scorer = ShortlistScorer(table, choose_score(config, attribute.name))
    (term,), seed = scorer.terms, config.seed
    targets = select_targets(term.targets, groups)
    scores = {name: scorer.score_term(term, indices, groups) for name, indices in lists.items()}
    floor = scorer.floor_of_term(term, config.top, groups, seed=seed)
    summary = {"floor": floor, **_summarize_scores(scores, failed, floor=floor, seed=seed)}
    for name, indices in lists.items():
        null, p_value = shuffle_scores(term, indices, targets, weights=scorer.weights(config.top), seed=seed)
        summary |= null.spread(f"{name}_null") | {f"{name}_p": p_value}
    n = len(attribute.categories)  # whose shares of all shortlists together stand beside the mean target
    shares = {"pool": pool_share(attribute.codes, n), "target": [column.mean() for column in targets.T]}
    shares |= {name: pool_share(codes_or_unknown(attribute.codes, rows), n) for name, rows in lists.items()}
    ranking, measures = tabulate_ranking(lists, term, targets, n_selected=config.n_selected, seed=seed)
    section = {
        "target": scorer.config.target,
        "composition": tabulate_columns(attribute.categories, shares),
        "ranking": ranking,
        "lists": measures,
        "scores": summary,
    }
    return section, scores


def _summarize_scores(
    scores: Mapping[str, Float[Array, " G"]], failed: Bool[Array, " G"] | Bool[Array, "0"], *, floor: float, seed: int
) -> dict[str, float]:
    """Return mean scores with intervals over postings, scores net of the noise floor, and the paired gain."""
    summary = {}
    for name, values in scores.items():
        summary |= bootstrap_mean(values, seed=seed).drop_empty().spread(name)
        summary[f"{name}_net"] = summary[name] - floor
    if AFTER in scores:
        gain = scores[AFTER] - scores[BEFORE]
        summary |= bootstrap_mean(gain, seed=seed).spread("gain")
        summary |= bootstrap_mean(guard_gains(gain, failed), seed=seed).spread("guarded_gain")
    return summary
