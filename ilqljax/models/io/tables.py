"""Trees of parameters from arrays under other names: a table says which is which, and all names and shapes are checked.

A table maps a name to the path of ours and the letters of its shape, in which a number multiplies. A name with `{i}`
stands for that of every layer; these arrays are stacked on a leading axis:

    "h.{i}.attn.c_attn.weight": ("h/attn/c_attn/kernel", "D 3D")
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ilqljax.data.files import read_arrays, read_json
from ilqljax.errors import UserError

# The leaves of nested dicts by their path, `params/v/dense_in/kernel`, and back.
flatten, unflatten = partial(flatten_dict, sep="/"), partial(unflatten_dict, sep="/")
Table = Mapping[str, tuple[str, str]]
MAX_LISTED = 9
WRONG_ARRAYS = "does not hold the model's arrays."


def build_tree(
    arrays: Mapping[str, np.ndarray],
    table: Table,
    *,
    layers: int,
    sizes: Mapping[str, int] = MappingProxyType({}),
    where: str,
    transposed: bool = False,
) -> dict:
    """Build a tree of float32 parameters from the arrays of a table.

    Args:
        arrays: by the table's names, and no others.
        table: see the module's docstring.
        layers: how many there are.
        sizes: what letters stand for; the others are read off the first arrays that have them.
        where: what the arrays are, for messages.
        transposed: the file has kernels [out, in], as torch's linear layers keep them; ours are [in, out].

    Raises:
        UserError: names are missing or unexpected, or shapes do not fit each other.
    """
    sizes, expected, tree = dict(sizes), {}, {}
    for name, (_, letters) in table.items():
        axes = re.findall(r"(\d*)([A-Z])", letters)
        names = [name.format(i=i) for i in range(layers)] if "{i}" in name else [name]
        found = np.shape(arrays.get(names[0]))
        for (factor, letter), size in zip(axes, found, strict=False):
            sizes.setdefault(letter, size // int(factor or 1))
        expected |= dict.fromkeys(names, tuple(int(factor or 1) * sizes.get(letter, 0) for factor, letter in axes))
    check_names(expected, {name: np.shape(array) for name, array in arrays.items()}, refusal=f"{where} {WRONG_ARRAYS}")
    for name, (path, _) in table.items():
        if "{i}" in name:
            array = np.stack([np.asarray(arrays[name.format(i=i)], np.float32) for i in range(layers)])
        else:
            array = np.asarray(arrays[name], np.float32)
        tree[path] = array.swapaxes(-1, -2) if transposed and path.endswith("kernel") else array
    return unflatten(tree)


def check_names(
    expected: Mapping[str, Any], found: Mapping[str, Any], *, refusal: str, advice: str = "Save the whole model again."
) -> None:
    """Compare the shapes (or descriptions) of arrays by name; a `UserError` of these sentences lists what differs."""
    differences = {
        "Missing": sorted(expected.keys() - found.keys()),
        "Unexpected": sorted(found.keys() - expected.keys()),
        "Of another shape": [
            f"{name}: {found[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & found.keys())
            if found[name] != expected[name]
        ],
    }
    if any(differences.values()):
        listed = (f"{what}: {_list(names)}." for what, names in differences.items())
        raise UserError(f"{refusal} {' '.join(listed)} {advice}")


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more or "none"


def read_pretrained(
    directory: Path, *, model_type: str, sizes: tuple[str, ...], supported: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read `config.json` and `model.safetensors`, as transformers saves a model.

    Args:
        directory: where they are.
        model_type: the one that the config must name.
        sizes: keys that it must have.
        supported: of what it may be told to do otherwise, the only values that are computed here.

    Raises:
        UserError: a file is missing or damaged, or the model is another one.
    """
    path, advice = directory / "config.json", "Save the model with `save_pretrained(..., safe_serialization=True)`."
    settings = read_json(path, advice=advice)
    if settings.get("model_type") != model_type:
        raise UserError(f"{path} has model_type {settings.get('model_type')!r}; expected {model_type!r}.")
    if missing := [key for key in sizes if key not in settings]:
        raise UserError(f"{path} lacks {', '.join(missing)}. Save the model again with its full config.")
    for key, value in supported.items():
        if settings.get(key, value) != value:
            raise UserError(f"{path} asks for {key}={settings[key]!r}; only {value!r} is supported.")
    return settings, read_arrays(directory / "model.safetensors", advice=advice)
