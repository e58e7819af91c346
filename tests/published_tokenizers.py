"""Small tokenizers of the types that pretrained models have, made with the tokenizers library, and texts for them."""

import json
import random

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

WORDS = """
We hire people. Join our team of 12,345 engineers (remote) / Berlin: the salary is $120k-150k, it's theirs. You'll use
C++ and Python-3.11, e.g. Café Zürich naïve ﬁne 你好世界 Привет мир مرحبا \U0001f600 \U0001f469\u200d\U0001f4bb
https://example.com/a?b=1&c=%20 a_b_c don't <b>x</b> WE'RE 1st 2024-11-30
"""
SPACES = (" ", " ", " ", "  ", "\n", "\r\n", "\t", "\n\n   ", "\u00a0", "")


def make_texts(n: int, *, seed: int = 0) -> list[str]:
    """Make texts of words, digits, non-Latin scripts and emoji with all kinds of white space between them."""
    chance, words, texts = random.Random(seed), WORDS.split(), ["", " "]
    while len(texts) < n:
        texts.append("".join(chance.choice(words) + chance.choice(SPACES) for _ in range(chance.randrange(1, 30))))
    return texts


def make_byte_level() -> tokenizers.Tokenizer:
    """Make one of SmolLM2's kind: digits apart, three special tokens, and an added one that is not special."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    splitters = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(splitters), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    backend.train_from_iterator(make_texts(100), trainers.BpeTrainer(vocab_size=400, **options))
    backend.add_tokens(["<|user|>"])
    return backend


def make_metaspace() -> tokenizers.Tokenizer:
    """Make one of Llama 2's kind: BPE with a mark for spaces, and bytes for characters that it does not know."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=tokens, limit_alphabet=40, show_progress=False)
    backend.train_from_iterator(make_texts(40), trainer)
    definition = json.loads(backend.to_str())
    definition["added_tokens"] = [one for one in definition["added_tokens"] if one["content"] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(definition))


def make_unigram() -> tokenizers.Tokenizer:
    """Make one of T5's kind, whose special tokens are pieces like any other."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    options = {"special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>", "show_progress": False}
    backend.train_from_iterator(make_texts(100), trainers.UnigramTrainer(vocab_size=300, **options))
    return backend


def make_wordpiece() -> tokenizers.Tokenizer:
    """Make one of BERT's kind, but split at white space alone, so that `[PAD]` is a word."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    backend.train_from_iterator([*make_texts(100), "[ P A D ] U N K [PA D]"], trainer)
    return backend


MAKERS = {
    "byte-level": make_byte_level,
    "metaspace": make_metaspace,
    "unigram": make_unigram,
    "wordpiece": make_wordpiece,
}
