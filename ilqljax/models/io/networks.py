"""A model in a folder, without pickle: the policy as transformers' GPT-2, the critic beside it.

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
from typing import NamedTuple

import jax
import numpy as np

from ilqljax.config import from_section
from ilqljax.data.files import read_arrays, read_json, save_arrays, save_text
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2
from ilqljax.models.io.hf import load_gpt2, save_gpt2
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk

NETWORKS, OPTIONS = "networks.safetensors", "networks.json"


class Networks(NamedTuple):
    """A model with its parameters (`ilqljax.models.value_lm`); a policy alone has no targets."""

    model: ValueLM
    params: dict
    target: dict


def save_networks(directory: str | Path, networks: Networks, *, special_ids: Mapping[str, int]) -> None:
    """Write a model's folder; its files are replaced whole.

    Args:
        directory: created where it is missing.
        networks: what to write, on the host or on a device.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id` for `config.json`.
    """
    directory = Path(directory)
    params, target = jax.device_get((networks.params, networks.target))
    save_gpt2(directory, networks.model.backbone.config, policy_trunk(params), special_ids=special_ids)
    if "v" not in params:
        (directory / NETWORKS).unlink(missing_ok=True)
        (directory / OPTIONS).unlink(missing_ok=True)
        return
    policy_name = "policy" if "policy" in params else "trunk"
    rest = {"params": {name: tree for name, tree in params.items() if name != policy_name}, "target": target}
    save_arrays(directory / NETWORKS, flatten(rest))
    save_text(directory / OPTIONS, json.dumps(asdict(networks.model.config), indent=2) + "\n")


def load_networks(directory: str | Path, *, dtype: str = "float32", dropout: float = 0.0) -> Networks:
    """Read a model's folder; one with a language model alone gives a policy alone.

    Raises:
        UserError: the folder holds no GPT-2, one of its files is missing or damaged, or its networks lack arrays, have
            others, or have some of another shape.
    """
    directory = Path(directory)
    config, trunk = load_gpt2(str(directory), dtype=dtype, dropout=dropout)
    if (directory / NETWORKS).exists() and not (directory / OPTIONS).exists():
        raise UserError(f"{directory / OPTIONS} is missing, and {NETWORKS} is there. Export the model again.")
    if not (directory / OPTIONS).is_file():
        return Networks(ValueLM(GPT2(config), ValueLMConfig()), {"policy": trunk}, {})
    options = read_json(directory / OPTIONS, advice="Export the model again.")
    model = ValueLM(GPT2(config), from_section(ValueLMConfig, options, path=str(directory / OPTIONS), hidden=True))
    if not (directory / NETWORKS).is_file():
        raise UserError(f"{directory / NETWORKS} is missing, and {OPTIONS} is there. Export the model again.")
    found = unflatten(read_arrays(directory / NETWORKS, advice="Export the model again."))
    params, target = found.get("params", {}), found.get("target", {})
    params["policy" if model.config.separate_policy else "trunk"] = trunk
    check_networks(model, params, target, where=str(directory / NETWORKS))
    return Networks(model, params, target)


def check_networks(model: ValueLM, params: Mapping, target: Mapping, *, where: str) -> None:
    """Refuse networks that are not those of the model.

    Raises:
        UserError: lists the names that are missing, those that are unexpected, and those of another shape.
    """
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    expected = {n: x.shape for n, x in flatten({"params": shapes, "target": model.init_target(shapes)}).items()}
    found = {n: np.shape(x) for n, x in flatten({"params": params, "target": target}).items()}
    check_names(expected, found, where=where)


def check_names(expected: Mapping[str, tuple], found: Mapping[str, tuple], *, where: str) -> None:
    """Compare names with shapes; raise a `UserError` that lists all that differ."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    shared = sorted(set(expected) & set(found))
    misshapen = [f"{n}: {found[n]}, not {expected[n]}" for n in shared if tuple(found[n]) != tuple(expected[n])]
    if missing or unexpected or misshapen:
        raise UserError(
            f"{where} does not hold the model's arrays. Missing: {', '.join(missing) or 'none'}. "
            f"Unexpected: {', '.join(unexpected) or 'none'}. Of another shape: {'; '.join(misshapen) or 'none'}."
        )


def flatten(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Name the leaves of nested dicts by their path: `params/v/dense_in/kernel`."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict:
    """Nest arrays by their path; the inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *above, name = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[name] = value
    return tree
