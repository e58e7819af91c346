"""Games to learn from."""

import numpy as np
import pytest

from benchmarks.wordle.adversarial import make_adversarial_games
from benchmarks.wordle.multistep import pair_first_guesses
from ilqljax.data.dataset import ObservationDataset, SelectedRows
from ilqljax.data.loader import make_train_loader
from ilqljax.data.transforms import PreferencePairs, ReturnLabels
from ilqljax.errors import UserError
from ilqljax.training.run_config import load_run_config
from ilqljax.wordle.data import (
    FittingGuesses,
    MixtureGames,
    WordleStream,
    balance_turns,
    make_tokenizer,
    play_game,
    play_games,
)
from ilqljax.wordle.environment import WordleObservation, compute_returns
from ilqljax.wordle.game import WordList, load_words
from ilqljax.wordle.policies import ConsistentPolicy, MixturePolicy

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


def make_games(p, n, seed=0):
    return MixtureGames(MixturePolicy(WORDS, p=p), n, make_tokenizer(), seed=seed)


def test_games_as_arrays_are_whole_games_that_one_word_explains():
    games = make_games(0.5, 300)
    for i in range(games.size()):
        game = games.get_game(i)
        assert game.terminal and not any(game.first(k).terminal for k in range(len(game.guesses)))
        assert WORDS.find_consistent(game.guesses, game.colours).any()
        assert (len(game.guesses), game.solved) == (games.n_guesses[i], games.solved[i])
    np.testing.assert_array_equal(games.returns, compute_returns([games.get_game(i) for i in range(games.size())]))


def test_games_as_arrays_know_the_sizes_of_their_rows():
    games = make_games(0.5, 50)
    rows = [games.get_item(i) for i in range(games.size())]
    expected = [(len(row.tokens), len(row.action_idxs), len(row.utterance_action_idxs)) for row in rows]
    np.testing.assert_array_equal(games.row_sizes, expected)
    np.testing.assert_array_equal(SelectedRows(games, [3, 1, 3]).row_sizes, games.row_sizes[[3, 1, 3]])


def test_fitting_guesses_are_all_first_guesses_and_the_last_ones_of_solved_games():
    games = make_games(0.5, 600, seed=2)
    rows = FittingGuesses(games)
    taken = list(zip(rows.game_idxs.tolist(), rows.n_guesses.tolist(), strict=True))
    solved_later = [(i, n) for i, n in enumerate(games.n_guesses.tolist()) if games.solved[i] and n > 1]
    assert taken == [(i, 1) for i in range(600)] + solved_later and rows.size() == len(taken)
    assert not games.solved.all() and 0 < (games.n_guesses == 1).sum() < len(solved_later)
    for i, (game, n) in enumerate(taken):
        row, game = rows.get_item(i), games.get_game(game)
        ended, encode = n == len(game.guesses), games.tokenizer.encode
        turns = zip(game.guesses[:n], game.colours[:n], strict=True)
        text = "".join(f"{guess}</a>{colours}</s>" for guess, colours in turns)
        assert row.raw == f"<a>{text}" + ("</eod>" if ended else "")
        assert row.raw[row.prompt_length :].startswith(f"{game.guesses[n - 1]}</a>{game.colours[n - 1]}</s>")
        assert row.tokens[row.action_idxs + 1].tolist() == [*encode(game.guesses[n - 1]), games.tokenizer.eoa_id]
        assert row.rewards.tolist() == [0.0] * 5 + [0.0 if ended else -1.0]
        assert row.utterance_rewards.tolist() == [0.0 if ended else -1.0]
        assert row.terminals.tolist() == [0.0] * 6 + [float(ended)]
        assert row.tokens[row.utterance_action_idxs].tolist() == [games.tokenizer.eoa_id]
        assert tuple(rows.row_sizes[i]) == (len(row.tokens), len(row.action_idxs), len(row.utterance_action_idxs))


def test_pairs_of_fitting_guesses_are_of_guesses_after_the_same_colours():
    guesses = FittingGuesses(make_games(0.5, 600, seed=2))
    pairs = PreferencePairs().apply(guesses)
    better, worse = ([row.raw[: row.prompt_length] for row in map(pairs.get_item, range(k, 600, 2))] for k in (0, 1))
    assert better == worse == ["<a>"] * 300  # later guesses all solve, so that none of them is the better one
    assert (guesses.n_guesses[pairs.rows] == 1).all()


