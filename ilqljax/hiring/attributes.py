"""Declared attributes of candidates as integer codes.

Attributes (gender, region, ...) are declared by the data's owner and never inferred. A value that is empty, white space
or absent is *unknown*: code -1, kept apart from every category, reported as a count and left out of every share.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Candidate

UNKNOWN = -1


class Numbering(dict[Hashable, int]):
    """Number keys from 0 in the order in which they are first asked for."""

    def __missing__(self, key: Hashable) -> int:
        """Give a new key the next number."""
        number = self[key] = len(self)
        return number

    def number(self, keys: Sequence[Hashable]) -> Int[Array, " R"]:
        """Return the keys' numbers."""
        return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))


class Column(NamedTuple):
    """Hold a column of a table: its different words, in the order in which they first occur, and each row's."""

    words: Sequence[str]
    codes: Int[Array, " R"]

    @classmethod
    def from_values(cls, values: Sequence[str]) -> "Column":
        """Number a column's values."""
        numbering = Numbering()
        codes = numbering.number(values)
        return cls(list(numbering), codes)

    def rename(self, words: Sequence[str]) -> "Column":
        """Return the column with other words in place of its own; some of them may be equal."""
        new = Column.from_values(words)
        return Column(new.words, new.codes[self.codes])

    def list_values(self) -> list[str]:
        """Return each row's word."""
        return [self.words[code] for code in self.codes.tolist()]


class Attribute(NamedTuple):
    """Hold one attribute of all candidates."""

    name: str  # a combined attribute's is the parts' names joined by " x "
    categories: tuple[str, ...]  # the known values, sorted
    codes: Int[Array, " N"]  # which of these each candidate has, `UNKNOWN` (-1) where that is not known
    sources: tuple[str, ...] = ()  # of a combined attribute: the names of its parts,
    values: tuple[tuple[str, ...], ...] = ()  # and each category's values of these


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """Hold every candidate's attributes as integer codes."""

    ids: tuple[str, ...]  # in the order of the codes
    columns: dict[str, Attribute]  # by name, sorted; the codes are read-only

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the attributes."""
        return tuple(self.columns)

    @classmethod
    def from_candidates(cls, candidates: Iterable[Candidate], *, names: Iterable[str] = ()) -> "AttributeTable":
        """Build the table from candidates, in their order; a value that is not text raises a `UserError`.

        White space around a value is ignored. The attributes are all that a candidate declares, and `names`.
        """
        candidates = list(candidates)
        ids = tuple(candidate.id for candidate in candidates)
        columns = {}
        for name in sorted({*names, *(name for candidate in candidates for name in candidate.attributes)}):
            values = [candidate.attributes.get(name, "") for candidate in candidates]
            for candidate_id, value in zip(ids, values, strict=True):
                if not isinstance(value, str):
                    raise UserError(
                        f"candidate '{candidate_id}', attribute '{name}': expected text, got {value!r}. Write the "
                        'category as text, or "" if unknown.'
                    )
            columns[name] = Column.from_values([value.strip() for value in values])
        return cls.from_columns(ids, columns)

    @classmethod
    def from_columns(cls, ids: Sequence[str], columns: Mapping[str, Column]) -> "AttributeTable":
        """Build the table from columns of a row a candidate, of words without white space around them."""
        return cls(tuple(ids), {name: _make_attribute(name, columns[name]) for name in sorted(columns)})

    def attribute(self, name: str) -> Attribute:
        """Return one attribute; a name that no candidate declares raises a `UserError`."""
        if name not in self.columns:
            known = ", ".join(self.names) or "none at all"
            raise UserError(f"Unknown attribute '{name}'. The candidates declare: {known}. Name one of these.")
        return self.columns[name]

    def intersection(self, names: Sequence[str]) -> Attribute:
        """Combine attributes into one whose categories are the combinations that occur, such as "female / north".

        A candidate with any part unknown is unknown in the combination. "x / y" with "z" and "x" with "y / z" would
        have one name: quotes tell such categories apart.

        Raises:
            UserError: fewer than two names, a repeated name, or an unknown one.
        """
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"An intersection needs two or more different attributes, got {list(names)}.")
        parts = [self.attribute(name) for name in names]
        combinations, codes = cross_codes([part.codes for part in parts])
        codes = codes.astype(np.int32)
        values = tuple(
            tuple(part.categories[code] for part, code in zip(parts, row, strict=True)) for row in combinations
        )
        joined = Counter(map(" / ".join, values))
        categories = tuple(" / ".join(v if joined[" / ".join(v)] == 1 else map(repr, v)) for v in values)
        return Attribute(" x ".join(names), categories, codes, tuple(names), values)


def _make_attribute(name: str, column: Column) -> Attribute:
    categories = tuple(sorted(set(column.words) - {""}))
    code_of = {category: code for code, category in enumerate(categories)} | {"": UNKNOWN}
    codes = np.array([code_of[word] for word in column.words], np.int32)[column.codes]
    codes.flags.writeable = False
    return Attribute(name, categories, codes)


def cross_codes(columns: Sequence[Int[Array, " R"]]) -> tuple[Int[Array, "K P"], Int[Array, " R"]]:
    """Return the combinations that occur of columns' codes, sorted, and which each row has.

    A code below 0 is unknown, and so is a combination with one: `UNKNOWN`.
    """
    known = np.flatnonzero(np.all([codes >= 0 for codes in columns], axis=0))
    rows, joined = np.zeros((1, 0), np.int64), np.zeros(len(known), np.int64)
    for codes in columns:
        own = codes[known].astype(np.int64)
        width = own.max(initial=0) + 1
        keys, joined = np.unique(joined * width + own, return_inverse=True)
        rows = np.column_stack([rows[keys // width], keys % width])
    crossed = np.full(len(columns[0]), UNKNOWN, np.int64)
    crossed[known] = joined
    return rows, crossed
