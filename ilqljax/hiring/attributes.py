"""Declared attributes of candidates as integer codes.

Attributes (gender, region, ...) are declared by the data's owner and never inferred. A value that is empty, white space
or absent is *unknown*: code -1, kept apart from every category, reported as a count and left out of every share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from ilqljax.errors import UserError
from ilqljax.types import Array

UNKNOWN = -1


class HasAttributes(Protocol):
    """Describe what the table needs of a candidate: an id, and attribute values by name."""

    id: str
    attributes: Mapping[str, str]


class Attribute(NamedTuple):
    """Hold one attribute of all candidates.

    Attributes:
        name: its name; a combined attribute's is the parts' names joined by " x ".
        categories: the known values, sorted; `codes` index them.
        codes: one code a candidate, `UNKNOWN` (-1) where the value is not known.
    """

    name: str
    categories: tuple[str, ...]
    codes: Int[Array, "N"]


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """Hold every candidate's attributes as integer codes.

    Attributes:
        ids: candidate ids, in the order of the codes.
        columns: the attributes by name, sorted; their codes are read-only.
    """

    ids: tuple[str, ...]
    columns: dict[str, Attribute]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the attributes."""
        return tuple(self.columns)

    @classmethod
    def from_candidates(cls, candidates: Iterable[HasAttributes]) -> "AttributeTable":
        """Build the table from candidates, in their order.

        Raises:
            UserError: a value is not text.
        """
        candidates = list(candidates)
        ids = tuple(candidate.id for candidate in candidates)
        columns = {}
        for name in sorted({name for candidate in candidates for name in candidate.attributes}):
            values = [candidate.attributes.get(name, "") for candidate in candidates]
            where = lambda row, name=name: f"candidate '{ids[row]}', attribute '{name}'"  # noqa: E731
            columns[name] = Attribute(name, *encode_values(values, where=where))
            columns[name].codes.flags.writeable = False
        return cls(ids, columns)

    def attribute(self, name: str) -> Attribute:
        """Return one attribute.

        Raises:
            UserError: no candidate has an attribute of this name.
        """
        if name not in self.columns:
            known = ", ".join(self.names) or "none at all"
            raise UserError(f"Unknown attribute '{name}'. The candidates declare: {known}. Name one of these.")
        return self.columns[name]

    def intersection(self, names: Sequence[str]) -> Attribute:
        """Combine attributes into one whose categories are the combinations that occur, such as "female / north".

        A candidate with any part unknown is unknown in the combination.

        Raises:
            UserError: fewer than two names, a repeated name, or an unknown one.
        """
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"An intersection needs two or more different attributes, got {list(names)}.")
        parts = [self.attribute(name) for name in names]
        rows = np.stack([part.codes for part in parts], axis=1)
        known = (rows != UNKNOWN).all(axis=1)
        combinations, inverse = np.unique(rows[known], axis=0, return_inverse=True)
        codes = np.full(len(rows), UNKNOWN, np.int32)
        codes[known] = inverse.reshape(-1)
        categories = tuple(
            " / ".join(part.categories[code] for part, code in zip(parts, row, strict=True)) for row in combinations
        )
        return Attribute(" x ".join(names), categories, codes)


def encode_values(values: Sequence[Any], *, where: Any = str) -> tuple[tuple[str, ...], Int[Array, "N"]]:
    """Return the sorted categories among the values, and each value's code (-1 for empty text or white space).

    Args:
        values: texts; white space around them is ignored.
        where: maps a row number to words that say where the value stands, for the error.

    Raises:
        UserError: a value is not text.
    """
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str)), None)
    if wrong is not None:
        raise UserError(
            f'{where(wrong)}: expected text, got {values[wrong]!r}. Write the category as text, or "" if unknown.'
        )
    stripped = [value.strip() for value in values]
    categories = tuple(sorted(set(stripped) - {""}))
    code_of = {category: code for code, category in enumerate(categories)} | {"": UNKNOWN}
    return categories, np.array([code_of[value] for value in stripped], np.int32)
