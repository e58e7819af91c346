"""Audit ranked shortlists: every attribute's rates, composition, ranking measures and scores, before and after."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute, AttributeTable
from ilqljax.hiring.audit.pairs import (
    NOBODY,
    Pairs,
    median_of_members,
    pair_scoring,
    pair_selection,
    pair_shortlisting,
)
from ilqljax.hiring.audit.ranks import tabulate_ranking
from ilqljax.hiring.audit.rates import Row, adjust_for_many, spread, tabulate_changes, tabulate_rates
from ilqljax.hiring.audit.shuffling import shuffle_scores
from ilqljax.hiring.audit.suppression import UNKNOWN_CATEGORY, find_hidden, hide_cells
from ilqljax.hiring.evaluation.record import Rewrite
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
SEPARATOR = " / "
N_SCORE_SHUFFLES = 400


@dataclass(frozen=True, eq=False)
class Phase:
    """Hold the shortlists of all postings: row numbers, best first (-1 is nobody), and the matcher's scores."""

    indices: Int[Array, "G k"]
    scores: Float[Array, "G k"]


@dataclass(frozen=True, eq=False)
class AuditedMarket:
    """Hold what is audited.

    Attributes:
        table: the candidates' attributes.
        posting_ids: one a row of the phases.
        titles: the postings'.
        groups: the postings' job groups, "" where not known.
        phases: the shortlists "before" and, if there are rewrites, "after".
        rewrites: one a posting, or none.
    """

    table: AttributeTable
    posting_ids: tuple[str, ...]
    titles: tuple[str, ...]
    groups: tuple[str, ...]
    phases: dict[str, Phase]
    rewrites: tuple[Rewrite, ...] = ()


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

    def names(self) -> tuple[str, ...]:
        """Return the attributes and their pairwise intersections."""
        return (*self.attributes, *list_intersections(self.attributes))


def list_intersections(attributes: Sequence[str]) -> list[str]:
    """Return the names of every pair of attributes combined."""
    return [f"{a}{CROSS}{b}" for i, a in enumerate(attributes) for b in attributes[i + 1 :]]


class AuditedAttribute(NamedTuple):
    """Hold an attribute to audit, and what it is made of.

    Attributes:
        attribute: its categories, each of its own name, and its codes.
        columns: the declared attributes that it combines; of an attribute by itself, its name.
        parts: each category's values of these, in the order of the categories.
    """

    attribute: Attribute
    columns: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]


def select_audited(table: AttributeTable, config: AuditConfig) -> tuple[list[AuditedAttribute], list[str]]:
    """Return what is audited, and the names of the pairs that are not because nobody declares both.

    Raises:
        UserError: an unknown attribute.
    """
    attributes = [select_attribute(table, name) for name in config.names()]
    not_audited = [a.name for a in attributes if a.name not in config.attributes and not a.categories]
    return [_split(table, a) for a in attributes if a.name not in not_audited], not_audited


def _split(table: AttributeTable, attribute: Attribute) -> AuditedAttribute:
    if attribute.name in table.names:
        return AuditedAttribute(attribute, (attribute.name,), tuple((name,) for name in attribute.categories))
    sources = [table.attribute(name) for name in attribute.name.split(CROSS)]
    rows = [int(np.argmax(attribute.codes == c)) for c in range(len(attribute.categories))]  # somebody of each category
    parts = tuple(tuple(source.categories[source.codes[row]] for source in sources) for row in rows)
    names = attribute.categories  # "x / y" with "z" and "x" with "y / z" have one name: quotes tell them apart
    names = tuple(
        SEPARATOR.join(map(repr, values)) if names.count(name) > 1 else name
        for name, values in zip(names, parts, strict=True)
    )
    return AuditedAttribute(attribute._replace(categories=names), tuple(s.name for s in sources), parts)


