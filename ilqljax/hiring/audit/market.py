"""Audit ranked shortlists: every attribute's rates, composition, ranking measures and scores, before and after."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute, AttributeTable
from ilqljax.hiring.audit.crossed import (
    NOBODY,
    Pairs,
    median_of_members,
    pair_scoring,
    pair_selection,
    pair_shortlisting,
)
from ilqljax.hiring.audit.ranking import tabulate_columns, tabulate_ranking
from ilqljax.hiring.audit.rates import Row, adjust_for_many, tabulate_changes, tabulate_rates
from ilqljax.hiring.audit.shuffling import shuffle_scores
from ilqljax.hiring.audit.suppression import suppress
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.matching.matcher import Matches
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.reward.diversity import count_categories, normalize_counts
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
from ilqljax.types import Array

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, eq=False)
class AuditedMarket:
    """Hold what is audited."""

    table: AttributeTable  # the candidates'
    postings: tuple[Posting, ...]  # one a row of the phases
    phases: dict[str, Matches]  # the shortlists "before" and, if there are rewrites, "after"; -1 is nobody
    rewrites: tuple[Rewrite, ...] = ()  # one a posting, or none


@dataclass(frozen=True)
class AuditConfig:
    """Say how to audit.

    Attributes:
        attributes: declared attributes; every pair of them is audited as an intersection too, unless nobody declares
            both.
        n_selected: how many of a shortlist count as selected.
        score: target, distance and weights of the diversity score (its `attribute` is not used).
        min_count: hide categories of fewer people; 0 hides none.
        seed: of bootstrap, shuffles and simulations.
    """

    attributes: tuple[str, ...]
    n_selected: int = 10
    score: RewardConfig = field(default_factory=RewardConfig)
    min_count: int = 0
    seed: int = 0


class AuditedAttribute(NamedTuple):
    """Hold an attribute to audit, and what it is made of."""

    attribute: Attribute  # each category has a name of its own
    columns: tuple[str, ...]  # the declared attributes that it combines; of an attribute by itself, its name
    parts: tuple[tuple[str, ...], ...]  # each category's values of these


def audit_attributes(
    table: AttributeTable, config: AuditConfig, audit: Callable[[AuditedAttribute], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a section an attribute, and the names of the pairs that are not audited because nobody declares both.

    P-values are adjusted for their number (Holm): a category's over all categories of all attributes of its measure and
    phase, that of a smallest ratio over all attributes and measures of its phase. Then small cells are hidden.

    Raises:
        UserError: an unknown attribute.
    """
    pairs = [CROSS.join(pair) for pair in itertools.combinations(config.attributes, 2)]
    attributes = [select_attribute(table, name) for name in (*config.attributes, *pairs)]
    not_audited = [a.name for a in attributes if a.name not in config.attributes and not a.categories]
    sections = [audit(_split(table, a)) for a in attributes if a.name not in not_audited]
    for phase in sections[0]["rates"] if sections else ():
        tables = [table for section in sections for table in section["rates"][phase].values()]
        adjust_for_many(tables, name="p_smallest", adjusted="p_smallest_holm")
        for measure in sections[0]["rates"][phase]:
            rows = [row for section in sections for row in section["rates"][phase][measure]["rows"]]
            adjust_for_many(rows, name="p_shuffled", adjusted="p_holm")
    suppress(sections, min_count=config.min_count)
    return sections, not_audited


def _split(table: AttributeTable, attribute: Attribute) -> AuditedAttribute:
    if attribute.name in table.names:
        return AuditedAttribute(attribute, (attribute.name,), tuple((name,) for name in attribute.categories))
    sources = [table.attribute(name) for name in attribute.name.split(CROSS)]
    rows = [int(np.argmax(attribute.codes == c)) for c in range(len(attribute.categories))]  # somebody of each category
    parts = tuple(tuple(source.categories[source.codes[row]] for source in sources) for row in rows)
    names = attribute.categories  # "x / y" with "z" and "x" with "y / z" have one name: quotes tell them apart
    names = tuple(
        " / ".join(map(repr, values)) if names.count(name) > 1 else name
        for name, values in zip(names, parts, strict=True)
    )
    return AuditedAttribute(attribute._replace(categories=names), tuple(s.name for s in sources), parts)


def audit_rates(audited: AuditedAttribute, measures: Mapping[str, Mapping[str, Pairs]], *, seed: int) -> dict[str, Any]:
    """Return an attribute's section with its rates only, from the pairs of every measure by phase."""
    attribute = audited.attribute
    counts = count_categories(attribute.codes, len(attribute.categories))
    both = measures[BEFORE].items() if AFTER in measures else ()
    return {
        "name": attribute.name,
        "columns": list(audited.columns),
        "parts": {name: list(values) for name, values in zip(attribute.categories, audited.parts, strict=True)},
        "pool": dict(zip(attribute.categories, counts.counts.tolist(), strict=True)),
        "n_unknown": int(counts.n_unknown),
        "target": "",
        "rates": {
            phase: {name: tabulate_rates(pairs, attribute, seed=seed) for name, pairs in of_phase.items()}
            for phase, of_phase in measures.items()
        },
        "changes": {name: tabulate_changes(old, measures[AFTER][name], attribute, seed=seed) for name, old in both},
        "composition": [],
        "ranking": [],
        "lists": {},
        "scores": {},
    }


