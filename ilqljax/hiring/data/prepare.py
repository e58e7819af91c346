"""Prepare a data folder: postings, candidates, splits, and offline data of several scored rewrites per posting.

The folder (its files: `prepared`) appears whole or not at all: it is built in a temporary sibling and renamed; what a
killed process left of that is cleared by the next. A folder whose inputs, settings and code are the same is used again.
Rewards that were scored before an attempt failed or was killed stay in its sibling: the next attempt at the same takes
them over, and they are cleared when any data have been prepared there.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.data.files import lock_path, save_text
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.data.prepared import (
    CANDIDATES,
    JOBS,
    OFFLINE,
    REWARDS,
    SPLITS,
    SUMMARY,
    SUMMARY_HASH,
    VECTORS,
    PreparedData,
    ScoredRewrite,
    hash_summary,
    load_prepared,
    load_summary,
)
from ilqljax.hiring.data.samples import load_samples
from ilqljax.hiring.data.splits import check_leakage, hash_file, make_manifest, save_manifest, split_postings
from ilqljax.hiring.edits.operators import OPERATORS, require_operators, rewrite_posting
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.matching.sources import MatcherSource, TfidfSource
from ilqljax.hiring.postings.posting import (
    Candidate,
    Posting,
    normalize_spaces,
    save_candidates,
    save_postings,
)
from ilqljax.hiring.postings.prompts import build_prompt, map_groups
from ilqljax.hiring.postings.sources import detect_source, load_market
from ilqljax.hiring.reward import diversity
from ilqljax.hiring.reward.reward import DiversityReward, RewardCache, RewardConfig

SPLIT_CHOICES = ("company", "given")
# A small model reads a hundred-odd words; longer posts are dropped and counted. Every other source keeps all by
# default.
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
        operators: what makes rewrites; the original is always there.
        rewrites_path: a file of further rewrites of training postings, such as `ilqljax data sample` writes; "" for
            none.
        splits: "company" splits anew, "given" takes the index files of the source.
        fractions: shares of train, eval and test in a new split.
        reward: how rewrites are scored.
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
    operators: tuple[str, ...] = tuple(OPERATORS)
    rewrites_path: str = ""
    splits: str = "company"
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    reward: RewardConfig = field(default_factory=RewardConfig)


def prepare_data(config: DataConfig, *, out_dir: str | Path, matcher: MatcherSource | None = None) -> PreparedData:
    """Prepare a data folder, or load it if it was made from the same inputs, settings and code.

    Args:
        config: what to prepare.
        out_dir: the folder to make. One that an earlier call made is replaced; any other that holds something is
        refused.
        matcher: the engine that scores; TF-IDF where none is given.

    Raises:
        UserError: bad data, a bad setting, an engine that fails, or a folder that cannot be written or is not ours.
            Nothing is left behind but, hidden beside the folder, rewards that were scored (module docstring).
    """
    _check_config(config)
    matcher = TfidfSource() if matcher is None else matcher
    out_dir = Path(out_dir)
    _recover_folder(out_dir)
    _check_target(out_dir)
    source = config.source or detect_source(config.path)
    market = load_market(
        source=source,
        path=config.path,
        candidates_path=config.candidates_path,
        seed=config.seed,
        plant=config.plant,
        n_postings=config.n_postings,
        n_candidates=config.n_candidates,
    )
    further = [Path(config.rewrites_path)] if config.rewrites_path else []
    fingerprint = _make_fingerprint(config, [*market.files, *further], matcher)
    if _is_current(out_dir, fingerprint):
        _clear_siblings(out_dir, scored=False)
        return load_prepared(out_dir)
    postings, dropped = _choose_postings(market.postings, config, source=source)
    splits = _choose_splits(postings, market.splits, config)
    siblings = f"{_name_siblings(out_dir)}{fingerprint[:16]}-"
    with _replace_folder(out_dir, prefix=siblings) as folder:
        _keep_vectors(out_dir, folder)
        _keep_rewards(out_dir, folder, prefix=siblings)
        _fill_folder(
            folder,
            postings,
            market.candidates,
            splits,
            config,
            matcher,
            {"source": source, "dropped": dropped, "fingerprint": fingerprint},
        )
    _clear_siblings(out_dir, scored=True)
    return load_prepared(out_dir)


def _check_config(config: DataConfig) -> None:
    require_operators(config.operators)
    if config.splits not in SPLIT_CHOICES:
        raise UserError(f"Unknown splits '{config.splits}'. Known: {', '.join(SPLIT_CHOICES)}.")
    if config.rewrites_path and not Path(config.rewrites_path).is_file():
        raise UserError(f"rewrites_path={config.rewrites_path}: no such file. scripts/sample_rewrites.py writes one.")
    if config.max_postings < 0 or config.max_words < -1:
        raise UserError(
            f"max_postings={config.max_postings}, max_words={config.max_words}: use 0 for no limit (max_words also -1, "
            "the source's default)."
        )


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
    kept = short
    if 0 < config.max_postings < len(short):
        rng = np.random.default_rng(config.seed)
        chosen = np.sort(rng.choice(len(short), size=config.max_postings, replace=False))
        kept = [short[i] for i in chosen]
    return kept, {
        "with a repeated text": len(postings) - len(distinct),
        f"longer than {limit} words": len(distinct) - len(short),
        "beyond max_postings": len(short) - len(kept),
    }


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
    folder: Path,
    postings: Sequence[Posting],
    candidates: Sequence[Candidate],
    splits: Mapping[str, Sequence[str]],
    config: DataConfig,
    matcher: MatcherSource,
    facts: Mapping[str, Any],
) -> None:
    table = AttributeTable.from_candidates(candidates)
    engine = matcher.make(candidates, folder=folder)
    groups = map_groups(postings)
    reward = DiversityReward(engine, table, config.reward, cache_path=folder / REWARDS, group_of=groups)
    rows = _score_rewrites(postings, splits, reward, config)
    save_postings(folder / JOBS, postings)
    save_candidates(folder / CANDIDATES, candidates)
    save_json_lines(folder / OFFLINE, map(asdict, rows))
    files = [folder / name for name in (JOBS, CANDIDATES, OFFLINE)]
    save_manifest(folder / SPLITS, make_manifest(postings, splits, seed=config.seed, files=files))
    summary = {
        **facts,
        "matcher": matcher.name,
        "config": asdict(config),
        "counts": {
            "postings": len(postings),
            "companies": len({p.company for p in postings if p.company}),
            "candidates": len(candidates),
            "rewrites": len(rows),
            "rewrites failing a guardrail": sum(bool(row.guardrail_failures) for row in rows),
        },
        "split_counts": {name: len(ids) for name, ids in splits.items()},
        "target": reward.describe_targets(),
        "noise_floor": {k: float(v) for k, v in reward.estimate_noise_floor(seed=config.seed)._asdict().items()},
        "rewards": _average_rewards(rows),
        "splits_sha256": hash_file(folder / SPLITS),
    }
    summary[SUMMARY_HASH] = hash_summary(summary)
    save_text(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")


def _score_rewrites(
    postings: Sequence[Posting], splits: Mapping[str, Sequence[str]], reward: DiversityReward, config: DataConfig
) -> list[ScoredRewrite]:
    posting_of = {posting.id: posting for posting in postings}
    further = load_samples(config.rewrites_path, train_ids=splits["train"]) if config.rewrites_path else {}
    rows = []
    for split, ids in splits.items():
        for posting in (posting_of[posting_id] for posting_id in ids):
            prompt = build_prompt(posting)
            made = rewrite_posting(posting, operators=config.operators, seed=config.seed)
            seen = {text for _, text in made}
            made += [(source, text) for source, text in further.get(posting.id, ()) if text not in seen]
            for operator, text in made:
                failures = dict.fromkeys(failure.check for failure in check_rewrite(posting, text, prompt))
                rows.append(ScoredRewrite(posting.id, split, operator, prompt, text, 0.0, tuple(failures)))
    rewards = reward.score([row.prompt for row in rows], [row.text for row in rows])
    return [replace(row, reward=float(value)) for row, value in zip(rows, rewards, strict=True)]


def _average_rewards(rows: Sequence[ScoredRewrite]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean reward and the number of rewrites by split and operator."""
    rewards: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        rewards.setdefault(row.split, {}).setdefault(row.operator, []).append(row.reward)
    return {
        split: {
            operator: {"mean": float(np.mean(values)), "n": len(values)} for operator, values in by_operator.items()
        }
        for split, by_operator in rewards.items()
    }


