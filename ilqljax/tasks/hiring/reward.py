"""Score rewrites by the diversity of the shortlist they attract, with a cache that survives runs.

The reward is -100 times the distance of the attribute's distribution among the k best matched candidates from a
target, so 0 is best; an empty rewrite gets `empty_reward`. A score says nothing about the text's quality:
`guardrails` come first.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.fairness.attributes import AttributeTable
from ilqljax.fairness.diversity import (
    count_categories,
    diversity_score,
    get_distance,
    noise_floor,
    pool_share,
    uniform_target,
)
from ilqljax.fairness.matching import Matcher, check_k
from ilqljax.fairness.statistics import Estimate
from ilqljax.types import Array

TARGETS = ("pool", "uniform")
COMPATS = ("", "original")
NO_CANDIDATE = -1
# A cached reward is only valid for the code that computed it; raise this when the meaning of a reward changes.
REWARD_VERSION = 1
_KEYS_PER_QUERY = 500
_LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RewardConfig:
    """Say how a rewrite is scored.

    Attributes:
        attribute: the declared attribute whose distribution counts.
        k: length of the shortlist.
        distance: a name in `fairness.diversity.DISTANCES`.
        target: "pool" (the share among all candidates) or "uniform".
        empty_reward: reward of a rewrite without any text.
        compat: "original" takes the original project's distance instead (for comparison only), "" does not.
    """

    attribute: str = "gender"
    k: int = 50
    distance: str = "total_variation"
    target: str = "pool"
    empty_reward: float = -200.0
    compat: str = ""


class DiversityReward:
    """Score (prompt, rewrite) pairs in batches; rewards once computed are read from the cache."""

    def __init__(
        self,
        matcher: Matcher,
        table: AttributeTable,
        config: RewardConfig | None = None,
        *,
        cache_path: str | Path = "",
    ):
        """Check the settings and open the cache.

        Args:
            matcher: ranks the candidates.
            table: the same candidates' attributes, in the same order.
            config: how to score; the defaults if None.
            cache_path: SQLite file, created if need be; "" keeps the cache in memory.

        Raises:
            UserError: an unknown attribute, distance, target or compat, k outside the pool, a table of another size
                than the matcher's, or a cache that cannot be read or written.
        """
        config = RewardConfig() if config is None else config
        attribute = table.attribute(config.attribute)
        check_k(config.k, n_candidates=matcher.n_candidates)
        if len(table.ids) != matcher.n_candidates:
            raise UserError(
                f"The matcher ranks {matcher.n_candidates} candidates, but the attribute table holds {len(table.ids)}. "
                "Build both from the same list of candidates."
            )
        _check_choice(config.target, name="target", known=TARGETS)
        _check_choice(config.compat, name="compat", known=COMPATS)
        get_distance(config.distance)
        self.config = config
        self.matcher = matcher
        self.table = table
        self.categories = attribute.categories
        n_categories = len(self.categories)
        pool = pool_share(attribute.codes, n_categories)
        self.target = pool if config.target == "pool" else uniform_target(n_categories)
        self.distance = "original_wasserstein" if config.compat == "original" else config.distance
        self.fingerprint = _make_fingerprint(matcher, table, config)
        self._codes = attribute.codes
        self._memory: dict[bytes, float] = {}
        self._cache = RewardCache(cache_path) if cache_path else None

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, "B"]:
        """Return one reward a pair; texts not in the cache go to the matcher in one call.

        Raises:
            UserError: the numbers of prompts and texts differ, or the cache cannot be read or written.
        """
        if isinstance(prompts, str) or isinstance(texts, str) or len(prompts) != len(texts):
            raise UserError("score needs two lists of equal length: one prompt for each text.")
        keys = [self._make_key(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        known = self._load(dict.fromkeys(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            distinct = list(dict.fromkeys(missing.values()))
            reward_of = dict(zip(distinct, self._compute(distinct).tolist(), strict=True))
            new = {key: reward_of[text] for key, text in missing.items()}
            self._save(new)
            known |= new
        return np.array([known[key] for key in keys], np.float64)

    def shortlists(self, texts: Sequence[str]) -> Int[Array, "B k"]:
        """Return the row numbers of each text's k best candidates, best first; -1 throughout for an empty text."""
        indices = np.full((len(texts), self.config.k), NO_CANDIDATE, np.int64)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        if filled:
            indices[filled] = self.matcher.top_k([texts[row] for row in filled], self.config.k).indices
        return indices

    def estimate_noise_floor(self, *, seed: int = 0) -> Estimate:
        """Return the score of random shortlists: its mean, and the range that holds 95 % of them."""
        pool = count_categories(self._codes, len(self.categories))
        return noise_floor(self.target, self.config.k, pool=pool, distance=self.distance, seed=seed)

    def _compute(self, texts: Sequence[str]) -> Float[Array, "B"]:
        rewards = np.full(len(texts), self.config.empty_reward, np.float64)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        if filled:
            indices = self.matcher.top_k([texts[row] for row in filled], self.config.k).indices
            rewards[filled] = diversity_score(self._codes[indices], self.target, distance=self.distance)
        return rewards

    def _make_key(self, prompt: str, text: str) -> bytes:
        digest = hashlib.sha256(self.fingerprint.encode())
        for part in (prompt, text):
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
    transaction a call make it safe to share between processes and to kill at any time.
    """

    def __init__(self, path: str | Path):
        """Create the file if need be; raise a `UserError` if it is no cache or cannot be written."""
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise UserError(
                f"{self.path}: the folder {self.path.parent} does not exist. Create it or choose another cache_path."
            )
        self._run(lambda connection: connection.execute("SELECT key, reward FROM rewards LIMIT 1").fetchall())

    def load(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the rewards of those keys that are in the cache."""

        def read(connection: sqlite3.Connection) -> dict[bytes, float]:
            rewards: dict[bytes, float] = {}
            for at in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[at : at + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                rewards |= connection.execute(
                    f"SELECT key, reward FROM rewards WHERE key IN ({marks})", part
                ).fetchall()
            return rewards

        return self._run(read)

    def save(self, rewards: dict[bytes, float]) -> None:
        """Add rewards, all or none; a key that another process added meanwhile keeps its value."""

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR IGNORE INTO rewards VALUES (?, ?)", list(rewards.items()))

        self._run(write)

    def _run(self, action):
        try:
            with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("CREATE TABLE IF NOT EXISTS rewards (key BLOB PRIMARY KEY, reward REAL NOT NULL)")
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


def _check_choice(value: str, *, name: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"Unknown {name} '{value}'. Known: {', '.join(map(repr, known))}.")


def _make_fingerprint(matcher: Matcher, table: AttributeTable, config: RewardConfig) -> str:
    attribute = table.attribute(config.attribute)
    digest = hashlib.sha256()
    header = [REWARD_VERSION, matcher.fingerprint, matcher.n_candidates, asdict(config), list(attribute.categories)]
    digest.update(json.dumps(header).encode())
    digest.update(np.ascontiguousarray(attribute.codes, np.int32).tobytes())
    return digest.hexdigest()