def audit_market(market: AuditedMarket, config: AuditConfig) -> dict[str, Any]:
    """Return the audit as plain data: one section an attribute, one row a posting.

    Raises:
        UserError: an unknown attribute, nothing to compare, or a target that does not fit.
    """
    first = market.phases[BEFORE]
    if not 1 <= config.n_selected < first.indices.shape[1]:
        raise UserError(
            f"selected={config.n_selected} of a shortlist of {first.indices.shape[1]}: select at least 1 and fewer "
            f"than {first.indices.shape[1]}, or nobody is turned down."
        )
    measures = {name: list_measures(phase, market.table, config) for name, phase in market.phases.items()}
    audited, not_audited = select_audited(market.table, config)
    sections, scores = [], {}
    for each in audited:
        section, scores[each.attribute.name] = _audit_attribute(market, config, each, measures)
        sections.append(section)
    adjust_sections(sections)
    suppress(sections, min_count=config.min_count)
    return {
        "n_postings": len(market.posting_ids),
        "n_candidates": len(market.table.ids),
        "top": first.indices.shape[1],
        "selected": config.n_selected,
        "phases": list(market.phases),
        "n_reached": {
            name: len(np.unique(phase.indices[phase.indices != NOBODY])) for name, phase in market.phases.items()
        },
        "medians": {name: median_of_members(phase.indices, phase.scores) for name, phase in market.phases.items()},
        "attributes": sections,
        "not_audited": not_audited,
        "postings": _list_postings(market, scores),
    }


def choose_score(config: AuditConfig, name: str) -> RewardConfig:
    """Return how one attribute is scored: fixed shares and ground distances hold only for the attribute they name.

    An intersection that the shares do not name is measured against the pool, and equal ground distances.
    """
    score = replace(config.score, attribute=name)
    is_cross = CROSS in name
    if is_cross and score.target == "fixed" and name not in parse_shares(score.shares):
        score = replace(score, target="pool")
    if is_cross and score.target == "group" and score.shares:
        score = replace(score, target="pool")
    return replace(score, ground="") if is_cross else score


def list_measures(phase: Phase, table: AttributeTable, config: AuditConfig) -> dict[str, Pairs]:
    """Return the pairs of every measure of a phase."""
    n = len(table.ids)
    return {
        "shortlisting": pair_shortlisting(phase.indices, n_candidates=n),
        "selection": pair_selection(phase.indices, n_candidates=n, n_selected=config.n_selected),
        "scoring": pair_scoring(phase.indices, phase.scores, n_candidates=n),
    }


def _audit_attribute(
    market: AuditedMarket,
    config: AuditConfig,
    audited: AuditedAttribute,
    measures: dict[str, dict[str, Pairs]],
) -> tuple[dict[str, Any], dict[str, Float[Array, "G"]]]:
    attribute, seed = audited.attribute, config.seed
    scorer = ShortlistScorer(market.table, choose_score(config, attribute.name))
    term = replace(scorer.terms[0], attribute=attribute)
    targets = select_targets(term.targets, market.groups)
    rates = {
        phase: {name: tabulate_rates(pairs, attribute, seed=seed) for name, pairs in of_phase.items()}
        for phase, of_phase in measures.items()
    }
    changes = {
        name: tabulate_changes(measures[BEFORE][name], measures[AFTER][name], attribute, seed=seed)
        for name in (measures[BEFORE] if AFTER in measures else ())
    }
    scores = {name: scorer.score_term(term, phase.indices, market.groups) for name, phase in market.phases.items()}
    k = market.phases[BEFORE].indices.shape[1]
    floor = scorer.floor_of_term(term, k, market.groups, seed=seed)
    nulls: dict[str, float] = {}
    for name, phase in market.phases.items():
        weights = scorer.weights(k)
        null = shuffle_scores(term, phase.indices, targets, weights=weights, seed=seed, n_shuffles=N_SCORE_SHUFFLES)
        nulls |= spread(f"{name}_null", null.mean) | {f"{name}_p": null.p_value}
    ranking, lists = tabulate_ranking(market.phases, term, targets, n_selected=config.n_selected, seed=seed)
    section = {
        **describe_attribute(audited),
        "target": scorer.config.target,
        "rates": rates,
        "changes": changes,
        "composition": _compose(market, attribute, targets),
        "ranking": ranking,
        "lists": lists,
        "scores": _summarize_scores(scores, market, floor=floor, seed=seed) | nulls,
    }
    return section, scores