def _make_fingerprint(config: DataConfig, files: Sequence[Path], matcher: MatcherSource) -> str:
    """Hash the settings, the engine, the input files, and the code that turns one into the other."""
    digest = hashlib.sha256(json.dumps([asdict(config), matcher.fingerprint], sort_keys=True).encode())
    code = sorted(Path(__file__).parent.rglob("*.py")) + sorted(Path(diversity.__file__).parent.glob("*.py"))
    for file in [*files, *code]:
        digest.update(f"{file.name} {hash_file(file)}".encode())
    return digest.hexdigest()


def _check_target(out_dir: Path) -> None:
    """Refuse a target that is a file, or a folder with something in it that this module did not make."""
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file. Give a folder for the prepared data.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and load_summary(out_dir) is None:
        raise UserError(
            f"{out_dir}: holds files that prepare_data did not make, or lost its {SUMMARY}. Give a new or "
            "empty folder; if it is prepared data, delete it."
        )


def _keep_vectors(old: Path, new: Path) -> None:
    """Take over the candidates' vectors of a folder that is replaced; their own hash says whether they still hold."""
    for file in sorted(old.glob(VECTORS.format("*"))):
        shutil.copy2(file, new / file.name)


def _keep_rewards(out_dir: Path, new: Path, *, prefix: str) -> None:
    """Take over what was scored by attempts at the same data that failed or were killed."""
    for sibling in _list_abandoned(out_dir):
        scored = sibling / "new" / REWARDS
        if sibling.name.startswith(prefix) and scored.is_file():
            with suppress(UserError):  # what cannot be copied, damaged or for now, stays until the data are prepared
                RewardCache(new / REWARDS).take_over(scored)
                shutil.rmtree(sibling, ignore_errors=True)


