"""What an algorithm makes of a dataset before it trains: all rows, the best rows, pairs of rows, labelled rows.

A transform is fitted once, to the training data, and then holds nothing but plain values, so that it can be saved
with a run and mean the same when the run is opened again. `apply` transforms a dataset; `view` is what a policy trained
on it must be shown when it acts. Returns are in the task's own unit.
"""

import logging
import string
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from ilqljax.data.datapoint import DataPoint, Dialogue
from ilqljax.data.dataset import ROUNDING, IterableRLDataset, ListRLDataset, RLDataset, SelectedRows
from ilqljax.data.files import hash_text
from ilqljax.errors import UserError

logger = logging.getLogger(__name__)

N_SAMPLED = 1024  # rows that stand for a stream where its returns must be known
SAMPLE_SEED = 918_273  # apart from any training stream's
MAX_TRIES = 10_000
FEW_ROWS = 0.01  # share of the rows below which a filter leaves few
LABELS = string.ascii_lowercase


@dataclass(frozen=True)
class AllRows:
    """Take a dataset as it is; the base of all transforms, which are frozen dataclasses of plain values."""

    @classmethod
    def fit(cls, dataset: RLDataset, config: Any) -> Self:
        """Make the transform that an algorithm's options ask for, from its training data."""
        return cls()

    def apply(self, dataset: RLDataset) -> RLDataset:
        """Return the rows to train or validate on."""
        return dataset

    def view(self, dialogue: Dialogue) -> Dialogue:
        """Return what the policy is shown of a dialogue that it is to continue."""
        return dialogue

    def find_fault(self, rows: ListRLDataset) -> str:
        """Say why the transform has nothing to choose by in its training rows, and what to change; "" where it has."""
        return ""


Transform = AllRows  # the type of any of them


@dataclass(frozen=True)
class BestRows(AllRows):
    """Keep the rows whose return is at least `threshold`.

    With top_fraction=0.5 the returns -3, -1, -2, -1 give the threshold -1, and the second and fourth row stay. Rows
    that tie with the last one kept stay too.
    """

    threshold: float

    @classmethod
    def fit(cls, dataset: RLDataset, config: Any) -> Self:
        """Find the threshold of the best `config.top_fraction` of the rows, and not below `config.min_return`.

        It is a `UserError` if no row of the training data is that good.
        """
        returns = np.array([total_return(dataset, row) for row in read_rows(dataset)])
        n_best = int(np.ceil(config.top_fraction * len(returns)))
        threshold = max(float(np.sort(returns)[-n_best]), config.min_return)
        if (best := returns.max()) < threshold:
            raise UserError(
                f"No training row reaches min_return={config.min_return}; the best has {best:.4g}. Lower it."
            )
        n_kept = np.sum(returns >= threshold)
        logger.info("best rows: %d of %d have a return of at least %.4g", n_kept, len(returns), threshold)
        return cls(threshold)

    def apply(self, dataset: RLDataset) -> RLDataset:
        """Return the rows that are good enough; all of them where none is (a small validation set)."""
        if isinstance(dataset, IterableRLDataset):
            return BestOfStream(dataset, self.threshold)
        returns = np.array([total_return(dataset, row) for row in read_rows(dataset)])
        chosen = np.flatnonzero(returns >= self.threshold)
        if not len(chosen):
            logger.info("best rows: none of %d reaches %.4g, so all are kept", len(returns), self.threshold)
            return dataset
        return SelectedRows(dataset, chosen)

    def find_fault(self, rows: ListRLDataset) -> str:
        """Say that all returns are equal, or that all rows are kept, or fewer than `FEW_ROWS` of them."""
        returns = np.array([total_return(rows, row) for row in read_rows(rows)])
        n, n_kept = len(returns), int(np.sum(returns >= self.threshold))
        if are_equal(returns):
            return f"all {n} rows have the same return, so that none is best. Check the rewards, or clone (bc)."
        if n_kept == n:
            least = f"all {n} rows have a return of at least {self.threshold:.4g}"
            return f"{least}, so that this is a clone of all. Lower top_fraction, or raise min_return."
        if n_kept < FEW_ROWS * n:
            most = f"only {n_kept} of {n} rows have a return of at least {self.threshold:.4g}"
            return f"{most}, which a model soon knows by heart. Raise top_fraction, or lower min_return."
        return ""


