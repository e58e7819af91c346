"""Describe and load a prepared data folder; `prepare` makes one.

| file                     | holds                                                                      |
|--------------------------|----------------------------------------------------------------------------|
| jobs.jsonl               | the postings that were kept                                                |
| candidates.jsonl         | the candidates                                                             |
| splits.json              | the manifest: ids by split, and hashes                                     |
| offline.jsonl            | one scored rewrite a line                                                  |
| rewards.sqlite           | the reward cache, which later runs go on filling                           |
| rewards.sqlite.damaged-* | what of it could not be read, kept aside (`reward.cache`)                  |
| vectors-*.safetensors    | the candidates' vectors, one file an encoder, where one was used           |
| summary.json             | configuration, counts, mean rewards by split and operator, the noise floor |
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilqljax.data.files import hash_file, hash_text, read_json, save_text
from ilqljax.data.json_lines import read_json_lines
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.evaluation.headroom import ORIGINAL
from ilqljax.hiring.matching.matcher import MatcherSource, TfidfSource
from ilqljax.hiring.postings.posting import Candidate, Posting, build_prompt, load_candidates, load_postings
from ilqljax.hiring.reward.combined import CombinedReward, make_engines
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.reward.scores import RewardConfig

JOBS, CANDIDATES, SPLITS = "jobs.jsonl", "candidates.jsonl", "splits.json"
OFFLINE, REWARDS, SUMMARY = "offline.jsonl", "rewards.sqlite", "summary.json"
VECTORS = "vectors-{}.safetensors"
SUMMARY_HASH = "summary_sha256"  # of the rest of the summary
PREPARE_AGAIN = "Prepare the data again (training does so by itself): what was scored is not asked again."
KEPT = ("all", "passing", "improving")  # rewrites of a dataset


@dataclass(frozen=True)
class ScoredRewrite:
    """Hold one line of `offline.jsonl`; `guardrail_failures` names the checks the text fails."""

    posting_id: str
    split: str
    operator: str
    prompt: str
    text: str
    reward: float
    guardrail_failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedData:
    """Hold a prepared folder in memory."""

    folder: Path
    postings: tuple[Posting, ...]
    candidates: tuple[Candidate, ...]
    splits: Mapping[str, Sequence[str]]  # ids by the name of the split
    rewrites: tuple[ScoredRewrite, ...]
    reward_config: RewardConfig
    summary: Mapping[str, Any]

    def select_postings(self, split: str) -> list[Posting]:
        """Return a split's postings, or raise a `UserError` if there is no such split."""
        check_known(self.splits, split=split)
        chosen = set(self.splits[split])
        return [posting for posting in self.postings if posting.id in chosen]

    def select_rewrites(self, split: str) -> list[ScoredRewrite]:
        """Return a split's scored rewrites."""
        return [row for row in self.rewrites if row.split == split]

    def make_observations(self, split: str, *, keep: str = "all") -> list[PostingObservation]:
        """Return a split's scored rewrites as finished dialogues, which is what offline training reads.

        `keep`="passing" leaves out rewrites that fail a guardrail; "improving" leaves those that pass and score above
        their original, or the original where there is none. Another value is a `UserError`.
        """
        check_known(KEPT, keep=keep)
        posting_of = {posting.id: posting for posting in self.postings}
        rows = self.select_rewrites(split)
        if keep != "all":
            rows = [row for row in rows if row.operator == ORIGINAL or not row.guardrail_failures]
        if keep == "improving":
            rows = list(select_improving(rows))
        return [PostingObservation(row.prompt, row.text, row.reward, posting_of[row.posting_id]) for row in rows]

    def make_reward(self, source: MatcherSource | None = None) -> DiversityReward:
        """Return the reward under a matcher, with the folder's cache and vectors.

        Where none is given it is TF-IDF, or a `UserError` if another one scored the data.
        """
        scored_by = self.summary.get("matcher", TfidfSource().name)
        if source is None and scored_by != TfidfSource().name:
            raise UserError(f"{self.folder}: was scored by the matcher '{scored_by}'. Give that one.")
        return self._make_reward(source or TfidfSource(), self.reward_config)

    def make_held_out_reward(self, source: MatcherSource) -> DiversityReward:
        """Return the reward under one matcher that training never asked, and no other."""
        return self._make_reward(source, self.reward_config.for_one_engine())

    def _make_reward(self, source: MatcherSource, config: RewardConfig) -> DiversityReward:
        mode = self.summary["config"].get("guardrails", "edits")  # folders of version 1 do not say
        return make_reward(self.folder, self.postings, self.candidates, source, config, guardrails=mode)


