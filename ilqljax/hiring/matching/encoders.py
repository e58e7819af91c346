"""The `matcher` objects that use an encoder: `encoder` over the candidates' texts, `embeddings` over given vectors.

A candidate's vector is computed once and kept in the data folder, in a safetensors file of one array `vectors` [N D],
float32, whose metadata hashes the encoder and the texts; it is read again while these are the same.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from ilqljax.config import register
from ilqljax.data.files import read_arrays, save_arrays
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.data.prepared import VECTORS
from ilqljax.hiring.matching.dense import METRICS, DenseIndex, DenseMatcher, prepare_vectors
from ilqljax.hiring.matching.matcher import Matcher, hash_texts
from ilqljax.hiring.postings.posting import Candidate
from ilqljax.models.sentence_encoder import SentenceEncoder

logger = logging.getLogger(__name__)

TEXTS_AT_A_TIME = 16384
# An encoder that made the given vectors gives them again up to rounding; a half-precision copy stays above this.
N_CHECKED, LEAST_COSINE = 16, 0.98


@register("matcher", "encoder")
@dataclass(frozen=True)
class EncoderSource:
    """Rank by a sentence encoder's vectors of candidates' and texts' words.

    Attributes:
        path: directory of a BERT or sentence-transformers model, or "minilm" (`models.encoder_weights`).
        pooling: "mean" or "cls"; "" takes what the directory says.
        max_length: longest text in tokens; longer ones lose their end, and how many is logged. 0 takes what the
            directory says.
        dtype: of the encoder's activations.
        metric: "cosine" or "dot".
    """

    kind: ClassVar[str] = "encoder"
    path: str = "minilm"
    pooling: str = ""
    max_length: int = 0
    dtype: str = "float32"
    metric: str = "cosine"

    def __post_init__(self) -> None:
        check_known(METRICS, metric=self.metric)
        _ = self.encoder  # a directory that cannot be read is reported now

    @cached_property
    def encoder(self) -> SentenceEncoder:
        """The loaded encoder."""
        return SentenceEncoder(self.path, pooling=self.pooling, max_length=self.max_length, dtype=self.dtype)

    @property
    def name(self) -> str:
        """The model's name."""
        return Path(self.path).name or self.path

    @property
    def fingerprint(self) -> str:
        """Of the encoder's files and settings, and the metric."""
        return f"{self.kind} {self.encoder.fingerprint} {self.metric}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Encode the candidates, or read their vectors, and put them on the devices."""
        texts = [candidate.text for candidate in candidates]
        source = hash_texts([self.encoder.fingerprint, *texts])
        vectors = load_or_make_vectors(
            folder / VECTORS.format(self.encoder.fingerprint[:16]),
            lambda: self._encode_all(texts),
            source=source,
            n_vectors=len(texts),
        )
        index = DenseIndex(vectors, metric=self.metric)
        return DenseMatcher(index, self.encoder.encode, fingerprint=f"encoder-{self.metric}-{source[:32]}")

    def _encode_all(self, texts: Sequence[str]) -> np.ndarray:
        logger.info("encoding %d candidates with %s", len(texts), self.name)
        starts = range(0, len(texts), TEXTS_AT_A_TIME)
        return np.concatenate([self.encoder.encode(texts[at : at + TEXTS_AT_A_TIME]) for at in starts])


@register("matcher", "embeddings")
@dataclass(frozen=True)
class EmbeddingsSource(EncoderSource):
    """Rank by the vectors that the candidates file gives (`embedding`); texts to match go through the encoder.

    Postings' own vectors are not used: a rewrite has none, and both must come from one encoder to be compared.

    Attributes:
        same_encoder: the encoder is the one that made the vectors, which is checked on some candidates; false for an
            matcher with one encoder for candidates and another for postings.
    """

    kind: ClassVar[str] = "embeddings"
    same_encoder: bool = True

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Check the candidates' vectors and put them on the devices."""
        without = next((candidate for candidate in candidates if not candidate.embedding), None)
        if without is not None:
            raise UserError(
                f"The candidate '{without.id}' has no embedding. Give every candidate one, or use the matcher "
                "'encoder', which computes them."
            )
        vectors = np.stack([np.frombuffer(candidate.embedding, np.float32) for candidate in candidates])
        if vectors.shape[1] != self.encoder.width:
            raise UserError(
                f"The candidates' embeddings have {vectors.shape[1]} numbers, and the encoder {self.name} gives "
                f"{self.encoder.width}. Set the matcher's path to the encoder that made them."
            )
        if self.same_encoder:
            self._check_encoder(candidates, vectors)
        source = hashlib.sha256(self.fingerprint.encode() + vectors.tobytes()).hexdigest()
        index = DenseIndex(vectors, metric=self.metric)
        return DenseMatcher(index, self.encoder.encode, fingerprint=f"embeddings-{source[:32]}")

    def _check_encoder(self, candidates: Sequence[Candidate], vectors: np.ndarray) -> None:
        chosen = np.unique(np.linspace(0, len(candidates) - 1, N_CHECKED).astype(int))
        ours = prepare_vectors(self.encoder.encode([candidates[i].text for i in chosen]), metric="cosine")
        cosines = (ours * prepare_vectors(vectors[chosen], metric="cosine")).sum(axis=1)
        worst = int(cosines.argmin())
        if cosines[worst] < LEAST_COSINE:
            raise UserError(
                f"The embedding of the candidate '{candidates[chosen[worst]].id}' is not what the encoder {self.name} "
                f"makes of its text (cosine {cosines[worst]:.2f}). Set the matcher's path to the encoder that made the "
                "embeddings, or same_encoder=False where postings have an encoder of their own."
            )


def load_or_make_vectors(
    path: str | Path, make: Callable[[], Float[Array, "N D"]], *, source: str, n_vectors: int
) -> Float[Array, "N D"]:
    """Return the vectors in a file if they were made from `source`, a hash; else make them and write the file."""
    path, advice = Path(path), "Delete it: the vectors are then computed again."
    if path.is_file():
        try:
            with safe_open(path, "numpy") as file:
                made_from = (file.metadata() or {}).get("source")
        except SafetensorError as error:
            raise UserError(f"{path}: is damaged or not a file of vectors ({error}). {advice}") from error
        if made_from == source:
            stored = read_arrays(path, advice=advice).get("vectors")
            if stored is not None and len(stored) == n_vectors:
                return stored
    vectors = np.ascontiguousarray(make(), np.float32)
    save_arrays(path, {"vectors": vectors}, metadata={"source": source})
    return vectors
