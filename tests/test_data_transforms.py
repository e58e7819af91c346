"""What algorithms make of a dataset: the best rows, pairs of rows, rows that tell their return."""

import dataclasses
import re
from functools import partial

import numpy as np
import pytest
from dialogues import Talk, answer

from ilqljax.config import from_section
from ilqljax.data import transforms
from ilqljax.data.dataset import IterableRLDataset, ObservationDataset, infer_reward_scaling
from ilqljax.data.loader import eval_batches, make_train_loader
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.transforms import AllRows, BestRows, PreferencePairs, ReturnLabels, total_return
from ilqljax.errors import UserError
from ilqljax.rl.objectives.likelihood import DecisionTransformerConfig, FilteredBCConfig

TOKENIZER = CharacterTokenizer("abcdefgh ")


ANSWERS = (answer("a", "b", -3.0), answer("a", "c", -1.0), answer("d", "b", -2.0), answer("d", "c", -1.0))


def make_dataset(dialogues=ANSWERS, **settings):
    return ObservationDataset(dialogues, TOKENIZER, **settings)


def raws(dataset):
    return [dataset.get_item(i).raw for i in range(dataset.size())]


class Stream(IterableRLDataset):
    """Draw one of the answers."""

    def sample_item(self, rng):
        return self.encode(ANSWERS[rng.integers(len(ANSWERS))])


class Ending(IterableRLDataset):
    """Draw from an iterator, which ends."""

    def __init__(self, rows):
        super().__init__(TOKENIZER)
        self.rows = iter(rows)

    def sample_item(self, rng):
        return self.encode(next(self.rows))


def test_a_stream_that_ends_is_refused_in_one_line():
    for transform in (BestRows, ReturnLabels):
        with pytest.raises(UserError, match=r"Ending has ended, and a stream must not.*ObservationDataset"):
            transform.fit(Ending(ANSWERS), FilteredBCConfig(top_fraction=0.5))


def find_fault(transform, config, returns):
    dataset = make_dataset([answer("a", "b", float(r)) for r in returns])
    return transform.fit(dataset, config).find_fault(dataset)


@pytest.mark.parametrize(
    ("returns", "options", "fault"),
    [
        ([-3, -1, -2, -1], {}, ""),
        ([0, 1, 1, 1], {}, ""),  # ties, but the worst goes
        ([0, 1], {"top_fraction": 1.0, "min_return": 0.5}, ""),
        ([0, 0, 1], {"min_return": 0.5}, ""),
        ([2, 2, 2], {}, "all 3 rows have the same return, so that none is best. Check the rewards, or clone"),
        ([0, 0, 0, 0, 1], {}, "all 5 rows have a return of at least 0, so .* Lower top_fraction, or raise min"),
        ([0, 1], {"top_fraction": 1.0}, "all 2 rows have a return of at least 0"),
        (
            [0, 0, 0, 1],
            {"min_return": 0.5},
            "only 1 of 4 rows .* of at least 1, which .* Raise top_fraction, or lower min",
        ),
    ],
)
def test_a_filter_that_keeps_all_or_hardly_any_row_says_what_to_change(monkeypatch, returns, options, fault):
    monkeypatch.setattr(transforms, "FEW_ROWS", 0.3)
    assert re.match(fault or "$", find_fault(BestRows, FilteredBCConfig(**options), returns))


@pytest.mark.parametrize(
    ("returns", "fault"),
    [
        (range(4), ""),
        ([-1, 0, 0, 0, 0, 0, 0], ""),
        ([2, 2, 2], "all 3 dialogues have the same return: labels tell none apart"),
        (
            [0] * 9 + [1],
            "all 10 dialogues begin with the label 'b' of the return 1 .* Raise n_labels, or .*filtered_bc",
        ),
    ],
)
def test_labels_that_tell_no_dialogue_apart_say_what_to_change(returns, fault):
    assert re.match(fault or "$", find_fault(ReturnLabels, DecisionTransformerConfig(prefix=" "), returns))


# The best rows.


def test_best_half_keeps_the_better_rows_in_their_order():
    best = BestRows.fit(make_dataset(), FilteredBCConfig(top_fraction=0.5))
    assert best == BestRows(threshold=-1.0)
    assert raws(best.apply(make_dataset())) == ["<s>a</s>c</a></eod>", "<s>d</s>c</a></eod>"]


def test_rows_that_tie_with_the_last_one_kept_stay():
    assert BestRows.fit(make_dataset(), FilteredBCConfig(top_fraction=0.25)).apply(make_dataset()).size() == 2


def test_threshold_is_in_the_unit_of_the_task_whatever_the_scaling():
    scaled = make_dataset(reward_shift=-2.0, reward_scale=5.0)
    best = BestRows.fit(scaled, FilteredBCConfig(top_fraction=1.0, min_return=-2.5))
    assert raws(best.apply(scaled)) == raws(make_dataset())[1:]


