"""Audit a ready table: one row a candidate, with category columns and a score or a selection.

    id,sex,race,score
    c1,Female,Asian,0.71
    c2,Male,,0.33

Columns: the attributes, and either `score` (a number; the scoring rate is the share strictly above the median) or
`selected` (1 or 0, or words for them such as yes and no), by these names in any case or by those that are given. `id`
is optional. An empty category is unknown, and so are the words for it (`categories`). The forms of the file:
`table_files`. A table of counts has `applicants` and `selected` numbers in each row instead of one candidate:

    sex,applicants,selected
    Female,120,31
    Male,140,52
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.errors import UserError, find_close
from ilqljax.hiring.attributes import Attribute, AttributeTable
from ilqljax.hiring.audit.categories import (
    UNKNOWN_WORDS,
    Taken,
    fold_spelling,
    list_values,
    unify_candidates,
    warn_of_unknown,
)
from ilqljax.hiring.audit.crossed import pair_rows
from ilqljax.hiring.audit.market import AFTER, BEFORE, AuditConfig, audit_attributes
from ilqljax.hiring.audit.table_files import read_rows
from ilqljax.hiring.postings.posting import Candidate

ID, SCORE, SELECTED, APPLICANTS = "id", "score", "selected", "applicants"
MIN_ROWS = 2
MOST_CATEGORIES = 50  # of a column that the user did not name as an attribute
MOST_APPLICANTS = 2_000_000  # of a table of counts, which is spelt out
MOST_DIGITS = 4000  # that Python reads
YES = frozenset({"1", "1.0", "yes", "y", "true", "t", "selected", "hired", "accepted"})
NO = frozenset({"0", "0.0", "no", "n", "false", "f", "not selected", "not hired", "rejected"})
_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)(e[+-]?\d+)?", re.I | re.A)


@dataclass(frozen=True, eq=False)
class ReadyTable:
    """Hold a ready table: the candidates' attributes, and a score or a 0 or 1 each; `kind` says which.

    `taken` is what was taken as unknown, by column.
    """

    table: AttributeTable
    values: Float[Array, " N"]
    kind: str
    has_ids: bool
    taken: Taken


def load_ready_table(
    path: str | Path,
    *,
    attributes: Sequence[str] = (),
    allow_negative: bool = False,
    unknown: Sequence[str] = UNKNOWN_WORDS,
    names: Mapping[str, str] = MappingProxyType({}),
) -> ReadyTable:
    """Load a ready table; values that are taken as unknown are named in a warning.

    Args:
        path: the table's file, with a header.
        attributes: columns to read as attributes; all but id, score and selected if empty.
        allow_negative: take scores below 0, which otherwise are refused: exports often write -1 for "no score".
        unknown: what stands for an unknown category, besides an empty one.
        names: what the columns `id`, `score` and `selected` are called in the file, where it is something else.

    Raises:
        UserError: a file that is no table (`table_files`), a malformed line, a missing or unknown column, a score that
            is not a finite number or is negative, a selection that is neither yes nor no, more selected than applied,
            a duplicate id, or fewer than two rows.
    """
    path = Path(path)
    lines = read_rows(path)
    where, header = next(lines, (f"{path}:1", []))
    header = _rename(header, names, where=where)
    columns, kind = _check_header(header, attributes, where=where)
    rows, values, seen = [], [], {}
    for where, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells, but the header has {len(header)}. Quote cells with commas.")
        row = dict(zip(header, cells, strict=True))
        categories = {name: row[name] for name in columns}
        if APPLICANTS in row:
            applied, selected = (_read_count(row[name], name, where=where) for name in (APPLICANTS, SELECTED))
            if selected > applied or len(rows) + applied > MOST_APPLICANTS:
                limit = (
                    f"selected={selected} of applicants={applied}; at most all, and {MOST_APPLICANTS:,} in the table"
                )
                raise UserError(f"{where}: {limit}. Correct the row, or audit the counts in parts.")
            rows += [Candidate(str(len(rows) + i), "", categories) for i in range(applied)]
            values += [1.0] * selected + [0.0] * (applied - selected)
            continue
        row_id = row.get(ID, str(len(rows)))
        if row_id in seen:
            raise UserError(f"{where}: the id '{row_id}' was already used at {seen[row_id]}. Keep one row a candidate.")
        seen[row_id] = where
        rows.append(Candidate(row_id, "", categories))
        values.append(_read_value(row[kind], kind, where=where, allow_negative=allow_negative))
    if len(rows) < MIN_ROWS:
        raise UserError(f"{path}: holds {len(rows)} candidates. Give at least {MIN_ROWS} rows below the header.")
    rows, taken = unify_candidates(rows, unknown=unknown)
    table = AttributeTable.from_candidates(rows)
    many = [name for name in columns if len(table.attribute(name).categories) > MOST_CATEGORIES and not attributes]
    if many:  # names and free text: the report would publish them
        raise UserError(f"{path}: column '{many[0]}' has too many values for an attribute. Give --attributes A,B.")
    warn_of_unknown(taken, where=path)
    return ReadyTable(table, np.array(values), kind, ID in header, taken)


def _rename(header: list[str], names: Mapping[str, str], *, where: str) -> list[str]:
    """Call the columns by our names: those that are given, and else those that differ in case alone."""
    given = {theirs: ours for ours, theirs in names.items() if theirs}
    if lacking := [theirs for theirs in given if theirs not in header]:
        hint = find_close(lacking[0], header)
        raise UserError(f"{where}: no column '{lacking[0]}'; the columns are {', '.join(header)}.{hint}")
    others = {ID, SCORE, SELECTED, APPLICANTS} - set(given.values()) - set(header)
    renamed = [given.get(name, name.lower() if name.lower() in others else name) for name in header]
    if len(set(renamed)) < len(renamed):
        twice = next(name for name in renamed if renamed.count(name) > 1)
        raise UserError(f"{where}: a column name, {twice}, occurs twice in {header}. Rename one of the two.")
    return renamed


def _check_header(header: list[str], attributes: Sequence[str], *, where: str) -> tuple[list[str], str]:
    if not header:
        raise UserError(f"{where}: the file is empty. Give a header and one row a candidate.")
    kinds = [name for name in (SCORE, SELECTED) if name in header]
    if len(kinds) != 1:
        raise UserError(
            f"{where}: needs exactly one of the columns '{SCORE}' (numbers) and '{SELECTED}' (yes or no), got "
            f"{header}. Say which it is with --score_column or --selected_column, or drop one."
        )
    if APPLICANTS in header and kinds != [SELECTED]:
        raise UserError(f"{where}: a table of counts needs '{SELECTED}' beside '{APPLICANTS}', got {header}. Add it.")
    columns = list(attributes) or [name for name in header if name not in (ID, SCORE, SELECTED, APPLICANTS)]
    have = f"the columns are {', '.join(header)}"
    if not columns:
        raise UserError(f"{where}: no column of an attribute; {have}. Name some with --attributes.")
    if lacking := [name for name in columns if name not in header]:
        hint = find_close(lacking[0], header)
        raise UserError(f"{where}: no column '{lacking[0]}'; {have}.{hint} Name some with --attributes.")
    return columns, kinds[0]


def _read_count(text: str, name: str, *, where: str) -> int:
    digits = text.removesuffix(".0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
        raise UserError(f"{where}: {name}='{text}' is not a whole number from 0 on. Write it in digits.")
    return int(digits)


def _read_value(text: str, kind: str, *, where: str, allow_negative: bool) -> float:
    if kind == SELECTED:
        word = " ".join(text.lower().split())
        if word not in YES | NO:
            raise UserError(f"{where}: selected='{text}' is neither yes nor no. Write 1 or yes, and 0 or no.")
        return float(word in YES)
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        advice = "Write a point for the decimal comma." if "," in text else "Mend it, or delete the row."
        raise UserError(f"{where}: score='{text}' is not a finite number such as 0.5. {advice}")
    if value < 0 and not allow_negative:
        raise UserError(
            f"{where}: score={text} is negative, which often stands for a missing score. Delete such rows, or pass "
            "--allow_negative if the scale goes below 0."
        )
    return value


def match_tables(before: ReadyTable, after: ReadyTable) -> ReadyTable:
    """Return the second table with its rows in the order of the first.

    Different candidates, columns or categories, or a candidate who changes category, raise a `UserError`.
    """
    if not (before.has_ids and after.has_ids):
        raise UserError("Comparing two tables needs a column 'id' in both, which says who is who. Add it.")
    if before.kind != after.kind or before.table.names != after.table.names:
        raise UserError(
            f"The table before has the columns {', '.join((*before.table.names, before.kind))}, the one after "
            f"{', '.join((*after.table.names, after.kind))}. Give both the same columns."
        )
    missing = sorted(set(before.table.ids) ^ set(after.table.ids))
    if missing:
        raise UserError(f"The candidate '{missing[0]}' is in one of the two tables only. Give both the same ids.")
    row_of = {row_id: row for row, row_id in enumerate(after.table.ids)}
    order = np.array([row_of[row_id] for row_id in before.table.ids])
    columns = ((before.table.columns[name], after.table.columns[name]) for name in before.table.names)
    moved = [_decode(old) != _decode(new)[order] for old, new in columns]
    changed = np.flatnonzero(np.any(moved, axis=0))
    if changed.size:
        raise UserError(
            f"The candidate '{before.table.ids[changed[0]]}' has other categories before than after. Categories are of "
            "the person: make them equal."
        )
    return ReadyTable(before.table, after.values[order], after.kind, after.has_ids, after.taken)


def _decode(attribute: Attribute) -> np.ndarray:
    return np.array([*map(fold_spelling, attribute.categories), ""])[attribute.codes]  # code -1 is the last: unknown


def audit_ready_table(ready: ReadyTable, config: AuditConfig, *, after: ReadyTable | None = None) -> dict[str, Any]:
    """Return the audit of a ready table (`market.audit_attributes`).

    Every candidate is a cluster, so intervals hold for another sample of candidates. With `after`, the same candidates
    scored another way are compared; tables that do not belong together raise a `UserError`.
    """
    phases = {BEFORE: ready} | ({AFTER: match_tables(ready, after)} if after else {})
    is_score = ready.kind == SCORE
    medians = {name: float(np.median(table.values)) for name, table in phases.items() if is_score}
    measure = "scoring" if is_score else "selection"
    pairs = {name: {measure: pair_rows(table.values > medians.get(name, 0.5))} for name, table in phases.items()}
    found = {"medians": medians, "taken_as_unknown": list_values(ready.taken)}
    return audit_attributes(ready.table, config, pairs) | found
