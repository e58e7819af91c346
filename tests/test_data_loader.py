"""Order, resuming, hosts, shapes and refusals of the loader."""

import inspect
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from ilqljax.data import loader
from ilqljax.data.dataset import IterableRLDataset, ObservationDataset, RLDataset
from ilqljax.data.loader import eval_batches, expect_counts, make_train_loader
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import LanguageObservation
from ilqljax.errors import UserError

TOKENIZER = CharacterTokenizer("abcdefgh")
BUCKETS = (16, 32, 64)


@dataclass(frozen=True)
class Chat(LanguageObservation):
    """A dialogue whose reward is its identity."""

    identity: int
    prompt: str
    answer: str

    def to_sequence(self):
        return [(self.prompt, None), (self.answer, float(self.identity))], True

    def __str__(self):
        return self.answer


def make_dataset(n_rows):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 25, size=(n_rows, 2))
    return ObservationDataset([Chat(i, "a" * p, "b" * a) for i, (p, a) in enumerate(lengths)], TOKENIZER)


def make_loader(dataset, *, batch_size=4, seed=3, **options):
    return make_train_loader(dataset, batch_size=batch_size, seed=seed, length_buckets=BUCKETS, **options)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def list_rows(batches):
    return [[int(r) for r in batch.per_utterance.rewards[batch.per_utterance.action_mask]] for batch in batches]


def flatten(batch):
    return [batch.tokens, batch.token_mask, *batch.per_token, *batch.per_utterance]


def check_equal(left, right):
    for a, b in zip(left, right, strict=True):
        for x, y in zip(flatten(a), flatten(b), strict=True):
            np.testing.assert_array_equal(x, y)


class Stream(IterableRLDataset):
    def sample_item(self, rng):
        draw = int(rng.integers(10**6))
        return self.encode(Chat(draw, "a" * (1 + draw % 20), "b" * (1 + draw % 7)))


def test_the_table_of_the_docstring():
    pick_rows = loader._make_row_plan(np.arange(10), batch_size=2, seed=0, sort_window=2)
    batches = [pick_rows(step).tolist() for step in range(5)]
    assert batches == [[6, 7], [5, 9], [1, 8], [0, 3], [2, 4]]
    assert np.random.default_rng((0, 0, 0)).permutation(10).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
    printed = " ".join(f"({a} {b})" for a, b in batches)
    assert printed in loader.__doc__


def test_every_row_is_seen_once_an_epoch():
    batches = iter(make_loader(make_dataset(20)))
    for _ in range(3):
        rows = [row for batch in list_rows(take(batches, 5)) for row in batch]
        assert sorted(rows) == list(range(20))


def test_rows_beyond_the_last_full_batch_sit_out_and_change_with_the_epoch():
    batches = make_loader(make_dataset(22))
    absent = []
    for _ in range(4):
        rows = [row for batch in list_rows(take(batches, 5)) for row in batch]
        assert len(set(rows)) == 20
        absent.append(tuple(set(range(22)) - set(rows)))
    assert len(set(absent)) > 1


def test_epochs_and_seeds_differ_in_order():
    dataset = make_dataset(20)
    first = make_loader(dataset)
    epochs = [list_rows(take(first, 5)) for _ in range(2)]
    other = list_rows(take(make_loader(dataset, seed=4), 5))
    assert epochs[0] != epochs[1]
    assert epochs[0] != other


def test_equal_seeds_give_equal_batches():
    dataset = make_dataset(20)
    check_equal(take(make_loader(dataset), 12), take(make_loader(dataset, prefetch=0), 12))


def test_a_dataset_smaller_than_a_batch_repeats_evenly():
    batches = make_loader(make_dataset(3), batch_size=8)
    counts = Counter()
    for rows in list_rows(take(batches, 5)):
        assert len(rows) == 8
        counts.update(rows)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("done", [0, 3, 5, 13])