class BestOfStream(IterableRLDataset):
    """Draw from a stream until a row's return is good enough."""

    def __init__(self, stream: IterableRLDataset, threshold: float):
        super().__init__(stream.tokenizer, **stream.settings)
        self.stream, self.threshold = stream, threshold

    def sample_item(self, rng: np.random.Generator) -> DataPoint:
        """Return the next row that reaches the threshold; if none of `MAX_TRIES` does, it is a `UserError`."""
        for _ in range(MAX_TRIES):
            point = self.stream.draw_item(rng)
            if total_return(self.stream, point) >= self.threshold:
                return point
        raise UserError(f"{MAX_TRIES} rows were drawn and none has a return of {self.threshold:.4g}. Lower min_return.")


@dataclass(frozen=True)
class PreferencePairs(AllRows):
    """Pair rows that answer the same prompt with different returns: the better one first.

    A prompt is all that was said before the row's first action, whatever was cut from its row; a row in which the agent
    says nothing answers none. Rows with the returns -1, -4 and -4 after one prompt and a row of another prompt give two
    pairs, (-1, -4) and (-1, -4).

    Attributes:
        min_gap: least difference of the returns of a pair; equal returns make none.
        pairs_per_prompt: most pairs of one prompt, drawn at random; 0 takes all.
        seed: of that draw.
    """

    min_gap: float = 0.0
    pairs_per_prompt: int = 0
    seed: int = 0

    @classmethod
    def fit(cls, dataset: RLDataset, config: Any) -> Self:
        return cls(config.min_gap, config.pairs_per_prompt, config.seed)

    def apply(self, dataset: RLDataset) -> RLDataset:
        """Return the pairs as rows 2 i (better) and 2 i + 1 (worse); a stream, or no pair at all, is a `UserError`."""
        if not isinstance(dataset, ListRLDataset):
            raise UserError("Preference pairs need a dataset with a fixed list of rows, and this one is a stream.")
        answers: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for i, row in enumerate(read_rows(dataset)):
            if len(row.action_idxs):
                answers[hash_text(row.raw[: row.prompt_length])].append((total_return(dataset, row), i))
        pairs = []
        for number, scored in enumerate(answers.values()):
            ranked = [sorted(two) for two in combinations(scored, 2)]
            found = [(i, j) for (low, j), (high, i) in ranked if high - low >= self.min_gap and high > low]
            if self.pairs_per_prompt and len(found) > self.pairs_per_prompt:
                rng = np.random.default_rng((self.seed, number))
                found = [found[i] for i in rng.choice(len(found), self.pairs_per_prompt, replace=False)]
            pairs += found
        if not pairs:
            raise UserError(
                f"No two of {dataset.size()} rows answer one prompt with returns that differ, by at least "
                f"min_gap={self.min_gap}. Lower min_gap, or give several scored answers a prompt."
            )
        logger.info("preference pairs: %d from %d rows of %d prompts", len(pairs), dataset.size(), len(answers))
        return SelectedRows(dataset, np.array(pairs).reshape(-1), group_size=2)


@dataclass(frozen=True)
class ReturnLabels(AllRows):
    """Tell the policy, before each of its utterances, how good the rest of the dialogue turns out: a letter, a worst.

    The letter stands at the end of the environment's utterance, where truncation never reaches; where the environment
    has said nothing, it is an utterance of its own. With edges (-5, -2), prefix " " and target 0:

    | rewards of the agent | labels in training       | labels when acting             |
    |----------------------|--------------------------|--------------------------------|
    | -1, then 0           | -1 to go: c; 0 to go: c  | 0 - 0 = 0: c; 0 - -1 = 1: c    |
    | -4, then -2          | -6: a; -2: c             | 0: c; 4: c                     |

    Attributes:
        edges: ascending; a return to go below the first is "a", from the last on it is the last letter.
        target: the return that acting asks for.
        prefix: stands before the letter.
    """

    edges: tuple[float, ...]
    target: float
    prefix: str = "\nReturn: "

    @classmethod
    def fit(cls, dataset: RLDataset, config: Any) -> Self:
        """Cut the returns to go of the training data into `config.n_labels` equally frequent ranges.

        They are the dialogues' own, the very numbers that labels are chosen by: without what a dataset pays for tokens,
        and not the rows', which are scaled and rounded, so that a return that is an edge is on one side of it always.
        Labels that the tokenizer cannot write, or cannot tell apart, are a `UserError`.
        """
        every, first = _read_to_go(dataset)
        edges = np.unique(np.quantile(every, np.arange(1, config.n_labels) / config.n_labels))
        target = np.quantile(first, config.target_quantile)
        labels = cls(tuple(map(float, edges)), float(target), config.prefix)
        texts = [labels.prefix + letter for letter in LABELS[: len(edges) + 1]]
        if [dataset.tokenizer.decode(dataset.tokenizer.encode(text)) for text in texts] != texts:
            raise UserError(
                f"The tokenizer cannot write the return labels {texts[0]!r} to {texts[-1]!r}. Set "
                "config.train.loss.prefix to characters that it knows, or to ''."
            )
        logger.info("return labels: %d, acting asks for %.4g (%s)", len(edges) + 1, target, labels.name(target))
        return labels

    def apply(self, dataset: RLDataset) -> RLDataset:
        """Return the dataset with every utterance of the agent labelled by what it led to."""
        return dataset.with_view(lambda dialogue: _Labelled(dialogue, self, acting=False))

    def view(self, dialogue: Dialogue) -> Dialogue:
        """Return the dialogue with the labels that ask for the target, the coming utterance's included."""
        return _Labelled(dialogue, self, acting=True)

    def find_fault(self, rows: ListRLDataset) -> str:
        """Say that all returns are equal, or that all dialogues begin with the label that acting asks for."""
        _, first = _read_to_go(rows)
        if are_equal(np.array(first)):
            return (
                f"all {len(first)} dialogues have the same return: labels tell none apart. Check the rewards, or clone."
            )
        wanted = self.name(self.target)
        if all(self.name(to_go) == wanted for to_go in first):
            found = f"all {len(first)} dialogues begin with the label {wanted!r} of the return {self.target:.4g}"
            return f"{found} that acting asks for. Raise n_labels, or keep the best alone (filtered_bc)."
        return ""

    def name(self, to_go: float) -> str:
        """Return the letter of a return to go."""
        return LABELS[int(np.searchsorted(self.edges, to_go, side="right"))]


