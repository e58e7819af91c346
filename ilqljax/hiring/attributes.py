"""Declared attributes of candidates as integer codes.

Attributes (gender, region, ...) are declared by the data's owner and never inferred. A value that is empty, white space
or absent is *unknown*: code -1, kept apart from every category, reported as a count and left out of every share.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Candidate

UNKNOWN = -1


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
            stripped = [value.strip() for value in values]
            categories = tuple(sorted(set(stripped) - {""}))
            code_of = {category: code for code, category in enumerate(categories)} | {"": UNKNOWN}
            columns[name] = Attribute(name, categories, np.array([code_of[value] for value in stripped], np.int32))
            columns[name].codes.flags.writeable = False
        return cls(ids, columns)

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
        rows = np.stack([part.codes for part in parts], axis=1)
        known = (rows != UNKNOWN).all(axis=1)
        combinations, inverse = np.unique(rows[known], axis=0, return_inverse=True)
        codes = np.full(len(rows), UNKNOWN, np.int32)
        codes[known] = inverse.reshape(-1)
        values = tuple(
            tuple(part.categories[code] for part, code in zip(parts, row, strict=True)) for row in combinations
        )
        joined = Counter(map(" / ".join, values))
        categories = tuple(" / ".join(v if joined[" / ".join(v)] == 1 else map(repr, v)) for v in values)
        return Attribute(" x ".join(names), categories, codes, tuple(names), values)
