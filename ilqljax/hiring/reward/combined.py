"""A reward that is not one engine's quirk: several engines share it, and attributes not asked for have a say.

A rewriter that is rewarded by one engine learns how that engine counts. Each engine here scores with a cache key of its
own, so that what one of them was paid for outlives a change of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from ilqljax.config.registry import BuildContext, build
from ilqljax.data.types import Array
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.matching.matcher import Matcher, MatcherSource
from ilqljax.hiring.postings.posting import parse_prompt
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.reward.scores import AND, CROSS, RewardConfig


class CombinedReward(DiversityReward):
    """The mean or worst reward of several engines, less what other attributes lose (total variation from the pool).

    Shortlists are the first engine's.
    """

    def __init__(
        self,
        matchers: Sequence[Matcher],
        table: AttributeTable,
        config: RewardConfig,
        *,
        cache_path: str | Path = "",
        group_of: Mapping[str, str] = MappingProxyType({}),
        guardrails: str = "edits",
    ):
        """Take the engines, the run's own first; other arguments and errors are those of `DiversityReward`."""
        options: dict[str, Any] = {"cache_path": cache_path, "group_of": group_of, "guardrails": guardrails}
        single = config.for_one_engine()
        super().__init__(matchers[0], table, single, **options)
        self.config = config
        self._further = [DiversityReward(matcher, table, single, **options) for matcher in matchers[1:]]
        self._others = []
        if config.side_weight:
            asked = {part.strip() for name in config.attribute.split(AND) for part in name.split(CROSS)}
            plain = RewardConfig(k=config.k, halves=config.halves, empty_reward=config.empty_reward)
            self._others = [
                [DiversityReward(m, table, replace(plain, attribute=name), **options) for m in matchers]
                for name in table.names
                if name not in asked
            ]

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, " B"]:
        """Return one reward a pair, as `DiversityReward.score`."""
        combine = np.mean if self.config.combine == "mean" else np.min
        by_engine = [super().score(prompts, texts), *(engine.score(prompts, texts) for engine in self._further)]
        rewards = combine(by_engine, axis=0)
        if not self._others:
            return rewards
        originals = [parse_prompt(prompt).description for prompt in prompts]
        filled = np.array([bool(text.strip()) for text in texts])  # an empty rewrite has its own reward
        lost = [
            np.maximum(engine.score(prompts, originals) - engine.score(prompts, texts), 0.0)
            for engines in self._others
            for engine in engines
        ]
        return rewards - self.config.side_weight * np.where(filled, np.mean(lost, axis=0), 0.0)


def make_engines(names: str, own: MatcherSource) -> list[MatcherSource]:
    """Return the run's own engine and those that `RewardConfig.engines` names, with the options they have by default.

    An unknown name, one that needs an option, and the run's own engine again raise a `UserError`.
    """
    sources = [own]
    for name in filter(None, map(str.strip, names.split(AND))):
        source = build("matcher", {"name": name}, context=BuildContext(), path="config.reward.engines")
        if source.fingerprint in [known.fingerprint for known in sources]:
            raise UserError(f"reward.engines='{names}' names {name} twice, or the run's own engine. Name others.")
        sources.append(source)
    return sources
