"""Read the rows of a ready table, a decision each, block by block: no text that occurs twice is kept twice.

A million rows of categories are a million small numbers, and a list of the few words that these stand for (`Column`).
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Column, Numbering
from ilqljax.hiring.audit.columns import NUMBER
from ilqljax.hiring.audit.table_files import Rows

ID, SCORE, SELECTED, JOB, APPLICANTS = "id", "score", "selected", "job", "applicants"
WEIGHT = "weight"
MOST_APPLICANTS = 2_000_000  # of a table of counts, which is spelt out
MOST_DIGITS = 4000  # that Python reads
BLOCK_ROWS = 20_000  # that are held as text
YES = frozenset({"1", "1.0", "yes", "y", "true", "t", "selected", "hired", "accepted"})
NO = frozenset({"0", "0.0", "no", "n", "false", "f", "not selected", "not hired", "rejected"})


class Decisions(NamedTuple):
    """Hold what a table's rows say, a value a decision: of each column that is kept, and what is known by name."""

    cells: dict[str, Column]
    values: Float[Array, " R"]
    people: Column  # by id; without one, every row is somebody else
    weights: Float[Array, " R"] | Float[Array, "0"]
    places: Int[Array, " R"]  # the number of the row in the file


def read_decisions(
    rows: Rows,
    header: Sequence[str],
    *,
    kept: Iterable[str],
    kind: str,
    has_weights: bool,
    allow_negative: bool,
    name_place: Callable[[int], str],
) -> Decisions:
    """Read the rows below a header; what is wrong with one is a `UserError` that names its place."""
    numberings = {name: Numbering() for name in kept}
    codes: dict[str, list[np.ndarray]] = {name: [] for name in numberings}
    ids, people, values, weights, places = Numbering(), [], [], [], []
    is_counts, n_decisions = APPLICANTS in header, 0
    read_value = functools.partial(_read_score, allow_negative=allow_negative) if kind == SCORE else _read_selected
    for numbers, columns in _split_blocks(rows, header, name_place=name_place):
        read_all = functools.partial(_read_all, numbers=numbers, name_place=name_place)
        repeats = np.ones(len(numbers), np.int64)
        if is_counts:
            texts = list(zip(columns[APPLICANTS], columns[SELECTED], strict=True))
            pairs = read_all(_CountsReader(n_decisions), texts)
            repeats, chosen = pairs.T
            ones = np.column_stack([chosen, repeats - chosen]).ravel()
            found = np.repeat(np.tile([1.0, 0.0], len(pairs)), ones)
        else:
            found = read_all(read_value, columns[kind])
        if ID in columns and not is_counts:
            if "" in columns[ID]:
                where = name_place(numbers[columns[ID].index("")])
                raise UserError(f"{where}: has no id. Give one, or delete the row.")
            people.append(ids.number(columns[ID]))
        if has_weights:
            weights.append(read_all(_read_weight, columns[WEIGHT]))
        for name, numbering in numberings.items():
            codes[name].append(np.repeat(numbering.number(columns[name]), repeats))
        values.append(found)
        places.append(np.repeat(numbers, repeats))
        n_decisions += len(found)
    every = np.arange(n_decisions)
    return Decisions(
        cells={name: Column(list(of), _join(codes[name], np.int64)) for name, of in numberings.items()},
        values=_join(values),
        people=Column(list(ids), _join(people)) if people else Column(list(map(str, every.tolist())), every),
        weights=_join(weights),
        places=_join(places),
    )


def _join(parts: list[np.ndarray], dtype: type = np.float64) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _split_blocks(
    rows: Rows, header: Sequence[str], *, name_place: Callable[[int], str]
) -> Iterator[tuple[tuple[int, ...], dict[str, tuple[str, ...]]]]:
    """Yield the rows' numbers and cells by column, many rows at a time."""
    while block := list(itertools.islice(rows, BLOCK_ROWS)):
        numbers, cells = zip(*block, strict=True)
        if set(map(len, cells)) != {len(header)}:
            number, n = next((number, len(row)) for number, row in block if len(row) != len(header))
            place = name_place(number)
            raise UserError(f"{place}: {n} cells, but the header has {len(header)}. Quote cells with commas.")
        yield numbers, dict(zip(header, zip(*cells, strict=True), strict=True))


def _read_all(
    read: Callable[[Any], Any], cells: Sequence[Any], *, numbers: Sequence[int], name_place: Callable[[int], str]
) -> Num[Array, "R ..."]:
    """Read a block's cells one by one; what is refused of one gets its place."""
    values: list[Any] = []
    try:
        for cell in cells:
            values.append(read(cell))
    except UserError as error:
        raise UserError(f"{name_place(numbers[len(values)])}: {error}") from error
    return np.array(values)


class _CountsReader:
    """Read applicants and selected of rows one after the other, which may be so many together."""

    def __init__(self, total: int):
        self.total = total

    def __call__(self, texts: tuple[str, str]) -> tuple[int, int]:
        n, selected = map(_read_count, texts, (APPLICANTS, SELECTED))
        if selected > n or self.total + n > MOST_APPLICANTS:
            limit = f"selected={selected} of applicants={n}; at most all, and {MOST_APPLICANTS:,} in the table"
            raise UserError(f"{limit}. Correct the row, or audit the counts in parts.")
        self.total += n
        return n, selected


def _read_count(text: str, name: str) -> int:
    digits = text.removesuffix(".0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
        raise UserError(f"{name}='{text}' is not a whole number from 0 on. Write it in digits.")
    return int(digits)


def _read_weight(text: str) -> float:
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"weight='{text}' is not a finite number above 0. Correct it, or delete the row.")
    return value


@functools.cache
def _read_selected(text: str) -> float:
    word = " ".join(text.lower().split())
    if word not in YES | NO:
        raise UserError(f"selected='{text}' is neither yes nor no. Write 1 or yes, and 0 or no.")
    return float(word in YES)


def _read_score(text: str, *, allow_negative: bool) -> float:
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        advice = "Write a point for the decimal comma." if "," in text else "Mend it, or delete the row."
        raise UserError(f"score='{text}' is not a finite number such as 0.5. {advice}")
    if value < 0 and not allow_negative:
        raise UserError(
            f"score={text} is negative, which often stands for a missing score. Delete such rows, or pass "
            "--allow_negative if the scale goes below 0."
        )
    return value
