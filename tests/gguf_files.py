"""Small GGUF files, written by the package gguf from weights under transformers' names."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from published_tokenizers import make_byte_level

WIDTH, INNER, HEADS, KEY_HEADS, SIZE, LAYERS, VOCAB = 256, 512, 4, 2, 64, 2, 24
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def make_weights(architecture: str, *, tied: bool = True, biases: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Make a model's random weights under transformers' names; `biases` are parts that have one besides Qwen 2's."""
    rng = np.random.default_rng(0)
    queries, keys = HEADS * SIZE, KEY_HEADS * SIZE
    shapes = {"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= {} if tied else {"lm_head.weight": (VOCAB, WIDTH)}
    layer = {
        "input_layernorm.weight": (WIDTH,),
        "self_attn.q_proj.weight": (queries, WIDTH),
        "self_attn.k_proj.weight": (keys, WIDTH),
        "self_attn.v_proj.weight": (keys, WIDTH),
        "self_attn.o_proj.weight": (WIDTH, queries),
        "post_attention_layernorm.weight": (WIDTH,),
        "mlp.gate_proj.weight": (INNER, WIDTH),
        "mlp.up_proj.weight": (INNER, WIDTH),
        "mlp.down_proj.weight": (WIDTH, INNER),
    }
    biases += ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if architecture == "qwen2" else ()
    layer |= {f"{name}.bias": layer[f"{name}.weight"][:1] for name in biases}
    if architecture == "qwen3":
        layer |= {"self_attn.q_norm.weight": (SIZE,), "self_attn.k_norm.weight": (SIZE,)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def rename(name: str) -> str:
    """Return llama.cpp's name of a tensor."""
    stem, _, suffix = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{suffix}"


def permute(array: np.ndarray, heads: int) -> np.ndarray:
    """Order a head's rows as llama.cpp's converter does (convert_hf_to_gguf.py, `LlamaModel.permute`)."""
    return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def write_model(
    path: Path,
    weights: Mapping[str, np.ndarray],
    *,
    architecture: str = "llama",
    kind: str = "F32",
    metadata: Mapping[str, Any] = MappingProxyType({}),
    tensors: Mapping[str, np.ndarray] = MappingProxyType({}),
    tokenizer: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a model's file; its matrices are quantized, vectors are not, as llama.cpp does.

    Args:
        path: the file.
        weights: under transformers' names.
        architecture: llama, qwen2 or qwen3.
        kind: of the matrices' quantization.
        metadata: of the architecture, added or (where None) left out.
        tensors: written as they are besides, under llama.cpp's names.
        tokenizer: metadata of the tokenizer.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    values = {
        "vocab_size": VOCAB,
        "context_length": 128,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEY_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": SIZE,
    } | dict(metadata)
    named = {f"{architecture}.{key}": value for key, value in values.items()} | dict(tokenizer)
    for key, value in named.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
            add[type(value)](key, value)
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS} if architecture == "llama" else {}
    for name, array in weights.items():
        for part, n in heads.items():
            array = permute(array, n) if part in name else array
        quantization = gguf.GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
        writer.add_tensor(rename(name), gguf.quantize(array, quantization), raw_dtype=quantization)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def describe_tokenizer(splitter: str, **changes: Any) -> dict[str, Any]:
    """Return the metadata of `make_byte_level`'s tokenizer, with three unused ids at the end."""
    content = json.loads(make_byte_level().to_str())
    tokens = [*content["model"]["vocab"], "<|user|>", "[PAD401]", "[PAD402]", "[PAD403]"]
    metadata = {
        "model": "gpt2",
        "pre": splitter,
        "tokens": tokens,
        "token_type": [3] * 3 + [1] * (len(tokens) - 7) + [4, 5, 5, 5],
        "merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 2,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()} | {"tokenizer.chat_template": "{{ x }}"}
