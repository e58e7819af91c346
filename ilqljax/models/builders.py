"""Models and tokenizers by name, for configs."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ilqljax.config import register, resolve_path
from ilqljax.config.registry import split_options
from ilqljax.data.tokenizer import FILE_NAME, GPT2Tokenizer, Tokenizer, load_tokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import load_gpt2, resize_vocabulary
from ilqljax.models.io.networks import OPTIONS, Networks, load_networks
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk

MAX_PADDING = 128  # embeddings are padded to a multiple of at most this, for speed


class BuiltModel(NamedTuple):
    """A model and its tokenizer; a pretrained trunk, or all of a critic's networks, to start from where loaded."""

    model: ValueLM
    tokenizer: Tokenizer
    pretrained: dict | None
    networks: Networks | None = None


@register("model", "gpt2", options=(GPT2Config, ValueLMConfig))
def build_gpt2(tokenizer: Tokenizer, *, path: str = "", **options: Any) -> BuiltModel:
    """Build a GPT-2 with value heads.

    Args:
        tokenizer: decides the vocabulary's size.
        path: a GPT-2 directory or hub name to load; its size then overrides the sizes here. "" starts from random
            parameters. A directory with a critic's networks too (`io.networks`) decides which networks there are.
        **options: those of `GPT2Config` and `ValueLMConfig`.
    """
    sizes, heads = split_options(options, GPT2Config, ValueLMConfig)
    config, heads = GPT2Config(vocab_size=tokenizer.vocab_size, **sizes), ValueLMConfig(**heads)
    if not path:
        return BuiltModel(ValueLM(GPT2(config), heads), tokenizer, None)
    local, execution = resolve_path(path), {"remat": config.remat, "unroll": config.unroll}
    check_same_tokenizer(local, tokenizer)
    numerics = {"dtype": config.dtype, "dropout": config.dropout}
    if (local / OPTIONS).is_file():
        networks = load_networks(local, **numerics)
        backbone = networks.model.backbone.config
        if backbone.vocab_size != tokenizer.vocab_size:  # the vocabulary cannot grow under a critic
            raise UserError(
                f"{local} has Q heads for {backbone.vocab_size} tokens and config.tokenizer gives "
                f"{tokenizer.vocab_size}. Use the tokenizer that the model was trained with, or delete {OPTIONS} there "
                "to start from its policy alone."
            )
        model = ValueLM(GPT2(replace(backbone, **execution)), networks.model.config)
        return BuiltModel(model, tokenizer, policy_trunk(networks.params), networks)
    config, trunk = load_gpt2(str(local) if local.exists() else path, **numerics)
    check_vocabulary(path, config.vocab_size, tokenizer)
    trunk = resize_vocabulary(trunk, tokenizer.vocab_size)
    config = replace(config, vocab_size=tokenizer.vocab_size, **execution)
    return BuiltModel(ValueLM(GPT2(config), heads), tokenizer, trunk)


@register("tokenizer", "gpt2")
def build_gpt2_tokenizer(*, path: str = "gpt2") -> Tokenizer:
    """Load GPT-2's tokenizer from a directory (vocab.json, merges.txt), or from the hub where that is no directory."""
    local = resolve_path(path)
    return GPT2Tokenizer.from_directory(local) if local.is_dir() else GPT2Tokenizer.from_pretrained(path)


@register("tokenizer", "saved")
def build_saved_tokenizer(*, path: str) -> Tokenizer:
    """Load a tokenizer that a run saved."""
    return load_tokenizer(resolve_path(path))


def check_same_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Refuse a model directory that was saved with another tokenizer: its token ids would mean something else."""
    if (directory / FILE_NAME).is_file() and load_tokenizer(directory).fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{directory} was saved with another tokenizer than config.tokenizer gives. Start from the same data and "
            "vocab_size as the run that made it, or choose a model without ilqljax_tokenizer.json."
        )


def check_vocabulary(name: str, n_rows: int, tokenizer: Tokenizer) -> None:
    """Refuse embeddings of more tokens than the tokenizer has; what pads them to a multiple of 8 is never used.

    | ids of the tokenizer | rows   | are                                                |
    |----------------------|--------|----------------------------------------------------|
    | 50,263 (GPT-2's)     | 50,257 | GPT-2's own; those of the control tokens are added |
    | 50,263               | 50,304 | padded; the last ones are cut                      |
    | 1,400                | 50,257 | another tokenizer's: refused                       |
    """
    if n_rows > tokenizer.vocab_size and (n_rows % 8 or n_rows - tokenizer.vocab_size >= MAX_PADDING):
        raise UserError(
            f"{name} knows {n_rows} tokens and config.tokenizer gives {tokenizer.vocab_size}, so it was trained with "
            "another tokenizer. Take the config's flag :gpt2 for GPT-2's, with --config.tokenizer.path=DIR for one "
            "of your own, or choose a model that was trained with this tokenizer."
        )


def count_parameters(tree: dict) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
