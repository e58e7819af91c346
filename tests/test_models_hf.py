"""Models' directories as transformers writes them: every covered architecture, sharded or not, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ilqljax.config import BuildContext
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.builders import build_llama
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io import hf
from ilqljax.models.io.hf import load_language_model, save_language_model
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.rl.algorithms import init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.training.mesh import MeshConfig, make_mesh, make_placer

SIZES = {"vocab_size": 23, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_inner": 20}
LLAMA3 = {
    "rope_scaling": "llama3",
    "rope_factor": 8.0,
    "rope_low_factor": 1.5,
    "rope_high_factor": 3.0,
    "rope_length": 12,
}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=23, n_positions=16, n_embd=16, n_layer=3, n_head=4, n_inner=20),
    "llama": LlamaConfig(**SIZES, tied=False, rope_theta=1e6, rms_norm_epsilon=1e-6),
    "llama tied": LlamaConfig(**SIZES),
    "llama3": LlamaConfig(**SIZES, tied=False, **LLAMA3),
    "linear": LlamaConfig(**SIZES, rope_scaling="linear", rope_factor=4.0),
    "biases": LlamaConfig(**SIZES, head_size=6, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qwen2": LlamaConfig(**SIZES, qkv_bias=True, tied=False),
    "qwen3": LlamaConfig(**SIZES, qk_norm=True, head_size=8),
    "qwen3 biases": LlamaConfig(**SIZES, qk_norm=True, qkv_bias=True, output_bias=True),
}
SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

INDEX = "model.safetensors.index.json"


def make_backbone(config):
    return (GPT2 if isinstance(config, GPT2Config) else Llama)(config)


def make_trunk(config, seed=0):
    shapes = jax.eval_shape(make_backbone(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.4, x.shape).astype(np.float32), shapes)


def save(directory, name="llama", **settings):
    """Save a model; `settings` replace those of its config.json, and None removes one."""
    config = CONFIGS[name]
    save_language_model(directory, config, make_trunk(config), special_ids=SPECIAL_IDS)
    edit(directory / "config.json", **settings)


def edit(path, **changes):
    changed = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(changed))


def shard(directory, n_shards=3):
    """Split a saved model into files with an index, as transformers does with a large one."""
    arrays = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names, listed = sorted(arrays), {}
    for i in range(n_shards):
        file = f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {name: arrays[name] for name in names[i::n_shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        listed |= dict.fromkeys(part, file)
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))


def rewrite(directory, change):
    """Change arrays of a model's file, which then has no checksum, as those of others."""
    arrays = load_file(directory / "model.safetensors")
    save_file(change(arrays), directory / "model.safetensors")


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_trunks_load_bit_for_bit(name, tmp_path):
    config, trunk = CONFIGS[name], make_trunk(CONFIGS[name])
    save_language_model(tmp_path, config, trunk, special_ids=SPECIAL_IDS)
    backbone, loaded = load_language_model(str(tmp_path))
    assert backbone == make_backbone(config)
    jax.tree.map(np.testing.assert_array_equal, loaded, trunk)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_what_is_saved_and_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an extra: install '.[torch]' to compare with transformers")
    from transformers import AutoModelForCausalLM

    config, trunk = CONFIGS[name], make_trunk(CONFIGS[name])
    save_language_model(tmp_path / "ours", config, trunk, special_ids=SPECIAL_IDS)
    theirs, found = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found.values())
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 15))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(tokens)).logits.numpy()
    hidden = jax.jit(make_backbone(config).apply)({"params": trunk}, tokens).hidden
    np.testing.assert_allclose(hf_logits(trunk, hidden), expected, rtol=1e-4, atol=1e-4)

    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
    assert (tmp_path / "theirs" / INDEX).is_file()
    backbone, loaded = load_language_model(str(tmp_path / "theirs"))
    assert backbone.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, trunk)


def hf_logits(trunk, hidden):
    return hidden @ trunk.get("lm_head", trunk["wte"]).T


def test_shards_are_read_as_one_model(tmp_path):
    save(tmp_path)
    shard(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load_language_model(str(tmp_path))[1], make_trunk(CONFIGS["llama"]))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_files_of_other_precisions_become_float32(name, dtype, tmp_path):
    save(tmp_path, name)
    dtype = getattr(ml_dtypes, dtype, dtype)
    rewrite(tmp_path, lambda arrays: {name: array.astype(dtype) for name, array in arrays.items()})
    _, loaded = load_language_model(str(tmp_path))
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), make_trunk(CONFIGS[name]))
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert {x.dtype for x in jax.tree.leaves(loaded)} == {np.dtype("float32")}