def test_a_resumed_iterator_equals_the_unbroken_one(done):
    dataset = make_dataset(20)
    unbroken = take(make_loader(dataset), done + 8)
    interrupted = make_loader(dataset)
    take(interrupted, done)
    state = json.loads(json.dumps(interrupted.get_state()))
    resumed = make_loader(dataset)
    take(resumed, 2)
    resumed.set_state(state)
    check_equal(take(resumed, 8), unbroken[done:])


def test_a_stream_resumes_and_is_decided_by_its_seed():
    stream = Stream(TOKENIZER)
    unbroken = take(make_loader(stream), 6)
    interrupted = make_loader(stream)
    take(interrupted, 2)
    resumed = make_loader(stream)
    resumed.set_state(interrupted.get_state())
    check_equal(take(resumed, 4), unbroken[2:])
    expected = [int(np.random.default_rng((3, j)).integers(10**6)) for j in range(8)]
    assert list_rows(unbroken[:2]) == [expected[:4], expected[4:]]


@pytest.mark.parametrize(
    "dataset", [make_dataset(20), make_dataset(3), Stream(TOKENIZER)], ids=["list", "small", "stream"]
)
def test_two_hosts_together_see_what_one_sees(dataset):
    alone = take(make_loader(dataset), 7)
    hosts = [take(make_loader(dataset, n_hosts=2, host=host), 7) for host in range(2)]
    for whole, *parts in zip(alone, *hosts, strict=True):
        for expected, *pieces in zip(flatten(whole), *map(flatten, parts), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_a_run_may_resume_on_another_number_of_hosts():
    dataset = make_dataset(20)
    alone = make_loader(dataset)
    take(alone, 3)
    pair = [make_loader(dataset, n_hosts=2, host=host) for host in range(2)]
    for part in pair:
        part.set_state(alone.get_state())
    rows = [list_rows([next(part)])[0] for part in pair]
    assert [*rows[0], *rows[1]] == list_rows([next(alone)])[0]


def list_after(loader, n):
    """Return the rows of the next n batches, in order."""
    return [row for rows in list_rows(take(loader, n)) for row in rows]


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        (make_dataset(20), {}),
        (make_dataset(21), {"sort_window": 2}),
        (make_dataset(3), {}),
        (Stream(TOKENIZER), {}),
    ],
    ids=["list", "sorted", "small", "stream"],
)
def test_a_resumed_run_with_another_batch_size_goes_on_in_the_order_of_rows(dataset, options):
    unbroken = list_after(make_loader(dataset, **options), 18)  # 72 rows
    first = make_loader(dataset, **options)
    seen = list_after(first, 3)
    second = make_loader(dataset, batch_size=6, **options)
    second.set_state(json.loads(json.dumps(first.get_state())))
    seen += list_after(second, 2)
    third = make_loader(dataset, batch_size=6, **options)
    third.set_state(json.loads(json.dumps(second.get_state())))
    seen += list_after(third, 3)
    last = make_loader(dataset, batch_size=3, **options)
    last.set_state(json.loads(json.dumps(third.get_state())))
    seen += list_after(last, 10)
    assert seen == unbroken
    assert last.get_state()["next_step"] == 18


def test_a_batch_size_that_is_changed_and_changed_back_leaves_the_state_as_it_was():
    dataset = make_dataset(20)
    first, other, unbroken = make_loader(dataset), make_loader(dataset, batch_size=2), make_loader(dataset)
    other.set_state(first.get_state())
    first.set_state(other.get_state())
    assert first.get_state() == unbroken.get_state()


def test_the_table_of_the_docstring_resumed_with_another_batch_size():
    dataset = ObservationDataset([Chat(i, "a" * (i + 1), "b") for i in range(10)], TOKENIZER)
    first = make_loader(dataset, batch_size=2, seed=0, sort_window=2)
    before = list_rows(take(first, 2))
    second = make_loader(dataset, batch_size=3, seed=0, sort_window=2)
    second.set_state(first.get_state())
    shown = [
        " ".join(f"({' '.join(map(str, rows))})" for rows in each) for each in (before, list_rows(take(second, 2)))
    ]
    assert " | ".join(shown) in loader.__doc__


