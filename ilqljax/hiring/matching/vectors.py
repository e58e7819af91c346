"""Candidate vectors in a file, computed once: they are read again as long as their source is the same.

The file is a safetensors file of one array `vectors` [N D], float32, whose metadata holds a hash of what the vectors
were made from. It is written whole or not at all.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from ilqljax.data.files import read_arrays, save_arrays
from ilqljax.errors import UserError
from ilqljax.types import Array


def hash_texts(texts: Iterable[str], *, prefix: str = "") -> str:
    """Hash texts in order, so that no two lists of texts (with prefixes) run into each other."""
    digest = hashlib.sha256()
    for text in (prefix, *texts):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def load_or_make_vectors(
    path: str | Path, make: Callable[[], Float[Array, "N D"]], *, source: str, n_vectors: int
) -> Float[Array, "N D"]:
    """Return the vectors in a file if they were made from `source`; else make them and write the file.

    Args:
        path: the file; its folder exists.
        make: computes the vectors.
        source: hash of what they are made from.
        n_vectors: how many there must be.

    Raises:
        UserError: the file is damaged or cannot be written.
    """
    path = Path(path)
    if path.is_file():
        stored = _load(path, source=source)
        if stored is not None and len(stored) == n_vectors:
            return stored
    vectors = np.ascontiguousarray(make(), np.float32)
    save_arrays(path, {"vectors": vectors}, metadata={"source": source})
    return vectors


def _load(path: Path, *, source: str) -> np.ndarray | None:
    advice = "Delete it: the vectors are then computed anew."
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("source") != source:
                return None
    except SafetensorError as error:
        raise UserError(f"{path}: is damaged or not a file of vectors ({error}). {advice}") from error
    return read_arrays(path, advice=advice).get("vectors")
