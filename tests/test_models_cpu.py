"""The switch between the plain programs and those with tricks for a CPU; programs for a GPU are lowered, not run.

Lowering cuDNN's kernel asks for cuDNN's version, and a machine without a GPU has none to tell. JAX has no public name
for that, so `a_cudnn` puts a version into a module of JAX's own.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import answer

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.generate import DecodeConfig, Samples, make_generate, prefill
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.models.cpu import SCOPE, TRICKS, attention, compile_for, find_platform, use_cpu_tricks
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, count_batch, make_train_step

TOKENIZER = CharacterTokenizer("abcdefgh")
# Layers are unrolled, so that a CPU lays them apart; heads are as wide as cuDNN needs them.
TRUNK = GPT2Config(TOKENIZER.vocab_size, n_positions=32, n_embd=32, n_layer=2, n_head=2, unroll=2)
SEPARATE = ValueLMConfig()
LENGTH, ROWS = 24, 2
TOKENS, LENGTHS = np.full((ROWS, LENGTH), 3, np.int32), np.array([LENGTH, 5], np.int32)
DECODE = DecodeConfig(max_new_tokens=3, beta=1.0, n_generations=2)
PROGRAMS = ("train step", "preparation", "prefill", "sampler", "sampler of stacked layers")
CUDNN = "__cudnn$fmhaSoftmax"


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Rows of `LENGTH` tokens are two blocks of a CPU's attention."""
    monkeypatch.setattr(attention, "BLOCK", LENGTH // 2)


@pytest.fixture(autouse=True)
def a_cudnn(monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91200)


def make_model(dtype, networks=SEPARATE, **options):
    return ValueLM(GPT2(dataclasses.replace(TRUNK, dtype=dtype, **options)), networks)


def make_batch():
    points = [DataPoint.from_observation(answer("abc", text, -1.0), TOKENIZER) for text in ("abcdefg", "ha")]
    return collate(points, length=LENGTH, n_actions=8, n_utterance_actions=1, pad_id=TOKENIZER.pad_id, batch_size=ROWS)


def infer_networks(model):
    """Return the shapes of parameters and targets."""
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    return params, model.init_target(params)


def make_program(name, dtype):
    """Return a function and shapes of its arguments, for the platform of the context."""
    model = make_model(dtype, unroll=1 if name == "sampler of stacked layers" else TRUNK.unroll)
    if name == "train step":
        learner, optimizer = make_learner("ilql", model, {}), make_optimizer(OptimConfig())
        state = jax.eval_shape(lambda key: init_learner_state(learner, optimizer=optimizer, key=key), jax.random.key(0))
        return make_train_step(learner.loss_fn, optimizer, target=TargetConfig()), (state, make_batch())

    def prepare(params, target):
        return prepare_for_decoding(model, params, target, critic=True)

    shapes = infer_networks(model)
    if name == "preparation":
        return prepare, shapes
    networks = jax.eval_shape(prepare, *shapes)
    if name == "prefill":
        return lambda networks, *rows: prefill(model, networks.trunks, *rows, room=3), (networks, TOKENS, LENGTHS)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), ROWS))
    return make_generate(model, DECODE, end_ids=(0,), pad_id=0), (networks, TOKENS, LENGTHS, keys)


def lower(name, *, dtype, platform):
    """Lower a program for "cpu" or "cuda": its text, with the names of what each operation comes from."""
    with compile_for({"cuda": "gpu"}.get(platform, platform)):
        function, shapes = make_program(name, dtype)
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,)).as_text(debug_info=True)


def find_tricks(text):
    return set(re.findall(rf"{SCOPE}/(\w+)", text))


