"""Rewards of the steps of one utterance, given with a dialogue in place of its one number."""

import bisect
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float

from ilqljax.data.tokenizer import Tokenizer
from ilqljax.errors import UserError, check_type

EXCERPT = 60  # characters of an offending text that an error message shows


class StepRewards(float):
    """What the steps of an utterance earn, in the task's unit; as a number, their sum.

    It stands where an utterance's reward stands, and a row pays each part at the token that completes the step. The
    answer "no, yes" with `StepRewards.at_characters({2: -1.0, 7: 2.0}, end=0.5)` and a token a character:

        token      n   o   ,       y   e   s   </a>
        character  1   2   3   4   5   6   7
        reward         -1                  2   0.5

    A token that completes several steps earns the sum of theirs.

    Attributes:
        steps: the reward by the number of characters, or of tokens, that have been said when it is earned.
        unit: which of the two.
        end: what the closing token earns.
    """

    steps: Mapping[int, float]
    unit: Literal["character", "token"]
    end: float

    def __new__(cls, steps: Mapping[int, float], unit: Literal["character", "token"], end: float) -> Self:
        """Hold the rewards; a position that is no whole number from 1 on, and what is no number, are a `UserError`."""
        check_type(Mapping, "Give rewards by how much was said, such as {4: 0.5}.", steps=steps)
        check_type(Real, "Give a number.", end=end, **{f"reward at {place!r}": r for place, r in steps.items()})
        if wrong := [place for place in steps if not isinstance(place, Integral) or place < 1]:
            raise UserError(
                f"a reward is at {wrong[0]!r}. Give whole numbers from 1 on: how much has been said by then."
            )
        made = super().__new__(cls, sum(map(float, steps.values())) + float(end))
        made.steps, made.unit, made.end = {int(place): float(r) for place, r in steps.items()}, unit, float(end)
        return made

    def __getnewargs__(self) -> Any:
        return self.steps, self.unit, self.end

    @classmethod
    def at_characters(cls, steps: Mapping[int, float], *, end: float = 0.0) -> Self:
        """Pay each step where so many characters of the text have been said."""
        return cls(steps, "character", end)

    @classmethod
    def at_tokens(cls, rewards: Sequence[float], *, end: float = 0.0) -> Self:
        """Pay the text's tokens, one reward each, as the model's tokenizer splits it."""
        check_type(Sequence, "Give a list of numbers.", rewards=rewards)
        return cls({i + 1: reward for i, reward in enumerate(rewards)}, "token", end)

    def place(self, text: str, tokenizer: Tokenizer) -> Float[np.ndarray, " A"]:
        """Return what each token of a text earns, its closing one last.

        Raises:
            UserError: a reward is not finite, a step is behind the end of the text, there is not one reward for each
                token, or the tokenizer does not give the text back, so that nothing says where its characters are.
        """
        ids = tokenizer.encode(text)
        placed = np.append(np.zeros(len(ids)), self.end)
        shown = repr(text[:EXCERPT])
        if not math.isfinite(self):
            raise UserError(f"the rewards of {shown} are {self.steps}, {self.end}: rewards must be finite numbers")
        if self.unit == "token":
            if len(self.steps) != len(ids):
                raise UserError(f"{shown} has {len(ids)} tokens and {len(self.steps)} rewards. Give one for each.")
            placed[:-1] = list(self.steps.values())
            return placed
        if behind := [place for place in self.steps if place > len(text)]:
            raise UserError(f"{shown} has {len(text)} characters and a reward at {behind[0]}. Give end= for its end.")
        if self.steps and tokenizer.decode(ids) != text:
            raise UserError(f"{shown}: the tokenizer does not give this text back. Give rewards by token (at_tokens).")

        def count_characters(n_tokens: int) -> int:
            said = tokenizer.decode(ids[:n_tokens])  # may end with a part of a character, which is then another one
            return next((i for i, (a, b) in enumerate(zip(said, text, strict=False)) if a != b), len(said))

        for place, reward in self.steps.items():
            placed[bisect.bisect_left(range(1, len(ids)), place, key=count_characters)] += reward
        return placed
