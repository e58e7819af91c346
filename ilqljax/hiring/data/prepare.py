"""Prepare a data folder: postings, candidates, splits, and offline data of several scored rewrites per posting.

The folder (its files: `prepared`) appears whole or not at all. One whose inputs, settings and versions are the same is
used again. Any other, and one with a damaged file, is prepared again, and asks the matcher only for what nobody asked
it before: rewards outlive folders (`folders`). An engine that runs here is asked once more, for the headroom.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.files import hash_file
from ilqljax.data.json_lines import read_json_lines, save_json_lines
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.hiring.data.folders import check_target, recover_folder, replace_folder
from ilqljax.hiring.data.prepared import (
    CANDIDATES,
    JOBS,
    OFFLINE,
    SPLITS,
    PreparedData,
    ScoredRewrite,
    load_prepared,
    load_summary,
    make_reward,
    save_summary,
)
from ilqljax.hiring.data.splits import check_leakage, save_manifest, split_postings
from ilqljax.hiring.edits.coded_words import BUILT_IN, WordTable, load_word_table
from ilqljax.hiring.edits.operators import ALL_OPERATORS, OPERATORS, require_operators, rewrite_posting
from ilqljax.hiring.evaluation.headroom import (
    HEADROOM_MATCHERS,
    HEADROOM_POSTINGS,
    ORIGINAL,
    Edits,
    describe_headroom,
)
from ilqljax.hiring.guardrails import MODES, check_rewrite
from ilqljax.hiring.matching.matcher import MatcherSource, TfidfSource
from ilqljax.hiring.postings.posting import (
    Market,
    Posting,
    build_prompt,
    normalize_spaces,
    save_candidates,
    save_postings,
)
from ilqljax.hiring.postings.sources import detect_source, load_market
from ilqljax.hiring.reward.reward import REWARD_VERSION, DiversityReward
from ilqljax.hiring.reward.scores import RewardConfig

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Raise this when the same inputs and settings give other files than before: after a change of operators, guardrails,
# prompts, splits, readers of sources or the sample's generator. Folders made before are then prepared again. (When
# the meaning of a reward changes, raise `REWARD_VERSION`, which also gives up all that was scored.)
PREPARE_VERSION = 2
SPLIT_CHOICES = ("company", "given")
# A small model reads a hundred-odd words; longer posts are dropped and counted. Other sources keep all by default.
HACKERNEWS_MAX_WORDS = 120


@dataclass(frozen=True)
class DataConfig:
    """Say what to prepare.

    Attributes:
        source: what the postings are; "" tells it from the path.
        path: the postings' file or folder; "" for the sample.
        candidates_path: the candidates' file; "" for the source's own, or the sample's where it has none.
        seed: of the sample, the split, the choice of postings and the operators.
        plant: strength of the sample's planted correlation, 0 to 1.
        n_postings: of the sample.
        n_candidates: of the sample.
        max_postings: keep a seeded choice of at most so many postings; 0 keeps all.
        max_words: drop (and count) postings with more words; 0 keeps all, -1 means 120 for Hacker News and 0 otherwise.
        operators: what makes rewrites; the usual ones if none is named; the original is always there.
        words_path: a table of words that the operators exchange in place of the built-in one
            (`coded_words.load_word_table`); "" for that one.
        rewrites_path: a file of further rewrites of training postings, such as `ilqljax data sample` writes; "" for
            none.
        splits: "company" makes new ones, "given" takes the index files of the source.
        fractions: shares of train, eval and test in a new split.
        guardrails: which checks rewrites must pass: "edits" for edits of single words, "free_text" for paraphrases in
            other words, such as a language model writes (`guardrails.MODES`).
        reward: how rewrites are scored.

    Raises:
        UserError: an unknown operator, kind of guardrails or of splits, or a limit below what is allowed.
    """

    source: str = ""
    path: str = ""
    candidates_path: str = ""
    seed: int = 0
    plant: float = 0.8
    n_postings: int = 300
    n_candidates: int = 2000
    max_postings: int = 0
    max_words: int = -1
    operators: tuple[str, ...] = ()
    words_path: str = ""
    rewrites_path: str = ""
    splits: str = "company"
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    guardrails: str = "edits"
    reward: RewardConfig = field(default_factory=RewardConfig, metadata=NO_OPTION)  # a section of its own

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", self.operators or tuple(OPERATORS))
        require_operators(self.operators)
        check_known(SPLIT_CHOICES, splits=self.splits)
        check_known(MODES, guardrails=self.guardrails)
        check_range(self, "[0, inf)", "max_postings")
        check_range(self, "[-1, inf)", "max_words")

    def load_words(self) -> WordTable:
        """Return the table of words that the operators exchange; a file that cannot be read is a `UserError`."""
        return load_word_table(self.words_path) if self.words_path else BUILT_IN

    def to_key(self) -> dict[str, Any]:
        """Return what a prepared folder is told by: the later options only where they are used."""
        settings = {**asdict(self), "reward": self.reward.to_key()}
        return {name: value for name, value in settings.items() if name != "words_path" or value}


def prepare_data(config: DataConfig, *, out_dir: str | Path, matcher: MatcherSource | None = None) -> PreparedData:
    """Prepare a data folder, or load it if it was made from the same inputs, settings and versions, and is whole.

    A folder that an earlier call made is replaced, but for its rewards; any other that holds something is refused.
    TF-IDF scores where no matcher is given.

    Raises:
        UserError: bad data, a bad setting, a matcher that fails, or a folder that cannot be written or is not ours.
            Nothing is left behind but what was scored, for the next call.
    """
    if config.rewrites_path and not Path(config.rewrites_path).is_file():
        raise UserError(f"rewrites_path={config.rewrites_path}: no such file. `ilqljax data sample` writes one.")
    config.load_words()  # a table that cannot be read is refused now
    matcher = TfidfSource() if matcher is None else matcher
    out_dir = Path(out_dir)
    recover_folder(out_dir)
    check_target(out_dir)
    source = config.source or detect_source(config.path)
    from_config = ("path", "candidates_path", "seed", "plant", "n_postings", "n_candidates")
    market = load_market(source=source, **{name: getattr(config, name) for name in from_config})
    further = [Path(path) for path in (config.words_path, config.rewrites_path) if path]
    fingerprint = _make_fingerprint(config, [*market.files, *further], matcher)
    try:
        summary = load_summary(out_dir)
        if summary is not None and summary["fingerprint"] == fingerprint:
            return load_prepared(out_dir)
    except UserError as error:
        logger.warning("%s This is done now.", error)
    postings, dropped = _choose_postings(market.postings, config, source=source)
    market = market._replace(postings=postings, splits=_choose_splits(postings, market.splits, config))
    with replace_folder(out_dir) as folder:
        facts = {"source": source, "dropped": dropped, "fingerprint": fingerprint}
        _fill_folder(folder, market, config, matcher, facts)
    return load_prepared(out_dir)


def _make_fingerprint(config: DataConfig, files: Sequence[Path], matcher: MatcherSource) -> str:
    """Hash what a folder is made from: the versions of the code, the settings, the matcher and the input files."""
    header = [PREPARE_VERSION, REWARD_VERSION, config.to_key(), matcher.fingerprint]
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for file in files:
        digest.update(f"{file.name} {hash_file(file)}".encode())
    return digest.hexdigest()


def _choose_postings(
    postings: Sequence[Posting], config: DataConfig, *, source: str
) -> tuple[list[Posting], dict[str, int]]:
    """Drop repeated texts and long postings, keep a seeded choice; return it and counts of what was dropped."""
    default = HACKERNEWS_MAX_WORDS if source == "hackernews" else 0
    limit = default if config.max_words == -1 else config.max_words
    # A text that stands twice would weigh twice in training and in every mean.
    distinct = list({normalize_spaces(p.description): p for p in reversed(postings)}.values())[::-1]
    short = [p for p in distinct if not limit or len(p.description.split()) <= limit]
    if not short:
        raise UserError(f"All {len(postings)} postings have more than {limit} words. Raise max_words, or set it to 0.")
    kept = choose_some(short, config.max_postings, seed=config.seed)
    return kept, {
        "with a repeated text": len(postings) - len(distinct),
        f"longer than {limit} words": len(distinct) - len(short),
        "beyond max_postings": len(short) - len(kept),
    }


def choose_some(rows: list[T], most: int, *, seed: int) -> list[T]:
    """Return a seeded choice of at most so many postings, in their order; 0 is all, and less a `UserError`."""
    if most < 0:
        raise UserError(f"max_postings={most}: use a number from 1 on, or 0 for all postings.")
    if not 0 < most < len(rows):
        return rows
    return [rows[i] for i in np.sort(np.random.default_rng(seed).choice(len(rows), size=most, replace=False))]


def _choose_splits(
    postings: Sequence[Posting], given: Mapping[str, Sequence[str]], config: DataConfig
) -> dict[str, list[str]]:
    if config.splits == "company":
        splits = split_postings(postings, seed=config.seed, fractions=config.fractions)
    elif not given:
        raise UserError("splits='given', but the source has no index files. Use splits='company'.")
    else:
        kept = {posting.id for posting in postings}
        splits = {name: [posting_id for posting_id in ids if posting_id in kept] for name, ids in given.items()}
    check_leakage(splits, postings)
    return splits


def _fill_folder(
    folder: Path, market: Market, config: DataConfig, source: MatcherSource, facts: Mapping[str, Any]
) -> None:
    postings, candidates, splits, _ = market
    reward = make_reward(folder, postings, candidates, source, config.reward, guardrails=config.guardrails)
    rows = _score_rewrites(postings, splits, reward, config)
    save_postings(folder / JOBS, postings)
    save_candidates(folder / CANDIDATES, candidates)
    save_json_lines(folder / OFFLINE, map(asdict, rows))
    made_of = [folder / name for name in (JOBS, CANDIDATES, OFFLINE)]
    save_manifest(folder / SPLITS, postings, splits, seed=config.seed, files=made_of)
    summary = {
        **facts,
        "matcher": source.name,
        "config": asdict(config),
        "counts": {
            "postings": len(postings),
            "companies": len({p.company for p in postings if p.company}),
            "candidates": len(candidates),
            "rewrites": len(rows),
            "rewrites failing a guardrail": sum(bool(row.guardrail_failures) for row in rows),
        },
        "split_counts": {name: len(ids) for name, ids in splits.items()},
        "target": reward.scorer.describe_targets(),
        "noise_floor": {k: float(v) for k, v in reward.estimate_noise_floor(seed=config.seed)._asdict().items()},
        "rewards": _average_rewards(rows),
        "headroom": _describe_headroom(rows, postings, reward, config) if source.name in HEADROOM_MATCHERS else "",
        "splits_sha256": hash_file(folder / SPLITS),
    }
    save_summary(folder, summary)


def _score_rewrites(
    postings: Sequence[Posting], splits: Mapping[str, Sequence[str]], reward: DiversityReward, config: DataConfig
) -> list[ScoredRewrite]:
    posting_of = {posting.id: posting for posting in postings}
    further = load_samples(config.rewrites_path, train_ids=splits["train"]) if config.rewrites_path else {}
    words, rows = config.load_words(), []
    for split, ids in splits.items():
        for posting in map(posting_of.get, ids):
            prompt = build_prompt(posting)
            made = rewrite_posting(posting, operators=config.operators, seed=config.seed, words=words)
            seen = {text for _, text in made}
            made += [(source, text) for source, text in further.get(posting.id, ()) if text not in seen]
            for operator, text in made:
                found = check_rewrite(posting, text, prompt, mode=config.guardrails)
                failures = dict.fromkeys(failure.check for failure in found)
                rows.append(ScoredRewrite(posting.id, split, operator, prompt, text, 0.0, tuple(failures)))
    rewards = reward.score([row.prompt for row in rows], [row.text for row in rows])
    return [replace(row, reward=float(value)) for row, value in zip(rows, rewards, strict=True)]


def _average_rewards(rows: Sequence[ScoredRewrite]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean reward and the number of rewrites by split and operator."""
    rewards: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        rewards.setdefault(row.split, {}).setdefault(row.operator, []).append(row.reward)
    return {
        split: {name: {"mean": float(np.mean(values)), "n": len(values)} for name, values in by_operator.items()}
        for split, by_operator in rewards.items()
    }


