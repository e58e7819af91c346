"""Score shortlists on any number of declared attributes and their intersections, against any target and distance.

The score of several attributes is the mean of theirs. A score never stands alone: the noise floor is what random
shortlists get, and a score *net* of it is score minus floor (0: no different from chance).

A target is the pool's shares, uniform, fixed shares, or one a job group. Fixed shares are written as text:

| text                                                       | sections                                    |
|------------------------------------------------------------|---------------------------------------------|
| "female=0.5, male=0.5"                                     | one, named ""                               |
| "gender: female=0.5, male=0.5; region: north=1, south=0"   | "gender" and "region"                       |
| "nurse: female=0.6, male=0.4; *: female=0.5, male=0.5"     | "nurse", and "*" for every other            |
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.hiring.attributes import UNKNOWN, Attribute, AttributeTable
from ilqljax.hiring.reward.distances import DEFAULT_SMOOTHING, DISTANCE_NAMES, Distance, make_distance, parse_numbers
from ilqljax.hiring.reward.diversity import (
    CategoryCounts,
    check_draw,
    count_categories,
    diversity_score,
    exact_noise_floor,
    exposure_weights,
    fixed_target,
    noise_floor,
    pool_share,
)
from ilqljax.hiring.statistics import Estimate

TARGETS = ("pool", "uniform", "fixed", "group")
ANY_GROUP = "*"
Targets = Mapping[str, Float[Array, " C"]]
WEIGHTS = ("equal", "exposure")
COMPATS = ("", "original")
AND, CROSS = ",", " x "


@dataclass(frozen=True)
class RewardConfig:
    """Say how a shortlist is scored, and what of it is a rewrite's reward.

    The names, order and types of the fields are part of every cached reward's key (`reward.DiversityReward`): a
    further one must be left out of the key where it has its default, or all that was ever scored is scored again.

    Attributes:
        attribute: the declared attribute whose distribution counts; several, separated by commas, count the same, and
            "gender x region" is an intersection.
        k: length of the shortlist.
        distance: of the shortlist's shares from the target's.
        target: what a shortlist is compared with: "pool" (the share among all candidates), "uniform", "fixed" or
            "group" (one a job group).
        empty_reward: reward of a rewrite without any text.
        compat: "original" takes the original project's distance instead (for comparison only), "" does not.
        shares: named shares of the targets "fixed" and "group", such as "female=0.5, male=0.5".
        group_attribute: for "group" without shares: the candidates' attribute that holds the job group.
        smoothing: of the distance "kullback_leibler".
        ground: of the distance "wasserstein", such as "junior < middle < senior".
        weights: "equal", or "exposure" to weigh each place in the list by 1 / log2(1 + rank).
        guardrail_penalty: subtracted from the reward of a rewrite that a guardrail finds damaged; 0 asks none. Then
            every prompt must be one of `build_prompt`.
        engines: further matchers by name, separated by commas ("bm25, ngrams"), that share the reward with the run's
            own (`reward.combined`), so that no single one's quirks are learned.
        combine: of several engines the "mean", or the "worst".
        halves: 0 scores the shortlist of all candidates; n splits them n times into random halves and takes the mean
            score of the halves' shortlists, each half as long, so that less is learned about single people.
        side_weight: subtracted for each point by which the rewrite's score on an attribute that was not asked for is
            worse than the original's, their mean where there are several; 0 leaves them alone. Prompts as above.

    An option that is out of its range, whatever the candidates are, raises a `UserError`.
    """

    attribute: str = "gender"
    k: int = 50
    distance: str = "total_variation"
    target: str = "pool"
    empty_reward: float = -200.0
    compat: str = ""
    shares: str = ""
    group_attribute: str = ""
    smoothing: float = DEFAULT_SMOOTHING
    ground: str = ""
    weights: str = "equal"
    guardrail_penalty: float = 0.0
    engines: str = ""
    combine: str = "mean"
    halves: int = 0
    side_weight: float = 0.0

    def __post_init__(self) -> None:
        check_known(("mean", "worst"), combine=self.combine)
        check_range(self, "[0, inf)", "halves", "side_weight")
        check_known(DISTANCE_NAMES, distance=self.distance)
        check_known(TARGETS, target=self.target)
        check_known(COMPATS, compat=self.compat)
        check_known(WEIGHTS, weights=self.weights)
        check_range(self, "[0, inf)", "guardrail_penalty")  # it is subtracted

    def to_key(self) -> dict[str, Any]:
        """Return what a cached reward's key holds of the options: the later ones only where they are used."""
        later = {name: getattr(RewardConfig, name) for name in ("engines", "combine", "halves", "side_weight")}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    def for_one_engine(self) -> "RewardConfig":
        """Return the same score by one engine alone, of the attribute that is asked for alone."""
        return replace(self, engines="", combine="mean", side_weight=0.0)

    @property
    def measured_by(self) -> str:
        """The name of the distance that counts, which `compat` may replace."""
        return "original_wasserstein" if self.compat == "original" else self.distance