def test_a_return_that_no_row_reaches_is_refused_with_the_best_one():
    with pytest.raises(UserError, match=r"the best has -1"):
        BestRows.fit(make_dataset(), FilteredBCConfig(min_return=0.0))


def test_validation_rows_of_which_none_is_good_enough_all_stay():
    assert BestRows(threshold=5.0).apply(make_dataset()).size() == 4


def test_a_stream_is_drawn_from_until_a_row_is_good_enough():
    stream = BestRows.fit(Stream(TOKENIZER), FilteredBCConfig(top_fraction=0.4)).apply(Stream(TOKENIZER))
    rows = [stream.sample_item(np.random.default_rng(i)) for i in range(20)]
    assert {total_return(stream, row) for row in rows} == {-1.0}


def test_a_stream_without_a_good_row_is_refused(monkeypatch):
    monkeypatch.setattr(transforms, "MAX_TRIES", 20)
    with pytest.raises(UserError, match="20 rows were drawn"):
        BestRows(threshold=0.0).apply(Stream(TOKENIZER)).sample_item(np.random.default_rng(0))


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(UserError, match="top_fraction"):
        FilteredBCConfig(top_fraction=fraction)


# Pairs.


def test_pairs_answer_one_prompt_the_better_one_first():
    pairs = PreferencePairs().apply(make_dataset())
    assert raws(pairs) == [f"<s>{p}</s>{a}</a></eod>" for p, a in (("a", "c"), ("a", "b"), ("d", "c"), ("d", "b"))]
    assert pairs.group_size == 2


def test_answers_of_equal_or_nearly_equal_return_make_no_pair():
    dataset = make_dataset((*ANSWERS, answer("d", "e", -1.0)))
    assert PreferencePairs().apply(dataset).size() == 2 * 3
    assert PreferencePairs(min_gap=1.5).apply(dataset).size() == 2 * 1


def test_prompts_are_told_apart_by_what_was_cut_from_them():
    rows = [answer("abcd", "e", -1.0), answer("abcd", "eee", -2.0), answer("bbcd", "ee", -3.0)]
    whole = raws(PreferencePairs().apply(make_dataset(rows)))
    assert whole == ["<s>abcd</s>e</a></eod>", "<s>abcd</s>eee</a></eod>"]
    # Of the three prompts 1, 3 and 2 tokens are cut: the first two differ then, and others may be equal.
    assert raws(PreferencePairs().apply(make_dataset(rows, max_length=8))) == whole


def test_a_row_in_which_the_agent_says_nothing_makes_no_pair():
    rows = [Talk((("a", None),), terminal=False), answer("a", "b", -1.0), answer("a", "c", -2.0)]
    assert PreferencePairs().apply(make_dataset(rows)).rows.tolist() == [1, 2]


def test_pairs_of_a_prompt_are_drawn_by_the_seed():
    dataset = make_dataset([answer("a", text, float(i)) for i, text in enumerate("bcdefgh")])
    first, again, other = (raws(PreferencePairs(0.0, 5, seed).apply(dataset)) for seed in (0, 0, 1))
    assert len(first) == 10
    assert first == again != other


def test_a_dataset_without_a_pair_is_refused():
    with pytest.raises(UserError, match=r"differ, by at least min_gap=0\.0.*several scored answers"):
        PreferencePairs().apply(make_dataset(ANSWERS[1:3]))


def test_a_stream_has_no_pairs():
    with pytest.raises(UserError, match="stream"):
        PreferencePairs().apply(Stream(TOKENIZER))


@pytest.mark.parametrize("n_hosts", [1, 2])
def test_batches_never_tear_a_pair_apart(n_hosts):
    dataset = make_dataset([answer(p, text * (1 + i), float(i)) for p in "abcd" for i, text in enumerate("efgh")])
    pairs = PreferencePairs().apply(dataset)
    settings = {"batch_size": 8, "length_buckets": (16,), "n_hosts": n_hosts}
    loaders = [make_train_loader(pairs, seed=0, host=host, **settings) for host in range(n_hosts)]
    batches = [next(loader) for _ in range(5) for loader in loaders]
    batches += [batch for host in range(n_hosts) for batch in eval_batches(pairs, host=host, **settings)]
    for batch in batches:
        prompts, returns = batch.tokens[:, :3].reshape(-1, 2, 3), batch.per_token.rewards.sum(1).reshape(-1, 2)
        real = batch.token_mask[::2, 0]
        np.testing.assert_array_equal(prompts[:, 0], prompts[:, 1])
        assert (returns[real, 0] > returns[real, 1]).all()


def test_a_batch_of_half_pairs_is_refused():
    with pytest.raises(UserError, match="groups of 2"):
        make_train_loader(PreferencePairs().apply(make_dataset()), batch_size=3, seed=0, length_buckets=(16,))


# Labels.

