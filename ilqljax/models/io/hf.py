"""GPT-2 weights to and from the form that transformers reads: a directory of `config.json` and `model.safetensors`.

torch's GPT-2 keeps its dense layers as `Conv1D` with weights [in, out], which is our kernel's layout: nothing is
transposed, layers are only stacked.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ilqljax.data.files import fetch_snapshot, save_arrays, save_text
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2Config
from ilqljax.models.io.tables import build_tree, flatten, read_pretrained

NAMES = {
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
SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
# What transformers' GPT-2 can be told to do otherwise, and ours cannot.
SUPPORTED_SETTINGS = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
# Buffers and the tied head that checkpoints may carry and that hold nothing of their own.
REDUNDANT_SUFFIXES = (".attn.bias", ".attn.masked_bias", "lm_head.weight")


def trunk_from_torch(
    weights: Mapping[str, np.ndarray], *, config: GPT2Config | None = None, where: str = "weights"
) -> dict:
    """Build a trunk's parameters from GPT-2 weights under torch's names; errors are those of `build_tree`.

    The names are such as `h.0.attn.c_attn.weight` or `transformer.h.0.attn.c_attn.weight`. `config` is the size that it
    must have, any where absent; messages call the weights `where`.
    """
    arrays = {n.removeprefix("transformer."): w for n, w in weights.items() if not n.endswith(REDUNDANT_SUFFIXES)}
    if config is None:
        n_layer = 1 + max((int(name.split(".")[1]) for name in arrays if name.startswith("h.")), default=0)
        return build_tree(arrays, NAMES, layers=n_layer, where=where)
    sizes = {"V": config.vocab_size, "P": config.n_positions, "D": config.n_embd, "I": config.inner_size}
    return build_tree(arrays, NAMES, layers=config.n_layer, sizes=sizes, where=f"{where} (of {config})")


def trunk_to_torch(trunk: Mapping, *, prefix: str = "transformer.") -> dict[str, np.ndarray]:
    """Name a trunk's parameters as torch's GPT-2 does; the inverse of `trunk_from_torch`."""
    flat, weights = flatten(trunk), {}
    for name, (path, _) in NAMES.items():
        array = np.asarray(flat[path], np.float32)
        for i, part in enumerate(array if "{i}" in name else [array]):
            weights[prefix + name.format(i=i)] = np.ascontiguousarray(part)
    return weights


def load_gpt2(name: str, *, dtype: str = "float32", dropout: float = 0.0) -> tuple[GPT2Config, dict]:
    """Load a GPT-2 from a directory (`config.json`, `model.safetensors`) or, when online, from a hub name.

    Errors are those of `find_model`, `read_pretrained` and `build_tree`.
    """
    directory = find_model(name)
    settings, arrays = read_pretrained(directory, model_type="gpt2", sizes=SIZES, supported=SUPPORTED_SETTINGS)
    config = GPT2Config(
        **{key: settings[key] for key in SIZES},
        n_inner=settings.get("n_inner") or 0,
        layer_norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        dtype=dtype,
    )
    return config, trunk_from_torch(arrays, config=config, where=f"{directory}/model.safetensors")


def find_model(name: str) -> Path:
    """Return the directory `name`, or the local snapshot of a hub model, downloaded where the hub can be reached."""
    directory = Path(name).expanduser()
    if (directory / "config.json").is_file():
        return directory
    if directory.exists() or name.startswith((".", "/", "~")):
        raise UserError(f"{directory} holds no config.json. Give a GPT-2 directory or a hub name such as 'gpt2'.")
    return fetch_snapshot(name, files=("config.json", "model.safetensors"))


def resize_vocabulary(trunk: Mapping, vocab_size: int, *, seed: int = 0) -> dict:
    """Grow (or cut) the token embeddings to `vocab_size`; new rows are the mean row plus a little seeded noise.

    Starting at the mean keeps the logits of new tokens ordinary, so a pretrained model's distribution hardly moves.
    """
    wte = np.asarray(trunk["wte"])
    extra = vocab_size - wte.shape[0]
    if extra > 0:
        noise = np.random.default_rng(seed).normal(0.0, 0.02 * wte.std(), (extra, wte.shape[1]))
        wte = np.concatenate([wte, (wte.mean(0) + noise).astype(wte.dtype)])
    return {**trunk, "wte": wte[:vocab_size]}


def save_gpt2(directory: str | Path, config: GPT2Config, trunk: Mapping, *, special_ids: Mapping[str, int]) -> None:
    """Write a trunk as a directory that transformers' `GPT2LMHeadModel.from_pretrained` loads.

    The directory is created where it is missing, and files in it are replaced whole. `special_ids` are
    `bos_token_id`, `eos_token_id` and `pad_token_id` for `config.json`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_positions": config.n_positions,
        "n_ctx": config.n_positions,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner or None,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout),
        "tie_word_embeddings": True,
        "dtype": "float32",
        **special_ids,
    }
    save_arrays(directory / "model.safetensors", trunk_to_torch(trunk), metadata={"format": "pt"})
    save_text(directory / "config.json", json.dumps(settings, indent=2) + "\n")
