"""Hidden states of what is frozen of a value trunk, computed once and kept: training then costs what learns.

They lie in one file for a trunk and its rows, `~/.cache/ilqljax/hidden/KEY.bfloat16` [N D], row after row, which is
mapped into memory. The key is a hash of all that they depend on: the trunk's arrays and config, how many of its layers
are frozen, and the rows' tokens.
"""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Float, Int

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.files import find_cache, save_whole
from ilqljax.data.types import Array
from ilqljax.models.cpu import find_platform
from ilqljax.models.value_lm import ValueLM
from ilqljax.training.mesh import path_name

BATCH, BUCKET = 16, 64  # rows computed at a time, and the multiple that their length is padded to
BYTES = 2  # of a number
KEPT_FILES = 8
ABANDONED_S = 86400  # since a file that is being written has changed


class RowsWithHidden(ListRLDataset):
    """Show the rows of another dataset with their hidden states."""

    def __init__(self, dataset: ListRLDataset, hidden: Float[np.ndarray, "N D"]) -> None:
        """Hold the dataset, and the hidden states of its tokens, row after row."""
        super().__init__(dataset.tokenizer, **dataset.settings)
        self.dataset, self.group_size, self.row_sizes = dataset, dataset.group_size, dataset.row_sizes
        self._hidden, self._starts = hidden, find_starts(dataset)

    def get_item(self, i: int) -> DataPoint:
        hidden = self._hidden[self._starts[i] : self._starts[i + 1]]
        return dataclasses.replace(self.dataset.get_item(i), hidden=hidden)

    def size(self) -> int:
        return self.dataset.size()


def find_starts(dataset: ListRLDataset) -> Int[np.ndarray, " starts"]:
    """Return where each row's tokens begin when rows lie one after the other, and where the last ends."""
    return np.concatenate([[0], np.cumsum(dataset.row_sizes[:, 0])])


def with_hidden_states(model: ValueLM, trunk: dict, *datasets: ListRLDataset) -> list[RowsWithHidden]:
    """Return datasets whose rows bring what `ValueLM.run_frozen` gives of a trunk, from files or computed now.

    A file that cannot be written is a `UserError`.
    """
    folder = find_cache("hidden")
    hashed, run = hash_trunk(model, trunk), jax.jit(partial(run_trunk, model))
    found = []
    for dataset in datasets:
        path = folder / f"{hash_rows(dataset, hashed)}.bfloat16"
        shape = int(dataset.row_sizes[:, 0].sum()), model.backbone.config.n_embd
        if not path.is_file() or path.stat().st_size != BYTES * shape[0] * shape[1]:
            folder.mkdir(parents=True, exist_ok=True)
            most = model.backbone.config.n_positions
            compute = partial(compute_hidden_states, dataset, partial(run, trunk), shape=shape, most=most)
            save_whole(path, compute)
            remove_oldest(folder)
        os.utime(path)
        found.append(RowsWithHidden(dataset, np.memmap(path, ml_dtypes.bfloat16, "r", shape=shape)))
    return found


def run_trunk(model: ValueLM, trunk: dict, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Compute what is kept, in half precision."""
    return model.run_frozen(trunk, tokens).astype(jnp.bfloat16)


def hash_trunk(model: ValueLM, trunk: dict) -> "hashlib._Hash":
    """Hash all that hidden states depend on but the rows."""
    described = (model.backbone.config, model.config.advanced_mlp, model.config.frozen_value_layers, find_platform())
    digest = hashlib.sha256(repr(described).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(trunk):
        digest.update(f"{path_name(path)} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.ascontiguousarray(leaf))
    return digest


def hash_rows(dataset: ListRLDataset, hashed: "hashlib._Hash") -> str:
    """Return the name of what a trunk, as it is hashed, makes of a dataset's rows."""
    digest = hashed.copy()
    for i in range(dataset.size()):
        digest.update(np.ascontiguousarray(dataset.get_item(i).tokens))
    digest.update(dataset.row_sizes.tobytes())
    return digest.hexdigest()[:32]


def compute_hidden_states(
    dataset: ListRLDataset, run: Callable[[Array], Array], path: Path, *, shape: tuple[int, int], most: int
) -> None:
    """Run a trunk over all rows, those of like length together, `most` tokens at most, and write what is kept."""
    stored = np.memmap(path, ml_dtypes.bfloat16, "w+", shape=shape)
    lengths, starts = dataset.row_sizes[:, 0], find_starts(dataset)
    order = np.argsort(-lengths, kind="stable")
    for first in range(0, len(order), BATCH):
        rows: Sequence[int] = order[first : first + BATCH]
        width = min(-(-int(lengths[rows[0]]) // BUCKET) * BUCKET, most)
        tokens = np.full((BATCH, width), dataset.tokenizer.pad_id, np.int32)
        for line, row in enumerate(rows):
            tokens[line, : lengths[row]] = dataset.get_item(int(row)).tokens
        hidden = np.asarray(run(tokens))
        for line, row in enumerate(rows):
            stored[starts[row] : starts[row + 1]] = hidden[line, : lengths[row]]
    stored.flush()


def remove_oldest(folder: Path) -> None:
    """Keep the files that were used last, and none that a killed process left, so that the folder does not grow."""
    files = sorted(folder.glob("*.bfloat16"), key=lambda path: path.stat().st_mtime)
    for path in files[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)