def _describe_headroom(
    rows: Sequence[ScoredRewrite], postings: Sequence[Posting], reward: DiversityReward, config: DataConfig
) -> str:
    """Say what the training postings' rewrites could gain, measured on a seeded choice of the postings."""
    ids = list(dict.fromkeys(row.posting_id for row in rows if row.split == "train"))
    chosen = {posting_id: i for i, posting_id in enumerate(choose_some(ids, HEADROOM_POSTINGS, seed=config.seed))}
    rows = [row for row in rows if row.posting_id in chosen]
    safe = [row for row in rows if row.operator == ORIGINAL or not row.guardrail_failures]
    safe.sort(key=lambda row: row.operator != ORIGINAL)
    texts, names = (tuple(getattr(row, name) for row in safe) for name in ("text", "operator"))
    edits = Edits(texts, names, np.array([chosen[row.posting_id] for row in safe]), n_refused=len(rows) - len(safe))
    group_of = {posting.id: posting.group for posting in postings}
    groups, scores = [group_of[posting_id] for posting_id in chosen], [reward.config]
    found = describe_headroom(edits, reward.table, scores, matcher=reward.matcher, groups=groups, seed=config.seed)
    return "".join(found)


def save_samples(path: str | Path, samples: Iterable[tuple[str, str]], *, source: str) -> int:
    """Write a policy's (posting id, text) pairs, without empty and repeated texts; return how many were written.

    Operators know what they change; a clone's samples mix their edits, and show the critic what a policy really writes,
    damaged texts included. `ilqljax data sample` writes such a file:

        {"posting_id": "job-0007", "text": "Blue Oak needs a kind nurse.", "source": "bc"}
    """
    distinct = dict.fromkeys((posting_id, normalize_spaces(text)) for posting_id, text in samples)
    rows = [{"posting_id": posting_id, "text": text, "source": source} for posting_id, text in distinct if text]
    save_json_lines(path, rows)
    return len(rows)


def load_samples(path: str | Path, *, train_ids: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """Read (source, text) pairs by posting id, without repeated texts.

    A line that lacks a field, has an empty one, is named like an operator or belongs to no training posting raises a
    `UserError`: data of held-out postings may not be added.
    """
    known = frozenset(train_ids)
    samples: dict[str, dict[str, str]] = {}
    for where, row in read_json_lines(path):
        for name in ("posting_id", "text", "source"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise UserError(f"{where}: '{name}' is {row.get(name)!r}. Give a string that is not empty.")
        posting_id, source = row["posting_id"], row["source"]
        if source in ALL_OPERATORS:
            raise UserError(f"{where}: 'source' is {source!r}, the name of an operator. Choose another name.")
        if posting_id not in known:
            raise UserError(
                f"{where}: {posting_id!r} is not in the training split. Sample from a run of the same data, seed and "
                "splits; rewrites of held-out postings may not be trained on."
            )
        samples.setdefault(posting_id, {}).setdefault(normalize_spaces(row["text"]), source)
    return {posting_id: [(s, text) for text, s in found.items()] for posting_id, found in samples.items()}
