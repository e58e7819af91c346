"""Let a policy rewrite postings one at a time: one prompt, one rewrite, one reward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.envs.base import LanguageEnvironment, LanguageObservation
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces


class Reward(Protocol):
    """Give one reward for each (prompt, rewrite); `reward.DiversityReward` is one."""

    def score(self, prompts: Sequence[str], texts: Sequence[str]) -> Float[Array, " B"]: ...


@dataclass(frozen=True)
class PostingObservation(LanguageObservation):
    """Show a posting's prompt and, once the policy has acted, its rewrite with the reward."""

    prompt: str
    rewrite: str | None = None
    reward: float | None = None
    posting: Posting | None = None  # the original, for reports; None where only the texts are known

    def __post_init__(self):
        if (self.rewrite is None) != (self.reward is None):
            raise ValueError("a rewrite comes with its reward: give both or neither")

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return the prompt alone and False, or prompt and rewrite, which ends the dialogue, and True."""
        if self.rewrite is None:
            return [(self.prompt, None)], False
        return [(self.prompt, None), (self.rewrite, float(self.reward))], True

    def __str__(self) -> str:
        return self.prompt if self.rewrite is None else f"{self.prompt}\n=> {self.rewrite}\n({self.reward:.2f})"

    def metadata(self) -> dict[str, Any]:
        if self.posting is None:
            return {}
        facts = {"posting_id": self.posting.id, "company": self.posting.company, "location": self.posting.location}
        return facts | {"original": normalize_spaces(self.posting.description)}


class PostingEnvironment(LanguageEnvironment):
    """Hand out a posting, and score what is written."""

    def __init__(self, posting: Posting, reward: Reward):
        """Hold the posting and what scores its rewrites."""
        self.posting, self.reward = posting, reward
        self._observation: PostingObservation | None = None

    def reset(self) -> PostingObservation:
        self._observation = PostingObservation(build_prompt(self.posting), posting=self.posting)
        return self._observation

    def step(self, action: str) -> tuple[PostingObservation, float, bool]:
        """Take the rewrite; return the final observation, its reward, and True (`ValueError`: none is open)."""
        if self._observation is None or self.is_terminal():
            raise ValueError("there is no posting to rewrite: call reset() first")
        before = self._observation
        reward = float(self.reward.score([before.prompt], [action])[0])
        self._observation = PostingObservation(before.prompt, action, reward, before.posting)
        return self._observation, reward, True

    def is_terminal(self) -> bool:
        return self._observation is not None and self._observation.rewrite is not None
