"""Hold dialogues as rows: a list to be read by number, or a stream to be sampled."""

import copy
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from jaxtyping import Int

from ilqljax.data.datapoint import DataPoint, Dialogue, TokenReward, pay_nothing
from ilqljax.data.tokenizer import Tokenizer
from ilqljax.data.types import Counts
from ilqljax.errors import UserError, check_known, check_type

logger = logging.getLogger(__name__)

TOO_LONG = ("cut", "drop")
ROUNDING = 1e-9  # of the largest reward: a deviation that is no larger counts as none
View = Callable[[Dialogue], Dialogue]  # from a dialogue to how it is shown to the model


class RLDataset:
    """Hold what turns a dialogue into a row: the tokenizer, the length limit and the rewards' units.

    Utterance rewards become (r - reward_shift) * reward_scale, so that a critic sees numbers near 1 whatever the task's
    unit; token rewards are left as they are.

    Attributes:
        group_size: rows that belong together: rows n group_size to (n + 1) group_size - 1 share a batch, side by side.
        as_paid: whether the rewards are what the environment pays, so that dialogues that are played compare with them.
    """

    group_size: int = 1
    as_paid: bool = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int = 0,
        too_long: str = "cut",
        token_reward: TokenReward = pay_nothing,
        reward_shift: float = 0.0,
        reward_scale: float = 1.0,
    ):
        """Hold the settings; `infer_reward_scaling` gives a shift and a scale that standardise.

        `too_long` says what a dialogue of more than `max_length` tokens loses (`DataPoint`): "cut", the start of its
        first environment utterance, or "drop", whole old turns.
        """
        check_known(TOO_LONG, too_long=too_long)
        if max_length < 0:
            raise UserError(f"max_length={max_length} is negative: give the most tokens of a row, or 0 for no limit")
        if not (math.isfinite(reward_shift) and math.isfinite(reward_scale) and reward_scale > 0):
            raise UserError(
                f"reward_shift={reward_shift} and reward_scale={reward_scale}: both must be finite, the scale above 0"
            )
        self.tokenizer, self.token_reward = tokenizer, token_reward
        self.max_length, self.too_long = max_length, too_long
        self.reward_shift, self.reward_scale = reward_shift, reward_scale
        self._views: tuple[View, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The limits and units: keywords that make another dataset, or a row."""
        names = ("max_length", "too_long", "token_reward", "reward_shift", "reward_scale")
        return {name: getattr(self, name) for name in names}

    def with_view(self, view: View) -> Self:
        """Return the same dataset with every dialogue changed by `view` before it is encoded.

        Raises:
            UserError: a dialogue as it is shown cannot be cut down to `max_length`.
        """
        changed = copy.copy(self)
        changed._views = (*self._views, view)
        changed.__dict__.pop("row_sizes", None)  # cached, of the dialogues as they were
        return changed

    def encode(self, dialogue: Dialogue) -> DataPoint:
        """Return the dialogue as a row, with its rewards in the critic's unit."""
        for view in self._views:
            dialogue = view(dialogue)
        return DataPoint.from_observation(dialogue, self.tokenizer, **self.settings)


class ListRLDataset(RLDataset, ABC):
    """Hold rows that can be read by number."""

    @abstractmethod
    def get_item(self, i: int) -> DataPoint:
        """Return row `i`, the same one every time."""

    @abstractmethod
    def size(self) -> int:
        """Return the number of rows."""

    @cached_property
    def row_sizes(self) -> Int[np.ndarray, "N 3"]:
        """Return each row's tokens, actions and utterance actions; reads every row once."""
        return np.asarray([self.get_item(i).sizes for i in range(self.size())], np.int64).reshape(-1, 3)

    def count_rows(self) -> Counts:
        """Count what means over all rows divide by; target tokens are all but a row's first."""
        sizes = self.row_sizes
        return Counts(*map(np.float32, (sizes[:, 1].sum(), (sizes[:, 0] - 1).sum(), sizes[:, 2].sum(), self.size())))


class SelectedRows(ListRLDataset):
    """Show chosen rows of another dataset, in the given order; a row may come more than once."""

    def __init__(self, dataset: ListRLDataset, rows: Sequence[int] | Int[np.ndarray, " N"], *, group_size: int = 1):
        """Hold the choice; `group_size` is the new dataset's own."""
        super().__init__(dataset.tokenizer, **dataset.settings)
        self.dataset, self.rows, self.group_size = dataset, np.asarray(rows, np.int64), group_size

    def with_view(self, view: View) -> Self:
        changed = super().with_view(view)
        changed.dataset = self.dataset.with_view(view)
        return changed

    def get_item(self, i: int) -> DataPoint:
        return self.dataset.get_item(int(self.rows[i]))

    def size(self) -> int:
        return len(self.rows)

    @cached_property
    def row_sizes(self) -> Int[np.ndarray, "N 3"]:
        return self.dataset.row_sizes[self.rows]


class IterableRLDataset(RLDataset, ABC):
    """Hold an endless supply of rows, such as games played by a scripted policy."""

    @abstractmethod
    def sample_item(self, rng: np.random.Generator) -> DataPoint:
        """Return a row drawn with `rng` and nothing else, so that a stream can be resumed."""

    def draw_item(self, rng: np.random.Generator) -> DataPoint:
        """Return `sample_item`'s row; where the supply has ended (`StopIteration`), raise a `UserError`."""
        try:
            return self.sample_item(rng)
        except StopIteration as error:
            raise UserError(
                f"{type(self).__name__} has ended, and a stream must not: sample_item draws any number of rows. Start "
                "again in it where its source ends, or give a list of dialogues (ObservationDataset), which is read "
                "in epochs."
            ) from error


class ObservationDataset(ListRLDataset):
    """Hold given dialogues, tokenized once.

    Attributes:
        n_truncated: rows that lost part of their prompt.
        n_dropped_turns: turns that rows lost whole.
    """

    def __init__(self, observations: Iterable[Dialogue], tokenizer: Tokenizer, **settings: Any):
        """Tokenize the dialogues; `settings` are the keywords of `RLDataset`.

        Raises:
            UserError: an argument is of another type, or a dialogue has a reward that is not finite or cannot be cut
                down; the message says which one.
        """
        check_type(Iterable, "Give a list of dialogues.", observations=observations)
        check_type(Tokenizer, "Give one of load_tokenizer, train_bpe or CharacterTokenizer.", tokenizer=tokenizer)
        super().__init__(tokenizer, **settings)
        self._observations = tuple(observations)
        for i, one in enumerate(self._observations):
            advice = "Give a ListDialogue, or an object with to_sequence and metadata."
            check_type(Dialogue, advice, **{f"observation {i}": one})
        self._encode_all()

    def with_view(self, view: View) -> Self:
        changed = super().with_view(view)
        changed._encode_all()
        return changed

    def _encode_all(self) -> None:
        self._rows = []
        for i, observation in enumerate(self._observations):
            try:
                self._rows.append(self.encode(observation))
            except UserError as error:
                raise UserError(f"observation {i}: {error}") from error
        self.n_truncated = sum(row.metadata["truncated_tokens"] > 0 for row in self._rows)
        self.n_dropped_turns = sum(row.metadata["dropped_turns"] for row in self._rows)
        if self.n_dropped_turns:
            n = sum(row.metadata["dropped_turns"] > 0 for row in self._rows)
            told = "%d of %d dialogues are longer than max_length=%d and lost their oldest turns, %d in all"
            logger.info(told, n, len(self._rows), self.max_length, self.n_dropped_turns)

    def get_item(self, i: int) -> DataPoint:
        return self._rows[i]

    def size(self) -> int:
        return len(self._rows)


def infer_reward_scaling(observations: Iterable[Dialogue]) -> tuple[float, float]:
    """Return the (reward_shift, reward_scale) that give utterance rewards standard deviation 1 and mean 0.

    Where a dialogue has not one reward, the mean stays: a shift is paid once an utterance, and would pay for length.
    Equal rewards, and those that differ by no more than rounding, keep their unit: the scale is then 1. Infer it from
    training dialogues only; they must have rewards.
    """
    paid = [[r for _, r in one.to_sequence()[0] if r is not None] for one in observations]
    rewards = np.asarray([r for each in paid for r in each], np.float64)
    if not len(rewards):
        raise UserError("there is no utterance of an agent with a reward: give dialogues, and their rewards")
    if not np.isfinite(rewards).all():
        raise UserError(f"a reward is {rewards[~np.isfinite(rewards)][0]}: give the agent's utterances finite numbers")
    deviation = float(rewards.std())
    is_rounding = deviation <= ROUNDING * np.abs(rewards).max()
    shift = float(rewards.mean()) if all(len(each) == 1 for each in paid) else 0.0
    return shift, 1.0 if is_rounding else 1.0 / deviation
