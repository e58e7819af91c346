"""Datasets: tokenized once, truncation counted, rewards in the critic's unit and back."""

from dataclasses import dataclass

import numpy as np
import pytest

from ilqljax.data.dataset import (
    IterableRLDataset,
    ListRLDataset,
    ObservationDataset,
    SelectedRows,
    infer_reward_scaling,
)
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import LanguageObservation, ListDialogue
from ilqljax.errors import UserError

TOKENIZER = CharacterTokenizer("abcdefgh")


@dataclass(frozen=True)
class Chat(LanguageObservation):
    prompt: str
    answer: str
    reward: float

    def to_sequence(self):
        return [(self.prompt, None), (self.answer, self.reward)], True

    def __str__(self):
        return self.answer


CHATS = [Chat("abcd", "a", -10.0), Chat("ab", "bb", -30.0), Chat("a", "", -200.0)]


def test_rows_are_read_by_number():
    dataset = ObservationDataset(CHATS, TOKENIZER)
    assert dataset.size() == 3
    assert [dataset.get_item(i).raw for i in range(3)] == [
        "<s>abcd</s>a</a></eod>",
        "<s>ab</s>bb</a></eod>",
        "<s>a</s></a></eod>",
    ]


def test_sizes_are_tokens_actions_and_utterances():
    dataset = ObservationDataset(CHATS, TOKENIZER)
    assert dataset.row_sizes.tolist() == [[9, 2, 1], [8, 3, 1], [5, 1, 1]]
    assert dataset.row_sizes[:, 0].tolist() == [9, 8, 5]


def test_an_empty_dataset_has_no_sizes():
    assert ObservationDataset([], TOKENIZER).row_sizes.shape == (0, 3)


@pytest.mark.parametrize("choose", [lambda dataset: dataset, lambda dataset: SelectedRows(dataset, [0, 1, 2])])
def test_sizes_of_a_changed_view_are_its_own_though_the_origin_had_counted(choose):
    dataset = choose(ObservationDataset(CHATS, TOKENIZER))
    assert dataset.row_sizes[:, 0].tolist() == [9, 8, 5]
    longer = dataset.with_view(lambda chat: Chat(chat.prompt + "hh", chat.answer, chat.reward))
    assert longer.row_sizes[:, 0].tolist() == [11, 10, 7]
    assert [len(longer.get_item(i).tokens) for i in range(3)] == [11, 10, 7]
    assert dataset.row_sizes[:, 0].tolist() == [9, 8, 5]


def test_truncated_rows_and_tokens_are_counted():
    dataset = ObservationDataset(CHATS, TOKENIZER, max_length=7)
    assert dataset.n_truncated == 2
    assert dataset.row_sizes[:, 0].tolist() == [7, 7, 5]
    assert dataset.get_item(0).rewards.tolist() == [0, -10]


def test_dropped_turns_are_counted_and_told_of(caplog):
    talk = ListDialogue([("a", None), ("b", -1.0), ("c", None), ("d", -2.0)])
    with caplog.at_level("INFO", logger="ilqljax"):
        dataset = ObservationDataset([talk, CHATS[2]], TOKENIZER, max_length=9, too_long="drop")
    assert (dataset.n_dropped_turns, dataset.get_item(0).utterance_rewards.tolist()) == (1, [-2.0])
    assert "1 of 2 dialogues are longer than max_length=9 and lost their oldest turns, 1 in all" in caplog.text
    assert dataset.with_view(lambda dialogue: dialogue).n_dropped_turns == 1
    with pytest.raises(UserError, match=r"too_long='end' is unknown\. Known: cut, drop"):
        ObservationDataset([talk], TOKENIZER, too_long="end")


def test_a_dialogue_that_cannot_be_cut_is_named():
    with pytest.raises(UserError, match="observation 1: the dialogue has 8 tokens and max_length=5"):
        ObservationDataset([Chat("a", "", 0.0), Chat("ab", "bb", -30.0)], TOKENIZER, max_length=5)


def test_utterance_rewards_are_shifted_then_scaled():
    dataset = ObservationDataset(CHATS, TOKENIZER, reward_shift=-20.0, reward_scale=0.5)
    assert [dataset.get_item(i).utterance_rewards.tolist() for i in range(3)] == [[5.0], [-5.0], [-90.0]]


def test_token_rewards_are_not_scaled():
    dataset = ObservationDataset(CHATS, TOKENIZER, token_reward=lambda tokens: -np.ones(len(tokens)), reward_scale=0.5)
    assert dataset.get_item(0).rewards.tolist() == [-1.0, -6.0]


def test_inferred_scaling_standardises():
    shift, scale = infer_reward_scaling(CHATS)
    dataset = ObservationDataset(CHATS, TOKENIZER, reward_shift=shift, reward_scale=scale)
    rewards = np.concatenate([dataset.get_item(i).utterance_rewards for i in range(3)])
    np.testing.assert_allclose([rewards.mean(), rewards.std()], [0, 1], atol=1e-6)


def test_equal_rewards_keep_their_unit():
    assert infer_reward_scaling(CHATS[:1]) == (-10.0, 1.0)


@pytest.mark.parametrize("reward", [0.1, -1e6, 0.0])
def test_rewards_that_differ_by_rounding_alone_keep_their_unit(reward):
    rewards = [np.nextafter(reward, 1.0), *[reward] * 9]
    talks = [ListDialogue([("a", None), ("b", float(each))]) for each in rewards]
    if reward:
        assert infer_reward_scaling(talks)[1] == 1.0
    assert infer_reward_scaling(talks[1:]) == (reward, 1.0)


@pytest.mark.parametrize("longer", [[("a", -1.0), ("b", None), ("a", -1.0)], [("a", None)]])
def test_rewards_of_dialogues_of_unequal_length_are_scaled_alone_and_stay_in_order(longer):
    talks = [ListDialogue([("q", None), ("a", reward)]) for reward in (-1.0, -3.0)] + [ListDialogue(longer)]
    shift, scale = infer_reward_scaling(talks)
    rewards = np.array([r for talk in talks for _, r in talk.sequence if r is not None])
    assert (shift, scale) == (0.0, pytest.approx(1.0 / rewards.std()))


def test_nothing_to_standardise_is_refused():
    with pytest.raises(UserError, match="no utterance of an agent with a reward"):
        infer_reward_scaling([])


@pytest.mark.parametrize("setting", [{"reward_scale": 0.0}, {"reward_scale": -1.0}, {"reward_shift": float("nan")}])
def test_a_scaling_that_cannot_be_undone_is_refused(setting):
    with pytest.raises(UserError, match="must be finite, the scale above 0"):
        ObservationDataset(CHATS, TOKENIZER, **setting)


def test_a_negative_limit_is_refused():
    with pytest.raises(UserError, match="max_length=-1 is negative"):
        ObservationDataset(CHATS, TOKENIZER, max_length=-1)


@pytest.mark.parametrize(
    ("observations", "tokenizer", "message"),
    [
        (3, TOKENIZER, "observations=3 is of type int"),
        ([CHATS[0], ("a", "b", 1.0)], TOKENIZER, "observation 1=.* is of type tuple"),
        (CHATS, "gpt2", "tokenizer='gpt2' is of type str"),
    ],
)
def test_what_is_no_dialogue_or_tokenizer_is_refused(observations, tokenizer, message):
    with pytest.raises(UserError, match=message):
        ObservationDataset(observations, tokenizer)


def test_list_and_stream_must_be_completed_by_a_subclass():
    for cls in (ListRLDataset, IterableRLDataset):
        with pytest.raises(TypeError, match="abstract"):
            cls(TOKENIZER)
