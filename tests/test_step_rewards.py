"""Rewards inside one utterance: where they are paid, and what is refused."""

import copy
import math
import pickle

import numpy as np
import pytest

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.dataset import ObservationDataset, infer_reward_scaling
from ilqljax.data.step_rewards import StepRewards
from ilqljax.data.tokenizer import CharacterTokenizer, train_bpe
from ilqljax.data.transforms import total_return
from ilqljax.envs.base import ListDialogue
from ilqljax.errors import UserError
from ilqljax.training.fit import read_dialogues

CHARACTERS = CharacterTokenizer("abcdefghijklmnopqrstuvwxyz, ", unk=False)
STEPS = StepRewards.at_characters({2: -1.0, 7: 2.0}, end=0.5)


def test_the_table_of_the_docstring():
    assert STEPS == 1.5
    assert STEPS.place("no, yes", CHARACTERS).tolist() == [0, -1, 0, 0, 0, 0, 2, 0.5]


def test_a_token_that_completes_steps_earns_their_sum():
    tokenizer = train_bpe(["hello hello world"] * 9, vocab_size=300)
    text = "hello world"
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    assert pieces == ["hello", " world"]
    assert StepRewards.at_characters({1: 1.0, 5: 2.0, 6: 4.0, 11: 8.0}).place(text, tokenizer).tolist() == [3, 12, 0]


def test_a_character_of_several_tokens_is_completed_by_its_last():
    tokenizer = train_bpe(["abc"], vocab_size=270)
    assert len(tokenizer.encode("aé€b")) == 7
    placed = StepRewards.at_characters({1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0}).place("aé€b", tokenizer)
    assert placed.tolist() == [1, 0, 2, 0, 0, 4, 8, 0]


def test_tokens_are_paid_one_by_one():
    assert StepRewards.at_tokens([1.0, 0.0, -2.0], end=4.0).place("abc", CHARACTERS).tolist() == [1, 0, -2, 4]
    with pytest.raises(UserError, match=r"'ab' has 2 tokens and 3 rewards\. Give one for each"):
        StepRewards.at_tokens([1.0, 0.0, -2.0]).place("ab", CHARACTERS)


def test_a_row_pays_the_steps_at_their_tokens_and_the_shift_once():
    talk = ListDialogue([("q", None), ("no, yes", STEPS), ("r", None), ("ok", 3.0)])
    row = DataPoint.from_observation(talk, CHARACTERS, reward_shift=1.0, reward_scale=2.0)
    assert row.rewards.tolist() == [0, -2, 0, 0, 0, 0, 4, 1 - 2, 0, 0, 4]
    assert row.utterance_rewards.tolist() == [1, 4]
    plain = ListDialogue([("q", None), ("no, yes", 1.5), ("r", None), ("ok", 3.0)])
    datasets = [ObservationDataset([each], CHARACTERS, reward_shift=1.0, reward_scale=2.0) for each in (talk, plain)]
    assert [total_return(data, data.get_item(0)) for data in datasets] == [4.5, 4.5]
    assert infer_reward_scaling([talk]) == infer_reward_scaling([plain])


def test_a_row_that_drops_old_turns_keeps_each_utterances_own_steps():
    talk = ListDialogue([("q", None), ("a", StepRewards.at_tokens([9.0])), ("r", None), ("bc", STEPS_OF_TWO)])
    row = DataPoint.from_observation(talk, CHARACTERS, max_length=9, too_long="drop")
    assert row.rewards.tolist() == [1, 2, 0]


STEPS_OF_TWO = StepRewards.at_tokens([1.0, 2.0])


def test_steps_survive_a_copy_and_what_fit_makes_of_a_triple():
    for again in (copy.deepcopy(STEPS), pickle.loads(pickle.dumps(STEPS))):
        assert (again, again.steps, again.unit, again.end) == (STEPS, STEPS.steps, "character", 0.5)
    ((_, (_, given)),) = (one.to_sequence()[0] for one in read_dialogues([("q", "no, yes", STEPS)]))
    assert given is STEPS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepRewards.at_characters({0: 1.0}), r"a reward is at 0\. Give whole numbers from 1 on"),
        (lambda: StepRewards.at_characters({1.5: 1.0}), r"a reward is at 1\.5"),
        (lambda: StepRewards.at_characters([1.0]), "steps=.* is of type list"),
        (lambda: StepRewards.at_characters({1: "x"}), "reward at 1='x' is of type str"),
        (lambda: StepRewards.at_tokens(3.0), r"rewards=3\.0 is of type float"),
        (lambda: StepRewards.at_characters({4: 1.0}).place("abc", CHARACTERS), "3 characters and a reward at 4"),
        (lambda: StepRewards.at_characters({1: math.nan}).place("abc", CHARACTERS), "rewards must be finite"),
        (lambda: StepRewards.at_characters({1: 1.0}).place("aX", CharacterTokenizer("a")), "does not give this text"),
    ],
)
def test_a_wrong_step_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_row_with_a_step_that_is_not_finite_is_refused():
    talk = ListDialogue([("q", None), ("ab", StepRewards.at_tokens([np.inf, -np.inf]))])
    with pytest.raises(UserError, match="rewards must be finite numbers"):
        ObservationDataset([talk], CHARACTERS)