def audit_market(market: AuditedMarket, config: AuditConfig) -> dict[str, Any]:
    """Return the audit as plain data: one section an attribute, one row a posting.

    Raises:
        UserError: an unknown attribute, nothing to compare, or a target that does not fit.
    """
    k = market.phases[BEFORE].indices.shape[1]
    if not 1 <= config.n_selected < k:
        raise UserError(
            f"selected={config.n_selected} of a shortlist of {k}: select at least 1 and fewer than {k}, or nobody is "
            "turned down."
        )
    measures = {name: list_measures(phase, market.table, config) for name, phase in market.phases.items()}
    scores = {}

    def audit(audited: AuditedAttribute) -> dict[str, Any]:
        section, scores[audited.attribute.name] = _audit_lists(market, config, audited)
        return audit_rates(audited, measures, seed=config.seed) | section

    sections, not_audited = audit_attributes(market.table, config, audit)
    return {
        "n_postings": len(market.postings),
        "n_candidates": len(market.table.ids),
        "top": k,
        "selected": config.n_selected,
        "phases": list(market.phases),
        "n_reached": {name: len(np.unique(i[i != NOBODY])) for name, (i, _) in market.phases.items()},
        "medians": {name: median_of_members(*phase) for name, phase in market.phases.items()},
        "attributes": sections,
        "not_audited": not_audited,
        "postings": _list_postings(market, scores),
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


def list_measures(phase: Matches, table: AttributeTable, config: AuditConfig) -> dict[str, Pairs]:
    """Return the pairs of every measure of a phase."""
    n = len(table.ids)
    return {
        "shortlisting": pair_shortlisting(phase.indices, n_candidates=n),
        "selection": pair_selection(phase.indices, n_candidates=n, n_selected=config.n_selected),
        "scoring": pair_scoring(phase.indices, phase.scores, n_candidates=n),
    }


def _audit_lists(
    market: AuditedMarket, config: AuditConfig, audited: AuditedAttribute
) -> tuple[dict[str, Any], dict[str, Float[Array, "G"]]]:
    """Return what a section says of the lists beside rates, and each posting's score by phase."""
    attribute, seed, groups = audited.attribute, config.seed, [posting.group for posting in market.postings]
    scorer = ShortlistScorer(market.table, choose_score(config, attribute.name))
    term = replace(scorer.terms[0], attribute=attribute)
    targets = select_targets(term.targets, groups)
    lists = {name: phase.indices for name, phase in market.phases.items()}
    k = lists[BEFORE].shape[1]
    scores = {name: scorer.score_term(term, indices, groups) for name, indices in lists.items()}
    floor = scorer.floor_of_term(term, k, groups, seed=seed)
    summary = _summarize_scores(scores, market.rewrites, floor=floor, seed=seed)
    for name, indices in lists.items():
        null, p_value = shuffle_scores(term, indices, targets, weights=scorer.weights(k), seed=seed)
        summary |= null.spread(f"{name}_null") | {f"{name}_p": p_value}
    ranking, measures = tabulate_ranking(lists, term, targets, n_selected=config.n_selected, seed=seed)
    section = {
        "target": scorer.config.target,
        "composition": tabulate_columns(attribute.categories, _compose(lists, attribute, targets)),
        "ranking": ranking,
        "lists": measures,
        "scores": summary,
    }
    return section, scores


def _compose(
    lists: Mapping[str, Int[Array, "G k"]], attribute: Attribute, targets: Float[Array, "G C"]
) -> dict[str, Sequence[float]]:
    """Return each category's share of all shortlists together, beside its target (averaged over postings)."""

    def share(codes: Int[Array, "..."]) -> Float[Array, "C"]:
        return normalize_counts(count_categories(codes.ravel(), len(attribute.categories)).counts)

    shares = {name: share(codes_or_unknown(attribute.codes, indices)) for name, indices in lists.items()}
    return {"pool": share(attribute.codes), "target": [column.mean() for column in targets.T], **shares}


def _summarize_scores(
    scores: Mapping[str, Float[Array, "G"]], rewrites: Sequence[Rewrite], *, floor: float, seed: int
) -> dict[str, Any]:
    """Return mean scores with intervals over postings, the noise floor, scores net of it, and the paired gain."""
    summary: dict[str, Any] = {"floor": floor}
    for name, values in scores.items():
        mean = bootstrap_mean(values, seed=seed)
        summary |= mean.spread(name) | {f"{name}_net": float(mean.value) - floor}
    if AFTER in scores:
        gain = scores[AFTER] - scores[BEFORE]
        failed = np.array([bool(rewrite.failed_checks) for rewrite in rewrites])
        guarded = np.where(failed, np.minimum(gain, 0.0), gain)
        for name, values in (("gain", gain), ("guarded_gain", guarded)):
            summary |= bootstrap_mean(values, seed=seed).spread(name)
    return summary


def _list_postings(market: AuditedMarket, scores: dict[str, dict[str, Float[Array, "G"]]]) -> list[Row]:
    rows = []
    for g, posting in enumerate(market.postings):
        row: Row = {"id": posting.id, "n_shortlisted": int((market.phases[BEFORE].indices[g] != NOBODY).sum())}
        for phase in market.phases:
            row[f"score_{phase}"] = {name: float(of_name[phase][g]) for name, of_name in scores.items()}
        if market.rewrites:
            row["title"] = posting.title
            row["guardrail_failures"] = list(market.rewrites[g].failed_checks)
        rows.append(row)
    return rows