def select_improving(rows: Iterable[ScoredRewrite]) -> Iterator[ScoredRewrite]:
    """Yield the rewrites that score above their posting's original, or the original where none does."""
    by_posting: dict[str, list[ScoredRewrite]] = {}
    for row in rows:
        by_posting.setdefault(row.posting_id, []).append(row)
    for group in by_posting.values():
        original = next(row for row in group if row.operator == ORIGINAL)
        yield from [row for row in group if row.reward > original.reward] or [original]


def make_reward(
    folder: Path,
    postings: Sequence[Posting],
    candidates: Sequence[Candidate],
    source: MatcherSource,
    config: RewardConfig,
    *,
    guardrails: str = "edits",
) -> DiversityReward:
    """Return the reward of postings' rewrites under a matcher of the candidates, with a folder's cache and vectors."""
    table = AttributeTable.from_candidates(candidates)
    matchers = [engine.make(candidates, folder=folder) for engine in make_engines(config.engines, source)]
    group_of = {build_prompt(posting): posting.group for posting in postings}
    options = {"cache_path": folder / REWARDS, "group_of": group_of, "guardrails": guardrails}
    if config.engines or config.side_weight:
        return CombinedReward(matchers, table, config, **options)
    return DiversityReward(matchers[0], table, config, **options)


def load_prepared(folder: str | Path) -> PreparedData:
    """Load a prepared folder; one that is missing, incomplete or changed raises a `UserError`."""
    folder = Path(folder)
    # Hashes come first: what is then read is what was written.
    summary = load_summary(folder)
    if summary is None:
        raise UserError(
            f"{folder}: is not a prepared data folder (no {SUMMARY}). Run `ilqljax data prepare` to make it."
        )
    _check_hashes(folder, {SPLITS: summary["splits_sha256"]})
    manifest = read_json(folder / SPLITS, advice=PREPARE_AGAIN)
    _check_hashes(folder, manifest["file_hashes"])
    rows = [ScoredRewrite(**row) for _, row in read_json_lines(folder / OFFLINE)]
    return PreparedData(
        folder=folder,
        postings=tuple(load_postings(folder / JOBS)),
        candidates=tuple(load_candidates(folder / CANDIDATES)),
        splits=manifest["splits"],
        rewrites=tuple(replace(row, guardrail_failures=tuple(row.guardrail_failures)) for row in rows),
        reward_config=RewardConfig(**summary["config"]["reward"]),
        summary=summary,
    )


def _check_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    for name, digest in expected.items():
        if not (folder / name).is_file() or hash_file(folder / name) != digest:
            raise UserError(f"{folder / name}: is missing or was changed since it was made. {PREPARE_AGAIN}")


def format_summary(summary: Mapping[str, Any]) -> str:
    """Return the counts, mean rewards and noise floor as a small table."""
    counts = ", ".join(f"{n} {name}" for name, n in summary["counts"].items())
    dropped = ", ".join(f"{n} {reason}" for reason, n in summary["dropped"].items() if n) or "none"
    floor, splits = summary["noise_floor"], list(summary["rewards"])
    lines = [
        f"{summary['source']}: {counts}; postings dropped: {dropped}",
        f"random shortlists score {floor['value']:.2f} (95 % within {floor['low']:.2f} to {floor['high']:.2f})",
        f"{'mean reward':<14}" + "".join(f"{name:>16}" for name in splits),
    ]
    for operator in dict.fromkeys(name for means in summary["rewards"].values() for name in means):
        cells = [summary["rewards"][split].get(operator, {"mean": float("nan"), "n": 0}) for split in splits]
        lines.append(f"{operator:<14}" + "".join(f"{c['mean']:>9.2f} ({c['n']:>4})" for c in cells))
    return "\n".join([*lines, *filter(None, [summary.get("headroom", "")])])


def load_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a prepared folder, None if there is none; a `UserError` if it is not as it was made."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    summary = read_json(path, advice=PREPARE_AGAIN)
    if summary.get(SUMMARY_HASH) != _hash_summary(summary):
        raise UserError(f"{path}: is damaged or was changed since it was made. {PREPARE_AGAIN}")
    return summary


def save_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary of a prepared folder, with its hash."""
    save_text(folder / SUMMARY, json.dumps({**summary, SUMMARY_HASH: _hash_summary(summary)}, indent=1) + "\n")


def _hash_summary(summary: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in summary.items() if name != SUMMARY_HASH}
    return hash_text(json.dumps(rest, sort_keys=True))
