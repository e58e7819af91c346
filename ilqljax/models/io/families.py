"""How transformers names and configures each backbone: what `config.json` says, and which array is which parameter.

A family's entry is all that `ilqljax.models.io.hf` knows of it. torch's GPT-2 keeps dense layers as `Conv1D` with
weights [in, out], which is our kernels' layout; the linear layers of the others are [out, in] and are transposed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.tables import Table, check_settings, take_setting
from ilqljax.models.llama import Llama, LlamaConfig

Settings = Mapping[str, Any]


class Family(NamedTuple):
    """What it takes to read and write a backbone as transformers does.

    Attributes:
        backbone: its module.
        required: keys that `config.json` must have.
        read: from these settings, and the path to name in errors, to options of the backbone's config.
        write: from a config to settings, `model_type` and `architectures` among them.
        table: from a config to the table of arrays (`tables.build_tree`).
        sizes: from a config to what the table's letters stand for.
        prefix: of the trunk's names in a whole model.
        transposed: arrays of linear layers are [out, in].
        redundant: ends of names of arrays that hold nothing of their own.
    """

    backbone: Callable[..., Any]
    required: tuple[str, ...]
    read: Callable[[Settings, str], dict[str, Any]]
    write: Callable[[Any], dict[str, Any]]
    table: Callable[[Any], Table]
    sizes: Callable[[Any], dict[str, int]]
    prefix: str
    transposed: bool
    redundant: tuple[str, ...]


GPT2_NAMES = {
    "wte.weight": ("wte", "V D"),
    "wpe.weight": ("wpe", "P D"),
    "h.{i}.ln_1.weight": ("h/ln_1/scale", "D"),
    "h.{i}.ln_1.bias": ("h/ln_1/bias", "D"),
    "h.{i}.attn.c_attn.weight": ("h/attn/c_attn/kernel", "D 3D"),
    "h.{i}.attn.c_attn.bias": ("h/attn/c_attn/bias", "3D"),
    "h.{i}.attn.c_proj.weight": ("h/attn/c_proj/kernel", "D D"),
    "h.{i}.attn.c_proj.bias": ("h/attn/c_proj/bias", "D"),
    "h.{i}.ln_2.weight": ("h/ln_2/scale", "D"),
    "h.{i}.ln_2.bias": ("h/ln_2/bias", "D"),
    "h.{i}.mlp.c_fc.weight": ("h/mlp/c_fc/kernel", "D I"),
    "h.{i}.mlp.c_fc.bias": ("h/mlp/c_fc/bias", "I"),
    "h.{i}.mlp.c_proj.weight": ("h/mlp/c_proj/kernel", "I D"),
    "h.{i}.mlp.c_proj.bias": ("h/mlp/c_proj/bias", "D"),
    "ln_f.weight": ("ln_f/scale", "D"),
    "ln_f.bias": ("ln_f/bias", "D"),
}
GPT2_SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
# What transformers' GPT-2 can be told to do otherwise, and ours cannot.
GPT2_SUPPORTED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}


def _read_gpt2(settings: Settings, where: str) -> dict[str, Any]:
    check_settings(settings, GPT2_SUPPORTED, where=where)
    take = partial(take_setting, settings, where=where)
    return {
        **{key: take(key, 0) for key in (*GPT2_SIZES, "n_inner")},
        "layer_norm_epsilon": take("layer_norm_epsilon", 1e-5),
    }


def _write_gpt2(config: GPT2Config) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        **{key: getattr(config, key) for key in GPT2_SIZES},
        "n_ctx": config.n_positions,
        "n_inner": config.n_inner or None,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout),
        "tie_word_embeddings": True,
    }


LLAMA_SIZES = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
}
# What transformers takes where a config does not say; a `num_key_value_heads` of null is as many as of queries.
LLAMA_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
}
# Of the rotary scalings that are computed here: our name, and which of its settings are our options. "dynamic" changes
# nothing up to `max_position_embeddings`, and longer rows are refused.
ROPE_SCALINGS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("none", {}),
    "dynamic": ("none", {}),
    "linear": ("linear", {"rope_factor": "factor"}),
    "llama3": (
        "llama3",
        {
            "rope_factor": "factor",
            "rope_low_factor": "low_freq_factor",
            "rope_high_factor": "high_freq_factor",
            "rope_length": "original_max_position_embeddings",
        },
    ),
}


def _read_llama(settings: Settings, where: str) -> dict[str, Any]:
    check_settings(settings, {"hidden_act": "silu"}, where=where)
    kind = settings["model_type"]
    settings = {**LLAMA_DEFAULTS[kind], **settings}
    take = partial(take_setting, settings, where=where)
    bias = kind in ("llama", "qwen3") and take("attention_bias", False)  # the others do not ask
    longest = take("max_position_embeddings", 0)
    return {
        **{ours: take(theirs, 0) for ours, theirs in LLAMA_SIZES.items()},
        # Within its window sliding attention is full attention: rows are only never longer.
        "n_positions": min(longest, _find_window(settings, where) or longest),
        "n_kv_head": take("num_key_value_heads", take("num_attention_heads", 0)),
        "head_size": take("head_dim", 0),
        "rms_norm_epsilon": take("rms_norm_eps", 1e-6),
        **_read_rope(settings, where),
        "qkv_bias": bias or kind == "qwen2",
        "output_bias": bias,
        "mlp_bias": kind == "llama" and take("mlp_bias", False),
        "qk_norm": kind == "qwen3",
        "tied": take("tie_word_embeddings", False),
    }


def _find_window(settings: Settings, where: str) -> int:
    """Return how many tokens the layers with sliding attention see, 0 without such layers."""
    kind, take = settings["model_type"], partial(take_setting, settings, where=where)
    window = take("sliding_window", 0)
    if kind in ("llama", "mistral"):  # no layer, or every one
        return window if kind == "mistral" else 0
    layers = settings.get("layer_types")
    if layers is None:
        sliding = take("use_sliding_window", False) and take("max_window_layers", 28) < take("num_hidden_layers", 0)
        return window if sliding else 0
    known = ("full_attention", "sliding_attention")
    if not isinstance(layers, list) or any(layer not in known for layer in layers):
        raise UserError(f"{where} has layer_types={layers!r:.80}; those covered are {', '.join(known)}.")
    return window if "sliding_attention" in layers else 0


def _read_rope(settings: Settings, where: str) -> dict[str, Any]:
    """Read rotary settings, as transformers writes them from version 5 on (`rope_parameters`) or as it did before."""
    name = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
    rope = take_setting(settings, name, {}, where=where)
    where = f"{where}, {name}," if rope else where
    take = partial(take_setting, rope, where=where)
    if nested := [key for key, value in rope.items() if isinstance(value, dict)]:
        raise UserError(f"{where} is of layers that differ ({', '.join(nested)}); choose a model with one for all.")
    kind = take("rope_type", take("type", "default"))
    partial_factor = take("partial_rotary_factor", take_setting(settings, "partial_rotary_factor", 1.0, where=where))
    if kind not in ROPE_SCALINGS or partial_factor != 1.0:
        asked = f"rotary scaling {kind!r}" if partial_factor == 1.0 else f"partial_rotary_factor={partial_factor}"
        raise UserError(
            f"{where} asks for {asked}. Of the scalings {', '.join(ROPE_SCALINGS)} are computed here, over whole "
            "heads; choose a model with one of these."
        )
    scaling, options = ROPE_SCALINGS[kind]
    if missing := [theirs for theirs in options.values() if rope.get(theirs) is None]:
        raise UserError(f"{where} asks for rotary scaling {kind!r} and lacks its {', '.join(missing)}. Copy it again.")
    types = {"rope_length": 0}
    return {
        "rope_theta": take("rope_theta", take_setting(settings, "rope_theta", 10000.0, where=where)),
        "rope_scaling": scaling,
        **{ours: take(theirs, types.get(ours, 0.0)) for ours, theirs in options.items()},
    }


def _write_llama(config: LlamaConfig) -> dict[str, Any]:
    bias = config.output_bias
    kind, name = ("llama", "Llama")
    if config.qk_norm:
        kind, name = ("qwen3", "Qwen3")
    elif config.qkv_bias and not bias:
        kind, name = ("qwen2", "Qwen2")
    rope: dict[str, Any] = {}
    if config.rope_scaling != "none":
        rope = {"rope_type": config.rope_scaling}
        rope |= {theirs: getattr(config, ours) for ours, theirs in ROPE_SCALINGS[config.rope_scaling][1].items()}
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": kind,
        "hidden_act": "silu",
        **{theirs: getattr(config, ours) for ours, theirs in LLAMA_SIZES.items()},
        "max_position_embeddings": config.n_positions,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "rms_norm_eps": config.rms_norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope or None,
        "tie_word_embeddings": config.tied,
        **({} if kind == "qwen2" else {"attention_bias": bias}),
        **({"mlp_bias": config.mlp_bias} if kind == "llama" else {}),
        **({"sliding_window": None, "use_sliding_window": False} if kind != "llama" else {}),
    }


def _name_llama(config: LlamaConfig) -> Table:
    table = {"embed_tokens.weight": ("wte", "V D"), "norm.weight": ("ln_f/scale", "D")}
    if not config.tied:
        table["lm_head.weight"] = ("lm_head", "V D")
    block = "layers.{i}."
    for name, ours in (("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2")):
        table[f"{block}{name}.weight"] = (f"h/{ours}/scale", "D")
    if config.qk_norm:
        for name in ("q_norm", "k_norm"):
            table[f"{block}self_attn.{name}.weight"] = (f"h/attn/{name}/scale", "K")
    for part, name, shape, bias in (
        ("attn", "q_proj", "Q D", config.qkv_bias),
        ("attn", "k_proj", "G D", config.qkv_bias),
        ("attn", "v_proj", "G D", config.qkv_bias),
        ("attn", "o_proj", "D Q", config.output_bias),
        ("mlp", "gate_proj", "I D", config.mlp_bias),
        ("mlp", "up_proj", "I D", config.mlp_bias),
        ("mlp", "down_proj", "D I", config.mlp_bias),
    ):
        layer = f"{block}{'self_attn' if part == 'attn' else part}.{name}"
        table[f"{layer}.weight"] = (f"h/{part}/{name}/kernel", shape)
        if bias:
            table[f"{layer}.bias"] = (f"h/{part}/{name}/bias", shape[0])
    return table


GPT2_FAMILY = Family(
    backbone=GPT2,
    required=GPT2_SIZES,
    read=_read_gpt2,
    write=_write_gpt2,
    table=lambda config: GPT2_NAMES,
    sizes=lambda c: {"V": c.vocab_size, "P": c.n_positions, "D": c.n_embd, "I": c.inner_size},
    prefix="transformer.",
    transposed=False,
    # Buffers, and the tied head.
    redundant=(".attn.bias", ".attn.masked_bias", "lm_head.weight"),
)
LLAMA_FAMILY = Family(
    backbone=Llama,
    required=(*LLAMA_SIZES.values(), "max_position_embeddings"),
    read=_read_llama,
    write=_write_llama,
    table=_name_llama,
    sizes=lambda c: {
        "V": c.vocab_size,
        "D": c.n_embd,
        "I": c.n_inner,
        "K": c.head_size,
        "Q": c.n_head * c.head_size,
        "G": c.n_kv_head * c.head_size,
    },
    prefix="model.",
    transposed=True,
    redundant=(".rotary_emb.inv_freq",),
)
# By the `model_type` of `config.json`.
FAMILIES = {"gpt2": GPT2_FAMILY, **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), LLAMA_FAMILY)}


def find_family(config: GPT2Config | LlamaConfig) -> Family:
    """Return the family of a backbone's config."""
    return GPT2_FAMILY if isinstance(config, GPT2Config) else LLAMA_FAMILY
