"""A model's folder: what is written is read back to the bit, and what does not fit is named."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.networks import NETWORKS, OPTIONS, Networks, load_networks, save_networks
from ilqljax.models.io.tables import flatten, unflatten
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

SIZES = GPT2Config(vocab_size=11, n_positions=8, n_embd=16, n_layer=2, n_head=2)
KINDS = {
    "separate": ValueLMConfig(),
    "shared": ValueLMConfig(double_q=False, separate_policy=False, separate_target=False),
    "advanced": ValueLMConfig(advanced_mlp=True),
    "utterance": ValueLMConfig(level="utterance"),
}


def make_networks(config):
    model = ValueLM(GPT2(SIZES), config)
    params = model.init_params(jax.random.key(0))
    target = jax.tree.map(lambda x: x + 1.0, model.init_target(params))
    if "policy" in params:
        params["policy"] = jax.tree.map(lambda x: x - 1.0, params["policy"])
    return Networks(model, params, target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_networks_come_back_to_the_bit(kind, tmp_path):
    networks = make_networks(KINDS[kind])
    save_networks(tmp_path / "model", networks, special_ids={})
    loaded = load_networks(tmp_path / "model")
    assert loaded.model.config == networks.model.config
    assert loaded.model.backbone.config == SIZES
    jax.tree.map(np.testing.assert_array_equal, loaded[1:], jax.device_get(networks[1:]))


def test_a_policy_alone_comes_back_alone_also_over_an_older_critic(tmp_path):
    networks = make_networks(KINDS["separate"])
    save_networks(tmp_path, networks, special_ids={})
    save_networks(tmp_path, Networks(networks.model, {"policy": networks.params["policy"]}, {}), special_ids={})
    loaded = load_networks(tmp_path)
    assert (set(loaded.params), loaded.target) == ({"policy"}, {})
    jax.tree.map(np.testing.assert_array_equal, loaded.params["policy"], jax.device_get(networks.params["policy"]))


def test_arrays_that_do_not_fit_are_all_named(tmp_path):
    save_networks(tmp_path, make_networks(KINDS["separate"]), special_ids={})
    arrays = load_file(tmp_path / NETWORKS)
    del arrays["params/v/dense_in/bias"]
    arrays["params/extra"] = np.zeros(3, np.float32)
    arrays["target/q1/dense_out/bias"] = np.zeros(7, np.float32)
    save_file(arrays, tmp_path / NETWORKS)
    with pytest.raises(UserError) as error:
        load_networks(tmp_path)
    message = str(error.value)
    assert "Missing: params/v/dense_in/bias." in message
    assert "Unexpected: params/extra." in message
    assert "target/q1/dense_out/bias: (7,), not (11,)" in message


@pytest.mark.parametrize("name", [NETWORKS, OPTIONS])
def test_half_a_critic_is_refused(tmp_path, name):
    save_networks(tmp_path, make_networks(KINDS["separate"]), special_ids={})
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match="is missing"):
        load_networks(tmp_path)


@pytest.mark.parametrize("text", ["{", json.dumps({"level": "word"}), json.dumps({"triple_q": True})])
def test_options_that_mean_nothing_are_refused(tmp_path, text):
    save_networks(tmp_path, make_networks(KINDS["separate"]), special_ids={})
    (tmp_path / OPTIONS).write_text(text)
    with pytest.raises(UserError):
        load_networks(tmp_path)


def test_flattened_trees_come_back():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree
