"""Impact ratios of an evaluation: who is selected of each posting's shortlist, before and after rewriting.

The same candidates come back in many shortlists, so they are told apart by id, and the numbers are those of an audit
(`audit.rates`). One row a policy, attribute, category and phase:

| column                                  | holds                                                                     |
|-----------------------------------------|---------------------------------------------------------------------------|
| n_assessed, n_selected                  | members of shortlists, and of their first places, over all postings       |
| selection_rate, _low, _high             | selected over assessed, with Wilson's interval                            |
| impact_ratio, _low, _high               | the rate over the highest, with its interval over postings and candidates |
| null_ratio, _low, _high                 | the same ratio under shuffled labels: mean and 95 % range                 |
| p_value, test                           | of equal rates with the reference, assessments taken as independent       |
| mark                                    | how the category stands to the four-fifths rule                           |
| n_people, n_people_selected             | how many different candidates these are                                   |
| versus_rest, _low, _high, p_crossed     | the rate over everyone else's, likewise over postings and candidates      |
| p_shuffled                              | how often shuffled labels give a rate as far from the overall one         |

Each attribute closes with a row of unknown members (counts only) and one of the smallest ratio, which is taken of the
categories with enough different people; its `p_shuffled` is how often shuffled labels give one as small.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute, AttributeTable
from ilqljax.hiring.audit.crossed import pair_selection
from ilqljax.hiring.audit.rates import Row, tabulate_rates
from ilqljax.hiring.evaluation.summary import PHASES, Policies, find_attributes
from ilqljax.hiring.matching.matcher import NOBODY, check_selected
from ilqljax.hiring.postings.posting import Candidate

UNKNOWN_ROW = "(unknown)"
SMALLEST_ROW = "(smallest ratio)"
# The columns, and what a row of `audit.rates` calls them.
_ENDS = ("", "_low", "_high")
_COLUMNS = {
    **{name: name for name in ("category", "n_assessed", "n_selected")},
    **{f"selection_rate{end}": f"rate{end}" for end in _ENDS},
    "impact_ratio": "impact_ratio",
    "impact_ratio_low": "ratio_low",
    "impact_ratio_high": "ratio_high",
    **{f"null_ratio{end}": f"null_ratio{end}" for end in _ENDS},
    "p_value": "p_independent",
    **{name: name for name in ("test", "mark", "n_people", "n_people_selected")},
    **{f"versus_rest{end}": f"versus_rest{end}" for end in _ENDS},
    **{name: name for name in ("p_crossed", "p_shuffled")},
}
_COUNTS = ("n_assessed", "n_selected", "n_people", "n_people_selected")


def tabulate_impact_ratios(
    policies: Policies, *, attributes: Sequence[str] = (), n_selected: int = 10, seed: int = 0
) -> list[Row]:
    """Tabulate impact ratios, one row per policy, attribute, category and phase ("before", then "after", rewriting).

    All attributes that the shortlists have are reported if none is named.

    Raises:
        UserError: an unknown attribute or none at all, `n_selected` does not suit a shortlist's length, or a candidate
            is twice in a shortlist or has two values of one attribute.
    """
    names = find_attributes(policies, attributes)
    if not names:
        raise UserError("The evaluation file's shortlists hold no attribute. Declare attributes of the candidates.")
    coded, shortlists = _index_candidates(policies, names, n_selected=n_selected)
    tables: dict[tuple[str, bytes], dict[str, Any]] = {}  # all policies share the shortlists before rewriting
    rows: list[Row] = []
    for policy, attribute in itertools.product(policies, coded):
        of_phases = []
        for phase in PHASES:
            indices = shortlists[policy, phase]
            key = (attribute.name, indices.tobytes())
            if key not in tables:
                pairs = pair_selection(indices, n_candidates=len(attribute.codes), n_selected=n_selected)
                tables[key] = tabulate_rates(pairs, attribute, seed=seed)
            front = {"policy": policy, "attribute": attribute.name, "phase": phase}
            of_phases.append([front | row for row in _flatten(tables[key])])
        rows += itertools.chain(*zip(*of_phases, strict=True))
    return rows


def _index_candidates(
    policies: Policies, names: Sequence[str], *, n_selected: int
) -> tuple[list[Attribute], dict[tuple[str, str], Int[Array, "G k"]]]:
    """Return the attributes of everybody on a shortlist, and each (policy, phase)'s shortlists as rows of these.

    A shorter shortlist than the longest ends in places of nobody (-1).
    """
    people: dict[str, tuple[tuple[str, ...], str]] = {}  # their values, and where these were first
    for rewrite, phase in ((r, phase) for rewrites in policies.values() for phase in PHASES for r in rewrites):
        shortlist, where = getattr(rewrite, phase), rewrite.where
        if shortlist.ids:
            check_selected(n_selected, len(shortlist.ids), where=where)
        if len(set(shortlist.ids)) < len(shortlist.ids):
            raise UserError(f"{where}: a candidate is twice in the shortlist {phase}. List each one once.")
        values = zip(*(shortlist.attributes[name] for name in names), strict=True)
        for candidate, given in zip(shortlist.ids, values, strict=True):
            known, place = people.setdefault(candidate, (given, where))
            if known != given:
                raise UserError(
                    f"{where}: candidate '{candidate}' has {dict(zip(names, given, strict=True))}, but had "
                    f"{dict(zip(names, known, strict=True))} at {place}. An id names one person."
                )
    declared = [Candidate(name, "", dict(zip(names, values, strict=True))) for name, (values, _) in people.items()]
    table = AttributeTable.from_candidates(declared, names=names)
    row_of = {candidate: row for row, candidate in enumerate(people)}
    shortlists = {}
    for policy, phase in itertools.product(policies, PHASES):
        lists = [[row_of[candidate] for candidate in getattr(r, phase).ids] for r in policies[policy]]
        places = list(itertools.zip_longest(*lists, fillvalue=NOBODY))
        shortlists[policy, phase] = np.array(places, np.int64).reshape(len(places), len(lists)).T
    return [table.attribute(name) for name in names], shortlists


def _flatten(table: Mapping[str, Any]) -> list[Row]:
    """Return a table of `audit.rates` as flat rows: its categories, then the unknown, then the smallest ratio."""
    smallest = {
        "category": SMALLEST_ROW,
        **dict.fromkeys(_COUNTS, ""),
        "impact_ratio": table["smallest_ratio"],
        **{f"null_ratio{end}": table[f"null_smallest{end}"] for end in _ENDS},
        "p_shuffled": table["p_smallest"],
    }
    rows = [*table["rows"], {"category": UNKNOWN_ROW, **table["unknown"]}, smallest]
    missing = {name: "" if name in ("test", "mark") else math.nan for name in _COLUMNS}
    return [{name: row.get(theirs, missing[name]) for name, theirs in _COLUMNS.items()} for row in rows]
