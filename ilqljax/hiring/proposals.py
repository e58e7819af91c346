"""From samples of a policy to a rewrite that a person may accept: checked, rewarded, compared, and logged.

A sample that fails a guardrail is never proposed, whatever its reward; nor is one whose reward is no better than the
original's, or that says the same as it.

For training, `sift_samples` keeps whatever fails no guardrail, gain or no gain: a critic needs both.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.files import hash_text
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.evaluation.record import TRAINING, Rewrite, make_rewrites
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.fluency import Fluency
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces
from ilqljax.hiring.reward.diversity import count_categories
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.statistics import divide

DECISIONS = ("accept", "reject", "skip")
RANKINGS = ("reward", "advantage")
KEEP = ("passing", "improved")
# What becomes of a sample: "written" counts all, each of which is one of the next six; "improved" are of the kept ones.
FATES = ("written", "unfinished", "empty", "copied", "repeated", "refused", "kept", "improved")

Counts = Counter[tuple[str, str]]  # by source, and fate or failed guardrail


class Sample(NamedTuple):
    """Hold what was written for a posting."""

    text: str  # "" where nothing was written
    source: str  # who wrote it, or how
    finished: bool = True  # not cut off for its length


@dataclass(frozen=True)
class RoundsConfig:
    """How many rounds of proposing and training (`rounds.run_rounds`), and what one may cost.

    Attributes:
        rounds: how often to propose and train.
        n: samples of each posting in a round.
        policy: who proposes: the run's algorithm if empty, or "bc" for its clone.
        keep: "passing", what fails no guardrail; "improved", only what also gains, so that the clone copies nothing
            worse, and the critic sees less to tell apart.
        max_postings: a seeded choice of training postings is proposed for in each round; 0 is all.
        pretrain_steps: of each round's cloning; -1 is as many as the run had.
        train_steps: of each round's critic; -1 is as many as the run had.
        seed: of the samples and of the choice of postings; another one each round follows from it. Trainings have the
            run's seed.

    Raises:
        UserError: a number out of its range, or another word for `keep`.
    """

    rounds: int = 3
    n: int = 4
    policy: str = ""
    keep: str = "passing"
    max_postings: int = 0
    pretrain_steps: int = -1
    train_steps: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        check_known(KEEP, keep=self.keep)
        check_range(self, "[1, inf)", "rounds", "n")
        check_range(self, "[0, inf)", "max_postings", "seed")
        check_range(self, "[-1, inf)", "pretrain_steps", "train_steps")


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


def sift_samples(
    posting: Posting,
    samples: Sequence[Sample],
    reward: DiversityReward,
    *,
    known: Collection[str] = (),
    guardrails: str = "edits",
) -> tuple[list[Rewrite], Counts]:
    """Keep a posting's samples that are whole, new and fail no guardrail, scored, in their order; count all.

    New is what is neither the original, nor one of the `known` texts, nor an earlier sample, white space aside. What
    is refused is not scored, which may cost money. A kept rewrite's `policy` is its sample's source. Of the samples
    "A", "A", "B!" and an unfinished "C" of one source, where "B!" lacks a number,

        written 4 = unfinished 1 + repeated 1 + refused 1 + kept 1; numbers_kept 1
    """
    old = {normalize_spaces(posting.description), *map(normalize_spaces, known)}
    prompt, counts = build_prompt(posting), Counts()
    source_of: dict[str, str] = {}
    seen: set[str] = set()
    for sample in samples:
        text, failed = normalize_spaces(sample.text), ()
        if not sample.finished:
            fate = "unfinished"
        elif not text:
            fate = "empty"
        elif text in old:
            fate = "copied"
        elif text in seen:
            fate = "repeated"
        else:
            failed = dict.fromkeys(failure.check for failure in check_rewrite(posting, text, prompt, mode=guardrails))
            fate = "refused" if failed else "kept"
            seen.add(text)
            source_of |= {} if failed else {text: sample.source}
        counts.update((sample.source, name) for name in ("written", fate, *failed))
    if not source_of:
        return [], counts
    judged = judge_samples(posting, [(text, 0.0, math.nan) for text in source_of], reward, guardrails=guardrails)
    of_text = {rewrite.text: rewrite for rewrite in (*judged.safe, *judged.refused)}
    kept = [replace(of_text[text], policy=source) for text, source in source_of.items()]
    counts.update((rewrite.policy, "improved") for rewrite in kept if rewrite.gain > 0)
    return kept, counts


def share_passing(counts: Counts, source: str) -> float:
    """Return the share of a source's whole, new texts that fail no guardrail; NaN where there is none."""
    kept, refused = counts[source, "kept"], counts[source, "refused"]
    return kept / (kept + refused) if kept + refused else math.nan


def format_counts(counts: Counts) -> str:
    """Lay out what became of samples, a line a source, and which guardrails refused them."""
    sources = list(dict.fromkeys(source for source, _ in counts))
    width = max(map(len, ("source", *sources)))
    lines = [f"{'source':<{width}}" + "".join(f"{fate:>11}" for fate in FATES) + f"{'pass':>8}"]
    for source in sources:
        cells = "".join(f"{counts[source, fate]:>11}" for fate in FATES)
        lines.append(f"{source:<{width}}{cells}{100 * share_passing(counts, source):>6.0f} %")
    for source in sources:
        checks = sorted(((n, name) for (of, name), n in counts.items() if of == source and name not in FATES))
        if checks:
            lines.append(f"{source} refused by: " + ", ".join(f"{name} {n}" for n, name in reversed(checks)))
    return "\n".join(lines)


def count_by_source(counts: Counts) -> dict[str, dict[str, int]]:
    """Return counts as JSON holds them, by source and then by fate or failed guardrail."""
    return {source: {name: n for (of, name), n in counts.items() if of == source} for source, _ in counts}


def list_known(rewrites: Iterable[Any]) -> dict[str, set[str]]:
    """Return the texts of prepared data's rewrites (`prepared.ScoredRewrite`) by posting id."""
    known: dict[str, set[str]] = {}
    for row in rewrites:
        known.setdefault(row.posting_id, set()).add(row.text)
    return known


def to_row(rewrite: Rewrite) -> Mapping[str, Any]:
    """Return a kept rewrite as a line of the file that `data.rewrites_path` reads, with its reward and gain."""
    names = {"posting_id": rewrite.posting_id, "text": rewrite.text, "source": rewrite.policy}
    return {**names, "reward": rewrite.reward, "gain": rewrite.gain}


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
