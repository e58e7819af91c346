"""GPT-2: a NumPy twin, its cache, padding, transformers' numbers, and weights on disk."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.backbone import CacheSlots, KVCache, compute_logits
from ilqljax.models.builders import build_gpt2, check_vocabulary
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import (
    find_model,
    load_language_model,
    resize_vocabulary,
    save_language_model,
    trunk_from_torch,
    trunk_to_torch,
)

CONFIG = GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2)
SHAPES = {
    "two heads": CONFIG,
    "n_inner set": GPT2Config(vocab_size=23, n_positions=9, n_embd=12, n_layer=3, n_head=3, n_inner=20),
    "one head, one layer, own epsilon": GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=1, layer_norm_epsilon=1e-2
    ),
}
SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def make_trunk(config: GPT2Config, seed: int = 0) -> dict:
    """Draw every parameter, biases and norms too, at a scale that keeps attention sharp enough to matter."""
    shapes = jax.eval_shape(GPT2(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [rng.normal(0.0, 0.4, x.shape).astype(np.float32) for x in leaves])


def make_tokens(config: GPT2Config, n_rows: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, (n_rows, config.n_positions - 1))


@pytest.fixture(scope="module")
def trunk():
    return make_trunk(CONFIG)


@pytest.fixture(scope="module")
def run():
    """The compiled trunk: `run(trunk, tokens)` gives its output with keys and values."""
    return jax.jit(lambda trunk, tokens: GPT2(CONFIG).apply({"params": trunk}, tokens, return_kv=True))


def slow_layer_norm(params, x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * params["scale"] + params["bias"]


def slow_gpt2(config, trunk, tokens):
    """Compute one row's hidden states in double precision, head by head and position by position (GPT-2's paper)."""
    trunk = jax.tree.map(np.float64, trunk)
    epsilon = config.layer_norm_epsilon
    x = trunk["wte"][tokens] + trunk["wpe"][: len(tokens)]
    for layer in range(config.n_layer):
        p = jax.tree.map(lambda w, layer=layer: w[layer], trunk["h"])
        qkv = slow_layer_norm(p["ln_1"], x, epsilon) @ p["attn"]["c_attn"]["kernel"] + p["attn"]["c_attn"]["bias"]
        query, key, value = np.split(qkv, 3, axis=-1)
        mixed = np.zeros_like(x)
        for head in range(config.n_head):
            part = slice(head * config.head_size, (head + 1) * config.head_size)
            for t in range(len(tokens)):
                scores = key[: t + 1, part] @ query[t, part] / np.sqrt(config.head_size)
                weights = np.exp(scores - scores.max())
                mixed[t, part] = weights @ value[: t + 1, part] / weights.sum()
        x = x + mixed @ p["attn"]["c_proj"]["kernel"] + p["attn"]["c_proj"]["bias"]
        inner = slow_layer_norm(p["ln_2"], x, epsilon) @ p["mlp"]["c_fc"]["kernel"] + p["mlp"]["c_fc"]["bias"]
        gelu = 0.5 * inner * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (inner + 0.044715 * inner**3)))
        x = x + gelu @ p["mlp"]["c_proj"]["kernel"] + p["mlp"]["c_proj"]["bias"]
    return slow_layer_norm(trunk["ln_f"], x, epsilon), x


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_equal_the_numpy_twin(shape):
    config = SHAPES[shape]
    trunk, tokens = make_trunk(config), make_tokens(config)
    output = jax.jit(GPT2(config).apply)({"params": trunk}, tokens)
    for row, row_tokens in enumerate(tokens):
        hidden, block_output = slow_gpt2(config, trunk, row_tokens)
        np.testing.assert_allclose(output.hidden[row], hidden, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.block_output[row], block_output, rtol=1e-4, atol=1e-4)


def test_cached_decoding_equals_the_full_forward_at_every_position(trunk, run, each_way):
    tokens = make_tokens(CONFIG)
    n_rows, length = tokens.shape
    full = run(trunk, tokens)
    n_slots = CONFIG.n_positions
    # A slot is storage, not a position: tokens are stored out of order, among slots that hold garbage.
    slots = np.random.default_rng(2).permutation(n_slots)[:length]
    heads = (n_rows * CONFIG.n_head,) if each_way == "cpu" else (n_rows, CONFIG.n_head)
    shape = (CONFIG.n_layer, *heads, n_slots, CONFIG.head_size)
    cache = KVCache(np.full(shape, 7.0, np.float32), np.full(shape, -9.0, np.float32))
    seen = np.zeros((n_rows, n_slots), bool)
    step = jax.jit(
        lambda trunk, token, position, cache, slots: GPT2(CONFIG).apply(
            {"params": trunk}, token, position, cache=cache, slots=slots
        )
    )
    for t, slot in enumerate(slots):
        positions = np.full((n_rows, 1), t)
        seen[:, slot] = True
        output = step(trunk, tokens[:, t : t + 1], positions, cache, CacheSlots(slot, seen[:, None].copy()))
        np.testing.assert_allclose(output.hidden[:, 0], full.hidden[:, t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.block_output[:, 0], full.block_output[:, t], rtol=1e-4, atol=1e-5)
        cache = output.cache
        np.testing.assert_allclose(cache.keys[..., slot, :], full.cache.keys[..., t, :], rtol=1e-4, atol=1e-5)


def test_what_follows_changes_nothing_before_it(trunk, run):
    tokens = make_tokens(CONFIG)
    other = tokens.copy()
    other[:, 5:] = (other[:, 5:] + 1) % CONFIG.vocab_size
    hidden, changed = run(trunk, tokens).hidden, run(trunk, other).hidden
    np.testing.assert_array_equal(hidden[:, :5], changed[:, :5])
    assert np.abs(hidden[:, 5:] - changed[:, 5:]).max(-1).min() > 1e-3


def test_padding_at_the_end_changes_nothing_before_it(trunk, run):
    tokens = make_tokens(CONFIG)
    short = run(trunk, tokens[:, :5])
    np.testing.assert_allclose(short.hidden, run(trunk, tokens).hidden[:, :5], rtol=1e-5, atol=1e-5)


def test_logits_are_float32_from_half_precision_activations(trunk):
    hidden = jnp.ones((1, 2, CONFIG.n_embd), jnp.bfloat16)
    assert compute_logits(trunk, hidden).dtype == jnp.float32


def test_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"n_embd=10.*n_head=4"):
        GPT2Config(vocab_size=5, n_embd=10, n_head=4)


# torch's own deprecations are no concern of ours, and the versions that users have differ in them.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_cache_equal_those_of_transformers(shape, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an extra: install '.[torch]' to compare with transformers")
    from transformers import GPT2LMHeadModel

    config = SHAPES[shape]
    trunk, tokens = make_trunk(config), make_tokens(config)
    save_language_model(tmp_path / "ours", config, trunk, special_ids=SPECIAL_IDS)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens), use_cache=True)
    output = jax.jit(lambda p, x: GPT2(config).apply(p, x, return_kv=True))({"params": trunk}, tokens)
    np.testing.assert_allclose(compute_logits(trunk, output.hidden), expected.logits.numpy(), rtol=1e-4, atol=1e-4)
    cache = expected.past_key_values
    for i, layer in enumerate(cache.layers):
        for ours, kept in ((output.cache.keys[i], layer.keys), (output.cache.values[i], layer.values)):
            np.testing.assert_allclose(ours, kept.flatten(0, 1).numpy(), rtol=1e-4, atol=1e-4)
    assert len(cache.layers) == config.n_layer

    # And back: what transformers saves, under its own choice of names, is read as the same parameters.
    theirs.save_pretrained(tmp_path / "theirs")
    backbone, loaded = load_language_model(str(tmp_path / "theirs"))
    assert backbone.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, trunk)


@pytest.fixture
def saved(trunk, tmp_path):
    save_language_model(tmp_path / "model", CONFIG, trunk, special_ids=SPECIAL_IDS)
    return tmp_path / "model"


@pytest.mark.parametrize("shape", SHAPES)
def test_saved_trunk_loads_bit_for_bit(shape, tmp_path):
    config = SHAPES[shape]
    trunk = make_trunk(config)
    save_language_model(tmp_path, config, trunk, special_ids=SPECIAL_IDS)
    backbone, loaded = load_language_model(str(tmp_path))
    assert backbone.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded, trunk)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_saved_config_is_what_transformers_reads(saved):
    settings = json.loads((saved / "config.json").read_text())
    assert settings["model_type"] == "gpt2"
    assert settings["architectures"] == ["GPT2LMHeadModel"]
    assert {name: settings[name] for name in SPECIAL_IDS} == SPECIAL_IDS
    assert settings["n_inner"] is None  # 4 x n_embd, as transformers spells it


def test_numerics_are_chosen_when_loading(saved):
    backbone, _ = load_language_model(str(saved), dtype="bfloat16", dropout=0.1)
    assert (backbone.config.dtype, backbone.config.dropout) == ("bfloat16", 0.1)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_names_with_and_without_transformer_are_read(trunk, prefix):
    weights = {prefix + name.removeprefix("transformer."): w for name, w in trunk_to_torch(trunk, CONFIG).items()}
    # Buffers and the tied head that older files carry.
    weights |= {f"{prefix}h.0.attn.bias": np.ones(1), f"{prefix}h.1.attn.masked_bias": np.ones(1)}
    weights["lm_head.weight"] = np.ones(1)
    jax.tree.map(np.testing.assert_array_equal, trunk_from_torch(weights, CONFIG), trunk)


def test_layers_keep_their_order():
    config = GPT2Config(vocab_size=3, n_positions=2, n_embd=2, n_layer=11, n_head=1)  # "10" sorts before "2" as text
    trunk = make_trunk(config)
    jax.tree.map(np.testing.assert_array_equal, trunk_from_torch(trunk_to_torch(trunk, config), config), trunk)


def test_missing_and_unexpected_names_are_listed(trunk):
    weights = trunk_to_torch(trunk, CONFIG)
    del weights["transformer.h.1.mlp.c_fc.bias"]
    weights["transformer.h.0.adapter.weight"] = np.ones(1)
    with pytest.raises(UserError, match=r"Missing: h\.1\.mlp\.c_fc\.bias\. Unexpected: h\.0\.adapter\.weight\."):
        trunk_from_torch(weights, CONFIG)


def test_no_layers_at_all_are_refused():
    with pytest.raises(UserError, match=r"Missing: h\.0\.attn"):
        trunk_from_torch({}, CONFIG)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bloom"}, r"model_type 'bloom'; the covered ones are gpt2, llama, mistral, qwen2, qwen3"),
        (
            {"quantization_config": {"quant_method": "awq"}},
            r"quantised by awq\. Choose the model",
        ),
        ({"n_embd": "16"}, r"config\.json has n_embd=.16., which must be a whole number"),
        ({"activation_function": "relu"}, r"activation_function='relu'"),
        ({"n_layer": 3}, r"n_layer=3.* Missing: h\.2\."),  # the file has two
        ({"vocab_size": 50}, r"vocab_size=50.* wte\.weight: \(40, 16\), not \(50, 16\)"),  # the file has 40
        ({"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx"),  # other numbers than ours
    ],
)
def test_config_that_the_model_does_not_follow_is_refused(saved, changes, message):
    edit_config(saved, **changes)
    with pytest.raises(UserError, match=message):
        load_language_model(str(saved))


def test_config_that_is_not_json_is_refused_by_name(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        load_language_model(str(saved))


def test_missing_weights_file_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_language_model(str(saved))


def test_directory_that_is_missing_or_empty_is_refused(tmp_path):
    for directory in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"holds no config\.json.*a model's directory or a hub name"):
            find_model(str(directory))


def test_hub_name_that_cannot_be_fetched_is_refused(monkeypatch):
    def fail(name, **_):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"'someone/model' is neither a directory.*no network.*give its directory"):
        find_model("someone/model")


def test_save_replaces_an_older_model_whole(trunk, saved):
    shutil.copy(saved / "config.json", saved / "note.json")  # other files stay
    small = SHAPES["n_inner set"]
    save_language_model(saved, small, make_trunk(small), special_ids=SPECIAL_IDS)
    assert load_language_model(str(saved))[0].config == small
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "note.json"]


def test_grown_vocabulary_keeps_the_old_rows_and_starts_new_ones_near_the_mean(trunk):
    grown = resize_vocabulary(trunk, 46)["wte"]
    assert grown.shape == (46, CONFIG.n_embd)
    assert grown.dtype == np.float32
    np.testing.assert_array_equal(grown[:40], trunk["wte"])
    assert np.abs(grown[40:] - trunk["wte"].mean(0)).max() < 0.1 * trunk["wte"].std()
    assert len(np.unique(grown[40:], axis=0)) == 6
    np.testing.assert_array_equal(grown, resize_vocabulary(trunk, 46)["wte"])
    assert not np.array_equal(grown, resize_vocabulary(trunk, 46, seed=1)["wte"])


def test_cut_vocabulary_keeps_the_first_rows(trunk):
    np.testing.assert_array_equal(resize_vocabulary(trunk, 30)["wte"], trunk["wte"][:30])


@pytest.mark.parametrize(
    ("n_rows", "n_ids", "fits"),
    [
        (50257, 50263, True),  # GPT-2's own
        (50263, 50263, True),
        (50264, 50263, True),  # padded to a multiple of 8
        (50304, 50263, True),  # of 128
        (50265, 50263, False),
        (50392, 50263, False),
        (50257, 1400, False),
        (40, 13, True),
        (45, 13, False),
    ],
)
def test_embeddings_of_more_tokens_than_the_tokenizers_are_refused_unless_they_are_padding(n_rows, n_ids, fits):
    tokenizer = SimpleNamespace(vocab_size=n_ids)
    if fits:
        check_vocabulary("dir", n_rows, tokenizer)
        return
    with pytest.raises(UserError, match=rf"dir knows {n_rows} tokens .* {n_ids}, .*:gpt2 .*tokenizer\.path=DIR"):
        check_vocabulary("dir", n_rows, tokenizer)


def test_a_directory_of_another_tokenizers_model_is_not_built(tmp_path):
    large = replace(CONFIG, vocab_size=300)
    save_language_model(tmp_path, large, make_trunk(large), special_ids=SPECIAL_IDS)
    with pytest.raises(UserError, match=r"knows 300 tokens and config\.tokenizer gives 13"):
        build_gpt2(CharacterTokenizer("abcdef"), path=str(tmp_path))


def test_resizing_leaves_the_given_trunk_alone(trunk):
    before = trunk["wte"].copy()
    resized = resize_vocabulary(trunk, 46)
    np.testing.assert_array_equal(trunk["wte"], before)
    assert {name for name in trunk if resized[name] is not trunk[name]} == {"wte"}