@pytest.mark.parametrize("words", [("crane",), WORDS.words])  # all games are solved at once, or hardly any at all
def test_games_without_a_solved_one_of_two_guesses_are_refused(words):
    games = MixtureGames(MixturePolicy(WordList(words), p=0.0), 1, make_tokenizer(), seed=0)
    with pytest.raises(UserError, match="none of 1 games was solved by a second or later guess"):
        FittingGuesses(games)


def test_balanced_turns_show_guesses_of_every_number_alike():
    games = make_games(0.5, 2000)
    guesses = FittingGuesses(games)
    rows = balance_turns(guesses, 1199, seed=3)
    assert rows.size() == 1199
    assert np.bincount(rows.row_sizes[:, 0] // 12).tolist() == [0, *[200] * 5, 199]
    assert sorted(balance_turns(guesses, 7, seed=3).row_sizes[:, 0] // 12) == [1, 1, 2, 3, 4, 5, 6]
    for i in range(0, 1199, 13):
        row = rows.get_item(i)
        assert (len(row.tokens), len(row.action_idxs)) == (rows.row_sizes[:, 0][i], 6)
    np.testing.assert_array_equal(rows.rows, balance_turns(guesses, 1199, seed=3).rows)
    assert (rows.rows != balance_turns(guesses, 1199, seed=4).rows).any()


def test_first_guesses_are_those_of_all_games_not_of_the_few_solved_at_once():
    games = make_games(0.5, 2000)
    assert (games.n_guesses == 1).sum() < 30
    rows = balance_turns(FittingGuesses(games), 1200, seed=3)
    firsts = [rows.get_item(i).raw for i in np.flatnonzero(rows.row_sizes[:, 0] < 26)]
    # 200 drawn of 2,000 with replacement are some 190 games; their colours tell them apart.
    assert len(set(firsts)) > 150


def test_a_changed_view_of_fitting_guesses_still_shows_the_last_guess_alone():
    games = make_games(0.5, 50)
    guesses = FittingGuesses(games)
    last = guesses.size() - 1
    for view in (guesses.with_view(lambda dialogue: dialogue), FittingGuesses(games.with_view(lambda game: game))):
        np.testing.assert_array_equal(view.get_item(last).action_idxs, guesses.get_item(last).action_idxs)
    labelled = ReturnLabels((), target=0.0, prefix="").apply(guesses).get_item(last)
    game = games.get_game(int(guesses.game_idxs[last]))
    assert labelled.raw[labelled.prompt_length :].startswith(f"{game.guesses[-1]}</a>")
    assert labelled.raw[: labelled.prompt_length].endswith(f"{game.colours[-2]}a</s>")


@pytest.mark.parametrize("make", [lambda games: games, FittingGuesses])
def test_sizes_of_a_changed_view_are_those_of_its_rows(make):
    rows = make(make_games(0.5, 50)).with_view(lambda game: game.first(1))
    expected = [
        (len(row.tokens), len(row.action_idxs), len(row.utterance_action_idxs)) for row in map(rows.get_item, range(20))
    ]
    np.testing.assert_array_equal(rows.row_sizes[:20], expected)
    assert rows.row_sizes[:, 0].max() <= 14


def test_no_games_are_refused():
    with pytest.raises(UserError, match="n=0"):
        make_games(0.5, 0)


def test_a_game_of_consistent_guesses_has_no_other():
    games = make_games(1.0, 200)
    for game in map(games.get_game, range(games.size())):
        for k, guess in enumerate(game.guesses):
            before = game.first(k)
            assert WORDS.find_consistent(before.guesses, before.colours)[WORDS.numbers[guess]]


@pytest.mark.parametrize("p", [0.0, 1 / 3, 1.0])
def test_games_as_arrays_are_worth_what_single_games_are(p):
    single = compute_returns(play_games(MixturePolicy(WORDS, p=p), 1000, seed=0))
    many = make_games(p, 12_000).returns
    error = np.hypot(single.std() / len(single) ** 0.5, many.std() / len(many) ** 0.5)
    assert abs(many.mean() - single.mean()) < 3.5 * error


def test_games_as_arrays_depend_on_the_seed_alone():
    first, again, other = (make_games(1 / 3, 20, seed=seed).returns.tolist() for seed in (1, 1, 2))
    assert first == again != other


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


def test_labelled_games_fit_the_decision_transformers_bucket_and_model():
    config = load_run_config("configs/wordle.py:decision_transformer")
    rows = ObservationDataset(play_games(MixturePolicy(WORDS, p=0.0), 20, seed=0), make_tokenizer())
    labels = ReturnLabels((-3.0,), target=0.0, prefix=config.train.loss.prefix)
    assert labels.apply(rows).row_sizes[:, 0].max() == max(config.train.length_buckets) <= config.model.n_positions
