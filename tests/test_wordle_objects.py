"""Wordle through the train program, with a model of seconds."""

import json

import pytest

from ilqljax.errors import UserError
from ilqljax.train import train
from ilqljax.training.run_config import load_run_config

pytestmark = pytest.mark.slow  # the judge compiles a program for each way to decode


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    config = load_run_config("configs/wordle.py")
    config.run_dir = str(tmp_path_factory.mktemp("wordle") / "run")
    config.model.update({"n_embd": 16, "n_layer": 1, "n_head": 2, "unroll": 1})
    for stage in (config.pretrain, config.train):
        stage.update({"total_steps": 3, "warmup_steps": 1, "batch_size": 8, "n_rollouts": 4})
    config.validation_dataset.n_games = 8
    config.pretrain_dataset.n_games, config.pretrain_validation_dataset.n_games = 500, 20
    config.evaluator.update({"n_games": 8, "betas": (1.0, 4.0), "best_of": 2})
    config.acting.update({"batch_size": 8, "length_buckets": (61,)})
    return train(config)


def test_the_config_trains_and_judges_every_policy(run_dir):
    rows = json.loads((run_dir / "results.json").read_text())
    assert [row["policy"] for row in rows] == [
        "data",
        "information gain",
        "bc greedy",
        "bc sampled",
        "ilql beta=1",
        "ilql beta=4",
        "ilql best of 2",
    ]
    assert all(row["n_games"] == 8 and -6 <= row["return"] <= 0 for row in rows)


def test_the_clone_is_watched_on_fitting_guesses_alone(run_dir):
    lines = (run_dir / "metrics" / "bc" / "metrics.jsonl").read_text().splitlines()
    losses = [m["validation/loss"] for m in map(json.loads, lines) if "validation/loss" in m]
    # About log 35 for each letter of a guess, divided by all tokens: a seventh of these, where whole games have half.
    assert losses and all(0.2 < loss < 1.0 for loss in losses)


def test_fitting_guesses_of_another_policy_than_a_mixture_are_refused(tmp_path):
    config = load_run_config("configs/wordle.py")
    config.run_dir = str(tmp_path / "run")
    config.policy.name = "wordle_random"
    del config.policy.p
    with pytest.raises(UserError, match="wordle_mixture, not of RandomPolicy"):
        train(config)


def test_the_data_of_a_skipped_stage_are_not_made(tmp_path):
    config = load_run_config("configs/wordle.py:bc")
    config.run_dir = str(tmp_path / "run")
    config.pretrain_dataset.n_games = 0
    config.evaluator.n_games = 0  # comes later, and ends the run
    with pytest.raises(UserError, match="n_games=0"):
        train(config)


@pytest.mark.parametrize("given", [{"n_games": 0}, {"best_of": 0}, {"best_of_beta": 0.0}])
def test_a_judge_that_could_not_judge_is_refused_before_training(given, tmp_path):
    config = load_run_config("configs/wordle.py")
    config.run_dir = str(tmp_path / "run")
    config.evaluator.update(given)
    config.pretrain_dataset.n_games = 500
    with pytest.raises(UserError, match=f"{next(iter(given))}=0"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_every_judged_game_is_written(run_dir):
    games = [json.loads(line) for line in (run_dir / "games.jsonl").read_text().splitlines()]
    assert len(games) == 7 * 8
    assert all(len(game["guesses"]) == len(game["colours"]) <= 6 for game in games)


def test_all_policies_play_the_same_hidden_words(run_dir):
    games = [json.loads(line) for line in (run_dir / "games.jsonl").read_text().splitlines()]
    solved = {}
    for i, game in enumerate(games):
        if game["colours"][-1] == "GGGGG":
            assert solved.setdefault(i % 8, game["guesses"][-1]) == game["guesses"][-1]
