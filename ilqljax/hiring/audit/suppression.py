"""Hide the cells of an audit that describe too few people, and those that would give them away.

A category is hidden when fewer than `min_count` different people of it (but not none) were assessed or selected, in any
measure or phase; it is then hidden everywhere. A reader knows more than what is shown, and more is hidden against it:

- Totals, of the selected too, for a rate over everyone else's gives them. So what is hidden of an attribute, and along
  each line of an intersection ("female / *", "* / north"), is known in sum: it has to be two cells or more, which
  together are `min_count` people or none. If they are fewer, the next smallest cell is hidden too.
- All these sums together. A cell that they determine, as one that links two groups of hidden cells, takes another with
  it.
- Ratios: the rate of a hidden reference is a shown rate over its ratio. So nothing is said of ratios to it.
- The program and its seed: whoever runs it with every split of a hidden sum finds the one that gives the printed
  digits. So what is shown of others is computed again with the hidden cells as one group (`merge_hidden`,
  `rates.retest`), and is the same for every split. Diversity scores and measures of whole lists are of every category
  alone: they go where any is hidden, and shares of the known go where the unknown are.

This is complementary suppression against sums, ratios and repetition, not a proof of anonymity: a cell has bounds, and
whoever declares one attribute of a pair and not the other follows from the pair's cells and the attribute's.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ilqljax.hiring.attributes import UNKNOWN, Attribute
from ilqljax.hiring.audit.rates import JUDGED, Mark
from ilqljax.hiring.audit.shortfall import GAPS

UNKNOWN_CATEGORY = ""  # the unknown count is a cell like any other
HIDDEN = "(hidden)"  # in place of a reference
MERGED = "\0"  # the name of all hidden categories together, which no file has
_OF_REFERENCE = ("impact_ratio", "ratio_low", "ratio_high", "postings_low", "postings_high", "p_independent")
_OF_REFERENCE += ("bound_low", "bound_high")
_OF_COMPARED = ("compared_ratio", "compared_low", "compared_high", *GAPS)


def find_hidden(
    tables: Sequence[dict[str, Any]],
    pool: dict[str, int],
    *,
    min_count: int,
    parts: Mapping[str, Sequence[str]],
    hidden_parts: Sequence[set[str]] = (),
) -> set[str]:
    """Return the categories of one attribute to hide ("" is the unknown).

    Args:
        tables: its rate tables, of every measure and phase.
        pool: candidates by category, "" for the unknown.
        min_count: a cell with fewer people, but not none, is hidden; 0 hides nothing.
        parts: each category's values of the attributes that it combines; of one attribute, the category itself.
        hidden_parts: for an intersection, what is already hidden of each attribute that it combines.
    """
    cells = {category: [count] for category, count in pool.items()}
    for table in tables:
        for row in [*table["rows"], {"category": UNKNOWN_CATEGORY, **table["unknown"]}]:
            cells[row["category"]] += [row["n_people"], row["n_people_selected"]]
    hidden = {category for category, counts in cells.items() if any(0 < count < min_count for count in counts)}
    for place, given in enumerate(hidden_parts):
        hidden |= {name for name, values in parts.items() if values[place] in given}
        hidden |= given & {UNKNOWN_CATEGORY}  # of the pair less those of the other attribute: it follows nearly
    smallest = {category: min((count for count in counts if count), default=0) for category, counts in cells.items()}
    lines = {frozenset(pool)}
    if hidden_parts:
        for place, values in enumerate(zip(*parts.values(), strict=True)):
            lines |= {frozenset(name for name, own in parts.items() if own[place] == value) for value in values}

    def choose(line: frozenset[str]) -> set[str]:
        others = [name for name in line - hidden if smallest[name]]
        return {min(others, key=lambda name: (smallest[name], name))} if others else set()

    def is_exposed(line: frozenset[str]) -> bool:
        inside = hidden & line
        sums = np.sum([cells[name] for name in inside], axis=0) if inside else np.zeros(1)
        return len(inside) == 1 or bool(((sums > 0) & (sums < min_count)).any())

    while True:
        more = set().union(*(choose(line) for line in lines if is_exposed(line)))
        if not more:
            determined = find_determined(hidden, lines)
            more = set().union(*(choose(line) for line in lines if line & determined))
        if not more:
            return hidden
        hidden |= more


def find_determined(hidden: Collection[str], lines: Collection[frozenset[str]]) -> set[str]:
    """Return which hidden cells the sums of what is hidden in each line determine: those that no solution changes."""
    names = sorted(hidden)
    if not names:
        return set()
    sums = np.array([[name in line for name in names] for line in lines], float)
    _, sizes, directions = np.linalg.svd(sums)
    free = directions[int((sizes > 1e-9).sum()) :]  # along which solutions differ
    return {name for name, of in zip(names, free.T, strict=True) if np.abs(of).max(initial=0.0) < 1e-9}


def suppress(sections: Sequence[dict[str, Any]], *, min_count: int) -> None:
    """Hide the sections' small cells, in place.

    A category hidden in its own attribute is hidden in the intersections too, whose cells would add up to it.
    """
    hidden_of: dict[str, set[str]] = {}
    for section in sections:
        columns = section["columns"]
        given = [hidden_of.get(name, set()) for name in columns] if len(columns) > 1 else []
        tables = [table for of_phase in section["rates"].values() for table in of_phase.values()]
        pool = section["pool"] | {UNKNOWN_CATEGORY: section["n_unknown"]}
        hidden = find_hidden(tables, pool, min_count=min_count, parts=section["parts"], hidden_parts=given)
        hide_cells(section, hidden)
        for table in tables:
            if any(0 < table["total"][name] < min_count for name in ("n_people", "n_people_selected")):
                table["total"] = {}
        hidden_of[section["name"]] = hidden


def hide_cells(section: dict[str, Any], hidden: set[str]) -> None:
    """Remove the hidden categories from an attribute's section of the audit, in place; only their number is kept."""
    section["n_hidden"] = len(hidden)
    tables = [table for of_phase in section["rates"].values() for table in of_phase.values()]
    changes = section["changes"].values()
    for table in tables if hidden else ():
        _hide_ratios(table, hidden)
        table |= {"smallest_of_all": float("nan"), "smallest_of_all_category": ""}
    if hidden:
        section |= {"scores": {}, "lists": {}}
    for compared, key in itertools.product(itertools.chain(tables, *changes), ("reference", "compared_with")):
        if compared.get(key) in hidden - {UNKNOWN_CATEGORY}:
            compared[key] = HIDDEN
    for rows in changes:
        rows[:] = [row for row in rows if row["reference"] != HIDDEN]
    for rows in (*(table["rows"] for table in tables), *changes, section["composition"], section["ranking"]):
        rows[:] = [row for row in rows if row["category"] not in hidden]
    for name in ("pool", "parts"):
        section[name] = {category: value for category, value in section[name].items() if category not in hidden}
    if UNKNOWN_CATEGORY in hidden:
        section |= {"n_unknown": None, "composition": [], "ranking": []}
        for table in tables:
            table["unknown"] = {}
            for row in table["rows"]:  # which would give their number away
                row |= dict.fromkeys(("bound_low", "bound_high"), float("nan"))


def _hide_ratios(table: dict[str, Any], hidden: Collection[str]) -> None:
    """Say nothing of ratios to a hidden reference, whose rate they would give away."""
    undefined = float("nan")
    for row in table["rows"]:
        if table["reference"] in hidden:
            row |= dict.fromkeys(_OF_REFERENCE, undefined) | {"test": ""}
        if table["compared_with"] in hidden and row["mark"] in JUDGED:
            row |= dict.fromkeys(_OF_COMPARED, undefined) | {"mark": str(Mark.UNDEFINED)}
    if table["compared_with"] in hidden:
        table |= dict.fromkeys(("smallest_ratio", "p_smallest", "p_smallest_holm"), undefined)


def merge_hidden(attribute: Attribute, section: Mapping[str, Any]) -> Attribute:
    """Return the attribute with all that is hidden of it, the unknown too where they are, as one last category."""
    shown = tuple(name for name in attribute.categories if name in section["pool"])
    place = [shown.index(name) if name in shown else len(shown) for name in attribute.categories]
    place.append(UNKNOWN if section["n_unknown"] is not None else len(shown))  # code -1 is the last
    return Attribute(attribute.name, (*shown, MERGED), np.array(place)[attribute.codes])
