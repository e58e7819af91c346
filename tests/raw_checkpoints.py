"""A checkpoint's arrays as NumPy, whatever state they were."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ilqljax.training.checkpoint import CheckpointStore


def restore_raw(directory: str | Path, *, step: int | str = "last") -> dict[str, Any]:
    """Return nested dicts, with lists where the state had tuples."""
    number = CheckpointStore(directory).latest_step() if step == "last" else step
    folder = Path(directory).absolute() / str(number)
    frozen = json.loads((folder / "extra" / "metadata").read_text()).get("frozen")
    state = _restore(folder / "state")
    return state | ({"frozen": _restore(folder.parent / "frozen" / frozen)} if frozen else {})


def _restore(folder: Path) -> dict[str, Any]:
    with ocp.StandardCheckpointer() as reader:
        metadata = reader.metadata(folder).item_metadata
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), getattr(metadata, "tree", metadata))
        return reader.restore(folder, template)