def test_every_trick_is_in_a_program_for_a_cpu():
    found = {name: find_tricks(lower(name, dtype="bfloat16", platform="cpu")) for name in PROGRAMS}
    assert set().union(*found.values()) == TRICKS
    assert {"apply_dense", "attend_in_blocks", "score_rows", "await_gradients"} <= found["train step"]
    assert {"draw_tokens", "take_cache_rows", "multiply_blocks"} <= found["sampler"]
    assert "compute_logits" in found["sampler of stacked layers"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_trick_is_in_a_program_for_a_gpu(name, dtype):
    text = lower(name, dtype=dtype, platform="cuda")
    assert find_tricks(text) == set()
    assert not re.search("optimization_barrier|LayoutConstraint|kernel_blocks", text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_those_markers_are_in_a_program_for_a_cpu(name):
    """So their absence above says something."""
    text = lower(name, dtype="bfloat16", platform="cpu")
    wanted = {"train step": ["optimization_barrier", "LayoutConstraint"], "preparation": ["optimization_barrier"]}
    assert all(marker in text for marker in wanted.get(name, ["kernel_blocks"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train step", "prefill", "sampler"])
def test_causal_attention_in_half_precision_is_cudnns_on_a_gpu_and_only_there(name):
    text = lower(name, dtype="bfloat16", platform="cuda")
    assert f"@{CUDNN}(" in text
    assert (f"@{CUDNN}Backward(" in text) == (name == "train step")
    single = lower(name, dtype="float32", platform="cuda")
    assert CUDNN not in single
    square = f"x{LENGTH}x{LENGTH}x(f32|bf16)"  # of scores and their gradients
    assert re.search(square, single)
    assert not re.search(square, text)
    assert CUDNN not in lower(name, dtype="bfloat16", platform="cpu")


def test_on_a_gpu_networks_are_taken_as_they_are_and_caches_stacked_in_the_activations_dtype():
    model = make_model("bfloat16")
    params, target = jax.tree.map(lambda x: jnp.zeros(x.shape), infer_networks(model))
    with compile_for("gpu"):
        networks = prepare_for_decoding(model, params, target, critic=True)
        function, shapes = make_program("prefill", "bfloat16")
        _, caches = jax.eval_shape(function, *shapes)
    expected = ({"policy": params["policy"], "value": params["trunk"], "target": target["trunk"]}, params["v"])
    same = jax.tree.map(lambda a, b: a is b, networks[:2], expected)
    assert all(jax.tree.leaves(same))
    assert networks.q["q1"]["dense_out"]["kernel"] is target["q1"]["dense_out"]["kernel"]
    shape = (TRUNK.n_layer, ROWS, TRUNK.n_head, LENGTH + 3, TRUNK.head_size)
    assert {(x.shape, x.dtype.name) for x in jax.tree.leaves(caches)} == {(shape, "bfloat16")}


@pytest.mark.slow
def test_both_ways_give_the_same_loss_gradients_and_samples():
    networks = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)  # the least to compile
    model, batch = make_model("float32", networks), make_batch()
    rng = np.random.default_rng(0)
    shapes = infer_networks(model)
    params, target = jax.tree.map(lambda x: rng.normal(0.0, 0.2, x.shape).astype(np.float32), shapes)
    loss_fn, counts = make_learner("ilql", model, {}).loss_fn, count_batch(batch)
    keys = jax.random.split(jax.random.key(0), ROWS)

    def compute() -> tuple[tuple, Samples]:
        gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params, target, batch, counts, None)
        networks = prepare_for_decoding(model, params, target, critic=True)
        return gradient, make_generate(model, DECODE, end_ids=(0,), pad_id=0)(networks, TOKENS, LENGTHS, keys)

    found = {}
    for platform in ("cpu", "tpu"):  # a TPU's programs are plain and run here too
        with compile_for(platform):
            found[platform] = jax.device_get(compute())
    np.testing.assert_array_equal(found["cpu"][1].tokens, found["tpu"][1].tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found["cpu"], found["tpu"])


def test_the_switch_is_the_default_platform_unless_a_context_says_otherwise_and_programs_follow_it():
    traced = jax.jit(lambda: float(use_cpu_tricks()))
    assert (find_platform(), use_cpu_tricks(), traced()) == ("cpu", True, 1.0)
    with compile_for("gpu"):
        assert (find_platform(), use_cpu_tricks(), traced()) == ("gpu", False, 0.0)
    assert (use_cpu_tricks(), traced()) == (True, 1.0)
