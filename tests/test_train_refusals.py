"""What the train program refuses before any work is done."""

import sys

import pytest
from dialogues import answer
from small_runs import STEPS, make_config

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import Learner, make_learner, read_options
from ilqljax.training import evaluation as evaluate
from ilqljax.training.evaluation import OpenRun, Trained, evaluate_run
from ilqljax.training.loop import make_stage
from ilqljax.training.plan import check_trunks, plan_run
from ilqljax.training.run_config import TrainConfig, load_run_config, read_run_config


def test_microbatches_that_tear_pairs_apart_are_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "pairs", "dpo")
    config.train.accumulate_steps = config.train.batch_size
    with pytest.raises(UserError, match="groups of 2"):
        plan_run(config)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_sorting_a_stream_is_refused_before_any_work(tmp_path):
    config = load_run_config("configs/wordle.py")
    config.run_dir = str(tmp_path / "sorted")
    config.train.sort_window = 2
    with pytest.raises(UserError, match=r"sort_window=2.*stream"):
        plan_run(config)
    assert not (tmp_path / "sorted").exists()


def test_cloning_twice_under_one_name_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "twice", "bc")
    config.pretrain.total_steps = STEPS
    with pytest.raises(UserError, match="both clone"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


def test_missing_wandb_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = make_config(tmp_path, "logged")
    config.wandb.use_wandb = True
    with pytest.raises(UserError, match=r"pip install 'ilqljax\[wandb\]'"):
        plan_run(config)
    assert not (tmp_path / "data").exists() and not (tmp_path / "logged").exists()


def test_steps_alone_shorten_a_warm_up_that_the_user_did_not_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = make_config(tmp_path, "short")
    config.wandb.use_wandb = True  # refused after the stages' options have been checked
    config.train.update({"total_steps": 60, "warmup_steps": 50})
    overrides = {"train.total_steps": 60, "train.lr": 0.1}
    with pytest.raises(UserError, match="wandb"):
        plan_run(config, overrides=overrides)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("config.train.warmup_steps=50 is for longer trainings: with total_steps=60 it is 3")
    config.train.total_steps = 40
    with pytest.raises(UserError, match="leaves no step after the warm-up"):
        plan_run(config, overrides=overrides | {"train.warmup_steps": 50})
    assert config.train.warmup_steps == 50


def test_validation_row_too_long_is_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "short")
    config.pretrain.length_buckets = config.train.length_buckets = (64,)
    with pytest.raises(UserError, match="length_buckets"):
        plan_run(config)
    assert not (tmp_path / "short").exists()


def test_a_row_that_fits_no_bucket_of_a_later_stage_is_refused_when_it_is_planned():
    tokenizer = CharacterTokenizer("ab")
    short, long = (ObservationDataset([answer("a", "b" * n, 0.0)], tokenizer) for n in (1, 9))
    model = ValueLM(GPT2(GPT2Config(vocab_size=tokenizer.vocab_size)), ValueLMConfig())
    learner, settings = make_learner("ilql", model, {}), TrainConfig(batch_size=1, length_buckets=(8,))
    make_stage("ilql", learner, settings, short, short)
    for rows, validation in ((long, short), (short, long)):
        with pytest.raises(UserError, match=r"row 0 has 14 tokens and the largest of length_buckets=\(8,\)"):
            make_stage("ilql", learner, settings, rows, validation)


def test_rows_longer_than_the_model_are_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "small")
    config.model.n_positions = 64
    with pytest.raises(UserError, match="n_positions=64"):
        plan_run(config)
    assert not (tmp_path / "small").exists()


def test_unknown_option_of_the_loss_is_refused_with_the_known_ones(tmp_path):
    config = make_config(tmp_path, "typo")
    with config.train.loss.unlocked():
        config.train.loss.expectil = 0.7
    with pytest.raises(UserError, match="expectile"):
        plan_run(config)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("algorithm", ["ilql", "chai"])
def test_a_critic_that_would_train_the_clones_only_trunk_is_refused(algorithm):
    def check(*, separate_policy=False, **loss):
        model = ValueLM(GPT2(GPT2Config(vocab_size=8)), ValueLMConfig(separate_policy=separate_policy))
        check_trunks(make_learner(algorithm, model, loss))

    for loss in ({}, {"detach_v": True}, {"detach_q": True}):
        with pytest.raises(UserError, match=r"separate_policy=False with awac_weight=0"):
            check(**loss)
    check(separate_policy=True)
    check(detach_v=True, detach_q=True)
    if algorithm == "ilql":
        check(awac_weight=1.0)


def test_a_critic_of_utterances_without_a_choice_of_them_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "utterance", "ilql_utterance")
    config.decode.n_generations = 1
    with pytest.raises(UserError, match=r"decode\.n_generations"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"n_generations": 1}, "n_generations=1"), ({"temperature": 0.0}, "samples equal")]
)
def test_a_critic_of_utterances_that_cannot_choose_is_not_judged_again(tmp_path, monkeypatch, options, message):
    config = make_config(tmp_path, "utterance", "chai")
    learner = Learner(*read_options("chai", config.train.loss), None, None)
    run = OpenRun(tmp_path, read_run_config(config), None, None, {"chai": Trained(learner, None, {}, {})})
    monkeypatch.setattr(evaluate, "open_run", lambda folder, imports: run)
    with pytest.raises(UserError, match=message):
        evaluate_run(tmp_path, overrides=options)


def test_results_are_never_written_over(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match="has the results of another judgement"):
        evaluate_run("no run", out_dir=tmp_path)


def test_acting_without_rows_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "rowless")
    config.acting.batch_size = 0
    with pytest.raises(UserError, match=r"acting\.batch_size=0 is not positive"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


def test_choosing_by_a_critic_that_never_runs_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "chooses")
    config.decode.update({"n_generations": 4, "rank_by": "advantage", "beta": 0.0})
    with pytest.raises(UserError, match="rank_by='advantage' with beta=0"):
        plan_run(config)
    assert not (tmp_path / "data").exists()
