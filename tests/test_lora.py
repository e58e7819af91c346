"""Adapters: gradients by the chain rule, one frozen base for all, the same numbers merged, and meshes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ilqljax.data.datapoint import DataPoint, collate, encode_prompt
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.generate import make_generate
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models import lora
from ilqljax.models.backbone import compute_logits
from ilqljax.models.cpu import compile_for
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import trunk_to_torch
from ilqljax.models.io.networks import Networks, load_networks, save_networks
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, merge_adapters, policy_trunk
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner, select_acting_params
from ilqljax.rl.objectives.likelihood import token_cross_entropy
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, make_train_step
from ilqljax.training.evaluation import Trained
from ilqljax.training.export import export_policy
from ilqljax.training.mesh import MeshConfig, infer_param_shardings, make_mesh, shard_batch
from tests.dialogues import Talk, answer

TOKENIZER = CharacterTokenizer("abcdefghij")
V = TOKENIZER.vocab_size
BACKBONES = {
    "gpt2": GPT2(GPT2Config(V, n_positions=32, n_embd=32, n_layer=2, n_head=4, unroll=2)),
    "llama": Llama(LlamaConfig(V, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_kv_head=2, n_inner=48)),
    "untied": Llama(
        LlamaConfig(V, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_kv_head=4, n_inner=48, tied=False)
    ),
}
NETWORKS = {
    "own trunks": {},
    "frozen value": {"frozen_value": True},
    "frozen layers": {"frozen_value_layers": 1},
    "shared trunk": {"separate_policy": False},
    "no slow trunk": {"separate_target": False},
}


def make_batch(n_rows=8):
    rows = [answer("abc"[: 1 + i % 3], "dea"[i % 3 :], float(i)) for i in range(n_rows)]
    points = [DataPoint.from_observation(row, TOKENIZER) for row in rows]
    return collate(points, length=12, n_actions=6, n_utterance_actions=2, pad_id=TOKENIZER.pad_id)


def make_model(backbone="llama", **options):
    return ValueLM(BACKBONES[backbone], ValueLMConfig(lora_rank=3, lora_alpha=6.0, **options))


def train(model, algorithm, *, n_steps=2, mesh=None, **loss):
    """Train a little, at a rate at which everything that learns has moved: the first state and the last."""
    learner = make_learner(algorithm, model, loss)
    optimizer = make_optimizer(OptimConfig(lr=1e-2))
    init = jax.jit(lambda key: init_learner_state(learner, optimizer=optimizer, key=key))
    first = state = init(jax.random.key(0))
    batch = make_batch()
    if mesh is not None:
        state = jax.device_put(state, infer_param_shardings(state, mesh))
        batch = shard_batch(batch, mesh)
    step = make_train_step(
        learner.loss_fn, optimizer, target=TargetConfig(polyak=0.5), unreached=find_unreached(learner, state)
    )
    step = jax.jit(step)
    for _ in range(n_steps):
        state, _ = step(state, batch)
    return first, state


def random_adapter(trunk, *, seed=0):
    """Draw what starts at zero too."""
    base, adapter = lora.split_adapter(trunk)
    leaves, structure = jax.tree.flatten(adapter)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return lora.join_adapter(base, jax.tree.unflatten(structure, drawn))


def act(model, params, target, *, beta):
    prompts = [encode_prompt(Talk(((text, None),), terminal=False), TOKENIZER) for text in ("abc", "jih")]
    networks = prepare_for_decoding(model, params, target, critic=beta != 0)
    config = DecodeConfig(max_new_tokens=5, beta=beta, temperature=0.0, n_generations=2)
    generate = make_generate(model, config, end_ids=(TOKENIZER.eoa_id,), pad_id=TOKENIZER.pad_id)
    return generate(networks, jnp.asarray(prompts), jnp.full(2, 5), jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("backbone", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_new_adapter_changes_nothing(backbone):
    model, plain = make_model(backbone), ValueLM(BACKBONES[backbone], ValueLMConfig())
    trunk, tokens = jax.jit(plain.init_trunk)(jax.random.key(0)), make_batch().tokens
    adapted = model.adapt_trunk(jax.random.key(1), trunk)
    want, got = (compute_logits(t, model.run_trunk(t, tokens).hidden) for t in (trunk, adapted))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert model.adapt_trunk(jax.random.key(2), adapted) is adapted  # of a clone, which goes on


@pytest.mark.parametrize("backbone", ["untied", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gpt2", "llama"))])
def test_adapted_trunk_computes_what_the_merged_one_does(backbone):
    model = make_model(backbone)
    trunk, batch = random_adapter(jax.jit(model.init_trunk)(jax.random.key(0))), make_batch()
    merged = lora.merge_adapter(trunk)
    assert jax.tree.structure(merged) == jax.tree.structure(lora.split_adapter(merged)[0])
    hidden = [model.run_trunk(t, batch.tokens).hidden for t in (trunk, merged)]
    np.testing.assert_allclose(*hidden, rtol=1e-4, atol=1e-4)
    for compute in (compute_logits, lambda t, h: token_cross_entropy(t, h, batch.tokens)):
        got, want = (compute(t, h) for t, h in zip((trunk, merged), hidden, strict=True))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["gpt2", "untied"])
def test_gradients_follow_the_chain_rule_from_those_of_whole_kernels(backbone):
    """With W' = W + s A B: dA = s dW' B^T and dB = s A^T dW'; and rows of the embeddings have their own gradients."""
    model = make_model(backbone)
    trunk, batch = random_adapter(jax.jit(model.init_trunk)(jax.random.key(0))), make_batch()
    base, adapter = lora.split_adapter(trunk)

    def loss(trunk):
        hidden = model.run_trunk(trunk, batch.tokens).hidden
        return (token_cross_entropy(trunk, hidden[:, :-1], batch.tokens[:, 1:]) * batch.token_mask[:, 1:]).sum()

    got = jax.jit(jax.grad(lambda a: loss(lora.join_adapter(base, a))))(adapter)
    whole = jax.jit(jax.grad(loss))(lora.merge_adapter(trunk))
    layers = [("mlp", "down_proj"), ("attn", "q_proj")] if backbone != "gpt2" else [("mlp", "c_fc"), ("attn", "c_attn")]
    for part, name in layers:
        a, b = (np.asarray(adapter["h"][part][name][n]) for n in ("lora_a", "lora_b"))
        kernel = np.asarray(whole["h"][part][name]["kernel"])
        scale = 6.0 / 3
        d_a, d_b = scale * kernel @ b.swapaxes(1, 2), scale * a.swapaxes(1, 2) @ kernel
        np.testing.assert_allclose(got["h"][part][name]["lora_a"], d_a, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(got["h"][part][name]["lora_b"], d_b, rtol=1e-3, atol=1e-4)
    for name in ("wte", "lm_head"):
        if name in whole:
            np.testing.assert_allclose(got[f"{name}_rows"], whole[name][-6:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "networks"),
    [
        ("untied", "own trunks"),
        *(pytest.param("gpt2", n, marks=pytest.mark.slow) for n in ("own trunks", "frozen value", "frozen layers")),
        *(pytest.param("untied", n, marks=pytest.mark.slow) for n in NETWORKS if n != "own trunks"),
    ],
)
def test_training_moves_all_that_learns_and_never_the_base(backbone, networks):
    model = make_model(backbone, **NETWORKS[networks])
    first, last = train(model, "ilql", awac_weight=1.0)
    jax.tree.map(np.testing.assert_array_equal, first.frozen, last.frozen)
    assert set(last.frozen) == {"base"}
    for path, (old, new) in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda old, new: (old, new), first.params, last.params), is_leaf=lambda x: isinstance(x, tuple)
    ):
        assert (old != new).any(), jax.tree_util.keystr(path)
    assert ("trunk" in last.params) == (networks != "frozen value")
    assert ("trunk" in last.target) == (networks not in ("frozen value", "no slow trunk"))