def _is_current(out_dir: Path, fingerprint: str) -> bool:
    summary = load_summary(out_dir)
    return summary is not None and summary["fingerprint"] == fingerprint


@contextmanager
def _replace_folder(out_dir: Path, *, prefix: str) -> Iterator[Path]:
    """Yield a temporary sibling; move it to `out_dir` when the block succeeds, delete all but its rewards otherwise.

    It is locked for the block, which tells it from what a killed process left (`_list_abandoned`).
    """
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=out_dir.parent))
    except OSError as error:
        raise UserError(
            f"{out_dir}: cannot be created ({error.strerror}). Choose a folder you may write to."
        ) from error
    with lock_path(temporary, wait=True):
        try:
            new = temporary / "new"
            new.mkdir()
            yield new
            _move_into_place(new, out_dir, old=temporary / "old")
        finally:
            _clean_up(temporary)


def _clean_up(temporary: Path) -> None:
    """Delete a temporary folder, but not the rewards that an attempt which failed has scored in it."""
    new = temporary / "new"
    is_kept = (new / REWARDS).is_file()  # a new folder that succeeded is no longer there
    if is_kept:
        with suppress(UserError):  # a cache that cannot be read now may be readable later
            is_kept = RewardCache(new / REWARDS).count() > 0
    if not is_kept:
        shutil.rmtree(temporary)
        return
    shutil.rmtree(temporary / "old", ignore_errors=True)
    for file in new.iterdir():
        if not file.name.startswith(REWARDS):  # SQLite may have files beside it
            file.unlink()


def _name_siblings(out_dir: Path) -> str:
    return f".{out_dir.name}.making-"


def _move_into_place(new: Path, out_dir: Path, *, old: Path) -> None:
    """Move `new` to `out_dir` and what stands there to `old`, though other processes may do the same; the last wins."""
    for _ in range(10):
        _check_target(out_dir)
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):  # there is none, or another process has moved it
            os.replace(out_dir, old)
        try:
            os.replace(new, out_dir)
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process has put its own there
                continue
            if old.exists():
                os.replace(old, out_dir)
            raise UserError(
                f"{out_dir}: cannot be replaced ({error.strerror}). Choose a folder you may write to."
            ) from error
    raise UserError(f"{out_dir}: other processes keep replacing it. Wait until they have ended, and start again.")


def _recover_folder(out_dir: Path) -> None:
    """Bring back a folder that a killed process had moved away and not yet replaced."""
    for sibling in _list_abandoned(out_dir):
        _bring_back(sibling, out_dir)


def _clear_siblings(out_dir: Path, *, scored: bool) -> None:
    """Delete what failed and killed processes left beside `out_dir`, the rewards that they scored only if `scored`."""
    for sibling in _list_abandoned(out_dir):
        _bring_back(sibling, out_dir)
        if scored:
            shutil.rmtree(sibling, ignore_errors=True)
        else:
            with suppress(OSError):
                _clean_up(sibling)


def _bring_back(sibling: Path, out_dir: Path) -> None:
    with suppress(OSError):  # another process brings one back too
        if (sibling / "old").is_dir() and not out_dir.exists():
            os.replace(sibling / "old", out_dir)


def _list_abandoned(out_dir: Path) -> Iterator[Path]:
    """Yield, locked, each temporary sibling of `out_dir` in which no process is at work."""
    with suppress(OSError):  # no such parent, or another process clears it too
        for sibling in out_dir.parent.iterdir():
            if not sibling.name.startswith(_name_siblings(out_dir)):
                continue
            with lock_path(sibling) as lock:
                # A living process locks its folder before it puts anything there.
                if lock == "held" and any(sibling.iterdir()):
                    yield sibling