def describe_attribute(audited: AuditedAttribute) -> dict[str, Any]:
    """Return an attribute's name, what it combines, its categories and their counts in the pool."""
    attribute = audited.attribute
    counts = count_categories(attribute.codes, len(attribute.categories))
    return {
        "name": attribute.name,
        "columns": list(audited.columns),
        "parts": {name: list(values) for name, values in zip(attribute.categories, audited.parts, strict=True)},
        "pool": dict(zip(attribute.categories, counts.counts.tolist(), strict=True)),
        "n_unknown": int(counts.n_unknown),
    }


def _compose(market: AuditedMarket, attribute: Attribute, targets: Float[Array, "G C"]) -> list[Row]:
    """Return each category's share of all shortlists together, beside its target (averaged over postings)."""
    n = len(attribute.categories)
    shares = {
        name: normalize_counts(count_categories(codes_or_unknown(attribute.codes, phase.indices).ravel(), n).counts)
        for name, phase in market.phases.items()
    }
    pool = normalize_counts(count_categories(attribute.codes, n).counts)
    return [
        {"category": category, "pool": float(pool[c]), "target": float(targets[:, c].mean())}
        | {name: float(share[c]) for name, share in shares.items()}
        for c, category in enumerate(attribute.categories)
    ]


def _summarize_scores(
    scores: dict[str, Float[Array, "G"]], market: AuditedMarket, *, floor: float, seed: int
) -> dict[str, Any]:
    """Return mean scores with intervals over postings, the noise floor, scores net of it, and the paired gain."""
    summary: dict[str, Any] = {"floor": floor}
    for name, values in scores.items():
        mean = bootstrap_mean(values, seed=seed)
        summary |= spread(name, mean) | {f"{name}_net": float(mean.value) - floor}
    if AFTER in scores:
        gain = scores[AFTER] - scores[BEFORE]
        failed = np.array([bool(rewrite.failed_checks) for rewrite in market.rewrites])
        summary |= spread("gain", bootstrap_mean(gain, seed=seed))
        summary |= spread("guarded_gain", bootstrap_mean(np.where(failed, np.minimum(gain, 0.0), gain), seed=seed))
    return summary


def adjust_sections(sections: Sequence[dict[str, Any]]) -> None:
    """Add Holm's p-values, in place.

    A category's is adjusted over all categories of all attributes of its measure and phase, that of a smallest ratio
    over all attributes and measures of its phase.
    """
    for phase in sections[0]["rates"] if sections else ():
        tables = [table for section in sections for table in section["rates"][phase].values()]
        adjust_for_many(tables, name="p_smallest", adjusted="p_smallest_holm")
        for measure in sections[0]["rates"][phase]:
            rows = [row for section in sections for row in section["rates"][phase][measure]["rows"]]
            adjust_for_many(rows, name="p_shuffled", adjusted="p_holm")


def suppress(sections: Sequence[dict[str, Any]], *, min_count: int) -> None:
    """Hide the sections' small cells, in place (`suppression`).

    A category hidden in its own attribute is hidden in the intersections too, whose cells would add up to it.
    """
    hidden_of: dict[str, set[str]] = {}
    for section in sections:
        columns = section["columns"]
        given = [hidden_of.get(name, set()) - {UNKNOWN_CATEGORY} for name in columns] if len(columns) > 1 else []
        tables = [table for of_phase in section["rates"].values() for table in of_phase.values()]
        pool = section["pool"] | {UNKNOWN_CATEGORY: section["n_unknown"]}
        hidden = find_hidden(tables, pool, min_count=min_count, parts=section["parts"], hidden_parts=given)
        hidden_of[section["name"]] = hidden
        hide_cells(section, hidden)


def _list_postings(market: AuditedMarket, scores: dict[str, dict[str, Float[Array, "G"]]]) -> list[Row]:
    rows = []
    for g, posting_id in enumerate(market.posting_ids):
        row: Row = {"id": posting_id, "n_shortlisted": int((market.phases[BEFORE].indices[g] != NOBODY).sum())}
        for phase in market.phases:
            row[f"score_{phase}"] = {name: _plain(of_name[phase][g]) for name, of_name in scores.items()}
        if market.rewrites:
            row["title"] = market.titles[g]
            row["guardrail_failures"] = list(market.rewrites[g].failed_checks)
        rows.append(row)
    return rows


def _plain(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
