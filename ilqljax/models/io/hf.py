"""GPT-2 weights to and from the form that transformers reads: a directory of `config.json` and `model.safetensors`.

torch's GPT-2 keeps its dense layers as `Conv1D` with weights [in, out], which is our kernel's layout: nothing is
transposed, layers are only stacked.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.data.files import fetch_snapshot, read_arrays, read_json, save_arrays, save_text
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2Config

LAYER_NAMES = {
    "ln_1.weight": ("ln_1", "scale"),
    "ln_1.bias": ("ln_1", "bias"),
    "attn.c_attn.weight": ("attn", "c_attn", "kernel"),
    "attn.c_attn.bias": ("attn", "c_attn", "bias"),
    "attn.c_proj.weight": ("attn", "c_proj", "kernel"),
    "attn.c_proj.bias": ("attn", "c_proj", "bias"),
    "ln_2.weight": ("ln_2", "scale"),
    "ln_2.bias": ("ln_2", "bias"),
    "mlp.c_fc.weight": ("mlp", "c_fc", "kernel"),
    "mlp.c_fc.bias": ("mlp", "c_fc", "bias"),
    "mlp.c_proj.weight": ("mlp", "c_proj", "kernel"),
    "mlp.c_proj.bias": ("mlp", "c_proj", "bias"),
}
TOP_NAMES = {
    "wte.weight": ("wte",),
    "wpe.weight": ("wpe",),
    "ln_f.weight": ("ln_f", "scale"),
    "ln_f.bias": ("ln_f", "bias"),
}
# What transformers' GPT-2 can be told to do otherwise, and ours cannot.
SUPPORTED_SETTINGS = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
# Buffers and the tied head that checkpoints may carry and that hold nothing of their own.
REDUNDANT_SUFFIXES = ("attn.bias", "attn.masked_bias", "lm_head.weight")


def trunk_from_torch(weights: Mapping[str, np.ndarray], *, prefix: str = "") -> dict:
    """Build a trunk's parameters from GPT-2 weights under torch's names.

    Args:
        weights: arrays by name, such as `transformer.h.0.attn.c_attn.weight`, with or without `transformer.`.
        prefix: only names that start with it are read, for example `lm_policy.`.

    Returns:
        The nested parameters of `ilqljax.models.gpt2.GPT2`, in float32.

    Raises:
        UserError: names are missing or unexpected; the message lists both.
    """
    names = {n.removeprefix(prefix).removeprefix("transformer."): w for n, w in weights.items() if n.startswith(prefix)}
    n_layer = 1 + max((int(n.split(".")[1]) for n in names if n.startswith("h.")), default=-1)
    expected = set(TOP_NAMES) | {f"h.{i}.{n}" for i in range(n_layer) for n in LAYER_NAMES}
    missing = sorted(expected - set(names))
    unexpected = sorted(n for n in set(names) - expected if not n.endswith(REDUNDANT_SUFFIXES))
    if missing or unexpected or not n_layer:
        raise UserError(
            f"These are not the weights of a GPT-2 (under the prefix {prefix!r}): missing {missing or 'none'}, "
            f"unexpected {unexpected or 'none'}, {n_layer} layers found."
        )
    tree: dict = {}
    for name, path in TOP_NAMES.items():
        set_path(tree, path, np.asarray(names[name], np.float32))
    for name, path in LAYER_NAMES.items():
        stacked = np.stack([np.asarray(names[f"h.{i}.{name}"], np.float32) for i in range(n_layer)])
        set_path(tree, ("h", *path), stacked)
    return tree


def trunk_to_torch(trunk: Mapping, *, prefix: str = "transformer.") -> dict[str, np.ndarray]:
    """Name a trunk's parameters as torch's GPT-2 does; the inverse of `trunk_from_torch`."""
    weights = {prefix + name: np.asarray(get_path(trunk, path), np.float32) for name, path in TOP_NAMES.items()}
    for name, path in LAYER_NAMES.items():
        for i, layer in enumerate(np.asarray(get_path(trunk, ("h", *path)), np.float32)):
            weights[f"{prefix}h.{i}.{name}"] = np.ascontiguousarray(layer)
    return weights


def load_gpt2(name: str, *, dtype: str = "float32", dropout: float = 0.0) -> tuple[GPT2Config, dict]:
    """Load a GPT-2 from a directory (`config.json`, `model.safetensors`) or, when online, from a hub name.

    Raises:
        UserError: nothing is there, it is no GPT-2, or weights are missing.
    """
    directory = find_model(name)
    settings = read_settings(directory / "config.json")
    path = directory / "model.safetensors"
    arrays = read_arrays(path, advice="Save the model with `save_pretrained(..., safe_serialization=True)`.")
    config = GPT2Config(
        vocab_size=settings["vocab_size"],
        n_positions=settings["n_positions"],
        n_embd=settings["n_embd"],
        n_layer=settings["n_layer"],
        n_head=settings["n_head"],
        n_inner=settings.get("n_inner") or 0,
        layer_norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        dtype=dtype,
    )
    trunk = trunk_from_torch(arrays)
    check_sizes(config, trunk, directory=directory)
    return config, trunk


def read_settings(path: Path) -> dict[str, Any]:
    """Read a GPT-2's `config.json` and refuse what our GPT-2 does not compute."""
    settings = read_json(path, advice="Save the model again.")
    if settings.get("model_type") != "gpt2":
        raise UserError(f"{path} has model_type {settings.get('model_type')!r}; expected 'gpt2'.")
    if missing := [key for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head") if key not in settings]:
        raise UserError(f"{path} lacks {', '.join(missing)}. Save the model again with its full config.")
    for key, supported in SUPPORTED_SETTINGS.items():
        if settings.get(key, supported) != supported:
            raise UserError(f"{path} asks for {key}={settings[key]!r}; only {supported!r} is supported.")
    return settings


def check_sizes(config: GPT2Config, trunk: Mapping, *, directory: Path) -> None:
    """Refuse weights that are not of the size that the config says."""
    found = {
        "vocab_size": trunk["wte"].shape[0],
        "n_positions": trunk["wpe"].shape[0],
        "n_embd": trunk["wte"].shape[1],
        "n_layer": get_path(trunk, ("h", "ln_1", "scale")).shape[0],
        "inner_size": get_path(trunk, ("h", "mlp", "c_fc", "kernel")).shape[-1],
    }
    if wrong := [
        f"{name}: {n}, not {getattr(config, name)}" for name, n in found.items() if n != getattr(config, name)
    ]:
        raise UserError(f"{directory}/model.safetensors does not have the sizes of config.json: {'; '.join(wrong)}.")


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

    Args:
        directory: created where it is missing; files in it are replaced whole.
        config: the trunk's size.
        trunk: its parameters.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id` for `config.json`.
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
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
        "dtype": "float32",
        **special_ids,
    }
    save_arrays(directory / "model.safetensors", trunk_to_torch(trunk), metadata={"format": "pt"})
    save_text(directory / "config.json", json.dumps(settings, indent=2) + "\n")


def set_path(tree: dict, path: tuple[str, ...], value: np.ndarray) -> None:
    """Set a leaf of a nested dict, making the dicts on the way."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def get_path(tree: Mapping, path: tuple[str, ...]) -> np.ndarray:
    """Return a leaf of a nested dict."""
    for key in path:
        tree = tree[key]
    return tree
