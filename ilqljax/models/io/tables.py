"""Trees of parameters from arrays under other names: a table says which is which, and all names and shapes are checked.

A table maps a name to the path of ours and the letters of its shape, in which a number multiplies. A name with `{i}`
stands for that of every layer; these arrays are stacked on a leading axis:

    "h.{i}.attn.c_attn.weight": ("h/attn/c_attn/kernel", "D 3D")
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from ilqljax.data.files import StoredArrays, read_json
from ilqljax.errors import UserError

# The leaves of nested dicts by their path, `params/v/dense_in/kernel`, and back.
flatten, unflatten = partial(flatten_dict, sep="/"), partial(unflatten_dict, sep="/")
Table = Mapping[str, tuple[str, str]]
Place = Callable[[str, np.ndarray], Any]  # from a parameter's path and values to where it is to be
MAX_LISTED = 9
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SAVE_AGAIN = "Save the model with `save_pretrained(..., safe_serialization=True)`."
WRONG_ARRAYS = "does not hold the model's arrays."


def keep_on_host(path: str, array: np.ndarray) -> np.ndarray:
    """Leave a parameter where it is."""
    return array


def build_tree(
    arrays: Mapping[str, np.ndarray],
    table: Table,
    *,
    layers: int,
    sizes: Mapping[str, int] = MappingProxyType({}),
    where: str,
    transposed: bool = False,
    dtype: DTypeLike = np.float32,
    place: Place = keep_on_host,
) -> dict:
    """Build a tree of parameters from the arrays of a table.

    Args:
        arrays: by the table's names, and no others.
        table: see the module's docstring.
        layers: how many there are.
        sizes: what letters stand for; the others are read off the first arrays that have them.
        where: what the arrays are, for messages.
        transposed: the file has kernels [out, in], as torch's linear layers keep them; ours are [in, out].
        dtype: of the parameters.
        place: where each parameter goes as soon as it is whole, so that the host need not hold all of them.

    Raises:
        UserError: names are missing or unexpected, shapes do not fit each other, or an array holds something else than
            finite numbers of floating point.
    """
    shapes = list_shapes(arrays)
    n_named = min(layers, len(shapes) + 1)  # enough to miss one: a damaged config may claim billions of layers
    sizes, expected, tree = dict(sizes), {}, {}
    for name, (_, letters) in table.items():
        axes = re.findall(r"(\d*)([A-Z])", letters)
        names = _name_parts(name, n_named)
        found = shapes.get(names[0], ())
        for (factor, letter), size in zip(axes, found, strict=False):
            sizes.setdefault(letter, size // int(factor or 1))
        expected |= dict.fromkeys(names, tuple(int(factor or 1) * sizes.get(letter, 0) for factor, letter in axes))
    check_names(expected, shapes, refusal=f"{where} {WRONG_ARRAYS}")
    for name, (path, _) in table.items():
        parts = _name_parts(name, layers)
        flipped = transposed and path.endswith("kernel")
        shape = expected[parts[0]][::-1] if flipped else expected[parts[0]]
        stack = np.empty((len(parts), *shape), dtype)
        for i, part in enumerate(parts):  # one at a time: together with their stack they would be the model twice
            array = np.asarray(arrays[part])
            _copy_numbers(array.T if flipped else array, stack[i, ...], f"{where}: {part}")
        tree[path] = place(path, stack if "{i}" in name else stack[0, ...])
    return unflatten(tree)


def _name_parts(name: str, layers: int) -> list[str]:
    return [name.format(i=i) for i in range(layers)] if "{i}" in name else [name]


def _copy_numbers(array: np.ndarray, out: np.ndarray, name: str) -> None:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} holds {array.dtype}, not numbers of floating point. Choose an unquantised model.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        out[...] = array
    if not np.isfinite(out).all():
        raise UserError(
            f"{name} has numbers that are NaN or infinite: training diverged, or the file is damaged. Choose an "
            "earlier checkpoint, or copy the model again."
        )


class Renamed(Mapping[str, np.ndarray]):
    """Arrays under other names, each read from the arrays given when it is asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        """Give each of `names` the array of the old name that it maps to."""
        self._arrays, self._names, shapes = arrays, names, list_shapes(arrays)
        self.shapes = {new: shapes[old] for new, old in names.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def list_shapes(arrays: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of arrays by name; those of files tell them without being read (`StoredArrays.shapes`)."""
    return arrays.shapes if hasattr(arrays, "shapes") else {name: np.shape(array) for name, array in arrays.items()}


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


def read_settings(directory: Path, *, required: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Read a `config.json` as transformers saves it.

    Args:
        directory: where it is.
        required: keys that it must have, by the `model_type` that it may name.

    Raises:
        UserError: it is missing or damaged, or of another or a quantised model.
    """
    path = directory / "config.json"
    settings = read_json(path, advice=SAVE_AGAIN)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in required:
        raise UserError(f"{path} has model_type {kind!r}; the covered ones are {', '.join(sorted(required))}.")
    if missing := [key for key in required[kind] if settings.get(key) is None]:
        raise UserError(f"{path} lacks {', '.join(missing)}. Save the model again with its full config.")
    if quantised := settings.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UserError(f"{path} is of a model quantised by {method}. Choose the model that it was made from.")
    return settings


def check_settings(settings: Mapping[str, Any], supported: Mapping[str, Any], *, where: str) -> None:
    """Refuse settings other than, of what a model may be told to do otherwise, the only values computed here."""
    for key, value in supported.items():
        if settings.get(key, value) != value:
            raise UserError(f"{where} asks for {key}={settings[key]!r}; only {value!r} is supported.")


def take_setting(settings: Mapping[str, Any], key: str, default: Any, *, where: str) -> Any:
    """Return a setting, or the default where it is missing or null; one of another type is a `UserError`."""
    value, kind = settings.get(key), type(default)
    if value is None:
        return default
    # True is an int to Python, and JSON writes 10000.0 as it likes.
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "an object"}
        raise UserError(f"{where} has {key}={value!r:.80}, which must be {wanted[kind]}. {SAVE_AGAIN}")
    return value


def open_weights(directory: Path) -> StoredArrays:
    """Open a model's `model.safetensors`, or the files that its `model.safetensors.index.json` lists.

    Files that are missing or damaged, and weights that are only there as a pickle, are a `UserError`.
    """
    index = directory / INDEX
    if (directory / WEIGHTS).is_file() or not index.is_file():
        if not (directory / WEIGHTS).is_file() and (pickles := sorted(directory.glob("pytorch_model*.bin"))):
            raise UserError(
                f"{directory} holds its weights as {pickles[0].name}, a pickle, which could run any program and is not "
                f"read. {SAVE_AGAIN}"
            )
        return StoredArrays([directory / WEIGHTS], advice=SAVE_AGAIN)
    listed = read_json(index, advice=SAVE_AGAIN).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise UserError(f"{index} has no weight_map from arrays to files. {SAVE_AGAIN}")
    if outside := sorted(name for name in set(listed.values()) if Path(name).name != name):
        raise UserError(f"{index} names {outside[0]!r}, which is not a file beside it. {SAVE_AGAIN}")
    arrays = StoredArrays([directory / name for name in sorted(set(listed.values()))], advice=SAVE_AGAIN)
    check_names(
        dict.fromkeys(listed, "an array"), dict.fromkeys(arrays, "an array"), refusal=f"{index} is of other files."
    )
    return arrays
