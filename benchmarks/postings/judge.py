"""Judge rewrites of held-out posts under engines, people and attributes that training did and did not ask."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import guard_gains
from ilqljax.hiring.evaluation.summary import align, show_interval
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.rewrite import MARKS
from ilqljax.hiring.statistics import bootstrap_mean

ECHO = "echo"
PAIRS = (
    ("ilql", "bc"),
    ("ilql", "bc best of 4"),
    ("ilql", "rule table"),
    ("ilql", "half the table"),
    ("ilql, first that passes", "bc, first that passes"),
    ("ilql, first that passes", "rule table"),
    ("ilql best of 4", "bc best of 4"),
    ("ilql best of 4", "rule table"),
)


class Judged(NamedTuple):
    """Hold what each policy's rewrites score, a row a policy, a column a posting.

    Attributes:
        failures: names of the guardrails that each rewrite fails.
        scores: by the name of a view (an engine, people and an attribute).
    """

    policies: tuple[str, ...]
    texts: list[list[str]]
    failures: list[list[list[str]]]
    scores: dict[str, Float[Array, "P N"]]

    def gains(self, view: str, policy: str) -> Float[Array, " N"]:
        """Return a policy's guarded gains over the originals: a rewrite that fails a guardrail never improves."""
        row, scores = self.policies.index(policy), self.scores[view]
        failed = np.array([bool(found) for found in self.failures[row]])
        return guard_gains(scores[row] - scores[self.policies.index(ECHO)], failed)


def judge_texts(
    postings: Sequence[Posting], texts: Mapping[str, Sequence[str]], views: Mapping[str, DiversityReward]
) -> Judged:
    """Check and score every policy's text of every posting under every view."""
    prompts = [build_prompt(posting) for posting in postings]
    folded = [[normalize_spaces(text) for text in written] for written in texts.values()]
    failures = [
        [sorted({f.check for f in check_rewrite(*case)}) for case in zip(postings, written, prompts, strict=True)]
        for written in folded
    ]
    scores = {name: np.stack([view.score(prompts, written) for written in folded]) for name, view in views.items()}
    return Judged(tuple(texts), folded, failures, scores)


def format_judged(judged: Judged, *, own: str, floors: Mapping[str, float], seed: int = 0) -> str:
    """Lay out scores and gains under the view `own`, guarded gains under all views, and paired differences."""
    echo = judged.policies.index(ECHO)

    def show(values: Float[Array, " N"]) -> str:
        return show_interval(bootstrap_mean(values, seed=seed).spread("gain"), "gain")

    table = [("policy", "score", "guarded gain [95 %]", "pass", "copies", "words changed")]
    for row, policy in enumerate(judged.policies):
        words = [count_changed(a, b) for a, b in zip(judged.texts[echo], judged.texts[row], strict=True)]
        copies = np.mean([a == b for a, b in zip(judged.texts[echo], judged.texts[row], strict=True)])
        score = f"{judged.scores[own][row].mean():.2f}"
        gain = show(judged.gains(own, policy))
        passed = np.mean([not found for found in judged.failures[row]])
        cells = f"{100 * passed:.0f} %", f"{100 * copies:.0f} %", f"{np.mean(words):.1f}"
        table.append((policy, score, gain, *cells))
    lines = [f"Under {own}, over {len(judged.texts[echo])} postings never trained on:", "", *align(table, rule=True)]
    others = [view for view in judged.scores if view != own]
    lines += ["", "Guarded gains under views that training never asked [95 %]:", ""]
    body = [("policy", *others)]
    body.append(("(echo scores)", *(f"{judged.scores[v][echo].mean():.2f}, chance {floors[v]:.2f}" for v in others)))
    for policy in judged.policies:
        if policy != ECHO:
            gains = (show(judged.gains(view, policy)) for view in others)
            body.append((policy, *gains))
    lines += [*align(body, rule=True), "", "Differences of guarded gains, paired by posting [95 %]:", ""]
    pairs = [(a, b) for a, b in PAIRS if a in judged.policies and b in judged.policies]
    differences = [("", own, *others)]
    for a, b in pairs:
        cells = [show(judged.gains(v, a) - judged.gains(v, b)) for v in (own, *others)]
        differences.append((f"{a} over {b}", *cells))
    return "\n".join([*lines, *align(differences, rule=True)])


def draw_rewrites(judged: Judged, *, policy: str, view: str, n: int = 20, seed: int = 0) -> str:
    """Show a policy's rewrites of postings drawn by chance: the gain, the guardrails they fail, and what changed."""
    row, echo, lines = judged.policies.index(policy), judged.policies.index(ECHO), []
    n_postings = len(judged.texts[echo])
    gains = judged.scores[view][row] - judged.scores[view][echo]
    for i in np.sort(np.random.default_rng(seed).permutation(n_postings)[:n]):
        differences = diff_words(judged.texts[echo][i], judged.texts[row][i])
        failures = f", fails {', '.join(judged.failures[row][i])}" if judged.failures[row][i] else ""
        lines.append(f"{i + 1}. ({gains[i]:+.1f}{failures}) ")
        lines[-1] += "".join(f"{MARKS[kind][0]}{text}{MARKS[kind][1]}" for kind, text in differences)
    return "\n\n".join(lines)


def count_changed(before: str, after: str) -> int:
    """Count words of either text that the other has not, in any order."""
    one, other = before.split(), after.split()
    return max(len(one), len(other)) - sum(min(one.count(word), other.count(word)) for word in set(one))
