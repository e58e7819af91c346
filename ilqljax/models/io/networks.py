"""A model in a folder, without pickle: the policy as transformers' own, the critic beside it.

| file                                | holds                                                                        |
|-------------------------------------|------------------------------------------------------------------------------|
| `config.json`, `model.safetensors`  | the policy's language model, as transformers reads and writes it              |
| `networks.json`                     | which networks there are (`ValueLMConfig`); absent for a policy alone         |
| `networks.safetensors`              | V and Q heads, a value trunk of their own, and the targets, by their path     |
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ilqljax.config import from_section
from ilqljax.data.files import read_arrays, read_json, save_arrays, save_text
from ilqljax.models.io.hf import load_language_model, save_language_model
from ilqljax.models.io.tables import WRONG_ARRAYS, check_names, flatten, unflatten
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, merge_adapters, policy_trunk

NETWORKS, OPTIONS = "networks.safetensors", "networks.json"


class Networks(NamedTuple):
    """A model with its parameters (`ilqljax.models.value_lm`); a policy alone has no targets."""

    model: ValueLM
    params: dict
    target: dict


def save_networks(directory: str | Path, networks: Networks, *, special_ids: Mapping[str, int]) -> None:
    """Write a model's folder, made where it is missing, with adapters merged (`value_lm.merge_adapters`).

    Its files are replaced whole; what cannot be written is a `UserError`, as in `hf.save_language_model`.
    """
    directory = Path(directory)
    model, *trees = merge_adapters(*networks)
    params, target = jax.device_get(tuple(trees))
    save_language_model(directory, model.backbone.config, policy_trunk(params), special_ids=special_ids)
    if "v" not in params:
        (directory / NETWORKS).unlink(missing_ok=True)
        (directory / OPTIONS).unlink(missing_ok=True)
        return
    policy_name = "policy" if "policy" in params else "trunk"
    rest = {"params": {name: tree for name, tree in params.items() if name != policy_name}, "target": target}
    save_arrays(directory / NETWORKS, flatten(rest))
    save_text(directory / OPTIONS, json.dumps(asdict(model.config), indent=2) + "\n")


def load_networks(directory: str | Path, **numerics: Any) -> Networks:
    """Read a model's folder; one with a language model alone gives a policy alone.

    `numerics` are those of `hf.load_language_model`. A folder without a language model, or with a damaged file or other
    networks than it names, is a `UserError`.
    """
    directory = Path(directory)
    backbone, trunk = load_language_model(str(directory), **numerics)
    if not (directory / OPTIONS).exists() and not (directory / NETWORKS).exists():
        return Networks(ValueLM(backbone, ValueLMConfig()), {"policy": trunk}, {})
    advice = f"A critic is in both {OPTIONS} and {NETWORKS}: export the model again."
    options = read_json(directory / OPTIONS, advice=advice)
    model = ValueLM(backbone, from_section(ValueLMConfig, options, path=str(directory / OPTIONS), hidden=True))
    found = unflatten(read_arrays(directory / NETWORKS, advice=advice))
    params, target = found.get("params", {}), found.get("target", {})
    params["policy" if model.config.separate_policy else "trunk"] = trunk
    check_networks(model, params, target, where=str(directory / NETWORKS))
    return Networks(model, params, target)


def check_networks(model: ValueLM, params: Mapping, target: Mapping, *, where: str) -> None:
    """Refuse networks that are not those of the model, with a `UserError` that lists what differs."""
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    expected = {n: x.shape for n, x in flatten({"params": shapes, "target": model.init_target(shapes)}).items()}
    found = {n: np.shape(x) for n, x in flatten({"params": params, "target": target}).items()}
    check_names(expected, found, refusal=f"{where} {WRONG_ARRAYS}")
