"""A run's config: its defaults, its types, and configs that runs of version 0.1 saved."""

import json

import pytest
from ml_collections import ConfigDict

from ilqljax.errors import UserError
from ilqljax.training.run_config import (
    TrainConfig,
    complete_config,
    find_differing,
    find_long_warmups,
    load_run_config,
    read_run_config,
)

CONFIGS = [f"configs/{name}.py" for name in ("workable", "hackernews", "wordle")]


@pytest.mark.parametrize("path", CONFIGS)
def test_a_completed_config_is_complete_and_typed(path):
    config = load_run_config(path)
    assert not find_differing(config, complete_config(config))
    run = read_run_config(config)
    assert run.train.lr == config.train.lr and run.train.length_buckets == tuple(config.train.length_buckets)
    assert run.objects["model"]["n_embd"] == config.model.n_embd and config.model.dropout == 0.0
    assert run.options[1].expectile == config.train.loss.expectile
    assert json.loads(json.dumps(config.to_dict()))["decode"]["temperature"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, r"config\.trian is not an option of a run\. Did you mean 'train'"),
        ({"train": {"batchsize": 1}}, r"config\.train\.batchsize is not an option of TrainConfig"),
        ({"model": {"name": "gpt3"}}, r"config\.model\.name='gpt3' is not a known model\. Did you mean 'gpt2'"),
        ({"model": {"name": "gpt2", "vocab_size": 3}}, r"config\.model\.vocab_size is not an option of model 'gpt2'"),
        ({"algorithm": "iql"}, "algorithm='iql' is unknown"),
        ({"seed": -1}, r"seed=-1 is out of range"),
        ({"seed": 0.5}, r"config\.seed=0\.5 is of type float"),
        ({"train": {"loss": {"expectil": 0.7}}}, "expectil"),
    ],
)
def test_a_mistake_is_refused_by_name(change, message):
    config = ConfigDict({**load_run_config("configs/wordle.py").to_dict(), **change})
    with pytest.raises(UserError, match=message):
        run = read_run_config(config)
        run.make_context().build("model")


def test_a_config_without_what_every_run_needs_is_refused():
    config = load_run_config("configs/wordle.py")
    del config["evaluator"]
    with pytest.raises(UserError, match="lacks evaluator, which every run needs"):
        complete_config(config)


@pytest.mark.parametrize("config", ["workable", None, 3])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(UserError, match="Give a config, such as load_run_config"):
        complete_config(config)


def test_a_saved_config_of_version_0_1_is_that_of_today():
    config = load_run_config("configs/workable.py")
    old = config.to_dict()
    old["decode"]["rank_by"] = "both"
    old["reward"]["cache_id"], old["matcher"]["cache_id"] = "reward", "matcher"
    old["data"] |= {"cache_id": "data", "reward": dict(old["reward"]), "matcher": dict(old["matcher"])}
    old["tokenizer"] |= {"cache_id": "tokenizer", "data": dict(old["data"])}
    old["model"] |= {"cache_id": "model", "tokenizer": dict(old["tokenizer"])}
    for name in ("dataset", "pretrain_dataset", "validation_dataset"):
        old[name] |= {"cache_id": name, "data": dict(old["data"]), "tokenizer": dict(old["tokenizer"])}
    old["evaluator"] |= {"cache_id": "", "data": dict(old["data"])}
    del old["imports"]
    assert find_differing(complete_config(ConfigDict(old)), config) == ["decode.rank_by"]
    assert read_run_config(ConfigDict(old)) == read_run_config(config)


def test_a_section_within_another_that_is_not_a_copy_is_kept():
    config = load_run_config("configs/workable.py:minilm")
    assert config.evaluator.held_out_matcher.metric == "cosine"
    config.evaluator.held_out_matcher.metric = "dot"
    assert complete_config(config).evaluator.held_out_matcher.metric == "dot"


def test_the_warm_up_follows_the_steps_unless_it_is_set():
    assert TrainConfig(total_steps=200).warmup_steps == 10
    assert TrainConfig(total_steps=200, warmup_steps=0).warmup_steps == 0


def test_a_selected_checkpoint_is_kept():
    with pytest.raises(UserError, match="keep_best=0 does not keep it"):
        TrainConfig(total_steps=1, select="best", keep_best=0)
    with pytest.raises(UserError, match="keep_last=0 is out of range"):
        TrainConfig(total_steps=1, keep_last=0)


@pytest.mark.parametrize(
    ("total_steps", "overrides", "found"),
    [
        (20, {"train.total_steps": 20}, {"train": 50}),
        (99, {"train.total_steps": 99}, {"train": 50}),
        (100, {"train.total_steps": 100}, {}),
        (0, {"train.total_steps": 0}, {}),
        (20, {}, {}),
        (20, {"train.total_steps": 20, "train.warmup_steps": 50}, {}),
        (20, {"pretrain.total_steps": 20}, {}),
    ],
)
def test_a_warm_up_is_too_long_where_the_user_gave_the_steps_alone(total_steps, overrides, found):
    config = {
        "train": {"total_steps": total_steps, "warmup_steps": 50},
        "pretrain": {"total_steps": 20, "warmup_steps": 2},
    }
    assert find_long_warmups(config, overrides) == found
