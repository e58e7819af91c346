"""Hand-written Wordle policies, by what they may guess and by the published means."""

import math
from collections import Counter

import numpy as np
import pytest

from benchmarks.wordle.adversarial import RepeatPolicy
from ilqljax.errors import UserError
from ilqljax.wordle.data import play_games
from ilqljax.wordle.environment import WordleObservation, compute_returns
from ilqljax.wordle.game import WordList, load_words
from ilqljax.wordle.policies import (
    ConsistentPolicy,
    InformationPolicy,
    MixturePolicy,
    RandomPolicy,
    compute_information,
)

WORDS = load_words()
N_GAMES = 4096


def after(*guesses, hidden):
    obs = WordleObservation()
    for guess in guesses:
        obs = obs.extend(guess, WORDS.colour(guess, WORDS.numbers[hidden]))
    return obs


POSITION = after("crane", "about", hidden="ocean")


def draw(policy, n=300):
    return {policy.act(POSITION) for _ in range(n)}


def fitting():
    return {WORDS.words[i] for i in np.flatnonzero(WORDS.find_consistent(POSITION.guesses, POSITION.colours))}


def test_consistent_guesses_may_all_be_hidden():
    assert draw(ConsistentPolicy(WORDS)) == fitting()


def test_repeat_keeps_to_the_first_guesses():
    position = POSITION.extend("beach", "BBBBB")
    policy = RepeatPolicy(WORDS, first=2)
    assert {policy.act(position) for _ in range(50)} == {"crane", "about"}


def test_mixture_of_0_and_of_1_are_random_and_consistent():
    assert len(draw(MixturePolicy(WORDS, p=0.0))) > len(fitting()) + 50
    assert draw(MixturePolicy(WORDS, p=1.0)) == fitting()


def test_a_share_that_is_no_probability_is_refused():
    with pytest.raises(UserError, match=r"p=1\.5"):
        MixturePolicy(WORDS, p=1.5)


def test_a_position_of_another_list_is_refused():
    with pytest.raises(UserError, match="list of the game"):
        ConsistentPolicy(WordList(["abbey"])).act(after("crane", hidden="ocean"))


def test_information_is_the_entropy_of_the_colours():
    codes = np.array([[0, 0, 1, 2], [0, 0, 0, 0], [0, 1, 2, 3]], np.uint8)
    expected = [1.5 * math.log(2), 0.0, math.log(4)]
    np.testing.assert_allclose(compute_information(codes), expected, atol=1e-12)


def test_information_gain_guesses_a_best_consistent_word_by_a_slow_twin():
    candidates = sorted(fitting())
    entropies = {}
    for guess in candidates:
        counts = Counter(WORDS.colour(guess, WORDS.numbers[hidden]) for hidden in candidates)
        shares = [n / len(candidates) for n in counts.values()]
        entropies[guess] = -sum(s * math.log(s) for s in shares)
    best = {guess for guess, value in entropies.items() if value > max(entropies.values()) - 1e-9}
    assert draw(InformationPolicy(WORDS), 50) == best


def test_equal_seeds_play_equal_games():
    first, second = (play_games(MixturePolicy(WORDS, p=0.5), 20, seed=3) for _ in range(2))
    assert first == second


def test_policies_rank_as_they_know_more():
    policies = [RandomPolicy(WORDS), MixturePolicy(WORDS, p=1 / 3), ConsistentPolicy(WORDS), InformationPolicy(WORDS)]
    means = [compute_returns(play_games(policy, 1000, seed=0)).mean() for policy in policies]
    assert means == sorted(means)


@pytest.mark.slow
@pytest.mark.parametrize(
    "n_words, make, figure",
    [
        (236, InformationPolicy, -1.75),
        (431, InformationPolicy, -1.94),
        (236, lambda words: MixturePolicy(words, p=1 / 3), -3.87),
        (431, lambda words: MixturePolicy(words, p=0.34), -4.12),
    ],
    ids=["information-236", "information-431", "mixture-236", "mixture-431"],
)
def test_mean_return_agrees_with_the_published_figure(shared_dir, n_words, make, figure):
    # The figures' own errors are not published: both sides are taken to be means of 4,096 games.
    words = load_words(shared_dir / f"data/wordle/words_{n_words}.txt")
    returns = compute_returns(play_games(make(words), N_GAMES, seed=0))
    error = returns.std(ddof=1) / math.sqrt(N_GAMES)
    assert abs(returns.mean() - figure) < 3 * math.sqrt(2) * error