def test_masks_are_the_rows_own_lengths():
    dataset = make_dataset(20)
    for batch, rows in ((b, list_rows([b])[0]) for b in take(make_loader(dataset), 10)):
        np.testing.assert_array_equal(batch.token_mask.sum(axis=1), dataset.row_sizes[rows, 0])
        np.testing.assert_array_equal(batch.per_token.action_mask.sum(axis=1), dataset.row_sizes[rows, 1])


def test_distinct_shapes_are_bounded_and_lengths_are_buckets():
    shapes = {(b.tokens.shape[1], b.per_token.action_idxs.shape[1]) for b in take(make_loader(make_dataset(200)), 150)}
    assert {length for length, _ in shapes} <= set(BUCKETS)
    assert {actions for _, actions in shapes} <= {16, 32, 64}
    assert all(actions <= length for length, actions in shapes)


def test_given_action_buckets_are_used():
    batches = take(make_loader(make_dataset(20), action_buckets=(26,)), 5)
    assert {b.per_token.action_idxs.shape[1] for b in batches} == {26}


def average_over_batches(lengths, **options) -> float:
    """Average, over the batches of 20 epochs, the share of a batch's tokens that lie in short rows."""
    pick_rows = loader._make_row_plan(lengths, batch_size=32, seed=0, **options)
    shares = []
    for step in range(20 * (len(lengths) // 32)):
        rows = lengths[pick_rows(step)]
        shares.append(rows[rows < 10].sum() / rows.sum())
    return float(np.mean(shares))


def test_batch_means_of_ragged_rows_are_means_over_all_tokens_unless_rows_are_sorted():
    # A game's rows: the better, the shorter. A clone trained on sorted batches played better than its teacher.
    lengths = np.random.default_rng(0).integers(2, 40, 2048)
    share = lengths[lengths < 10].sum() / lengths.sum()
    assert average_over_batches(lengths, sort_window=1) == pytest.approx(share, rel=0.05)
    assert average_over_batches(lengths, sort_window=16) > 2 * share


def test_sums_of_sorted_batches_over_what_batches_hold_on_average_are_means_over_all_tokens():
    dataset = make_dataset(400)
    sizes, divisor = dataset.row_sizes, expect_counts(dataset, batch_size=8)
    pick_rows = loader._make_row_plan(dataset.row_sizes[:, 0], batch_size=8, seed=0, sort_window=25)
    shares = []
    for step in range(20 * 50):
        rows = sizes[pick_rows(step)]
        shares.append((rows[rows[:, 0] < 20, 1].sum() / divisor.actions, (rows[:, 0] - 1).sum() / divisor.tokens))
    share = sizes[sizes[:, 0] < 20, 1].sum() / sizes[:, 1].sum()
    assert np.std(shares, axis=0).min() > 0.1  # batches do differ
    np.testing.assert_allclose(np.mean(shares, axis=0), [share, 1.0], rtol=1e-5)
    assert (divisor.utterances, divisor.rows) == (8, 8)


def test_batches_are_not_sorted_by_default():
    assert inspect.signature(make_train_loader).parameters["sort_window"].default == 1


def test_sorting_by_length_lowers_the_padding():
    dataset = make_dataset(400)

    def count_padding(sort_window):
        batches = take(make_loader(dataset, sort_window=sort_window), 100)
        return sum(int(batch.token_mask.shape[1] * 4 - batch.token_mask.sum()) for batch in batches)

    assert count_padding(16) < count_padding(1)


def test_evaluation_reads_each_row_once_in_order_and_fills_the_last_batch():
    batches = list(eval_batches(make_dataset(10), batch_size=4, length_buckets=BUCKETS))
    assert list_rows(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert {batch.tokens.shape[0] for batch in batches} == {4}
    assert batches[-1].token_mask.any(axis=1).tolist() == [True, True, False, False]


def test_evaluation_on_two_hosts_reads_each_row_once():
    dataset = make_dataset(9)
    options = {"batch_size": 4, "length_buckets": BUCKETS}
    alone = list(eval_batches(dataset, **options))
    hosts = [list(eval_batches(dataset, n_hosts=2, host=host, **options)) for host in range(2)]
    for whole, *parts in zip(alone, *hosts, strict=True):
        for expected, *pieces in zip(flatten(whole), *map(flatten, parts), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_a_row_longer_than_every_bucket_is_refused_at_the_start():
    dataset = ObservationDataset([Chat(0, "a", "b"), Chat(1, "a" * 70, "b")], TOKENIZER)
    for make in (make_loader, lambda d: eval_batches(d, batch_size=1, length_buckets=BUCKETS)):
        with pytest.raises(UserError, match="row 1 has 75 tokens and the largest of length_buckets"):
            make(dataset)


def test_a_row_with_more_actions_than_every_bucket_is_refused_at_the_start():
    dataset = ObservationDataset([Chat(0, "a", "b" * 9)], TOKENIZER)
    with pytest.raises(UserError, match="row 0 has 10 actions and the largest of action_buckets"):
        make_loader(dataset, action_buckets=(8,))


def test_a_streamed_row_longer_than_every_bucket_is_refused():
    class Long(Stream):
        def sample_item(self, rng):
            return self.encode(Chat(0, "a" * 99, "b"))

    with pytest.raises(UserError, match=r"a row has 104 tokens and the largest of length_buckets=\(16, 32, 64\) is 64"):
        next(make_loader(Long(TOKENIZER)))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stream_that_ends_is_refused_in_one_line(prefetch):
    class Ending(Stream):
        rows = iter([Chat(0, "a", "b")] * 5)

        def sample_item(self, rng):
            return self.encode(next(self.rows))

    loader = make_loader(Ending(TOKENIZER), batch_size=4, prefetch=prefetch)
    next(loader)
    with pytest.raises(UserError, match="Ending has ended, and a stream must not"):
        next(loader)


def test_an_empty_dataset_is_refused():
    with pytest.raises(UserError, match="the dataset has no rows"):
        make_loader(make_dataset(0))
    with pytest.raises(UserError, match="the dataset has no rows"):
        eval_batches(make_dataset(0), batch_size=2, length_buckets=BUCKETS)


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(UserError, match="batch_size=6 is not divisible by the 4 hosts: use a multiple of 4, such as 8"):
        make_loader(make_dataset(20), batch_size=6, n_hosts=4)


@pytest.mark.parametrize("buckets", [(), (32, 16), (0, 16), (16, 16)])
def test_buckets_must_be_positive_and_rising(buckets):
    with pytest.raises(UserError, match="length_buckets"):
        make_train_loader(make_dataset(20), batch_size=4, seed=0, length_buckets=buckets)


def test_a_host_outside_the_group_is_refused():
    with pytest.raises(UserError, match="host=2 is not one of the 2 hosts"):
        make_loader(make_dataset(20), n_hosts=2, host=2)


@pytest.mark.parametrize("options", [{"sort_window": 0}, {"prefetch": -1}, {"seed": -1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="must be at least 1"):
        make_loader(make_dataset(20), **options)


def test_a_state_of_another_order_is_refused():
    dataset = make_dataset(20)
    state = make_loader(dataset).get_state()
    with pytest.raises(UserError, match="seed was 3 and is 9"):
        make_loader(dataset, seed=9).set_state(state)
    with pytest.raises(UserError, match="rows was 20 and is 24"):
        make_loader(make_dataset(24)).set_state(state)
    with pytest.raises(UserError, match="has the fields"):
        make_loader(dataset).set_state({"next_index": 3})
    with pytest.raises(UserError, match="next_step=-1"):
        make_loader(dataset).set_state({**state, "next_step": -1})


def test_another_kind_of_dataset_is_refused():
    class Neither(RLDataset):
        pass

    with pytest.raises(TypeError, match="Neither is neither a ListRLDataset nor an IterableRLDataset"):
        make_loader(Neither(TOKENIZER))
