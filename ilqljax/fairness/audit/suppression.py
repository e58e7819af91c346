"""Hide the cells of an audit that describe too few people, and those that would give them away.

A category is hidden when fewer than `min_count` different people of it (but not none) were assessed or selected, in any
measure or phase; it is then hidden everywhere. If it is the only one hidden of its attribute, a reader could find it
by subtraction from the total, so the next smallest is hidden too; the same holds along each line of an intersection
("female / *", "* / north"). This is complementary suppression where it is obvious, not a proof of anonymity.
"""

from collections.abc import Iterable, Sequence
from typing import Any

UNKNOWN_CATEGORY = ""  # the unknown count is a cell like any other
SEPARATOR = " / "


def find_hidden(
    tables: Sequence[dict[str, Any]],
    pool: dict[str, int],
    *,
    min_count: int,
    hidden_parts: Sequence[set[str]] = (),
) -> set[str]:
    """Return the categories of one attribute to hide ("" is the unknown).

    Args:
        tables: its rate tables, of every measure and phase.
        pool: candidates by category, "" for the unknown.
        min_count: a cell with fewer people, but not none, is hidden; 0 hides nothing.
        hidden_parts: for an intersection, the categories already hidden of each attribute that it combines.
    """
    n_parts = max(1, len(hidden_parts))
    cells = {category: [count] for category, count in pool.items()}
    for table in tables:
        for row in [*table["rows"], {"category": UNKNOWN_CATEGORY, **table["unknown"]}]:
            cells[row["category"]] += [row["n_people"], row["n_people_selected"]]
    hidden = {category for category, counts in cells.items() if any(0 < count < min_count for count in counts)}
    hidden |= {name for name in cells if _has_hidden_part(name, hidden_parts)}
    smallest = {category: min((count for count in counts if count), default=0) for category, counts in cells.items()}
    lines = list(_lines(list(pool), n_parts=n_parts))
    while True:
        more = {
            min(others, key=lambda name: (smallest[name], name))
            for line in lines
            if len(hidden & line) == 1 and (others := {name for name in line - hidden if smallest[name]})
        }
        if not more:
            return hidden
        hidden |= more


def _has_hidden_part(name: str, hidden_parts: Sequence[set[str]]) -> bool:
    values = name.split(SEPARATOR)
    return len(values) == len(hidden_parts) and any(v in hidden for v, hidden in zip(values, hidden_parts, strict=True))


def _lines(categories: list[str], *, n_parts: int) -> Iterable[set[str]]:
    yield set(categories)
    if n_parts < 2:
        return
    split = {name: tuple(name.split(SEPARATOR)) for name in categories if name != UNKNOWN_CATEGORY}
    for part in range(n_parts):
        for value in sorted({values[part] for values in split.values() if len(values) == n_parts}):
            yield {name for name, values in split.items() if len(values) == n_parts and values[part] == value}


def hide_cells(section: dict[str, Any], hidden: set[str]) -> None:
    """Remove the hidden categories from an attribute's section of the audit, in place; only their number is kept."""
    section["n_hidden"] = len(hidden)
    for tables in section["rates"].values():
        for table in tables.values():
            if UNKNOWN_CATEGORY in hidden:
                table["unknown"] = {}
            if hidden:  # the smallest ratio may be that of a hidden category
                lowest = min(table["rows"], key=lambda row: _or_infinity(row["impact_ratio"]), default={"category": ""})
                if lowest["category"] in hidden:
                    table |= dict.fromkeys(("smallest_ratio", "p_smallest", "p_smallest_holm"), float("nan"))
                if table["reference"] in hidden:
                    table["reference"] = "(hidden)"
            table["rows"] = [row for row in table["rows"] if row["category"] not in hidden]
    for changes in section["changes"].values():
        changes[:] = [row for row in changes if row["category"] not in hidden]
        for row in changes:
            row["reference"] = "(hidden)" if row["reference"] in hidden else row["reference"]
    for name in ("composition", "ranking"):
        section[name] = [row for row in section[name] if row["category"] not in hidden]
    if UNKNOWN_CATEGORY in hidden:
        section["n_unknown"] = None


def _or_infinity(value: float) -> float:
    return value if value == value else float("inf")
