"""Texts to vectors: a tokenizer, length buckets, and the compiled encoder.

A text is padded to the smallest bucket that holds it, whatever the other texts are, and batches have one of three
sizes, so the encoder compiles at most three times a bucket.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from ilqljax.data.files import hash_file
from ilqljax.errors import UserError, check_known
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.encoder import POOLINGS, Bert, embed
from ilqljax.models.io.encoder import find_encoder, load_bert, read_encoder_files

logger = logging.getLogger(__name__)

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
BATCH_SIZES = (1, 8)
# Tokens of the largest batch: what fits a CPU's cache, or keeps an accelerator busy.
CPU_BATCH_TOKENS, BATCH_TOKENS = 2048, 16384
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
# Raised when the meaning of a vector changes.
ENCODER_VERSION = 1


class SentenceEncoder:
    """Encode texts with a BERT from a directory."""

    def __init__(
        self, path: str | Path, *, pooling: str = "", max_length: int = 0, dtype: str = "float32", batch_tokens: int = 0
    ):
        """Load it.

        Args:
            path: a directory (`encoder_weights`), or "minilm".
            pooling: "mean" or "cls"; "" takes what the directory says.
            max_length: longest text in tokens, [CLS] and [SEP] included; 0 takes what the directory says, or else all
                positions. Longer texts lose their end, and how many is logged.
            dtype: of the activations: "float32" or "bfloat16".
            batch_tokens: tokens of the largest batch; 0 takes 2,048 on a CPU and 16,384 elsewhere.

        Raises:
            UserError: a setting is unknown, or the directory is not a complete encoder.
        """
        directory = find_encoder(str(path))
        check_known((*POOLINGS, ""), pooling=pooling)
        check_known(("float32", "bfloat16"), dtype=dtype)
        files = read_encoder_files(directory)
        config, params = load_bert(files.bert, dtype=dtype)
        longest = config.max_position_embeddings
        self.max_length = max_length or min(files.max_length or longest, longest)
        if not 2 < self.max_length <= longest:
            raise UserError(f"max_length={max_length}: {directory} reads 3 to {longest} tokens. Use these, or 0.")
        self.pooling, self.normalize, self._lower = pooling or files.pooling, files.normalize, files.lower
        self.width = config.hidden_size
        self.fingerprint = self._make_fingerprint(files.bert, dtype)
        self._model, self._params = Bert(config), jax.device_put(params)
        self._tokenizer = load_bert_tokenizer(files.bert, vocab_size=config.vocab_size)
        self._buckets = (*(b for b in BUCKETS if b < self.max_length), self.max_length)
        self._batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if use_cpu_tricks() else BATCH_TOKENS)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """Return one float32 vector a text; each depends on its own text only (up to float32 rounding)."""
        rows = self._tokenize(texts)
        vectors = np.empty((len(rows), self.width), np.float32)
        lengths = np.array([len(row) for row in rows], np.int32)
        bucket_of = np.searchsorted(self._buckets, lengths)
        for i, bucket in enumerate(self._buckets):
            here = np.flatnonzero(bucket_of == i)
            sizes = sorted({*BATCH_SIZES, max(1, self._batch_tokens // bucket)})
            for at in range(0, len(here), sizes[-1]):
                chosen = here[at : at + sizes[-1]]
                size = next(s for s in sizes if s >= len(chosen))
                tokens, counts = np.zeros((size, bucket), np.int32), np.zeros(size, np.int32)
                for j, row in enumerate(chosen):
                    tokens[j, : lengths[row]] = rows[row]
                counts[: len(chosen)] = lengths[chosen]
                how = {"model": self._model, "pooling": self.pooling, "normalize": self.normalize}
                vectors[chosen] = np.asarray(embed(self._params, tokens, counts, **how))[: len(chosen)]
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # JSON can hold half a surrogate pair, which is no text that a tokenizer takes.
        given = [text.encode("utf-8", "replace").decode() for text in texts]
        given = [text.lower() for text in given] if self._lower else given
        rows = self._tokenizer(given, truncation=False, padding=False, verbose=False)["input_ids"]
        if n_truncated := sum(len(row) > self.max_length for row in rows):
            logger.info("%d of %d texts cut to %d tokens", n_truncated, len(texts), self.max_length)
        # The closing [SEP] stays, as in sentence-transformers.
        return [r if len(r) <= self.max_length else [*r[: self.max_length - 1], r[-1]] for r in rows]

    def _make_fingerprint(self, bert: Path, dtype: str) -> str:
        settings = [ENCODER_VERSION, self.pooling, self.normalize, self.max_length, self._lower, dtype]
        digest = hashlib.sha256(repr(settings).encode())
        for name in ("config.json", "model.safetensors", *TOKENIZER_FILES):
            if (bert / name).is_file():
                digest.update(f"{name} {hash_file(bert / name)}".encode())
        return digest.hexdigest()


def load_bert_tokenizer(directory: Path, *, vocab_size: int):
    """Load a directory's tokenizer with transformers; one with more tokens than the model is a `UserError`."""
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(f"{directory} has neither tokenizer.json nor vocab.txt. Save the tokenizer there too.")
    from transformers import AutoTokenizer  # slow to import, and only needed here

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: its tokenizer cannot be loaded ({error}). Save it again.") from error
    if len(tokenizer) > vocab_size:
        n = len(tokenizer)
        raise UserError(
            f"{directory}: the tokenizer has {n} tokens and the model {vocab_size}. Copy both from one model."
        )
    return tokenizer