def _read_to_go(dataset: RLDataset) -> tuple[array, array]:
    """Return the returns to go of all utterances of the agent, and those of each dialogue's first."""
    every, first = array("d"), array("d")
    for row in read_rows(dataset.with_view(_reckon)):
        to_go = row.metadata["to_go"]
        every.extend(to_go)
        first.extend(to_go[:1])
    return every, first


def _count_down(total: float, rewards: list[float]) -> list[float]:
    """Return what is left of a total before each reward, and after the last one."""
    return [total - sum(rewards[:n]) for n in range(len(rewards) + 1)]


def _reckon(dialogue: Dialogue) -> Dialogue:
    """Show a dialogue as it is; its metadata tell the return to go of each of the agent's utterances."""
    rewards = [reward for _, reward in dialogue.to_sequence()[0] if reward is not None]
    told = {"to_go": _count_down(sum(rewards), rewards)[:-1]}
    return SimpleNamespace(to_sequence=dialogue.to_sequence, metadata=lambda: told)


@dataclass(frozen=True)
class _Labelled:
    """Show a dialogue with its return labels; when `acting` they ask for the target, else they tell what happened."""

    dialogue: Dialogue
    labels: ReturnLabels
    acting: bool

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        sequence, terminal = self.dialogue.to_sequence()
        rewards = [reward for _, reward in sequence if reward is not None]
        before = _count_down(self.labels.target if self.acting else sum(rewards), rewards)
        labels = (self.labels.prefix + self.labels.name(to_go) for to_go in before)
        coming = [("", 0.0)] if self.acting and not terminal else []  # the utterance that is asked for
        labelled: list[tuple[str, float | None]] = []
        for text, reward in [*sequence, *coming]:
            if reward is not None and labelled and labelled[-1][1] is None:
                labelled[-1] = (labelled[-1][0] + next(labels), None)
            elif reward is not None:
                labelled.append((next(labels), None))
            labelled.append((text, reward))
        return labelled[: len(labelled) - len(coming)], terminal

    def metadata(self) -> dict[str, Any]:
        return self.dialogue.metadata()


def read_rows(dataset: RLDataset) -> Iterator[DataPoint]:
    """Yield a dataset's rows (there must be one), or of a stream `N_SAMPLED`, the same ones every time."""
    if isinstance(dataset, ListRLDataset):
        if not dataset.size():
            raise UserError("the dataset has no rows: check the file it was read from and the split it belongs to")
        yield from (dataset.get_item(i) for i in range(dataset.size()))
    else:
        yield from (dataset.draw_item(np.random.default_rng((SAMPLE_SEED, i))) for i in range(N_SAMPLED))


def are_equal(returns: Float[np.ndarray, " N"]) -> bool:
    """Return whether returns of more than one row differ by no more than rounding."""
    return len(returns) > 1 and np.ptp(returns) <= ROUNDING * np.abs(returns).max()


def total_return(dataset: RLDataset, row: DataPoint) -> float:
    """Return a row's undiscounted return in the task's unit; 0 where the agent said nothing."""
    rewards = row.utterance_rewards.astype(np.float64) / dataset.reward_scale + dataset.reward_shift
    return float(np.cumsum(rewards[::-1])[-1]) if len(rewards) else 0.0
