"""Stream fixed-shape batches: deterministic, sharded over hosts, resumable. The only module that imports Grain.

What training step i sees depends on the seed and i alone, not on how many hosts read or where a run was interrupted.
Each epoch permutes the rows and cuts the permutation into batches. A mean over a batch's tokens is then nearly the mean
over all tokens, whatever the rows' lengths.

On request, windows of the permutation are sorted by length first, so that a batch holds rows of similar length and
little padding; then the batches are shuffled. **That biases every loss that divides by a batch's own tokens: tokens of
short rows weigh more.** Where short rows are the good ones, as in a game, a clone of their player plays better than the
player. So losses of sorted batches must all divide by the same number (`expect_counts`). With seed=0, ten rows whose
lengths rise with their numbers, batch_size=2 and sort_window=2:

    permutation   4 6 2 7 | 3 5 9 0 | 8 1
    by length     2 4 6 7 | 0 3 5 9 | 1 8
    batches       (6 7) (5 9) (1 8) (0 3) (2 4)

Rows beyond the last full batch sit the epoch out; the permutation decides which. A dataset smaller than a batch repeats
instead: its permutations are laid end to end and cut into batches, so that no row is ever more than once ahead of
another.

A run may be resumed with another batch size: rows come on in the order that they would have had, cut into batches of
the new size. The position is then counted in rows. With the batches above, resumed after two with batch_size=3:

    batches       (6 7) (5 9) | (1 8 0) (3 2 4)
"""

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Int

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.dataset import IterableRLDataset, ListRLDataset, RLDataset
from ilqljax.data.types import Batch, Counts
from ilqljax.errors import UserError, check_range

SMALLEST_ACTION_BUCKET = 16


@dataclass(frozen=True, kw_only=True)
class Batching:
    """What the batches of a loader have in common: their size, their shapes, and this host's share.

    Attributes:
        batch_size: rows of the global batch.
        length_buckets: row lengths to pad to, rising. All hosts pad to what the global batch needs.
        action_buckets: numbers of actions to pad to, rising; by default powers of two from 16, capped by the length.
            Utterance actions are padded to powers of two. So the shapes are few whatever the data.
        n_hosts: hosts that share each batch.
        host: which of them this is; host h gets the h-th block of rows.
        pad_id: fills the rows; the dataset's tokenizer says which.
    """

    batch_size: int
    length_buckets: Sequence[int]
    action_buckets: Sequence[int] = ()
    n_hosts: int = 1
    host: int = 0
    pad_id: int

    def __post_init__(self) -> None:
        batch_size, n_hosts = self.batch_size, self.n_hosts
        check_range(self, "[1, inf)", "batch_size", "n_hosts")
        if batch_size % n_hosts:
            raise UserError(
                f"batch_size={batch_size} is not divisible by the {n_hosts} hosts: use a multiple of {n_hosts}, such "
                f"as {(batch_size // n_hosts + 1) * n_hosts}"
            )
        if not 0 <= self.host < n_hosts:
            raise UserError(f"host={self.host} is not one of the {n_hosts} hosts: give 0 to {n_hosts - 1}")
        if not self.length_buckets:
            raise UserError("length_buckets is empty: list the row lengths to pad to, for instance (128, 256, 512)")
        for name in ("length_buckets", "action_buckets"):
            buckets = tuple(getattr(self, name))
            if any(low >= high for low, high in zip((0, *buckets), buckets, strict=False)):
                raise UserError(f"{name}={buckets} must be positive and rising: list each size once, smallest first")

    def check_dataset(self, dataset: ListRLDataset) -> None:
        """Refuse, before the first step, an empty dataset, rows that fit no bucket, and batches that part groups."""
        if dataset.size() == 0:
            raise UserError("the dataset has no rows: check the file it was read from and the split it belongs to")
        for column in (0, 1):
            longest = int(dataset.row_sizes[:, column].argmax())
            self.pick_bucket(column, int(dataset.row_sizes[longest, column]), row=f"row {longest}")
        share = self.batch_size // self.n_hosts
        if share % dataset.group_size:
            raise UserError(
                f"batch_size={self.batch_size} gives each of {self.n_hosts} hosts {share} rows, and rows come in "
                f"groups of {dataset.group_size}: use a multiple of {dataset.group_size * self.n_hosts}"
            )

    def pick_bucket(self, column: int, need: int, *, row: str = "a row") -> int:
        """Return the least bucket that holds a row's tokens (column 0 of `row_sizes`) or actions (column 1)."""
        name, unit = (("length_buckets", "tokens"), ("action_buckets", "actions"))[column]
        buckets = tuple(getattr(self, name)) or (_round_up_to_power(max(need, SMALLEST_ACTION_BUCKET)),)
        if need > buckets[-1]:
            raise UserError(
                f"{row} has {need} {unit} and the largest of {name}={buckets} is {buckets[-1]}: "
                f"add a bucket of at least {need}, or set the dataset's max_length"
            )
        return next(bucket for bucket in buckets if bucket >= need)

    def take_share(self, rows: Any) -> Any:
        """Return this host's block of a global batch, any sequence; the hosts' blocks in order are the batch."""
        share = len(rows) // self.n_hosts
        return rows[self.host * share : (self.host + 1) * share]

    def collate(self, points: Sequence[DataPoint], sizes: Int[np.ndarray, "B 3"]) -> Batch:
        """Pad this host's rows to what the global batch, of the given `row_sizes`, needs."""
        tokens, actions, utterances = map(int, sizes.max(axis=0))
        length, n_actions = self.pick_bucket(0, tokens), self.pick_bucket(1, actions)
        return collate(
            points,
            length=length,
            n_actions=n_actions if self.action_buckets else min(n_actions, length),
            n_utterance_actions=_round_up_to_power(max(utterances, 1)),
            pad_id=self.pad_id,
            batch_size=self.batch_size // self.n_hosts,
        )