LABELS = ReturnLabels(edges=(-5.0, -2.0), target=0.0, prefix=" ")
GAME = Talk((("a", None), ("b", -4.0), ("c", None), ("d", -2.0)))


def test_labels_tell_in_training_what_was_still_to_come():
    expected = [("a a", None), ("b", -4.0), ("c c", None), ("d", -2.0)]
    assert LABELS.apply(make_dataset([GAME])).get_item(0).raw == "<s>a a</s>b</a>c c</s>d</a></eod>"
    assert transforms._Labelled(GAME, LABELS, acting=False).to_sequence() == (expected, True)


def test_labels_ask_when_acting_for_the_target_less_what_was_earned():
    labels = dataclasses.replace(LABELS, target=-6.0)
    seen = Talk((("a", None), ("b", -4.0), ("c", None)), terminal=False)
    assert labels.view(seen).to_sequence() == ([("a a", None), ("b", -4.0), ("c c", None)], False)


def test_an_agent_that_speaks_first_hears_the_label_before():
    assert LABELS.view(Talk((), terminal=False)).to_sequence() == ([(" c", None)], False)


def test_acting_sees_the_prompt_that_training_saw():
    trained = LABELS.apply(make_dataset([answer("a", "b", 0.0)])).get_item(0).raw
    shown, _ = LABELS.view(Talk((("a", None),), terminal=False)).to_sequence()
    assert trained.startswith(f"<s>{shown[0][0]}</s>")


def test_labels_are_equally_frequent_and_ask_for_the_best():
    dataset = make_dataset([answer("a", "b", float(r)) for r in range(8)], reward_shift=3.0, reward_scale=0.1)
    labels = ReturnLabels.fit(dataset, DecisionTransformerConfig(n_labels=4, prefix=" "))
    assert labels.target == pytest.approx(7.0)
    assert [labels.name(r) for r in range(8)] == list("aabbccdd")


def test_labels_do_not_know_what_a_dataset_pays_for_tokens():
    talks = [GAME, *(answer("a", "b" * (9 - n), float(-n)) for n in range(8))]
    config = DecisionTransformerConfig(n_labels=4, prefix=" ")
    plain, paid = (
        ReturnLabels.fit(
            make_dataset(talks, token_reward=partial(np.full_like, fill_value=reward, dtype=float)), config
        )
        for reward in (0.0, -1.0)
    )
    assert plain == paid


@pytest.mark.parametrize("n_ones", [4, 6])
@pytest.mark.parametrize("standardise", [True, False])
def test_acting_asks_for_the_label_of_the_best_rows_where_many_tie(standardise, n_ones):
    talks = [answer("a", "b", float(i < n_ones)) for i in range(10)]
    shift, scale = infer_reward_scaling(talks) if standardise else (0.0, 1.0)
    token_reward = partial(np.full_like, fill_value=0.0 if standardise else -0.01, dtype=float)
    dataset = make_dataset(talks, reward_shift=shift, reward_scale=scale, token_reward=token_reward)
    labels = ReturnLabels.fit(dataset, DecisionTransformerConfig(prefix=" "))
    prompts = [raw[: raw.index("</s>")] for raw in raws(labels.apply(dataset))]
    ((asked, _),), _ = labels.view(Talk((("a", None),), terminal=False)).to_sequence()
    assert set(prompts[:n_ones]) == {f"<s>{asked}"} != set(prompts[n_ones:])


def test_a_return_that_is_an_edge_has_the_letter_above_it_in_rows_and_in_acting():
    talk = Talk((("a", None), ("b", 0.1), ("c", None), ("d", 0.2), ("e", None), ("f", 0.3)))
    dataset = make_dataset([talk] * 5)
    labels = ReturnLabels.fit(dataset, DecisionTransformerConfig(prefix=" "))
    assert labels.edges == pytest.approx((0.3, 0.5, 0.6), abs=1e-9)
    assert labels.apply(dataset).get_item(0).raw == "<s>a d</s>b</a>c c</s>d</a>e b</s>f</a></eod>"
    assert labels.view(talk).to_sequence() == transforms._Labelled(talk, labels, acting=False).to_sequence()


def test_truncation_keeps_the_label():
    dataset = LABELS.apply(make_dataset([answer("a" * 20, "b", 0.0)], max_length=10))
    assert TOKENIZER.decode(dataset.get_item(0).tokens[1:6]) == "aaa c"


def test_a_tokenizer_that_cannot_write_the_labels_is_refused():
    with pytest.raises(UserError, match="prefix"):
        ReturnLabels.fit(make_dataset(), DecisionTransformerConfig(prefix="\nReturn: "))


@pytest.mark.parametrize("fitted", [AllRows(), BestRows(-1.5), PreferencePairs(1.0, 2, 3), LABELS])
def test_a_transform_is_the_same_after_a_trip_through_plain_values(fitted):
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(fitted).items()}
    assert from_section(type(fitted), plain) == fitted
