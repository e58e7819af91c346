"""Score rewrites by the diversity of the shortlist they attract, with a cache that survives runs.

The reward is -100 times the distance of the attributes' distribution among the k best matched candidates from a
target, so 0 is best (`fairness.scores`); an empty rewrite gets `empty_reward`. A score says nothing about the text's
quality: `guardrails` come first.
"""

import hashlib
import json
import logging
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.guardrails import check_rewrite, is_damaged
from ilqljax.hiring.matching.matcher import Matcher, check_k, read_texts_at_once
from ilqljax.hiring.postings.prompts import parse_prompt
from ilqljax.hiring.reward.distances import DEFAULT_SMOOTHING
from ilqljax.hiring.reward.scores import ScoreConfig, ShortlistScorer
from ilqljax.hiring.statistics import Estimate
from ilqljax.types import Array

logger = logging.getLogger(__name__)

COMPATS = ("", "original")
NO_CANDIDATE = -1
# A cached reward is only valid for the code that computed it; raise this when the meaning of a reward changes.
REWARD_VERSION = 1
# Asked and saved in one go, so what a failure costs; more where an engine takes more at once (`read_texts_at_once`).
PAIRS_AT_A_TIME = 512
_KEYS_PER_QUERY = 500
_LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RewardConfig:
    """Say how a rewrite is scored.

    Attributes:
        attribute: the declared attribute whose distribution counts; several, separated by commas, count the same, and
            "gender x region" is an intersection.
        k: length of the shortlist.
        distance: a name in `fairness.distances.DISTANCE_NAMES`.
        target: a name in `fairness.targets.TARGETS`: "pool" (the share among all candidates), "uniform", "fixed" or
            "group" (one a job group).
        empty_reward: reward of a rewrite without any text.
        compat: "original" takes the original project's distance instead (for comparison only), "" does not.
        shares: named shares of the targets "fixed" and "group", such as "female=0.5, male=0.5".
        group_attribute: for "group" without shares: the candidates' attribute that holds the job group.
        smoothing: of the distance "kullback_leibler".
        ground: of the distance "wasserstein", such as "junior < middle < senior".
        weights: "equal", or "exposure" to weigh each place in the list by 1 / log2(1 + rank).
        guardrail_penalty: subtracted from the reward of a rewrite that a guardrail finds damaged; 0 asks none. Then
            every prompt must be one of `prompts.build_prompt`.
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


class DiversityReward:
    """Score (prompt, rewrite) pairs in batches; rewards once computed are read from the cache."""

    def __init__(
        self,
        matcher: Matcher,
        table: AttributeTable,
        config: RewardConfig | None = None,
        *,
        cache_path: str | Path = "",
        group_of: Mapping[str, str] = MappingProxyType({}),
    ):
        """Check the settings and open the cache.

        Args:
            matcher: ranks the candidates.
            table: the same candidates' attributes, in the same order.
            config: how to score; the defaults if None.
            cache_path: SQLite file, created if need be; "" keeps the cache in memory.
            group_of: the job group of each prompt's posting, for targets by group.

        Raises:
            UserError: an unknown attribute, distance, target or compat, k outside the pool, a table of another size
                than the matcher's, or a cache that cannot be read or written.
        """
        config = RewardConfig() if config is None else config
        check_k(config.k, n_candidates=matcher.n_candidates)
        if len(table.ids) != matcher.n_candidates:
            raise UserError(
                f"The matcher ranks {matcher.n_candidates} candidates, but the attribute table holds {len(table.ids)}. "
                "Build both from the same list of candidates."
            )
        _check_choice(config.compat, name="compat", known=COMPATS)
        if not 0.0 <= config.guardrail_penalty < float("inf"):
            raise UserError(f"guardrail_penalty={config.guardrail_penalty}: use a number from 0 on; it is subtracted.")
        self.config = config
        self.matcher = matcher
        self.table = table
        self.scorer = ShortlistScorer(table, _make_score_config(config))
        self.group_of = group_of
        self.fingerprint = _make_fingerprint(matcher, self.scorer, config)
        self._memory: dict[bytes, float] = {}
        self._cache = RewardCache(cache_path) if cache_path else None

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, "B"]:
        """Return one reward a pair; texts not in the cache go to the matcher.

        A call holds `PAIRS_AT_A_TIME` of them, or as many as the matcher takes at once where these are more. The
        rewards of each call are saved before the next, so that a failure costs those of one call.

        Raises:
            UserError: the numbers of prompts and texts differ, the cache cannot be read or written, or the matcher
                fails.
        """
        if isinstance(prompts, str) or isinstance(texts, str) or len(prompts) != len(texts):
            raise UserError("score needs two lists of equal length: one prompt for each text.")
        keys = [self._make_key(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        known = self._load(dict.fromkeys(keys))
        groups = [self.group_of.get(prompt, "") for prompt in prompts]
        keys_of: dict[tuple[str, str], list[bytes]] = {}  # prompts may share a text and its group
        for key, text, group in zip(keys, texts, groups, strict=True):
            if key not in known:
                keys_of.setdefault((text, group), []).append(key)
        pairs = list(keys_of)
        size = max(PAIRS_AT_A_TIME, read_texts_at_once(self.matcher))
        for at in range(0, len(pairs), size):
            part = pairs[at : at + size]
            rewards = zip(part, self._compute(part).tolist(), strict=True)
            new = {key: reward for pair, reward in rewards for key in keys_of[pair]}
            self._save(new)
            known |= new
        return np.array([known[key] for key in keys], np.float64) - self._penalize(prompts, texts)

    def shortlists(self, texts: Sequence[str]) -> Int[Array, "B k"]:
        """Return the row numbers of each text's k best candidates, best first; -1 throughout for an empty text."""
        indices = np.full((len(texts), self.config.k), NO_CANDIDATE, np.int64)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        if filled:
            indices[filled] = self.matcher.top_k([texts[row] for row in filled], self.config.k).indices
        return indices

    def estimate_noise_floor(self, *, seed: int = 0) -> Estimate:
        """Return the score of random shortlists: its mean, and the range that holds 95 % of them."""
        return self.scorer.simulate_floor(self.config.k, list(self.group_of.values()), seed=seed)

    def describe_targets(self) -> dict[str, dict[str, float]]:
        """Return the shares aimed at, by attribute (and job group, where targets differ by group) and category."""
        return self.scorer.describe_targets()

    def _compute(self, pairs: Sequence[tuple[str, str]]) -> Float[Array, "B"]:
        rewards = np.full(len(pairs), self.config.empty_reward, np.float64)
        filled = [row for row, (text, _) in enumerate(pairs) if text.strip()]
        if filled:
            indices = self.matcher.top_k([pairs[row][0] for row in filled], self.config.k).indices
            rewards[filled] = self.scorer.score(indices, [pairs[row][1] for row in filled])
        return rewards

    def _penalize(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, "B"]:
        """Return what guardrails take off each reward; never cached, because guardrails change more often."""
        penalties = np.zeros(len(texts))
        if self.config.guardrail_penalty:
            for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
                # An empty rewrite has its own reward.
                if text.strip() and is_damaged(check_rewrite(parse_prompt(prompt), text, prompt)):
                    penalties[i] = self.config.guardrail_penalty
        return penalties

    def _make_key(self, prompt: str, text: str) -> bytes:
        digest = hashlib.sha256(self.fingerprint.encode())
        for part in (prompt, text, self.group_of.get(prompt, "")):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()

    def _load(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        if self._cache is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        return self._cache.load(list(keys))

    def _save(self, rewards: dict[bytes, float]) -> None:
        if self._cache is None:
            self._memory |= rewards
        else:
            self._cache.save(rewards)


class RewardCache:
    """Keep rewards by key in an SQLite file.

    Every call opens the file anew, so nothing is held across processes or forks. Write-ahead logging and one
    transaction a call make it safe to share between processes and to kill at any time. Every row has a checksum; one
    that a disk damaged is dropped, and its reward computed anew.
    """

    def __init__(self, path: str | Path):
        """Create the file if need be; raise a `UserError` if it is no cache or cannot be written."""
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise UserError(
                f"{self.path}: the folder {self.path.parent} does not exist. Create it or choose another cache_path."
            )
        self._run(lambda connection: connection.execute("SELECT key, reward, checksum FROM scores LIMIT 1").fetchall())

    def load(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the rewards of those keys that are in the cache, and as they were written."""

        def read(connection: sqlite3.Connection) -> dict[bytes, float]:
            rewards: dict[bytes, float] = {}
            damaged: list[tuple[bytes]] = []
            for at in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[at : at + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, reward, checksum FROM scores WHERE key IN ({marks})"
                for key, reward, checksum in connection.execute(query, part):
                    if isinstance(reward, float) and checksum == _sum_row(key, reward):
                        rewards[key] = reward
                    else:
                        damaged.append((key,))
            if damaged:
                logger.warning("%s: %d damaged rewards are computed anew", self.path, len(damaged))
                connection.executemany("DELETE FROM scores WHERE key = ?", damaged)
            return rewards

        return self._run(read)

    def save(self, rewards: dict[bytes, float]) -> None:
        """Add rewards, all or none; a key that another process added meanwhile keeps its value."""

        def write(connection: sqlite3.Connection) -> None:
            rows = [(key, reward, _sum_row(key, reward)) for key, reward in rewards.items()]
            connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", rows)

        self._run(write)

    def count(self) -> int:
        """Return how many rewards there are."""
        return self._run(lambda connection: connection.execute("SELECT count(*) FROM scores").fetchone()[0])

    def take_over(self, path: str | Path) -> None:
        """Add the rewards of another cache's file, which no process may be writing."""

        def copy(connection: sqlite3.Connection) -> None:
            connection.execute("ATTACH ? AS other", (str(path),))
            connection.execute("INSERT OR IGNORE INTO scores SELECT key, reward, checksum FROM other.scores")

        self._run(copy)

    def _run(self, action):
        try:
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS scores "
                    "(key BLOB PRIMARY KEY, reward REAL NOT NULL, checksum INTEGER NOT NULL)"
                )
                return action(connection)
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{self.path}: the reward cache cannot be used ({error}). Make the file and its folder "
                "writable, or choose another cache_path."
            ) from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: is damaged or not a reward cache ({error}). Delete it: rewards are then computed anew."
            ) from error


