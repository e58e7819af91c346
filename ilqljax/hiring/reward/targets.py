"""Which distribution a shortlist is measured against: the pool's, uniform, fixed shares, or one a job group.

Fixed shares are written as text, which a command line and a config can hold:

| text                                                       | sections                                    |
|------------------------------------------------------------|---------------------------------------------|
| "female=0.5, male=0.5"                                     | one, named ""                               |
| "gender: female=0.5, male=0.5; region: north=1, south=0"   | "gender" and "region"                       |
| "nurse: female=0.6, male=0.4; *: female=0.5, male=0.5"     | "nurse", and "*" for every other            |
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import UNKNOWN, Attribute
from ilqljax.hiring.reward.distances import read_number
from ilqljax.hiring.reward.diversity import count_categories, fixed_target, normalize_counts, pool_share, uniform_target
from ilqljax.types import Array

TARGETS = ("pool", "uniform", "fixed", "group")
ANY_GROUP = "*"
Targets = Mapping[str, Float[Array, "C"]]


def parse_shares(text: str) -> dict[str, dict[str, float]]:
    """Read named shares by section (module docstring).

    Raises:
        UserError: a part is not `name=number`, or a name or section occurs twice.
    """
    sections: dict[str, dict[str, float]] = {}
    for part in filter(str.strip, text.split(";")):
        title, colon, body = part.partition(":")
        name = title.strip() if colon else ""
        if name in sections:
            raise UserError(f"The shares '{text}' have two sections named '{name}'. Keep one.")
        sections[name] = _parse_section(body if colon else part)
    return sections


def _parse_section(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in filter(str.strip, text.split(",")):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals or not name or name in shares:
            raise UserError(f"'{part.strip()}' is not a share. Write each category once, as in 'female=0.5, male=0.5'.")
        shares[name] = read_number(value, what=f"the share of '{name}'")
    return shares


def make_targets(
    kind: str, attribute: Attribute, *, shares: str = "", group_codes: Attribute | None = None
) -> dict[str, Float[Array, "C"]]:
    """Return an attribute's target by job group; a key "*" holds for every group that has no own.

    Args:
        kind: a name in `TARGETS`. "pool" mirrors the share among all candidates, "uniform" gives every category the
            same. "fixed" takes `shares` (its section of the attribute's name, or its only one). "group" takes `shares`
            with one section a job group, or, where these are empty, the share among the candidates of the same group.
        attribute: of the candidates.
        shares: named shares as text.
        group_codes: for "group": the candidates' declared attribute whose categories are the job groups.

    Raises:
        UserError: an unknown kind, shares that do not fit the categories, an option that the kind does not take, or a
            target that is undefined.
    """
    n_categories = len(attribute.categories)
    if kind not in TARGETS:
        raise UserError(f"Unknown target '{kind}'. Known: {', '.join(map(repr, TARGETS))}.")
    if shares.strip() and kind not in ("fixed", "group"):
        raise UserError(
            f"target='{kind}' takes no shares, got '{shares}'. Set target='fixed' (or 'group'), or leave them out."
        )
    if group_codes is not None and (kind != "group" or shares.strip()):
        raise UserError(
            f"group_attribute='{group_codes.name}' is for target='group' without shares, got target='{kind}' and "
            f"shares '{shares}'. Leave it out, or change these."
        )
    if not n_categories:
        raise UserError(
            f"No candidate declares '{attribute.name}', so there is nothing to compare. Fill it in or leave it out."
        )
    if kind == "pool":
        return {ANY_GROUP: pool_share(attribute.codes, n_categories)}
    if kind == "uniform":
        return {ANY_GROUP: uniform_target(n_categories)}
    sections = parse_shares(shares)
    if kind == "fixed":
        named = sections.get(attribute.name, sections.get("", {}))
        if not named:
            raise UserError(
                f"target='fixed' needs shares of '{attribute.name}', got '{shares}'. Write them as "
                f"'{', '.join(f'{name}={1 / n_categories:.2g}' for name in attribute.categories)}'."
            )
        return {ANY_GROUP: fixed_target(named, attribute.categories)}
    if sections:
        return {group: fixed_target(named, attribute.categories) for group, named in sections.items()}
    if group_codes is None:
        raise UserError(
            "target='group' needs shares with one section a job group ('nurse: female=0.6, male=0.4; ...'), or the "
            "name of a candidates' attribute that holds the job group. Give one of the two."
        )
    return _shares_by_group(attribute, group_codes)


def _shares_by_group(attribute: Attribute, groups: Attribute) -> dict[str, Float[Array, "C"]]:
    counts = np.stack(
        [
            count_categories(attribute.codes[groups.codes == g], len(attribute.categories)).counts
            for g in range(len(groups.categories))
        ]
    )
    empty = [name for name, row in zip(groups.categories, counts, strict=True) if not row.sum()]
    if empty:
        raise UserError(
            f"No candidate of the group '{empty[0]}' declares '{attribute.name}', so its target is undefined. Give "
            "fixed shares for this group, or use another target."
        )
    return dict(zip(groups.categories, normalize_counts(counts), strict=True))


def select_targets(targets: Targets, groups: Sequence[str]) -> Float[Array, "B C"]:
    """Return one target a posting, by its job group.

    Raises:
        UserError: a group has no target and there is none for every other.
    """
    missing = sorted(set(groups) - set(targets))
    if missing and ANY_GROUP not in targets:
        raise UserError(
            f"There is no target for the job group '{missing[0]}'; there are targets for {', '.join(sorted(targets))}. "
            f"Add a section '{missing[0]}: ...' or one for every other group, '{ANY_GROUP}: ...'."
        )
    return np.stack([targets.get(group, targets.get(ANY_GROUP)) for group in groups])


def codes_or_unknown(codes: Int[Array, "N"], indices: Int[Array, "... k"]) -> Int[Array, "... k"]:
    """Return the codes of candidates by row number; a row number below 0 (nobody) is unknown."""
    return np.where(indices >= 0, codes[np.maximum(indices, 0)], UNKNOWN)
