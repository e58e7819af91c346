"""Score rewrites by the diversity of the shortlist they attract, with a cache that survives runs.

The reward is -100 times the distance of the attributes' distribution among the k best matched candidates from a
target, so 0 is best (`scores`). It says nothing about the text's quality: `guardrails` come first.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.guardrails import check_rewrite, is_damaged
from ilqljax.hiring.matching.matcher import NOBODY, Matcher, check_k, hash_texts, match_texts, rank_halves
from ilqljax.hiring.postings.posting import parse_prompt
from ilqljax.hiring.reward.cache import MemoryCache, RewardCache
from ilqljax.hiring.reward.scores import RewardConfig, ShortlistScorer
from ilqljax.hiring.statistics import Estimate

# A cached reward is only valid for the code that computed it; raise this when the meaning of a reward changes.
REWARD_VERSION = 1
# Asked and saved in one go, so what a failure costs; more where a matcher has a larger `texts_at_once`.
PAIRS_AT_A_TIME = 512
HALVES_SEED = 0  # of the splits of `RewardConfig.halves`, a part of what a reward means


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
        guardrails: str = "edits",
    ):
        """Check that the settings and the table, of the same candidates in the same order, fit the matcher.

        The cache is an SQLite file, created if need be, or in memory (""). `group_of` gives the job group of each
        prompt's posting, for targets by group. `guardrails` says which of them a penalty asks (`guardrails.MODES`).
        """
        config = RewardConfig() if config is None else config
        check_k(config.k, n_candidates=matcher.n_candidates)
        if len(table.ids) != matcher.n_candidates:
            raise UserError(
                f"The matcher ranks {matcher.n_candidates} candidates, but the attribute table holds {len(table.ids)}. "
                "Build both from the same list of candidates."
            )
        self.config, self.matcher, self.table, self.group_of = config, matcher, table, group_of
        self.guardrails = guardrails
        self.scorer = ShortlistScorer(table, config)
        self.fingerprint = _make_fingerprint(matcher, self.scorer, config)
        self._cache = RewardCache(cache_path) if cache_path else MemoryCache()

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, " B"]:
        """Return one reward a pair; texts not in the cache go to the matcher.

        A call holds `PAIRS_AT_A_TIME` of them, or as many as the matcher takes at once where these are more. The
        rewards of each call are saved before the next, so that a failure costs those of one call.
        """
        if isinstance(prompts, str) or isinstance(texts, str) or len(prompts) != len(texts):
            raise UserError("score needs two lists of equal length: one prompt for each text.")
        keys = [self._make_key(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        known = self._cache.load(list(dict.fromkeys(keys)))
        groups = [self.group_of.get(prompt, "") for prompt in prompts]
        keys_of: dict[tuple[str, str], list[bytes]] = {}  # prompts may share a text and its group
        for key, text, group in zip(keys, texts, groups, strict=True):
            if key not in known:
                keys_of.setdefault((text, group), []).append(key)
        pairs = list(keys_of)
        size = max(PAIRS_AT_A_TIME, getattr(self.matcher, "texts_at_once", 1))
        for at in range(0, len(pairs), size):
            part = pairs[at : at + size]
            rewards = zip(part, self._compute(part).tolist(), strict=True)
            new = {key: reward for pair, reward in rewards for key in keys_of[pair]}
            self._cache.save(new)
            known |= new
        return np.array([known[key] for key in keys], np.float64) - self._penalize(prompts, texts)

    def shortlists(self, texts: Sequence[str]) -> Int[Array, "B k"]:
        """Return the row numbers of each text's k best candidates, best first; -1 throughout for an empty text."""
        return match_texts(self.matcher, texts, self.config.k).indices

    def estimate_noise_floor(self, *, seed: int = 0) -> Estimate:
        """Return the score of random shortlists: its mean, and the range that holds 95 % of them."""
        k = max(1, self.config.k // 2) if self.config.halves else self.config.k
        return self.scorer.simulate_floor(k, list(self.group_of.values()), seed=seed)

    def _compute(self, pairs: Sequence[tuple[str, str]]) -> Float[Array, " B"]:
        rewards = np.full(len(pairs), self.config.empty_reward, np.float64)
        indices = self.shortlists([text for text, _ in pairs])
        filled = np.flatnonzero(indices[:, 0] != NOBODY)
        if filled.size:
            rewards[filled] = self._score([pairs[row] for row in filled], indices[filled])
        return rewards

    def _score(self, pairs: Sequence[tuple[str, str]], indices: Int[Array, "B k"]) -> Float[Array, " B"]:
        """Score texts that are not empty by their shortlists, or by those of halves of the people."""
        texts, groups = zip(*pairs, strict=True)
        if not self.config.halves:
            return self.scorer.score(indices, groups)
        n, rng = self.matcher.n_candidates, np.random.default_rng(HALVES_SEED)
        halves = np.stack([rng.permutation(n) < n // 2 for _ in range(self.config.halves)])
        _, lists = rank_halves(self.matcher, texts, self.config.k, halves)
        scores = [self.scorer.score(each, groups) for each in lists.reshape(-1, *lists.shape[2:])]
        return np.mean(scores, axis=0)

    def _penalize(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, " B"]:
        """Return what guardrails take off each reward; never cached, because guardrails change more often."""
        penalties = np.zeros(len(texts))
        if self.config.guardrail_penalty:
            for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
                # An empty rewrite has its own reward.
                if text.strip() and is_damaged(check_rewrite(parse_prompt(prompt), text, prompt, mode=self.guardrails)):
                    penalties[i] = self.config.guardrail_penalty
        return penalties

    def _make_key(self, prompt: str, text: str) -> bytes:
        return bytes.fromhex(hash_texts((prompt, text, self.group_of.get(prompt, "")), header=self.fingerprint))


def _make_fingerprint(matcher: Matcher, scorer: ShortlistScorer, config: RewardConfig) -> str:
    digest = hashlib.sha256()
    header = [REWARD_VERSION, matcher.fingerprint, matcher.n_candidates, config.to_key()]
    digest.update(json.dumps(header).encode())
    for term in scorer.terms:
        digest.update(json.dumps([term.attribute.name, list(term.attribute.categories)]).encode())
        digest.update(np.ascontiguousarray(term.attribute.codes, np.int32).tobytes())
        for group, target in sorted(term.targets.items()):
            digest.update(json.dumps([group, target.tolist()]).encode())
    return digest.hexdigest()