def name_in_index(directory, name, file):
    edit(directory / INDEX, weight_map=json.loads((directory / INDEX).read_text())["weight_map"] | {name: file})


SHARD = "model-00002-of-00003.safetensors"
DAMAGED_SHARDS = {
    "a missing shard": (lambda d: (d / SHARD).unlink(), rf"{SHARD} is missing"),
    "a truncated shard": (lambda d: os.truncate(d / SHARD, 500), rf"{SHARD}: is not a complete safetensors file"),
    "an empty shard": (lambda d: os.truncate(d / SHARD, 0), rf"{SHARD}: is not a complete safetensors file"),
    "a shard that is a folder": (lambda d: name_in_index(d, "model.norm.weight", ""), r"cannot be read"),
    "a file outside": (
        lambda d: name_in_index(d, "model.norm.weight", "../model.safetensors"),
        r"names '\.\./model\.safetensors', which is not a file beside it",
    ),
    "an absolute file": (lambda d: name_in_index(d, "model.norm.weight", "/etc/passwd"), r"names '/etc/passwd'"),
    "a name that no file has": (
        lambda d: name_in_index(d, "model.norm.weight", "a\0b"),
        r"is missing",
    ),
    "no name": (lambda d: name_in_index(d, "model.norm.weight", 3), r"has no weight_map"),
    "an index of nothing": (lambda d: (d / INDEX).write_text("{}"), r"has no weight_map"),
    "an index that is no JSON": (lambda d: (d / INDEX).write_text("{"), r"index\.json:1: not JSON"),
    "an array that no shard has": (
        lambda d: name_in_index(d, "model.extra", SHARD),
        r"is of other files\. Missing: model\.extra\. Unexpected: none",
    ),
    "an array that the index lacks": (
        lambda d: edit(d / INDEX, weight_map={"model.norm.weight": SHARD}),
        r"is of other files\. Missing: .*Unexpected: ",
    ),
    "an array twice": (
        lambda d: shutil.copy(d / "model-00001-of-00003.safetensors", d / SHARD),
        r"which is in .*model-00001-of-00003\.safetensors too",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_SHARDS)
def test_damaged_shards_are_refused_by_name(case, tmp_path):
    damage, message = DAMAGED_SHARDS[case]
    save(tmp_path)
    shard(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_never_read(name, tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(UserError, match=rf"weights as {re.escape(name)}, a pickle, which could run any program"):
        load_language_model(str(tmp_path))


ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
REFUSED = [
    ({"model_type": "bloom"}, r"model_type 'bloom'; the covered ones are gpt2, llama, mistral, qwen2, qwen3"),
    ({"model_type": None}, r"model_type None"),
    ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, r"asks for rotary scaling 'yarn'.*default, dynamic"),
    ({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, r"asks for rotary scaling 'longrope'"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, r"asks for rotary scaling 'yarn'"),
    ({"rope_scaling": {"type": "linear"}}, r"'linear' and lacks its factor"),
    ({"rope_scaling": {"type": "linear", "factor": "4"}}, r"rope_scaling, has factor='4', which must be a number"),
    ({"rope_scaling": ROPE}, r"lacks its original_max_position_embeddings"),
    ({"rope_scaling": "linear"}, r"rope_scaling='linear', which must be an object"),
    ({"rope_scaling": {"type": ["linear"]}}, r"type=\['linear'\], which must be a text"),
    ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, r"layers that differ \(full_attention\)"),
    (
        {"rope_scaling": {**ROPE, "original_max_position_embeddings": 8, "high_freq_factor": float("nan")}},
        r"config\.json: rope_high_factor=nan is out of range",
    ),
    ({"partial_rotary_factor": 0.5}, r"asks for partial_rotary_factor=0\.5"),
    ({"rope_parameters": {"partial_rotary_factor": 0.25}}, r"asks for partial_rotary_factor=0\.25"),
    ({"hidden_act": "gelu"}, r"hidden_act='gelu'; only 'silu'"),
    ({"quantization_config": {"quant_method": "gptq"}}, r"quantised by gptq"),
    ({"quantization_config": "fp8"}, r"quantised by fp8"),
    ({"hidden_size": "16"}, r"hidden_size='16', which must be a whole number"),
    ({"hidden_size": 16.0}, r"hidden_size=16\.0, which must be a whole number"),
    ({"num_hidden_layers": True}, r"num_hidden_layers=True, which must be a whole number"),
    ({"hidden_size": None}, r"config\.json lacks hidden_size"),
    ({"rms_norm_eps": "tiny"}, r"rms_norm_eps='tiny', which must be a number"),
    ({"rms_norm_eps": float("nan")}, r"config\.json: rms_norm_epsilon=nan is out of range"),
    ({"rope_theta": 0}, r"config\.json: rope_theta=0 is out of range"),
    ({"rope_theta": 10**40}, r"config\.json: rope_theta=10{40} is out of range"),
    ({"rope_theta": [1]}, r"rope_theta=\[1\], which must be a number"),
    ({"tie_word_embeddings": "false"}, r"tie_word_embeddings='false', which must be true or false"),
    ({"attention_bias": 1}, r"attention_bias=1, which must be true or false"),
    ({"num_hidden_layers": -1}, r"config\.json: n_layer=-1 is out of range"),
    ({"num_hidden_layers": 0}, r"config\.json: n_layer=0 is out of range"),
    ({"vocab_size": -23}, r"config\.json: vocab_size=-23 is out of range"),
    ({"num_key_value_heads": 3}, r"config\.json: n_head=4 is not divisible by n_kv_head=3"),
    ({"head_dim": 5}, r"config\.json: head_size=5 is odd"),
    # Sizes that the arrays do not have; the first would fill the memory with names.
    ({"num_hidden_layers": 10**15}, r"n_layer=10{15}.*Missing: layers\.10\."),
    ({"num_hidden_layers": 2}, r"Unexpected: layers\.2\.input_layernorm\.weight"),
    ({"vocab_size": 10**12}, r"embed_tokens\.weight: \(23, 16\), not \(10{12}, 16\)"),
    ({"intermediate_size": 21}, r"mlp\.down_proj\.weight: \(16, 20\), not \(16, 21\)"),
    ({"num_key_value_heads": 4}, r"self_attn\.k_proj\.weight: \(8, 16\), not \(16, 16\)"),
    ({"num_key_value_heads": None}, r"self_attn\.k_proj\.weight: \(8, 16\), not \(16, 16\)"),
    ({"head_dim": 8}, r"self_attn\.k_proj\.weight: \(8, 16\), not \(16, 16\)"),
    ({"attention_bias": True}, r"Missing: layers\.0\.self_attn\.k_proj\.bias"),
    ({"model_type": "qwen3"}, r"Missing: layers\.0\.self_attn\.k_norm\.weight"),
    ({"tie_word_embeddings": None, "model_type": "qwen2"}, r"Missing: layers\.0\.self_attn\.k_proj\.bias"),
    ({"model_type": "qwen2", "layer_types": ["full_attention", "linear_attention"]}, r"layer_types=\['full_att"),
    ({"model_type": "qwen2", "layer_types": "sliding_attention"}, r"layer_types='sliding_attention'"),
    ({"model_type": "mistral", "sliding_window": -1}, r"config\.json: n_positions=-1 is out of range"),
]


@pytest.fixture(scope="module")
def llama_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama")
    save(directory)
    return directory


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_a_config_that_is_not_computed_is_refused(llama_directory, tmp_path, changes, message):
    shutil.copytree(llama_directory, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("content", ["{}", "[]", "", '"llama"', '{"model_type": "llama"}'])
def test_an_empty_config_is_refused(llama_directory, tmp_path, content):
    shutil.copytree(llama_directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_language_model(str(tmp_path))


WINDOWS = [
    ("llama", {"sliding_window": 5, "use_sliding_window": True}, 16),  # transformers ignores it too
    ("mistral", {"sliding_window": 5}, 5),
    ("mistral", {"sliding_window": 50}, 16),
    ("mistral", {"sliding_window": None}, 16),
    ("mistral", {"sliding_window": 5, "use_sliding_window": False}, 5),  # no option of a Mistral
    ("qwen2", {"sliding_window": 5, "use_sliding_window": False, "max_window_layers": 0}, 16),
    ("qwen2", {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 2}, 5),
    ("qwen2", {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 3}, 16),  # none of three layers
    ("qwen2", {"sliding_window": 5, "use_sliding_window": True}, 16),  # from layer 28 on
    ("qwen3", {"sliding_window": 5, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}, 5),
    ("qwen3", {"sliding_window": 5, "use_sliding_window": True, "layer_types": ["full_attention"] * 3}, 16),
]


@pytest.mark.parametrize(("kind", "settings", "longest"), WINDOWS)
def test_rows_are_no_longer_than_a_window(kind, settings, longest):
    sizes = {theirs: SIZES[ours] for ours, theirs in hf_sizes().items()}
    settings = {**sizes, "model_type": kind, "num_key_value_heads": 2, **settings}
    assert hf.read_config(settings, where="config.json").n_positions == longest


def hf_sizes():
    from ilqljax.models.io.families import LLAMA_SIZES

    return {**LLAMA_SIZES, "n_positions": "max_position_embeddings"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", {"n_kv_head": 32, "head_size": 4, "n_positions": 9000}),
        ("mistral", {"n_kv_head": 8, "head_size": 4, "n_positions": 4096}),
        ("qwen2", {"n_kv_head": 32, "head_size": 4, "n_positions": 9000, "qkv_bias": True, "output_bias": False}),
        ("qwen3", {"n_kv_head": 32, "head_size": 128, "n_positions": 9000, "qk_norm": True}),
    ],
)
def test_what_a_config_leaves_out_is_as_in_transformers(kind, expected):
    sizes = {"vocab_size": 9, "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 32}
    settings = {**sizes, "intermediate_size": 8, "max_position_embeddings": 9000, "model_type": kind}
    config = hf.read_config(settings, where="config.json")
    expected |= {"rms_norm_epsilon": 1e-6, "rope_theta": 10000.0, "tied": False, "rope_scaling": "none"}
    assert {name: getattr(config, name) for name in expected} == expected


def test_options_that_a_kind_does_not_have_are_not_read():
    sizes = {theirs: SIZES[ours] for ours, theirs in hf_sizes().items()}
    biases = {"attention_bias": True, "mlp_bias": True}
    qwen2 = hf.read_config({**sizes, **biases, "num_key_value_heads": 2, "model_type": "qwen2"}, where="config.json")
    assert (qwen2.qkv_bias, qwen2.output_bias, qwen2.mlp_bias) == (True, False, False)
    mistral = hf.read_config({**sizes, **biases, "num_key_value_heads": 2, "model_type": "mistral"}, where="")
    assert (mistral.qkv_bias, mistral.output_bias, mistral.mlp_bias) == (False, False, False)


@pytest.mark.parametrize(
    "options",
    [
        {"output_bias": True},
        {"qkv_bias": True, "mlp_bias": True},
        {"qkv_bias": True, "qk_norm": True},
        {"qk_norm": True, "mlp_bias": True},
        {"qkv_bias": True, "output_bias": True, "mlp_bias": True, "qk_norm": True},
    ],
)
def test_a_model_that_could_not_be_exported_is_refused_before_it_is_trained(options):
    with pytest.raises(UserError, match="No model of transformers has qkv_bias="):
        LlamaConfig(**SIZES, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.2.self_attn.k_proj.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(value, name, tmp_path):
    save(tmp_path)

    def spoil(arrays):
        arrays[name][3, 2] = value
        return arrays

    rewrite(tmp_path, spoil)
    with pytest.raises(UserError, match=rf"{name.removeprefix('model.')} has numbers that are NaN or infinite"):
        load_language_model(str(tmp_path))


def test_numbers_that_float32_has_no_room_for_are_refused(tmp_path):
    save(tmp_path)
    rewrite(tmp_path, lambda arrays: {**arrays, "model.norm.weight": np.full(16, 1e39)})
    with pytest.raises(UserError, match=r"norm\.weight has numbers that are NaN or infinite"):
        load_language_model(str(tmp_path))


def test_whole_numbers_are_no_weights(tmp_path):
    save(tmp_path)
    rewrite(tmp_path, lambda arrays: {**arrays, "model.norm.weight": np.ones(16, np.int8)})
    with pytest.raises(UserError, match=r"norm\.weight holds int8, not numbers of floating point"):
        load_language_model(str(tmp_path))


def test_an_array_that_is_there_with_and_without_the_models_prefix_is_refused(tmp_path):
    save(tmp_path)
    rewrite(tmp_path, lambda arrays: {**arrays, "norm.weight": np.zeros(16, np.float32)})
    with pytest.raises(UserError, match=r"both norm\.weight and model\.norm\.weight are there"):
        load_language_model(str(tmp_path))


def test_the_head_of_a_tied_model_is_its_embeddings_whatever_its_file_says(tmp_path):
    save(tmp_path, "llama tied")
    rewrite(tmp_path, lambda arrays: {**arrays, "lm_head.weight": np.ones((23, 16), np.float32)})
    jax.tree.map(
        np.testing.assert_array_equal, load_language_model(str(tmp_path))[1], make_trunk(CONFIGS["llama tied"])
    )


def test_a_sequence_classifier_is_not_taken_for_a_language_model(tmp_path):
    save(tmp_path)

    def turn(arrays):
        arrays["score.weight"] = arrays.pop("lm_head.weight")
        return arrays

    rewrite(tmp_path, turn)
    with pytest.raises(UserError, match=r"Missing: lm_head\.weight\. Unexpected: score\.weight"):
        load_language_model(str(tmp_path))


def test_dropout_is_refused_where_the_family_has_none(tmp_path):
    save(tmp_path)
    with pytest.raises(UserError, match=r"config\.model\.dropout=0\.1 is an option of GPT-2"):
        load_language_model(str(tmp_path), dropout=0.1)


def test_only_the_models_own_files_are_fetched(monkeypatch, tmp_path):
    """Mistral's repositories hold all weights a second time, as consolidated.safetensors."""
    asked = {}
    monkeypatch.setattr(hf, "fetch_snapshot", lambda name, **patterns: asked.update(patterns) or tmp_path)
    hf.find_model("someone/model")
    from huggingface_hub.utils import filter_repo_objects

    repository = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", INDEX]
    others = ["consolidated.safetensors", "onnx/model.safetensors", "pytorch_model.bin", "README.md"]
    patterns = [*asked["files"], *asked["optional"]]
    assert list(filter_repo_objects([*repository, *others], allow_patterns=patterns)) == repository


PEAK = """
import resource, sys
from ilqljax.models.io.hf import load_language_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_language_model(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
def test_loading_shards_takes_little_more_memory_than_the_model(tmp_path):
    config = LlamaConfig(vocab_size=4096, n_embd=512, n_layer=24, n_head=8, n_kv_head=8, n_inner=1536, tied=False)
    trunk = jax.tree.map(lambda x: np.ones(x.shape, np.float32), make_shapes(config))
    size = sum(x.nbytes for x in jax.tree.leaves(trunk))
    save_language_model(tmp_path, config, trunk, special_ids=SPECIAL_IDS)
    del trunk
    shard(tmp_path)
    found = subprocess.run([sys.executable, "-c", PEAK, tmp_path], capture_output=True, text=True, check=True)
    assert size > 300e6 and int(found.stdout) * 1024 < 1.5 * size


def make_shapes(config):
    return jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def test_parameters_go_to_the_mesh_one_by_one_each_device_with_its_part(tmp_path):
    save(tmp_path, "llama")
    whole = load_language_model(str(tmp_path))[1]
    mesh, placed = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)), []
    place = make_placer(mesh)
    trunk = load_language_model(str(tmp_path), place=lambda path, array: (placed.append(path), place(path, array))[1])[
        1
    ]
    assert not set(placed) & {"wte", "lm_head"} and len(placed) == len(set(placed)) > 9
    jax.tree.map(np.testing.assert_array_equal, trunk, whole)
    kernel = trunk["h"]["attn"]["q_proj"]["kernel"]
    assert kernel.shape == (3, 16, 16) and kernel.addressable_shards[0].data.shape == (3, 4, 8)
    assert isinstance(trunk["wte"], np.ndarray)


def test_a_run_has_the_whole_model_on_its_mesh(tmp_path):
    save(tmp_path, "llama")
    tokenizer = CharacterTokenizer("abcdefghijklmnop")  # 16 of them, one that is unknown, 6 control tokens
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    context = BuildContext({"place": make_placer(mesh)})
    built = build_llama(tokenizer, context, path=str(tmp_path), lora_rank=2, base_dtype="bfloat16")
    for path, leaf in jax.tree_util.tree_leaves_with_path(built.pretrained):
        assert leaf.sharding.mesh == mesh and leaf.dtype == jnp.bfloat16, path
    learner = make_learner("ilql", built.model, {"awac_weight": 1.0})
    state = init_learner_state(
        learner, optimizer=make_optimizer(OptimConfig()), key=jax.random.key(0), trunk=built.pretrained
    )
    jax.tree.map(np.testing.assert_array_equal, state.frozen["base"]["h"]["mlp"]["up_proj"]["kernel"],
                 built.pretrained["h"]["mlp"]["up_proj"]["kernel"])  # fmt: skip
