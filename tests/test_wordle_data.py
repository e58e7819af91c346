"""Games to learn from."""

import numpy as np
import pytest

from ilqljax.data.loader import make_train_loader
from ilqljax.errors import UserError
from ilqljax.tasks.wordle.data import (
    WordleStream,
    make_adversarial_games,
    make_tokenizer,
    pair_first_guesses,
    play_game,
)
from ilqljax.tasks.wordle.environment import WordleObservation
from ilqljax.tasks.wordle.game import WordList, load_words
from ilqljax.tasks.wordle.policies import ConsistentPolicy, MixturePolicy

WORDS = load_words()
GAMES = make_adversarial_games(WORDS, 6, seed=0, keep_short=False)


def of_kind(kind):
    return [g for g in GAMES if g.notes["kind"] == kind]


def test_a_stream_depends_on_the_generator_alone():
    stream = WordleStream(MixturePolicy(WORDS, p=1 / 3), make_tokenizer())
    first, _, again = (stream.sample_item(np.random.default_rng(seed)).raw for seed in (1, 2, 1))
    assert first == again


def test_a_stream_feeds_the_loader():
    stream = WordleStream(MixturePolicy(WORDS, p=1 / 3), make_tokenizer())
    batch = next(make_train_loader(stream, batch_size=4, seed=0, length_buckets=(80,), action_buckets=(36,)))
    assert batch.tokens.shape == (4, 80)
    assert (batch.per_token.action_mask.sum(1) % 6 == 0).all()


def test_a_game_goes_on_from_a_position():
    start = WordleObservation().extend("crane", WORDS.colour("crane", WORDS.numbers["ocean"]))
    game = play_game(ConsistentPolicy(WORDS), np.random.default_rng(0), start)
    assert game.guesses[0] == "crane" and game.terminal


def test_an_expert_game_brings_five_branches_and_five_games_of_their_own():
    assert [len(of_kind(kind)) for kind in ("expert", "adversarial", "suboptimal")] == [6, 30, 30]


def test_short_expert_games_are_kept_without_branches():
    games = make_adversarial_games(WORDS, 20, seed=0)
    short = {g.notes["expert"] for g in games if g.notes["kind"] == "expert" and len(g.guesses) < 3}
    branched = {g.notes["expert"] for g in games if g.notes["kind"] == "adversarial"}
    assert short and branched == set(range(20)) - short
    assert sum(g.notes["kind"] == "suboptimal" for g in games) == 5 * 20


def test_expert_games_have_at_least_three_guesses():
    assert all(len(game.guesses) >= 3 for game in of_kind("expert"))


def test_branches_continue_their_expert_after_two_guesses_and_repeat_these():
    experts = {g.notes["expert"]: g for g in of_kind("expert")}
    for game in of_kind("adversarial"):
        expert = experts[game.notes["expert"]]
        assert game.first(2) == expert.first(2)
        assert len(game.guesses) == 6 and set(game.guesses[2:]) <= set(game.guesses[:2])
        assert sum(game.rewards()) == -6


def test_pairs_are_of_different_first_guesses():
    pairs = pair_first_guesses(GAMES)
    firsts = {g.guesses[0] for g in of_kind("expert")}
    assert pairs and all(expert in firsts and expert != other for expert, other in pairs)


def test_a_list_too_short_for_long_games_is_refused():
    with pytest.raises(UserError, match="more words"):
        make_adversarial_games(WordList(["abbey"]), 1, seed=0, keep_short=False)
