"""Models by name, for configs."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ilqljax.config import register, resolve_path
from ilqljax.data.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
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


@register("model", "gpt2")
def build_gpt2(
    tokenizer: Tokenizer,
    *,
    path: str = "",
    n_positions: int = 1024,
    n_embd: int = 768,
    n_layer: int = 12,
    n_head: int = 12,
    dropout: float = 0.0,
    dtype: str = "float32",
    remat: bool = False,
    unroll: int = 1,
    double_q: bool = True,
    separate_policy: bool = True,
    separate_target: bool = True,
    advanced_mlp: bool = False,
) -> BuiltModel:
    """Build a GPT-2 with value heads.

    Args:
        tokenizer: decides the vocabulary's size.
        path: a GPT-2 directory or hub name to load; its size then overrides the sizes here. "" starts from random
            parameters. A directory with a critic's networks too (`networks_folder`) decides which networks there are.
        n_positions: longest row.
        n_embd: width.
        n_layer: depth.
        n_head: attention heads.
        dropout: rate in training.
        dtype: of the activations, "float32" or "bfloat16".
        remat: recompute blocks in the backward pass, to save memory.
        unroll: layers per step of the scan over layers.
        double_q: two Q heads.
        separate_policy: a trunk of its own for the policy.
        separate_target: a slow copy of the value trunk, not only of its heads.
        advanced_mlp: the original's residual heads.
    """
    heads = ValueLMConfig(double_q, separate_policy, separate_target, advanced_mlp)
    if path:
        local = resolve_path(path)
        check_same_tokenizer(local, tokenizer)
        if (local / OPTIONS).is_file():
            loaded = load_networks(local, dtype=dtype, dropout=dropout)
            return build_from_networks(loaded, tokenizer, where=local, remat=remat, unroll=unroll)
        config, trunk = load_gpt2(str(local) if local.exists() else path, dtype=dtype, dropout=dropout)
        check_vocabulary(path, config.vocab_size, tokenizer)
        trunk = resize_vocabulary(trunk, tokenizer.vocab_size)
        config = GPT2Config(**{**vars(config), "vocab_size": tokenizer.vocab_size, "remat": remat, "unroll": unroll})
        return BuiltModel(ValueLM(GPT2(config), heads), tokenizer, trunk)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=n_positions,
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_head,
        dropout=dropout,
        dtype=dtype,
        remat=remat,
        unroll=unroll,
    )
    return BuiltModel(ValueLM(GPT2(config), heads), tokenizer, None)


def build_from_networks(networks: Networks, tokenizer: Tokenizer, *, where: Path, **execution: Any) -> BuiltModel:
    """Build the model whose networks were loaded whole; the vocabulary cannot grow under a critic."""
    found = networks.model.backbone.config.vocab_size
    if found != tokenizer.vocab_size:
        raise UserError(
            f"{where} has Q heads for {found} tokens and config.tokenizer gives {tokenizer.vocab_size}. Use the "
            f"tokenizer that the model was trained with, or delete {OPTIONS} there to start from its policy alone."
        )
    config = replace(networks.model.backbone.config, **execution)
    model = ValueLM(GPT2(config), networks.model.config)
    return BuiltModel(model, tokenizer, policy_trunk(networks.params), networks)


def check_same_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Refuse a model directory that was saved with another tokenizer: its token ids would mean something else."""
    if not (directory / FILE_NAME).is_file():
        return
    if load_tokenizer(directory).fingerprint != tokenizer.fingerprint:
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
