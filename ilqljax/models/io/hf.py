"""Language models to and from the form that transformers reads: a directory of `config.json` and safetensors files.

What the arrays of a model are called, and what its config says, is in `ilqljax.models.io.families`.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ilqljax.data.files import fetch_snapshot, save_arrays, save_text
from ilqljax.errors import UserError
from ilqljax.models.backbone import Backbone
from ilqljax.models.gpt2 import GPT2Config
from ilqljax.models.io.families import FAMILIES, find_family
from ilqljax.models.io.gguf import SMOLLM2, find_gguf, read_gguf
from ilqljax.models.io.tables import (
    INDEX,
    WEIGHTS,
    Place,
    Renamed,
    build_tree,
    flatten,
    keep_on_host,
    open_weights,
    read_settings,
)
from ilqljax.models.llama import LlamaConfig

Config = GPT2Config | LlamaConfig
EMBEDDINGS = ("wte", "lm_head")


def load_language_model(
    name: str, *, param_dtype: str = "float32", place: Place = keep_on_host, **numerics: Any
) -> tuple[Backbone, dict]:
    """Load a model from a directory, a GGUF file or, when online, a hub name: its backbone and parameters.

    Args:
        name: which one.
        param_dtype: of the parameters.
        place: where each goes as soon as it is whole (`tables.build_tree`); embeddings stay on the host, where their
            vocabulary is resized.
        **numerics: options of the backbone's config that the model's own does not decide: `dtype`, `remat`, `unroll`,
            and GPT-2's `dropout`.

    Raises:
        UserError: there is no such model, it is damaged, or it is of another architecture or form than those covered.
    """
    source = find_model(name)
    if source.is_file():
        where, (settings, weights) = source, read_gguf(source)
    else:
        where = source / "config.json"
        settings = read_settings(source, required={kind: family.required for kind, family in FAMILIES.items()})
        weights = open_weights(source)
    config = read_config(settings, where=str(where), **numerics)
    trunk = trunk_from_torch(
        weights,
        config,
        where=f"{source}'s weights",
        dtype=jnp.dtype(param_dtype),
        place=lambda path, array: array if path in EMBEDDINGS else place(path, array),
    )
    return find_family(config).backbone(config), trunk


def read_config(settings: Mapping[str, Any], *, where: str, **numerics: Any) -> Config:
    """Read a backbone's config from the settings of a `config.json`, which messages call `where`."""
    family = FAMILIES[settings["model_type"]]
    cls = GPT2Config if family is FAMILIES["gpt2"] else LlamaConfig
    if numerics.get("dropout") and cls is LlamaConfig:
        raise UserError(f"{where}: config.model.dropout={numerics['dropout']} is an option of GPT-2. Leave it at 0.")
    options = family.read(settings, where)
    try:
        config = cls(**options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return replace(config, **{name: value for name, value in numerics.items() if name in cls.__dataclass_fields__})


def trunk_from_torch(
    weights: Mapping[str, np.ndarray], config: Config, *, where: str = "weights", **options: Any
) -> dict:
    """Build a trunk's parameters from arrays under transformers' names; errors are those of `build_tree`.

    Names may be those of the whole model or of its trunk (`transformer.h.0...` or `h.0...`). Messages call the weights
    `where`; `options` are `dtype` and `place` of `build_tree`. Stored arrays (`ilqljax.data.files.StoredArrays`) are
    read one by one.
    """
    family = find_family(config)
    redundant = (*family.redundant, "lm_head.weight") if getattr(config, "tied", True) else family.redundant
    short = {name: name.removeprefix(family.prefix) for name in weights if not name.endswith(redundant)}
    if twice := [name for name in short if short[name] != name and short[name] in short]:
        raise UserError(f"{where}: both {short[twice[0]]} and {twice[0]} are there. Save the whole model again.")
    return build_tree(
        Renamed(weights, {ours: name for name, ours in short.items()}),
        family.table(config),
        layers=config.n_layer,
        sizes=family.sizes(config),
        where=f"{where} (of {config})",
        transposed=family.transposed,
        **options,
    )


def trunk_to_torch(trunk: Mapping, config: Config) -> dict[str, np.ndarray]:
    """Name a trunk's parameters as transformers does in a whole model; the inverse of `trunk_from_torch`."""
    family, flat, weights = find_family(config), flatten(trunk), {}
    if others := flat.keys() - {path for path, _ in family.table(config).values()}:
        raise ValueError(f"the trunk has arrays that a model has no names for, such as {min(others)}: merge adapters")
    for name, (path, _) in family.table(config).items():
        array = np.asarray(flat[path], np.float32)
        if family.transposed and path.endswith("kernel"):
            array = array.swapaxes(-1, -2)
        prefix = "" if name.startswith("lm_head.") else family.prefix
        for i, part in enumerate(array if "{i}" in name else [array]):
            weights[prefix + name.format(i=i)] = np.ascontiguousarray(part)
    return weights


def find_model(name: str) -> Path:
    """Return a model's directory or GGUF file: `name` itself, or what it stands for.

    That is the file of an installed package ("smollm2"), or the local snapshot of a hub model, downloaded where the hub
    can be reached.
    """
    directory = Path(name).expanduser()
    if name == SMOLLM2 or directory.suffix == ".gguf":
        return find_gguf(name)
    if (directory / "config.json").is_file():
        return directory
    if directory.exists() or name.startswith((".", "/", "~")):
        raise UserError(f"{directory} holds no config.json. Give a model's directory or a hub name such as 'gpt2'.")
    return fetch_snapshot(name, files=("config.json",), optional=("model*.safetensors", INDEX))


def resize_vocabulary(trunk: Mapping, vocab_size: int, *, n_text: int = 0, seed: int = 0) -> dict:
    """Grow (or cut) the embeddings and the language-model head to `vocab_size` rows.

    Rows from `n_text` on (0: from the end) are new: the mean of those before plus a little seeded noise. Starting at
    the mean keeps the logits of new tokens ordinary, so a pretrained model's distribution hardly moves (Hewitt 2021).
    """
    resized = dict(trunk)
    for name in EMBEDDINGS:
        if name in trunk:
            known = np.asarray(trunk[name])[: min(n_text or vocab_size, vocab_size)]
            extra = vocab_size - len(known)
            mean, deviation = known.mean(0, dtype=np.float32), known.std(dtype=np.float32)
            noise = np.random.default_rng(seed).normal(0.0, 0.02 * deviation, (extra, known.shape[1]))
            resized[name] = np.concatenate([known, (mean + noise).astype(known.dtype)]) if extra else known
    return resized


def save_language_model(
    directory: str | Path, config: Config, trunk: Mapping, *, special_ids: Mapping[str, int]
) -> None:
    """Write a trunk as a directory that transformers' `AutoModelForCausalLM.from_pretrained` loads.

    The directory is created where it is missing, and files in it are replaced whole. `special_ids` are
    `bos_token_id`, `eos_token_id` and `pad_token_id` for `config.json`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settings = {**find_family(config).write(config), "dtype": "float32", **special_ids}
    save_arrays(directory / WEIGHTS, trunk_to_torch(trunk, config), metadata={"format": "pt"})
    save_text(directory / "config.json", json.dumps(settings, indent=2) + "\n")
