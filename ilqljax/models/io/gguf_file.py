"""What is in a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, and where tensors are.

The header is read here, not by the package gguf, whose reader believes the lengths that a damaged file states and needs
seconds for a vocabulary. The package is asked how weights are quantized.
"""

import importlib.util
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilqljax.errors import UserError

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
TEXT, ARRAY = 8, 9
MAX_DIMS = 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Kinds of quantization that the package gguf undoes, and that are published; the others are for vectors or research.
KINDS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
)
COPY_AGAIN = "Download or copy the file again."


class Tensor(NamedTuple):
    """Where a tensor is: the name of its quantization, its shape [out, in], the bytes of a row, and the first byte."""

    kind: str
    shape: tuple[int, ...]
    row_bytes: int
    start: int


class GGUFArrays(Mapping):
    """Arrays by name, of which each is read and made float32 whenever it is asked for, and none is held.

    Attributes:
        shapes: of all arrays by name, which costs nothing.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], *, permuted_heads: Mapping[str, int]):
        """Hold where the tensors are.

        Args:
            path: the file.
            tensors: by the names that the arrays shall have.
            permuted_heads: tensors whose rows llama.cpp permutes, with their number of heads.
        """
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._tensors, self._permuted_heads = tensors, permuted_heads
        self._data = np.memmap(path, np.uint8, "r")

    def __getitem__(self, name: str) -> np.ndarray:
        import gguf

        kind, shape, row_bytes, start = self._tensors[name]
        rows = math.prod(shape[:-1])
        data = self._data[start : start + rows * row_bytes].reshape(rows, row_bytes)
        array = np.array(gguf.dequantize(data, gguf.GGMLQuantizationType[kind]), np.float32).reshape(shape)
        heads = self._permuted_heads.get(name)
        return _unpermute(array, heads) if heads else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of a head's rows, in which the two numbers that RoPE rotates are neighbours.

    | row of a head of size 6 | 0 | 1 | 2 | 3 | 4 | 5 |
    |-------------------------|---|---|---|---|---|---|
    | is in the file          | 0 | 2 | 4 | 1 | 3 | 5 |
    """
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class _Header:
    """The file's bytes, read from the start; what goes beyond the end, or cannot be meant, is a `UserError`."""

    def __init__(self, path: Path):
        try:
            self.data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # a ValueError where the file is empty
            raise UserError(f"{path}: cannot be read ({error}). Give a GGUF file.") from error
        self.path, self.position = path, 0

    def refuse(self, problem: str) -> UserError:
        return UserError(f"{self.path}: is not a complete GGUF file ({problem}). {COPY_AGAIN}")

    def take(self, n: int) -> np.ndarray:
        if n > self.data.size - self.position:
            raise self.refuse(f"it ends in its header, after {self.data.size} bytes")
        self.position += n
        return self.data[self.position - n : self.position]

    def read(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def read_text(self) -> str:
        start = self.position
        try:
            return self.take(self.read("Q")).tobytes().decode()
        except UnicodeDecodeError as error:
            raise self.refuse(f"the text at byte {start} is not UTF-8") from error

    def read_value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.read(SCALARS[kind])
        if kind == TEXT:
            return self.read_text()
        inner, n = (self.read("I"), self.read("Q")) if kind == ARRAY else (None, 0)
        if inner in SCALARS:
            numbers = np.dtype(f"<{SCALARS[inner]}")
            return self.take(n * numbers.itemsize).view(numbers).tolist()
        if inner == TEXT:
            return [self.read_text() for _ in range(n)]  # each takes bytes: a wrong n soon comes to the end
        raise self.refuse(f"metadata at byte {self.position} is of the unknown kind {kind if inner is None else inner}")


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file's metadata and where its tensors are.

    Raises:
        UserError: the file is missing, is not GGUF, is damaged or incomplete, is one part of several, or has a tensor
            that is quantized in a way that is not covered.
    """
    header = _Header(path)
    if header.data[:4].tobytes() != MAGIC:
        raise UserError(f"{path}: is not a GGUF file. Give one, or the directory of a model in transformers' format.")
    header.take(4)
    version = header.read("I")
    if version not in VERSIONS:
        raise UserError(
            f"{path}: is GGUF version {version}; {' and '.join(map(str, VERSIONS))} are read. Convert it again."
        )
    n_tensors, n_values = header.read("Q"), header.read("Q")
    metadata = {header.read_text(): header.read_value(header.read("I")) for _ in range(n_values)}
    if metadata.get("split.count", 1) not in (0, 1):
        raise UserError(f"{path}: is one of {metadata['split.count']} parts. Merge them with llama.cpp's gguf-split.")
    entries = [_read_entry(header) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise header.refuse(f"its alignment is {alignment!r}")
    start = -(-header.position // alignment) * alignment
    return metadata, {name: _locate(header, name, *entry, start) for name, *entry in entries}


def _read_entry(header: _Header) -> tuple[str, tuple[int, ...], int, int]:
    name, n_dims = header.read_text(), header.read("I")
    if n_dims > MAX_DIMS:
        raise header.refuse(f"{name} has {n_dims} dimensions")
    dims = [header.read("Q") for _ in range(n_dims)]  # the fastest first
    return name, tuple(reversed(dims)), header.read("I"), header.read("Q")


def _locate(header: _Header, name: str, shape: tuple[int, ...], kind: int, offset: int, start: int) -> Tensor:
    import gguf

    known = {gguf.GGMLQuantizationType[name].value: name for name in KINDS}
    if kind not in known:
        unknown = gguf.GGMLQuantizationType._value2member_map_.get(kind)
        raise UserError(
            f"{header.path}: {name} is quantized as {unknown.name if unknown else f'kind {kind}'}; covered are "
            f"{', '.join(KINDS)}. Choose another quantization of the model."
        )
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    if not shape or shape[-1] % block or not all(shape):
        raise header.refuse(f"{name} has the shape {shape}, in blocks of {block}")
    tensor = Tensor(known[kind], shape, shape[-1] // block * block_bytes, start + offset)
    end = tensor.start + math.prod(shape[:-1]) * tensor.row_bytes
    if end > header.data.size:
        raise header.refuse(f"{name} ends at byte {end} of {header.data.size}")
    return tensor


def check_package(path: Path) -> None:
    """Raise a `UserError` where the package gguf is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{path}: reading GGUF files needs the package gguf. Run: pip install 'ilqljax[gguf]'.")
