"""Settings in spellings that the golden cases do not show, and the original's cuts and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parity.cases import Dialogue
from benchmarks.parity.options import make_token_reward, translate_acting, translate_optimizer
from benchmarks.parity.original_batch import count_padding, cut_end
from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.io.original import head_from_original

TOKENIZER = CharacterTokenizer("abcd")  # ids 0-3, 4 is unknown, 5-10 pad </s> </a> <s> <a> </eod>
POINT = DataPoint.from_observation(Dialogue([["a", None], ["cd", 2.0]], True), TOKENIZER)


@pytest.mark.parametrize(
    "spelling",
    [
        {"table": [0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0], "scale": 0.1, "shift": -0.5},
        {"token_data": {"1": 10.0, "7": 20.0}, "scale": 0.1, "shift": -0.5},
        {"kind": "table", "values": {"b": 10.0, "</a>": 20.0}, "scale": 0.1, "offset": -0.5},
        {"b": 10.0, "</a>": 20.0, "scale": 0.1, "shift": -0.5},
    ],
)
def test_a_table_of_token_rewards_has_several_spellings(spelling):
    reward, notes = make_token_reward(spelling, TOKENIZER)
    assert notes == ()
    np.testing.assert_allclose(reward(np.array([0, 1, 7])), [-0.5, 0.5, 1.5])


@pytest.mark.parametrize("spelling", [-0.25, {"c": -0.25}, {"constant": -0.5, "scale": 0.5}])
def test_a_constant_token_reward_has_several_spellings(spelling):
    reward, _ = make_token_reward(spelling, TOKENIZER)
    np.testing.assert_allclose(reward(np.array([0, 7])), [-0.25, -0.25])


def test_an_option_of_a_token_reward_that_is_unknown_is_noted():
    _, notes = make_token_reward({"table": {"a": 1.0}, "decay": 0.5}, TOKENIZER)
    assert notes == ("token_reward's 'decay' is unknown and was ignored",)


def test_a_token_that_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(UserError, match="entry 'z'"):
        make_token_reward({"table": {"z": 1.0}}, TOKENIZER)


def test_decoding_options_may_be_off_or_spelled_as_in_a_policy():
    config, _ = translate_acting({"adv_weight": 2.0, "exp_adv": True, "adv_clip": None, "top_k": None}, beta=0.0)
    assert (config.beta, config.exp_weights, config.clip, config.top_k) == (2.0, True, np.inf, 0)


def test_an_unknown_decoding_option_is_a_reason_not_to_compare():
    assert translate_acting({"length_penalty": 1.0}, beta=0.0) == (None, "options ['length_penalty'] are unknown")


def test_another_optimizer_is_refused():
    with pytest.raises(UserError, match="'sgd'"):
        translate_optimizer({"name": "sgd", "lr": 1.0})


def test_cutting_the_end_follows_the_worked_table():
    cut = cut_end(POINT, 5)  # <s> a </s> c d | </a> </eod>
    assert cut.tokens.tolist() == POINT.tokens[:5].tolist()
    assert cut.action_idxs.tolist() == [2, 3]
    assert cut.state_idxs.tolist() == [2, 3, 4]
    assert cut.rewards.tolist() == [0.0, 0.0]
    assert cut.terminals.tolist() == [0.0, 0.0, 0.0]
    assert cut.utterance_action_idxs.tolist() == []


@pytest.mark.parametrize("max_length", [0, 7, 99])
def test_a_row_that_fits_is_not_cut(max_length):
    assert cut_end(POINT, max_length) is POINT


def test_padding_counts_once_in_a_row_that_is_not_over():
    unfinished = DataPoint.from_observation(Dialogue([["a", None], ["c", 2.0]], False), TOKENIZER)
    batch = collate([unfinished, POINT], length=9, n_actions=4, n_utterance_actions=2, pad_id=5)
    assert batch.per_token.action_mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    counted = count_padding(batch.per_token).action_mask
    assert counted.tolist() == [[True, True, True, False], [True, True, True, False]]


def make_layers(names: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    layers = {f"{name}.weight": rng.normal(size=shape) for name, shape in names.items()}
    return layers | {f"{name}.bias": rng.normal(size=shape[0]) for name, shape in names.items()}


ADVANCED = {"ff1": (16, 4), "ff2": (4, 16), "ln1": (4,), "ln2": (4,), "output_layer": (7, 4)}


@pytest.mark.parametrize(
    "names",
    [
        ["ff1", "ff2", "ln1", "ln2", "output_layer"],
        ["up", "down", "norm_before", "norm_after", "readout"],
        ["fc1", "fc2", "layer_norm1", "layer_norm2", "out"],
    ],
)
def test_the_parts_of_an_advanced_head_are_found_by_name_or_shape(names):
    layers = make_layers(dict(zip(names, ADVANCED.values(), strict=True)))
    head = head_from_original(layers, name="q")
    assert {part: jax.tree.map(jnp.shape, tree) for part, tree in head.items()} == {
        "ff1": {"kernel": (4, 16), "bias": (16,)},
        "ff2": {"kernel": (16, 4), "bias": (4,)},
        "ln1": {"scale": (4,), "bias": (4,)},
        "ln2": {"scale": (4,), "bias": (4,)},
        "dense_out": {"kernel": (4, 7), "bias": (7,)},
    }
    np.testing.assert_allclose(head["ln1"]["scale"], layers[f"{names[2]}.weight"], rtol=1e-6)
    np.testing.assert_allclose(head["ff1"]["kernel"], layers[f"{names[0]}.weight"].T, rtol=1e-6)


def test_a_plain_head_keeps_the_order_of_its_layers():
    head = head_from_original(make_layers({"first": (8, 4), "second": (7, 8)}), name="q")
    assert head["dense_in"]["kernel"].shape == (4, 8) and head["dense_out"]["kernel"].shape == (8, 7)


def test_a_head_of_neither_kind_lists_what_it_holds():
    with pytest.raises(UserError, match=r"Head 'q' holds .*lone\.weight"):
        head_from_original(make_layers({"lone": (8, 4)}), name="q")
