"""Models by name, for configs."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ilqljax.config import register, resolve_path
from ilqljax.data.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.hf_weights import load_gpt2, resize_vocabulary
from ilqljax.models.value_lm import ValueLM, ValueLMConfig


class BuiltModel(NamedTuple):
    """A model, the tokenizer it reads, and a pretrained trunk to start from, if there is one."""

    model: ValueLM
    tokenizer: Tokenizer
    pretrained: dict | None


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
            parameters.
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
        config, trunk = load_gpt2(str(local) if local.exists() else path, dtype=dtype, dropout=dropout)
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


def check_same_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Refuse a model directory that was saved with another tokenizer: its token ids would mean something else."""
    if not (directory / FILE_NAME).is_file():
        return
    if load_tokenizer(directory).fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{directory} was saved with another tokenizer than config.tokenizer gives. Start from the same data and "
            "vocab_size as the run that made it, or choose a model without ilqljax_tokenizer.json."
        )


def count_parameters(tree: dict) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
