"""Wordle as a dialogue: rows, rewards, and going on from a position."""

import numpy as np
import pytest

from ilqljax.data.datapoint import DataPoint
from ilqljax.errors import UserError
from ilqljax.wordle.data import make_tokenizer
from ilqljax.wordle.environment import MAX_TOKENS, WordleEnvironment, WordleObservation, make_environments
from ilqljax.wordle.game import WordList, load_words

WORDS = WordList(["abbey", "kebab", "eerie"])


def hide(word):
    environment = WordleEnvironment(WORDS)
    environment.hidden = WORDS.numbers[word]
    return environment


def play(environment, *guesses):
    for guess in guesses:
        observation, reward, terminal = environment.step(guess)
    return observation, reward, terminal


def test_the_solving_guess_earns_0_and_ends_the_game():
    observation, reward, terminal = play(hide("abbey"), "kebab", "abbey")
    assert (reward, terminal) == (0.0, True)
    assert observation.to_sequence() == (
        [("kebab", -1.0), ("BYGYY", None), ("abbey", 0.0), ("GGGGG", None)],
        True,
    )


def test_six_wrong_guesses_end_the_game_at_minus_6():
    observation, _, terminal = play(hide("abbey"), *["kebab"] * 6)
    assert terminal and sum(observation.rewards()) == -6


def test_five_wrong_guesses_do_not_end_it():
    assert not play(hide("abbey"), *["kebab"] * 5)[2]


def test_solving_at_the_last_guess_is_worth_minus_5():
    observation, _, _ = play(hide("abbey"), *["kebab"] * 5, "abbey")
    assert sum(observation.rewards()) == -5


def test_a_game_is_a_row_of_letters_and_colours():
    row = DataPoint.from_observation(play(hide("abbey"), "kebab", "abbey")[0], make_tokenizer())
    assert row.raw == "<a>kebab</a>BYGYY</s>abbey</a>GGGGG</s></eod>"
    assert len(row.tokens) == 1 + 2 * 12 + 1
    assert row.rewards.tolist() == [0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0]


def test_the_longest_row_has_74_tokens():
    row = DataPoint.from_observation(play(hide("abbey"), *["kebab"] * 6)[0], make_tokenizer())
    assert len(row.tokens) == MAX_TOKENS == 74


def test_the_vocabulary_has_35_ids():
    assert make_tokenizer().vocab_size == 35


@pytest.mark.parametrize("text", ["", "four", "sixsix", "Abbey", "GGGGG", "ab ey"])
def test_a_text_that_is_no_word_costs_a_guess_and_tells_nothing(text):
    observation, reward, terminal = play(hide("abbey"), text)
    assert (reward, terminal) == (-1.0, False)
    assert observation.to_sequence()[0] == [(text, -1.0), ("", None)]


def test_six_texts_that_are_no_words_end_the_game():
    assert play(hide("abbey"), *["x"] * 6)[2]


def test_five_letters_outside_the_list_are_coloured():
    assert play(hide("abbey"), "zzzzy")[0].colours == ("BBBBG",)


def test_a_position_is_continued_and_not_restarted():
    position = play(hide("abbey"), "kebab", "eerie")[0]
    environment = WordleEnvironment(WORDS, 1)
    assert environment.set_state(position) is position
    observation, _, terminal = environment.step("abbey")
    assert observation.guesses == ("kebab", "eerie", "abbey") and terminal and observation.solved


def test_a_continued_position_hides_only_words_that_explain_it():
    words = load_words()
    first = WordleEnvironment(words, 3)
    position = first.step("ocean")[0]
    fitting = set(np.flatnonzero(words.find_consistent(position.guesses, position.colours)))
    environment, drawn = WordleEnvironment(words, 4), set()
    for _ in range(40 * len(fitting)):
        environment.set_state(position)
        drawn.add(environment.hidden)
    assert drawn == fitting


def test_a_finished_position_stays_finished():
    environment = WordleEnvironment(WORDS)
    environment.set_state(WordleObservation(("abbey",), ("GGGGG",)))
    assert environment.is_terminal()
    with pytest.raises(ValueError, match="over"):
        environment.step("kebab")


def test_colours_that_no_word_explains_are_refused():
    with pytest.raises(UserError, match="no word of the list explains"):
        WordleEnvironment(WORDS).set_state(WordleObservation(("zzzzz",), ("GBBBB",)))


@pytest.mark.parametrize(
    ("guesses", "colours", "match"),
    [
        (("kebab",) * 7, ("",) * 7, "7 guesses with 7 colours"),
        (("kebab", "eerie"), ("BBBBB",), "2 guesses with 1 colours"),
        (("kebab",), ("GGG",), "colours 'GGG' of guess 'kebab'"),
        (("four",), ("BBBBB",), "guess 'four' with colours 'BBBBB'"),
        (("kebab",), ("",), "guess 'kebab' with colours ''"),
        (("abbey", "kebab"), ("GGGGG", "BBGBB"), "goes on after it was solved"),
    ],
)
def test_what_is_no_position_of_a_game_is_refused(guesses, colours, match):
    with pytest.raises(UserError, match=match):
        WordleEnvironment(WORDS).set_state(WordleObservation(guesses, colours))


def test_environment_i_hides_the_same_words_however_many_there_are():
    few, many = make_environments(load_words(), 3, seed=0), make_environments(load_words(), 9, seed=0)
    assert [e.hidden for e in few] == [e.hidden for e in many[:3]]
    assert len({e.hidden for e in many}) > 1
