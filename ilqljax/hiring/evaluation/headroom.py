"""Headroom: how much rewriting could gain at all, asked before any model is trained.

Every posting is edited in many ways, and edits that fail a guardrail are left out. The best edit of each posting is an
oracle, and flatters itself twice: it is the largest of many noisy numbers, and it was chosen on the very people whose
shortlist it is judged by. So the people are also split into halves, the edit is chosen by the shortlist of one half
and judged by that of the other. And everything is measured again with the attributes dealt out to the people at random
(which leaves texts, rankings and shares as they are): what is found then is found by chance.

A shortlist of half the people is half as long, so it holds the same share of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_range
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.edits.operators import ALL_OPERATORS, rewrite_posting
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.matching.matcher import Matcher, rank_halves
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces
from ilqljax.hiring.reward.diversity import diversity_score
from ilqljax.hiring.reward.scores import RewardConfig, ShortlistScorer, select_targets
from ilqljax.hiring.statistics import LEVEL, Estimate

OUTSIDE = 0.05  # a shortlist that scores below this quantile of chance is outside it
ORIGINAL = "original"
# Where headroom is only mentioned, it is measured on so many postings, and not by a matcher that may cost money.
HEADROOM_POSTINGS, HEADROOM_SHUFFLES = 100, 99
HEADROOM_MATCHERS = ("tfidf", "bm25", "ngrams", "encoder", "embeddings")


@dataclass(frozen=True)
class HeadroomConfig:
    """Say how headroom is measured.

    Attributes:
        n_splits: how often the people are split into halves at random.
        n_shuffles: how often attributes are dealt out at random; the smallest p-value is 1 / (n_shuffles + 1).
        seed: of edits, halves and shuffles.

    A number that is out of its range raises a `UserError`.
    """

    n_splits: int = 4
    n_shuffles: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "n_splits")
        check_range(self, "[19, inf)", "n_shuffles")  # fewer cannot give a p-value of 0.05


class Edits(NamedTuple):
    """Hold the texts of all postings: first each posting's original, then its edits."""

    texts: tuple[str, ...]
    names: tuple[str, ...]  # what made each text
    posting_of: Int[Array, " T"]  # row of the posting of each text
    n_refused: int  # edits left out because a guardrail refused them


class Finding(NamedTuple):
    """Hold a measured number beside what chance gives: its mean and 95 % range, and how often it is as large."""

    value: float
    chance: Estimate
    p_value: float  # one-sided, of a number as large or larger

    def to_json(self) -> dict[str, float]:
        """Return every number by name."""
        return {"value": self.value, **self.chance.spread("chance"), "p_value": self.p_value}

    @property
    def beyond_chance(self) -> bool:
        """Whether chance gives so large a number in less than one case in 20."""
        return self.p_value < 1.0 - LEVEL


@dataclass(frozen=True)
class Headroom:
    """Hold what one attribute's shortlists score and could gain, in points of the diversity score (0 is best).

    Attributes:
        attribute: its name.
        distance: mean distance of the originals' shortlists from the target, 100 times; chance is never at 0.
        outside: share of postings whose shortlist scores below the 5 % quantile of chance.
        best: mean gain of each posting's best edit, on the people it was chosen on.
        held_out: mean gain of the best edit by one half of the people, on the other half.
        edits: mean gain of each kind of edit over all postings; one without such an edit keeps its original.
    """

    attribute: str
    distance: Finding
    outside: Finding
    best: Finding
    held_out: Finding
    edits: Mapping[str, Finding]

    @property
    def exists(self) -> bool:
        """Whether a gain was found that holds on people on whom it was not chosen."""
        return self.held_out.beyond_chance and self.held_out.value > 0.0

    def to_json(self) -> dict[str, Any]:
        """Return every number by name."""
        numbers = {name: getattr(self, name).to_json() for name in ("distance", "outside", "best", "held_out")}
        edits = {name: found.to_json() for name, found in self.edits.items()}
        return {"attribute": self.attribute, **numbers, "edits": edits, "exists": self.exists}

    def describe(self) -> str:
        """Say in one sentence whether there is anything to gain."""
        by_chance = format_range(self.held_out.chance)
        gain = f"{format_gain(self.held_out.value)} on people on whom they were not chosen ({by_chance} by chance)"
        if self.exists:
            return f"{self.attribute}: the best edits gain {gain}."
        if self.distance.beyond_chance:
            return f"{self.attribute}: shortlists are further from the target than chance, but edits gain only {gain}."
        return f"{self.attribute}: shortlists are no further from the target than chance, and edits gain {gain}."