@pytest.mark.parametrize(
    ("backbone", "networks"),
    [
        ("gpt2", "frozen value"),
        *(pytest.param("gpt2", n, marks=pytest.mark.slow) for n in ("own trunks", "frozen layers")),
        *(pytest.param("llama", n, marks=pytest.mark.slow) for n in NETWORKS),
    ],
)
def test_acting_and_the_exported_folder_equal_merged_networks(backbone, networks, tmp_path):
    model = make_model(backbone, **NETWORKS[networks])
    _, state = train(model, "ilql", awac_weight=1.0)
    params = select_acting_params(state)
    save_networks(tmp_path, Networks(model, params, state.target), special_ids={})
    assert load_networks(tmp_path).model.config == merge_adapters(model, params, state.target)[0].config
    for other in (Networks(*merge_adapters(model, params, state.target)), load_networks(tmp_path)):
        for beta in (0.0, 4.0):
            got, want = act(model, params, state.target, beta=beta), act(*other, beta=beta)
            np.testing.assert_array_equal(got.tokens, want.tokens)
            np.testing.assert_allclose(got.advantage, want.advantage, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(got.log_probability, want.log_probability, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("backbone", ["gpt2", "untied"])
def test_merged_networks_are_those_of_a_model_without_adapters(backbone, networks):
    model, key = make_model(backbone, **NETWORKS[networks]), jax.random.key(0)
    params = jax.eval_shape(model.init_params, key)
    plain, target = None, model.init_target(params)

    def merge(params, target):
        nonlocal plain
        plain, *merged = merge_adapters(model, params, target)
        return tuple(merged)

    merged, slow = jax.eval_shape(merge, params, target)
    whole = jax.eval_shape(plain.init_params, key)
    assert (merged, slow) == (whole, plain.init_target(whole))


def test_an_exported_policy_has_its_adapter_merged(tmp_path):
    model = make_model("llama", frozen_value=True)
    trunk = random_adapter(jax.jit(model.init_trunk)(jax.random.key(0)))
    base, adapter = lora.split_adapter(trunk)
    trained = Trained(SimpleNamespace(model=model), None, {"base": base, "policy": adapter}, {})
    config, built = SimpleNamespace(decode=DecodeConfig(max_new_tokens=3)), SimpleNamespace(tokenizer=TOKENIZER)
    export_policy(tmp_path / "policy", config, built, trained)
    exported = policy_trunk(load_networks(tmp_path / "policy").params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), exported, lora.merge_adapter(trunk))
    assert np.abs(exported["h"]["attn"]["q_proj"]["kernel"] - base["h"]["attn"]["q_proj"]["kernel"]).max() > 0.1
    with pytest.raises(ValueError, match="merge adapters"):
        trunk_to_torch(trunk, model.backbone.config)


def count_bytes(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def test_policy_value_and_target_share_one_copy_of_the_base():
    model = make_model("llama")
    _, state = train(model, "ilql", awac_weight=1.0, n_steps=1)
    base, adapter = state.frozen["base"], state.params["policy"]
    assert count_bytes(base) > 4 * count_bytes(adapter)
    heads = count_bytes([state.params[name] for name in ("v", "q1", "q2")])
    assert count_bytes((state.params, state.frozen)) == count_bytes(base) + 2 * count_bytes(adapter) + heads
    with compile_for("gpu"):  # a CPU's layout has a copy of the outputs besides
        acting = prepare_for_decoding(model, select_acting_params(state), state.target, critic=True)
    assert set(acting.trunks) == {"policy", "value", "target"}
    assert count_bytes((acting.trunks, acting.base)) == count_bytes(base) + 3 * count_bytes(adapter)
    # Adam's moments are of what learns alone.
    assert count_bytes(state.opt_state) < 2 * count_bytes(state.params) + 64


def test_a_base_in_half_precision_takes_half_and_computes_nearly_the_same(tmp_path):
    model, half = make_model("untied"), make_model("untied", base_dtype="bfloat16")
    trunk = BACKBONES["untied"].init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    bases = [lora.split_adapter(m.adapt_trunk(jax.random.key(1), trunk))[0] for m in (model, half)]
    kernels = [sum(x.nbytes for x in jax.tree.leaves(base) if x.ndim > 1) for base in bases]
    assert kernels[0] == 2 * kernels[1]
    _, state = train(half, "bc")
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"float32"}
    params, tokens = select_acting_params(state), make_batch().tokens
    want = compute_logits(policy_trunk(params), half.run_trunk(policy_trunk(params), tokens).hidden)
    save_networks(tmp_path, Networks(half, params, {}), special_ids={})
    loaded = load_networks(tmp_path)
    got = compute_logits(
        policy_trunk(loaded.params), loaded.model.run_trunk(policy_trunk(loaded.params), tokens).hidden
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)  # merged in float32, nothing is rounded again
    with compile_for("gpu"):
        acting = prepare_for_decoding(half, params, {}, critic=False)
    assert count_bytes(acting) == count_bytes((bases[1], state.params["policy"]))


def test_the_clone_is_what_the_critic_starts_from():
    model = make_model("llama")
    _, clone = train(model, "bc")
    trunk = policy_trunk(select_acting_params(clone))
    learner = make_learner("ilql", model, {"awac_weight": 1.0})
    state = init_learner_state(learner, optimizer=make_optimizer(OptimConfig()), key=jax.random.key(7), trunk=trunk)
    for name in ("policy", "trunk"):
        jax.tree.map(np.testing.assert_array_equal, state.params[name], clone.params["policy"])
    jax.tree.map(np.testing.assert_array_equal, state.frozen["base"], clone.frozen["base"])


def test_preferences_are_judged_against_the_adapter_that_they_start_from():
    model = make_model("llama")
    learner = make_learner("dpo", model, {})
    state = init_learner_state(learner, optimizer=make_optimizer(OptimConfig()), key=jax.random.key(0))
    assert set(state.frozen) == {"base", "reference"}
    jax.tree.map(np.testing.assert_array_equal, state.frozen["reference"], state.params["policy"])


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["own trunks", "frozen layers"])
def test_split_over_devices_it_learns_the_same(networks):
    model = make_model("llama", **NETWORKS[networks])
    _, alone = train(model, "ilql", awac_weight=1.0)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    _, split = train(model, "ilql", mesh=mesh, awac_weight=1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), alone.params, split.params)
    blocks = infer_param_shardings(alone.params, mesh)["policy"]["h"]
    layers = blocks["attn"]["q_proj"], blocks["mlp"]["down_proj"]
    specs = [layer[name].spec for layer in layers for name in ("lora_a", "lora_b")]
    assert specs == [P(None, "fsdp", None), P(None, None, "tensor"), P(None, "tensor", None), P(None, None, "fsdp")]


def test_targets_are_the_layers_that_are_named():
    trunk = make_model("llama", lora_targets=("q_proj", "v_proj")).init_trunk(jax.random.key(0))
    adapter = lora.split_adapter(trunk)[1]
    assert set(adapter) == {"h", "wte_rows"}
    assert {part: set(layers) for part, layers in adapter["h"].items()} == {"attn": {"q_proj", "v_proj"}}
    with pytest.raises(UserError, match=r"lora_targets names c_attn; .* are down_proj, gate_proj, k_proj, o_proj"):
        make_model("llama", lora_targets=("c_attn",)).init_trunk(jax.random.key(0))


@pytest.mark.parametrize("options", [{"frozen_value": True}, {"lora_rank": 2, "separate_policy": False}])
def test_a_frozen_value_trunk_needs_a_policy_of_its_own(options):
    with pytest.raises(UserError, match=r"frozen_value=True .* Set lora_rank"):
        ValueLMConfig(**{"frozen_value": True, **options})
