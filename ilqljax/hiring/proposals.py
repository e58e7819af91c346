"""From samples of a policy to a rewrite that a person may accept: checked, scored, compared, and logged.

A sample that fails a guardrail is never proposed, whatever its score; nor is one that scores no better than the
original, or that says the same as it.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.files import hash_text
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.guardrails import Failure, check_rewrite
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.postings.prompts import build_prompt
from ilqljax.hiring.reward.diversity import count_categories
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.statistics import divide
from ilqljax.types import Array

DECISIONS = ("accept", "reject", "skip")
RANKINGS = ("reward", "advantage")


@dataclass(frozen=True)
class Proposal:
    """One distinct sample.

    Attributes:
        text: the rewrite.
        reward: of the rewrite, under the matcher.
        gain: its reward less the original's.
        advantage: the critic's, summed over its tokens; 0 without a critic.
        log_probability: under the policy, natural logarithm.
        failures: guardrails that it fails; () for none.
    """

    text: str
    reward: float
    gain: float
    advantage: float
    log_probability: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Rewriting:
    """What came of one posting.

    Attributes:
        posting: the original.
        original: its text, white space folded.
        original_reward: its reward.
        safe: improvements that fail no guardrail, best first; may be empty, which is a normal outcome.
        refused: the other samples: those that fail a guardrail, copy the original, or gain nothing.
    """

    posting: Posting
    original: str
    original_reward: float
    safe: tuple[Proposal, ...]
    refused: tuple[Proposal, ...]


def judge_samples(
    posting: Posting,
    samples: Sequence[tuple[str, float, float]],
    reward: DiversityReward,
    *,
    rank_by: str = "reward",
    fluency: Fluency | None = None,
) -> Rewriting:
    """Check and score samples (text, advantage, log-probability) of one posting, and sort out what may be proposed.

    Args:
        posting: the original.
        samples: what a policy wrote; equal texts count once.
        reward: the matcher and its reward.
        rank_by: what sorts the safe improvements: "reward" asks the matcher, "advantage" the critic.
        fluency: a check beside the guardrails; None leaves it out.

    Raises:
        UserError: the ranking is unknown.
    """
    check_ranking(rank_by)
    prompt, original = build_prompt(posting), normalize_spaces(posting.description)
    distinct = list({normalize_spaces(text): (a, logp) for text, a, logp in reversed(samples)}.items())[::-1]
    texts = [text for text, _ in distinct]
    rewards = reward.score([prompt] * (1 + len(texts)), [original, *texts])
    failures = [check_rewrite(posting, text, prompt) for text in texts]
    if fluency is not None and texts:
        differences = fluency.compare([prompt] * len(texts), [original] * len(texts), texts)
        failures = [found + fluency.judge(d) for found, d in zip(failures, differences, strict=True)]
    proposals = [
        Proposal(text, float(r), float(r - rewards[0]), a, logp, tuple(found))
        for (text, (a, logp)), r, found in zip(distinct, rewards[1:], failures, strict=True)
    ]
    safe = [p for p in proposals if not p.failures and p.gain > 0 and p.text != original]
    safe.sort(key=lambda p: (p.reward, p.advantage) if rank_by == "reward" else (p.advantage, p.reward), reverse=True)
    refused = [p for p in proposals if p not in safe]
    return Rewriting(posting, original, float(rewards[0]), tuple(safe), tuple(refused))


def check_ranking(rank_by: str) -> None:
    """Raise a `UserError` for an unknown ranking of improvements."""
    if rank_by not in RANKINGS:
        raise UserError(f"rank_by={rank_by!r} is unknown. Use {' or '.join(map(repr, RANKINGS))}.")


def describe_shortlist(codes: Int[Array, "k"], attribute: Attribute) -> tuple[Int[Array, "C"], int, Float[Array, "C"]]:
    """Return a shortlist's members by category, how many are unknown, and impact ratios of getting onto it.

    A ratio is a category's rate (members over all candidates of the category) over the highest rate; NaN where nobody
    is on the shortlist.
    """
    n_categories = len(attribute.categories)
    chosen, pool = count_categories(codes, n_categories), count_categories(attribute.codes, n_categories)
    rates = divide(chosen.counts, pool.counts)
    return chosen.counts, int(chosen.n_unknown), divide(rates, np.nanmax(rates, initial=0.0))


def log_decision(path: str | Path, decision: str, rewriting: Rewriting, *, run: str, time: str) -> None:
    """Append one decision to a JSON Lines file: what was shown, what was decided, when, and by which run.

    Raises:
        UserError: the decision is unknown, or the file cannot be written.
    """
    if decision not in DECISIONS:
        raise UserError(f"decision={decision!r} is unknown. Known: {', '.join(DECISIONS)}.")
    best = rewriting.safe[0]
    line = {
        "time": time,
        "decision": decision,
        "posting_id": rewriting.posting.id,
        "original_sha256": hash_text(rewriting.original),
        "rewrite_sha256": hash_text(best.text),
        "original": rewriting.original,
        "original_reward": rewriting.original_reward,
        "run": run,
        **{name: value for name, value in asdict(best).items() if name != "failures"},
    }
    data = (json.dumps(line) + "\n").encode()
    try:
        # One write in append mode: lines of several processes do not mix.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, data)
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Choose a file you may write to.") from error