def list_edits(
    postings: Sequence[Posting],
    *,
    operators: Sequence[str] = tuple(ALL_OPERATORS),
    further: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    seed: int = 0,
) -> Edits:
    """Return the postings' originals and the distinct edits that pass the guardrails.

    `further` are (name, text) pairs by posting id, such as a policy's samples (`load_samples`), beside the operators'.
    Without any posting a `UserError` is raised.
    """
    if not postings:
        raise UserError("Headroom needs at least one posting, got none. Give some.")
    rows = [(normalize_spaces(posting.description), ORIGINAL, row) for row, posting in enumerate(postings)]
    n_refused = 0
    for row, posting in enumerate(postings):
        prompt = build_prompt(posting)
        made = rewrite_posting(posting, operators=operators, seed=seed)[1:]
        seen = {rows[row][0], *(text for _, text in made)}
        made += [(name, text) for name, text in (further or {}).get(posting.id, ()) if text not in seen]
        safe = [(text, name, row) for name, text in made if not check_rewrite(posting, text, prompt)]
        n_refused += len(made) - len(safe)
        rows += safe
    texts, names, posting_of = zip(*rows, strict=True)
    return Edits(texts, names, np.array(posting_of), n_refused)


def measure_headroom(
    edits: Edits,
    table: AttributeTable,
    scores: Sequence[RewardConfig],
    *,
    matcher: Matcher,
    groups: Sequence[str] = (),
    config: HeadroomConfig | None = None,
) -> list[Headroom]:
    """Measure the headroom of each score (one attribute, or several together), all on the same shortlists' length.

    The matcher is asked once for about twice as many people a text as a shortlist has. `groups` are the postings' job
    groups, for targets by group.

    Raises:
        UserError: a score that does not fit the table, fewer than two people, or scores of different lengths.
    """
    config = HeadroomConfig() if config is None else config
    if len({score.k for score in scores}) != 1:
        raise UserError(f"Headroom needs scores of one length of shortlist, got k={[score.k for score in scores]}.")
    if matcher.n_candidates < 2:
        raise UserError("Headroom splits the people into halves and needs at least two of them.")
    k, n = scores[0].k, matcher.n_candidates
    rng = np.random.default_rng(config.seed)
    halves = np.stack([rng.permutation(n) < n // 2 for _ in range(config.n_splits)])
    whole, of_halves = rank_halves(matcher, edits.texts, k, halves)
    shuffles = [np.arange(n), *(rng.permutation(n) for _ in range(config.n_shuffles))]
    groups = [groups[row] for row in edits.posting_of] if groups else []
    measures = [make_measure(ShortlistScorer(table, score), whole, of_halves, edits, groups) for score in scores]
    return [
        _compare_with_chance(score.attribute, [measure(people) for people in shuffles])
        for score, measure in zip(scores, measures, strict=True)
    ]


def describe_headroom(
    edits: Edits,
    table: AttributeTable,
    scores: Sequence[RewardConfig],
    *,
    matcher: Matcher,
    groups: Sequence[str],
    seed: int,
) -> list[str]:
    """Say in one sentence a score what the edits could gain, where headroom is only mentioned; nothing without any."""
    if matcher.n_candidates < 2 or len(edits.texts) == len(groups):
        return []
    config = HeadroomConfig(n_shuffles=HEADROOM_SHUFFLES, seed=seed)
    found = measure_headroom(edits, table, scores, matcher=matcher, groups=groups, config=config)
    return [each.describe() for each in found]


def list_choices(edits: Edits) -> Int[Array, "G E"]:
    """Return the rows of each posting's texts, its original first and again where it has fewer than another."""
    rows = [np.flatnonzero(edits.posting_of == row) for row in range(edits.posting_of.max() + 1)]
    choices = np.tile(np.array([of_posting[0] for of_posting in rows])[:, None], max(map(len, rows)))
    for row, of_posting in enumerate(rows):
        choices[row, : len(of_posting)] = of_posting
    return choices


def choose_and_judge(chosen_by: Float[Array, "... G E"], judged_by: Float[Array, "... G E"]) -> Float[Array, "... G"]:
    """Return the gains of the edits that are best by other gains; where several are, of the first of them."""
    best = chosen_by.argmax(axis=-1)[..., None]
    return np.take_along_axis(judged_by, best, axis=-1)[..., 0]


def make_measure(
    scorer: ShortlistScorer,
    whole: Int[Array, "T k"],
    of_halves: Int[Array, "S 2 T h"],
    edits: Edits,
    groups: Sequence[str] = (),
) -> Callable[[Int[Array, " N"]], dict[str, Float[Array, " G"]]]:
    """Return the function from people to each posting's numbers, where everybody has the attributes of those people."""
    choices = list_choices(edits)
    n_postings = len(choices)
    kinds = {name: np.array(edits.names) == name for name in dict.fromkeys(edits.names[n_postings:])}
    targets = [select_targets(term.targets, list(groups) or [""] * len(edits.texts)) for term in scorer.terms]

    def score(people: Int[Array, " N"], lists: Int[Array, "... T k"]) -> Float[Array, "... T"]:
        weights = scorer.weights(lists.shape[-1])
        scores = [
            diversity_score(term.attribute.codes[people][lists], target, distance=term.distance, weights=weights)
            for term, target in zip(scorer.terms, targets, strict=True)
        ]
        return np.mean(scores, axis=0)

    def measure(people: Int[Array, " N"]) -> dict[str, Float[Array, " G"]]:
        scores = score(people, whole)
        gains = scores - scores[choices[edits.posting_of, 0]]
        halves = score(people, of_halves)[..., choices]  # [S, 2, G, E]
        one, other = np.moveaxis(halves - halves[..., :1], 1, 0)
        crossed = (choose_and_judge(one, other) + choose_and_judge(other, one)) / 2.0
        found = {"echo": scores[choices[:, 0]], "best": gains[choices].max(axis=-1), "held out": crossed.mean(axis=0)}
        for name, rows in kinds.items():
            found[f"edit {name}"] = np.zeros(n_postings)
            found[f"edit {name}"][edits.posting_of[rows]] = gains[rows]
        return found

    return measure


def _compare_with_chance(name: str, drawn: Sequence[Mapping[str, Float[Array, " G"]]]) -> Headroom:
    """Set the numbers of the first draw, the real one, beside those of the shuffles."""
    found, *chance = drawn
    echoes = np.stack([draw["echo"] for draw in chance])
    threshold = np.quantile(echoes, OUTSIDE, axis=0)  # of each posting: its target may be its own
    findings = {
        key: make_finding(found[key].mean(), [draw[key].mean() for draw in chance]) for key in found if key != "echo"
    }
    return Headroom(
        attribute=name,
        distance=make_finding(-found["echo"].mean(), -echoes.mean(axis=1)),
        outside=make_finding((found["echo"] < threshold).mean(), (echoes < threshold).mean(axis=1)),
        best=findings["best"],
        held_out=findings["held out"],
        edits={key.removeprefix("edit "): value for key, value in findings.items() if key.startswith("edit ")},
    )


def make_finding(value: float, chance: Sequence[float] | Float[Array, " R"]) -> Finding:
    """Set a number beside those that chance gave; p counts the number itself among them (Phipson and Smyth 2010)."""
    chance = np.asarray(chance)
    # Sums in another order differ in the last digits: what is equal but for those counts as large.
    as_large = chance >= value - 1e-9
    low, high = np.quantile(chance, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    p_value = (1 + int(as_large.sum())) / (1 + len(chance))
    return Finding(float(value), Estimate(float(chance.mean()), float(low), float(high)), p_value)


def format_headroom(found: Sequence[Headroom], edits: Edits) -> str:
    """Return the numbers as a table, one column an attribute, and one sentence on each."""
    rows: list[tuple[str, list[str]]] = [
        ("originals' distance", [f"{h.distance.value:.1f}" for h in found]),
        ("  by chance", [format_range(h.distance.chance, sign="") for h in found]),
        ("outside chance", [f"{100 * h.outside.value:.0f} % of postings" for h in found]),
        ("best edit gains", [format_gain(h.best.value) for h in found]),
        ("  by chance", [format_range(h.best.chance) for h in found]),
        ("on other people", [_format_finding(h.held_out) for h in found]),
        ("  by chance", [format_range(h.held_out.chance) for h in found]),
    ]
    for name in dict.fromkeys(name for h in found for name in h.edits):
        rows.append((f"{name} gains", [_format_finding(h.edits[name]) for h in found]))
    n_postings = int(edits.posting_of.max()) + 1
    counts = f"{n_postings:,} postings, {len(edits.texts) - n_postings:,} edits that pass the guardrails"
    left = max(len(title) for title, _ in rows) + 2
    widths = [max(len(h.attribute), *(len(cells[i]) for _, cells in rows)) + 2 for i, h in enumerate(found)]
    lines = [f"{counts} ({edits.n_refused:,} do not)"]
    lines.append(" " * left + "".join(f"{h.attribute:>{w}}" for h, w in zip(found, widths, strict=True)))
    for title, cells in rows:
        lines.append(f"{title:<{left}}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
    return "\n".join([*lines, "", *(h.describe() for h in found)])


def format_gain(value: float, *, sign: str = "+") -> str:
    """Return points to one digit, or two below 1; a rounded 0 has no minus."""
    digits = 1 if abs(value) >= 1.0 else 2
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def format_range(chance: Estimate, *, sign: str = "+") -> str:
    """Return the range that chance gives."""
    return f"{format_gain(chance.low, sign=sign)} to {format_gain(chance.high, sign=sign)}"


def _format_finding(found: Finding) -> str:
    return f"{format_gain(found.value)} (p = {found.p_value:.3f})"