@dataclass(frozen=True, eq=False)
class ScoreTerm:
    """Hold one attribute of a score: its codes, its target by job group, its distance, and its count in the pool."""

    attribute: Attribute
    targets: Targets
    distance: Distance
    pool: CategoryCounts


def select_attribute(table: AttributeTable, name: str) -> Attribute:
    """Return a declared attribute, or an intersection written "gender x region"; unknown names raise a `UserError`."""
    if name in table.names or CROSS not in name:
        return table.attribute(name)
    return table.intersection([part.strip() for part in name.split(CROSS)])


class ShortlistScorer:
    """Score shortlists of row numbers, best first; 0 is best."""

    def __init__(self, table: AttributeTable, config: RewardConfig):
        """Resolve attributes, targets and distances; what does not fit the table raises a `UserError`."""
        names = [name.strip() for name in config.attribute.split(AND) if name.strip()]
        if not names:
            raise UserError(f"attribute='{config.attribute}' names none. Known: {', '.join(table.names) or 'none'}.")
        self.config = config
        self.terms = tuple(_make_term(table, name, config) for name in dict.fromkeys(names))

    def score(self, indices: Int[Array, "B k"], groups: Sequence[str] = ()) -> Float[Array, " B"]:
        """Return each shortlist's score, averaged over attributes; a row number below 0 is nobody.

        Each posting's job group may be left out unless targets differ by group.
        """
        return np.mean([self.score_term(term, indices, groups) for term in self.terms], axis=0)

    def score_term(self, term: ScoreTerm, indices: Int[Array, "B k"], groups: Sequence[str] = ()) -> Float[Array, " B"]:
        """Return each shortlist's score on one attribute."""
        targets = select_targets(term.targets, list(groups) or [""] * len(indices))
        codes = codes_or_unknown(term.attribute.codes, np.asarray(indices))
        return diversity_score(codes, targets, distance=term.distance, weights=self.weights(indices.shape[-1]))

    def floor_of_term(self, term: ScoreTerm, k: int, groups: Sequence[str] = (), *, seed: int = 0) -> float:
        """Return the mean score of random shortlists of k on one attribute, averaged over the postings' groups.

        Exact for total variation with equal weights, otherwise simulated.
        """
        targets = select_targets(term.targets, list(groups) or [""]).round(12)
        targets, repeats = np.unique(targets, axis=0, return_counts=True)
        if self.config.measured_by == "total_variation" and self.config.weights == "equal":
            floors = [exact_noise_floor(target, k, pool=term.pool) for target in targets]
        else:
            draw = {"weights": self.weights(k), "seed": seed, "n_draws": 4000}
            floors = [noise_floor(t, k, pool=term.pool, distance=term.distance, **draw).value for t in targets]
        return float(np.average(floors, weights=repeats))

    def simulate_floor(self, k: int, groups: Sequence[str] = (), *, seed: int = 0, n_draws: int = 10_000) -> Estimate:
        """Return the score of random shortlists of k: its mean, and the range that holds 95 % of them."""
        if len(self.terms) == 1 and set(self.terms[0].targets) == {ANY_GROUP}:
            (term,) = self.terms
            draw = {"weights": self.weights(k), "seed": seed, "n_draws": n_draws}
            return noise_floor(term.targets[ANY_GROUP], k, pool=term.pool, distance=term.distance, **draw)
        rng = np.random.default_rng(seed)
        n = int(check_draw(k, pool=self.terms[0].pool).sum())
        draws = np.stack([rng.choice(n, k, replace=False) for _ in range(n_draws)])
        scores = self.score(draws, [str(group) for group in rng.choice(list(groups) or [""], n_draws)])
        return Estimate(float(scores.mean()), *(float(q) for q in np.quantile(scores, (0.025, 0.975))))

    def describe_targets(self) -> dict[str, dict[str, float]]:
        """Return the shares aimed at by category, under "attribute" or, where groups differ, "attribute, group"."""
        described = {}
        for term in self.terms:
            name, categories = term.attribute.name, term.attribute.categories
            for group, target in sorted(term.targets.items()):
                title = name if group == ANY_GROUP else f"{name}, {group}"
                described[title] = dict(zip(categories, target.tolist(), strict=True))
        return described

    def weights(self, k: int) -> Float[Array, " k"] | None:
        """Return the weight of each place of a list, or None where all count the same."""
        return exposure_weights(k) if self.config.weights == "exposure" else None


