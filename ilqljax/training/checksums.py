"""Checksums of a checkpoint: CRC-32 of every array and of the JSON beside them, so that damage on a disk is noticed.

The array store has checksums of its index, not of the arrays: a flipped bit would come back as another number.
"""

import json
import zlib
from typing import Any

import jax
import numpy as np

Checksums = dict[str, int]
JSON_NAME = "extra"


def compute_checksums(state: Any, values: Any) -> Checksums:
    """Sum every array of a pytree under its path, and JSON values under "extra".

    Arrays of which this process holds a part only (several hosts) are left out.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    sums = {
        jax.tree_util.keystr(path, simple=True, separator="/"): _sum_bytes(_read_array(leaf))
        for path, leaf in leaves
        if _is_whole(leaf)
    }
    return sums | {JSON_NAME: zlib.crc32(json.dumps(values, sort_keys=True).encode())}


def find_differing(saved: Checksums, found: Checksums) -> list[str]:
    """Name, in order, what both have and is not the same in both."""
    return [name for name in found if name in saved and found[name] != saved[name]]


def _is_whole(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _read_array(leaf: Any) -> np.ndarray:
    """Read an array without making it remember its copy, which would keep its buffer from being donated."""
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    return np.ascontiguousarray(leaf)


def _sum_bytes(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8))
