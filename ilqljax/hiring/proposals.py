"""From samples of a policy to a rewrite that a person may accept: checked, rewarded, compared, and logged.

A sample that fails a guardrail is never proposed, whatever its reward; nor is one whose reward is no better than the
original's, or that says the same as it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.files import hash_text
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.evaluation.record import TRAINING, Rewrite, make_rewrites
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces
from ilqljax.hiring.reward.diversity import count_categories
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.statistics import divide

DECISIONS = ("accept", "reject", "skip")
RANKINGS = ("reward", "advantage")


@dataclass(frozen=True)
class Rewriting:
    """What came of one posting."""

    posting: Posting
    original: str  # the posting's text, white space folded
    original_reward: float
    safe: tuple[Rewrite, ...]  # improvements that fail no guardrail, best first; none is a normal outcome
    refused: tuple[Rewrite, ...]  # the other samples: they fail a guardrail, copy the original, or gain nothing


def judge_samples(
    posting: Posting,
    samples: Sequence[tuple[str, float, float]],
    reward: DiversityReward,
    *,
    policy: str = "",
    rank_by: str = "reward",
    fluency: Fluency | None = None,
    guardrails: str = "edits",
) -> Rewriting:
    """Check and reward samples (text, advantage, log-probability) of one posting, and sort out what may be proposed.

    Equal texts count once. `rank_by` sorts the safe improvements: "reward" asks the matcher, "advantage" the critic.
    `policy` names who wrote them, `fluency` is a check beside the guardrails, which are a mode of `MODES`.
    """
    check_known(RANKINGS, rank_by=rank_by)
    original = normalize_spaces(posting.description)
    original_reward = float(reward.score([build_prompt(posting)], [original])[0])
    distinct = list({normalize_spaces(text): (a, logp) for text, a, logp in reversed(samples)}.items())[::-1]
    rewrites = make_rewrites(
        [posting] * len(distinct),
        [(text, *numbers) for text, numbers in distinct],
        policy=policy,
        rewards={TRAINING: reward},
        fluency=fluency,
        guardrails=guardrails,
    )
    safe = [r for r in rewrites if not r.failed_checks and r.gain > 0 and r.text != original]
    safe.sort(key=lambda r: (r.reward, r.advantage) if rank_by == "reward" else (r.advantage, r.reward), reverse=True)
    refused = [r for r in rewrites if r not in safe]
    return Rewriting(posting, original, original_reward, tuple(safe), tuple(refused))


def describe_shortlist(
    codes: Int[Array, " k"], attribute: Attribute
) -> tuple[Int[Array, " C"], int, Float[Array, " C"]]:
    """Return a shortlist's members by category, how many are unknown, and impact ratios of getting onto it.

    A ratio is a category's rate (members over all candidates of the category) over the highest rate; NaN where nobody
    is on the shortlist.
    """
    n_categories = len(attribute.categories)
    chosen, pool = count_categories(codes, n_categories), count_categories(attribute.codes, n_categories)
    rates = divide(chosen.counts, pool.counts)
    return chosen.counts, int(chosen.n_unknown), divide(rates, np.nanmax(rates, initial=0.0))


def log_decision(path: str | Path, decision: str, rewriting: Rewriting, *, run: str, time: str) -> None:
    """Append one decision to a JSON Lines file: what was shown, what was decided, when, and by which run."""
    check_known(DECISIONS, decision=decision)
    best = rewriting.safe[0]
    line = {"time": time, "decision": decision, "posting_id": rewriting.posting.id} | {
        "original_sha256": hash_text(rewriting.original),
        "rewrite_sha256": hash_text(best.text),
        "original": rewriting.original,
        "original_reward": rewriting.original_reward,
        "run": run,
        **{name: getattr(best, name) for name in ("text", "reward", "gain", "advantage", "log_probability")},
    }
    try:
        # One write in append mode: lines of several processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write((json.dumps(line) + "\n").encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Choose a file you may write to.") from error
