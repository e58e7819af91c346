"""A value trunk whose first layers are frozen: the numbers of an adapter of zeros there, and nothing trained there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models import lora
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, merge_adapters

N_LAYER, FROZEN = 3, 2
BACKBONES = {
    "gpt2": GPT2(GPT2Config(13, n_positions=8, n_embd=8, n_layer=N_LAYER, n_head=2, n_inner=8, unroll=3)),
    "llama": Llama(
        LlamaConfig(13, n_positions=8, n_embd=8, n_layer=N_LAYER, n_head=2, n_kv_head=1, n_inner=8, tied=False)
    ),
}
RNG = np.random.default_rng(5)
TOKENS = RNG.integers(13, size=(2, 6))
WEIGHTS = RNG.normal(size=(2, 2, 6, 8)).astype(np.float32)


def make_model(backbone="llama", *, n_new_rows=2, frozen_value_layers=FROZEN, **options):
    options |= {"frozen_value_layers": frozen_value_layers, "n_new_rows": n_new_rows}
    return ValueLM(BACKBONES[backbone], ValueLMConfig(lora_rank=2, double_q=False, **options))


def draw(shapes):
    return jax.tree.map(lambda x: np.float32(0.5 * RNG.normal(size=x.shape)), shapes)


def make_networks(model):
    """Parameters and targets in which nothing is zero, and no two adapters are equal."""
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    return draw(params), draw(model.init_target(params))


def fill(model, adapter, base):
    """An adapter of all layers that changes nothing in the frozen ones, and the control tokens' rows as they are."""
    adapt = lambda: lora.split_adapter(model.adapt_trunk(jax.random.key(0), base))[1]  # noqa: E731
    full = draw(jax.eval_shape(adapt)) | {"wte_rows": base["wte"][-2:]}
    full.pop("lm_head_rows", None)

    def put(path, x):
        own = adapter
        for key in path:
            own = own[key.key]
        below = jnp.zeros_like(x[:FROZEN]) if path[-1].key == "lora_b" else x[:FROZEN]
        return jnp.concatenate([below, own])

    return full | {"h": jax.tree_util.tree_map_with_path(put, {"h": full["h"]})["h"]}


@pytest.mark.parametrize("backbone", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_values_and_gradients_are_those_of_an_adapter_that_is_zero_in_the_frozen_layers(backbone):
    model = make_model(backbone)
    full_model = make_model(backbone, frozen_value_layers=0)
    params, target = make_networks(model)
    whole = {"base": params["base"], "trunk": fill(full_model, params["trunk"], params["base"])}
    slow = {"trunk": fill(full_model, target["trunk"], params["base"])}

    def weigh(model, params, target):
        hidden = model.compute_hidden(params, target, TOKENS, policy=False)
        return jnp.sum(WEIGHTS[0] * hidden.value + WEIGHTS[1] * hidden.target), hidden[:2]

    def differentiate(model, params, target):
        objective = lambda params: weigh(model, params, target)  # noqa: E731
        return jax.jit(jax.value_and_grad(objective, has_aux=True))({n: params[n] for n in ("base", "trunk")})

    (_, got), gradients = differentiate(model, params, target)
    (_, want), whole_gradients = differentiate(full_model, whole, slow)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)
    assert set(params["trunk"]) == {"h"}
    jax.tree.map(
        lambda own, every: np.testing.assert_allclose(own, every[FROZEN:], rtol=1e-4, atol=1e-5),
        gradients["trunk"]["h"],
        whole_gradients["trunk"]["h"],
    )
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients["base"]["h"]):  # not even asked for its own
        assert not np.asarray(gradient[:FROZEN]).any(), jax.tree_util.keystr(path)
        assert np.asarray(gradient[FROZEN:]).any() or path[-1].key == "bias", jax.tree_util.keystr(path)


@pytest.mark.parametrize("options", [{"frozen_value_layers": FROZEN}, {"frozen_value_layers": 0, "frozen_value": True}])
def test_what_is_frozen_has_no_dropout_so_that_it_may_be_known(options):
    model = make_model("gpt2", **options)
    backbone = dataclasses.replace(model.backbone, config=dataclasses.replace(model.backbone.config, dropout=0.5))
    model = ValueLM(backbone, model.config)
    params, target = make_networks(model)

    @jax.jit
    def compute(params, target, key):
        known = model.run_frozen(params["base"], TOKENS)
        ways = {"known": known}, {"known": None}, {"known": known, "dropout_key": None}
        settings = {"policy": False, "dropout_key": key}
        return [model.compute_hidden(params, target, TOKENS, **settings | way).value for way in ways]

    read, run, calm = compute(params, target, jax.random.key(3))
    np.testing.assert_allclose(run, read, rtol=1e-6, atol=1e-6)
    assert np.allclose(calm, run, atol=1e-6) == model.config.frozen_value


@pytest.mark.parametrize("backbone", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_acting_and_merged_trunks_compute_what_training_does(backbone, each_way):
    model = make_model(backbone)
    params, target = make_networks(model)
    acting = prepare_for_decoding(model, params, target, critic=True)
    plain, *merged = merge_adapters(model, params, target)
    assert plain.config.frozen_value_layers == plain.config.lora_rank == 0

    @jax.jit
    def compute(networks, acting, merged):
        whole = {role: model.run_trunk(trunk, TOKENS).hidden for role, trunk in acting.join_trunks().items()}
        return *(m.compute_hidden(*n, TOKENS, policy=True) for m, n in ((model, networks), (plain, merged))), whole

    want, got, whole = compute((params, target), acting, merged)
    for role, hidden in want._asdict().items():
        np.testing.assert_allclose(whole[role], hidden, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(getattr(got, role), hidden, rtol=1e-4, atol=1e-4)


def test_the_last_layers_start_as_the_clones():
    model = make_model()
    trunk = draw(jax.eval_shape(model.init_trunk, jax.random.key(0)))
    params = model.init_params(jax.random.key(1), trunk=trunk)
    base, clone = lora.split_adapter(trunk)
    jax.tree.map(
        lambda own, every: np.testing.assert_array_equal(own, every[FROZEN:]), params["trunk"]["h"], clone["h"]
    )
    jax.tree.map(np.testing.assert_array_equal, params["base"], base)
    jax.tree.map(np.testing.assert_array_equal, params["policy"], clone)
    assert model.init_target(params)["trunk"] is params["trunk"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"frozen_value_layers": 3},
            r"frozen_value_layers=3 leaves none of the model's 3 layers.* Set it to 2 at most",
        ),
        ({"frozen_value_layers": -1}, r"frozen_value_layers=-1 is out of range. Give a number in \[0, inf\)"),
        ({"lora_rank": 0}, r"frozen_value_layers=2 .* Set lora_rank \(16, say\)"),
        ({"separate_policy": False}, r"frozen_value_layers=2 .* separate_policy=True, or frozen_value_layers=0"),
        ({"frozen_value": True}, r"frozen_value=True freezes all layers, frozen_value_layers=2 some\. Set one"),
    ],
)
def test_layers_that_cannot_be_frozen_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ValueLM(BACKBONES["llama"], ValueLMConfig(**{"lora_rank": 2, "frozen_value_layers": FROZEN, **options}))