def _round_up_to_power(number: int) -> int:
    """Return the least power of two that is not below a positive number."""
    return 1 << (number - 1).bit_length()


def _make_row_plan(
    lengths: Int[np.ndarray, " N"], *, batch_size: int, seed: int, sort_window: int, group_size: int = 1
) -> Callable[[int], Int[np.ndarray, " B"]]:
    """Make the function from a step to the row numbers of its global batch, groups of rows kept side by side."""
    lengths, batch_size = lengths.reshape(-1, group_size).max(axis=1), batch_size // group_size
    n_groups = len(lengths)
    per_epoch = n_groups // batch_size

    def draw(epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng((seed, epoch, purpose))

    # A few epochs are kept: the prefetching thread may be in the next one while a resumed reader asks for this one.
    @lru_cache(maxsize=4)
    def plan_epoch(epoch: int) -> Int[np.ndarray, "steps B"]:
        order = draw(epoch, 0).permutation(n_groups)[: per_epoch * batch_size]
        window = sort_window * batch_size
        windows = (order[start : start + window] for start in range(0, len(order), window))
        by_length = [groups[np.argsort(lengths[groups], kind="stable")] for groups in windows]
        batches = np.concatenate(by_length).reshape(per_epoch, batch_size)
        return batches[draw(epoch, 1).permutation(per_epoch)]

    def pick_rows(step: int) -> Int[np.ndarray, " B"]:
        if per_epoch:
            groups = plan_epoch(step // per_epoch)[step % per_epoch]
        else:
            start, stop = step * batch_size, (step + 1) * batch_size
            epochs = range(start // n_groups, (stop - 1) // n_groups + 1)
            order = np.concatenate([draw(epoch, 0).permutation(n_groups) for epoch in epochs])
            groups = order[start - epochs[0] * n_groups :][:batch_size]
        return (groups[:, None] * group_size + np.arange(group_size)).reshape(-1)

    return pick_rows


class Order(NamedTuple):
    """How the endless order of rows is cut: batch n begins at its row `offset + n * batch size`.

    Attributes:
        batch_size: of the batches that the order is made of; a run's first one.
        offset: 0, until a resumed run has another batch size.
    """

    batch_size: int
    offset: int = 0


class TrainLoader:
    """Iterate over training batches without end; `get_state` and `set_state` resume it exactly."""

    def __init__(self, load_batch: Callable[[Order, int], Batch], *, identity: dict[str, Any], prefetch: int):
        """Read batches 0, 1, ... of an order ahead of time; `identity` says what the order depends on."""
        self._load_batch, self._identity, self._prefetch = load_batch, identity, prefetch
        self._begin(Order(identity["batch_size"]))

    def _begin(self, order: Order) -> None:
        self._order = order
        steps = grain.MapDataset.range(sys.maxsize).map(partial(self._load_batch, order))
        options = grain.ReadOptions(num_threads=min(self._prefetch, 1), prefetch_buffer_size=self._prefetch)
        self._iterator = iter(steps.to_iter_dataset(options))

    def __iter__(self) -> "TrainLoader":
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """Return the position as JSON values: batches read ahead but not yet returned do not count."""
        changed = self._order != Order(self._identity["batch_size"])
        order = {"order": self._order._asdict()} if changed else {}
        return {**self._identity, "next_step": self._iterator.get_state()["next_index"], **order}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` returned, with any number of hosts and any batch size.

        The state of a loader whose rows or their order differ from this one's is a `UserError`.
        """
        expected = {*self._identity, "next_step"}
        if state.keys() - {"order"} != expected:
            raise UserError(f"the loader state has the fields {sorted(state)}: expected {sorted(expected)}")
        given = {name: new for name, new in self._identity.items() if name != "batch_size"}
        if changes := [f"{name} was {state[name]} and is {new}" for name, new in given.items() if state[name] != new]:
            raise UserError(
                f"the run cannot continue on other batches: {', '.join(changes)}. Restore these, or start a new run; "
                "`ilqljax export` and config.model.path let it start from this one's policy"
            )
        step = state["next_step"]
        if not isinstance(step, int) or step < 0:
            raise UserError(f"the loader state has next_step={step!r}: expected a whole number from 0 on")
        before, now = state["batch_size"], self._identity["batch_size"]
        order = Order(**state["order"]) if "order" in state else Order(before)
        self._begin(order._replace(offset=order.offset + step * (before - now)))
        self._iterator.set_state({"next_index": step})


def make_train_loader(
    dataset: RLDataset, *, seed: int, sort_window: int = 1, prefetch: int = 2, **batching: Any
) -> TrainLoader:
    """Make the endless iterator over a dataset's training batches, `Batching` of the other keywords.

    Args:
        dataset: a `ListRLDataset`, read in epochs; or an `IterableRLDataset`, whose item j is drawn with the generator
            of (seed, j). A stream's rows are not sorted, and every host draws the whole batch to learn its shape.
        seed: decides the order.
        sort_window: how many batches are sorted by length together; 1 for none.
        prefetch: batches to prepare ahead in a thread; 0 for none.

    Raises:
        UserError: the dataset is empty, a row fits no bucket, or the hosts cannot share a batch evenly.
    """
    batches = Batching(**batching, pad_id=dataset.tokenizer.pad_id)
    batch_size = batches.batch_size
    if sort_window < 1 or prefetch < 0 or seed < 0:
        raise UserError(f"{sort_window=}, {prefetch=}, {seed=}: the first must be at least 1, the others at least 0")
    identity = {"seed": seed, "batch_size": batch_size}
    if isinstance(dataset, ListRLDataset):
        batches.check_dataset(dataset)
        row_sizes = zlib.crc32(dataset.row_sizes.tobytes())
        identity |= {"sort_window": sort_window, "rows": dataset.size(), "row_sizes": row_sizes}
        how = {"seed": seed, "sort_window": sort_window, "group_size": dataset.group_size}
        plan_rows = lru_cache(partial(_make_row_plan, dataset.row_sizes[:, 0], **how))

        def load_batch(order: Order, step: int) -> Batch:
            start, pick_rows = order.offset + step * batch_size, plan_rows(batch_size=order.batch_size)
            planned = range(start // order.batch_size, (start + batch_size - 1) // order.batch_size + 1)
            rows = np.concatenate([pick_rows(i) for i in planned])[start - planned[0] * order.batch_size :][:batch_size]
            own = [dataset.get_item(int(row)) for row in batches.take_share(rows)]
            return batches.collate(own, dataset.row_sizes[rows])

    elif isinstance(dataset, IterableRLDataset):

        def load_batch(order: Order, step: int) -> Batch:
            start = order.offset + step * batch_size
            places = range(start, start + batch_size)
            points = [dataset.draw_item(np.random.default_rng((seed, place))) for place in places]
            return batches.collate(batches.take_share(points), np.asarray([point.sizes for point in points]))

    else:
        raise TypeError(f"{type(dataset).__name__} is neither a ListRLDataset nor an IterableRLDataset")
    return TrainLoader(load_batch, identity=identity, prefetch=prefetch)


def expect_counts(dataset: ListRLDataset, *, batch_size: int) -> Counts:
    """Return how many actions, target tokens, utterances and rows a batch holds on average.

    Sums over a batch divided by these are, on average over an epoch's batches, the means over all the dataset's actions
    (or tokens), however rows were sorted into batches.
    """
    return Counts(*(np.float32(batch_size * number / dataset.size()) for number in dataset.count_rows()))


def eval_batches(dataset: ListRLDataset, **batching: Any) -> Iterator[Batch]:
    """Return the batches (`Batching`) that hold each row exactly once, in order; empty rows fill the last one.

    Errors are those of `make_train_loader`; they are raised here, not at the first batch.
    """
    batches = Batching(**batching, pad_id=dataset.tokenizer.pad_id)
    batch_size = batches.batch_size
    batches.check_dataset(dataset)

    def load_batch(start: int) -> Batch:
        own = batches.take_share(range(start, start + batch_size))
        points = [dataset.get_item(row) for row in own if row < dataset.size()]
        return batches.collate(points, dataset.row_sizes[start : start + batch_size])

    return map(load_batch, range(0, dataset.size(), batch_size))
