"""Which distribution a shortlist is measured against: the pool's, uniform, fixed shares, or one a job group.

Fixed shares are written as text:

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
from ilqljax.hiring.reward.distances import parse_numbers
from ilqljax.hiring.reward.diversity import count_categories, fixed_target, normalize_counts, pool_share
from ilqljax.types import Array

TARGETS = ("pool", "uniform", "fixed", "group")
ANY_GROUP = "*"
Targets = Mapping[str, Float[Array, "C"]]


def parse_shares(text: str) -> dict[str, dict[str, float]]:
    """Read named shares by section (module docstring).

    Raises:
        UserError: `parse_numbers` refuses a section, or it occurs twice.
    """
    sections: dict[str, dict[str, float]] = {}
    for part in filter(str.strip, text.split(";")):
        title, colon, body = part.partition(":")
        name = title.strip() if colon else ""
        if name in sections:
            raise UserError(f"The shares '{text}' have two sections named '{name}'. Keep one.")
        sections[name] = parse_numbers(body if colon else part, example="female=0.5, male=0.5")
    return sections


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
        UserError: shares do not fit the categories, the kind does not take an option, or a target is undefined.
    """
    n_categories = len(attribute.categories)
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
        return {ANY_GROUP: np.full(n_categories, 1.0 / n_categories)}
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
    targets = {}
    for code, group in enumerate(group_codes.categories):
        counts = count_categories(attribute.codes[group_codes.codes == code], n_categories).counts
        if not counts.any():
            raise UserError(
                f"No candidate of the group '{group}' declares '{attribute.name}', so its target is undefined. Give "
                "fixed shares for this group, or use another target."
            )
        targets[group] = normalize_counts(counts)
    return targets


def select_targets(targets: Targets, groups: Sequence[str]) -> Float[Array, "B C"]:
    """Return one target a posting, by its job group; raise a `UserError` for a group without one."""
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