def _make_term(table: AttributeTable, name: str, config: RewardConfig) -> ScoreTerm:
    attribute = select_attribute(table, name)
    groups = table.attribute(config.group_attribute) if config.group_attribute else None
    targets = make_targets(config.target, attribute, shares=config.shares, group_codes=groups)
    absent = [attribute.categories[i] for target in targets.values() for i in np.flatnonzero(target == 0.0)]
    if absent and config.measured_by == "kullback_leibler" and config.smoothing == 0.0:
        raise UserError(
            f"distance='kullback_leibler' with smoothing=0 is infinite where the target's share of '{absent[0]}' is 0. "
            f"Use smoothing={DEFAULT_SMOOTHING}, or a target that gives every category a share."
        )
    categories = attribute.categories
    distance = make_distance(config.measured_by, categories, smoothing=config.smoothing, ground=config.ground)
    return ScoreTerm(attribute, targets, distance, pool=count_categories(attribute.codes, len(categories)))


def parse_shares(text: str) -> dict[str, dict[str, float]]:
    """Read named shares by section (module docstring); a section twice raises a `UserError`."""
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
) -> dict[str, Float[Array, " C"]]:
    """Return an attribute's target by job group; a key "*" holds for every group that has no own.

    What does not fit the categories, an option that the kind does not take and an undefined target raise a `UserError`.

    Args:
        kind: one of `TARGETS`. "pool" mirrors the share among all candidates, "uniform" gives every category the same.
            "fixed" takes `shares` (its section of the attribute's name, or its only one). "group" takes `shares` with
            one section a job group, or, where these are empty, the share among the candidates of the same group.
        attribute: of the candidates.
        shares: named shares as text.
        group_codes: for "group": the candidates' declared attribute whose categories are the job groups.
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
        targets[group] = pool_share(attribute.codes[group_codes.codes == code], n_categories)
        if np.isnan(targets[group]).any():
            raise UserError(
                f"No candidate of the group '{group}' declares '{attribute.name}', so its target is undefined. Give "
                "fixed shares for this group, or use another target."
            )
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


def codes_or_unknown(codes: Int[Array, " N"], indices: Int[Array, "... k"]) -> Int[Array, "... k"]:
    """Return the codes of candidates by row number; a row number below 0 (nobody) is unknown."""
    return np.where(indices >= 0, codes[np.maximum(indices, 0)], UNKNOWN)