def _sum_row(key: bytes, reward: float) -> int:
    return zlib.crc32(key + struct.pack("<d", reward + 0.0))  # SQLite reads -0.0 back as 0.0


def _check_choice(value: str, *, name: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"Unknown {name} '{value}'. Known: {', '.join(map(repr, known))}.")


def _make_score_config(config: RewardConfig) -> ScoreConfig:
    return ScoreConfig(
        attribute=config.attribute,
        distance="original_wasserstein" if config.compat == "original" else config.distance,
        target=config.target,
        shares=config.shares,
        group_attribute=config.group_attribute,
        smoothing=config.smoothing,
        ground=config.ground,
        weights=config.weights,
    )


def _make_fingerprint(matcher: Matcher, scorer: ShortlistScorer, config: RewardConfig) -> str:
    digest = hashlib.sha256()
    header = [REWARD_VERSION, matcher.fingerprint, matcher.n_candidates, asdict(config)]
    digest.update(json.dumps(header).encode())
    for term in scorer.terms:
        digest.update(json.dumps([term.attribute.name, list(term.attribute.categories)]).encode())
        digest.update(np.ascontiguousarray(term.attribute.codes, np.int32).tobytes())
        for group, target in sorted(term.targets.items()):
            digest.update(json.dumps([group, target.tolist()]).encode())
    return digest.hexdigest()
