"""Settings in the original's spelling, translated to ours."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ilqljax.data.datapoint import TokenReward
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.options import DecodeConfig
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2Config
from ilqljax.models.value_lm import ValueLMConfig
from ilqljax.rl.optim import OptimConfig

ALGORITHMS = {"bc": "bc", "iql": "ilql", "utterance": "ilql_utterance"}
# What the original's constructor and loss take for an option that a case does not list.
MODEL_DEFAULTS = {
    "alpha": 0.005,
    "gamma": 1.0,
    "beta": 1.0,
    "transition_weight": 0.0,
    "clip_weight": None,
    "value_max": None,
    "value_min": None,
    "detach_v": False,
    "detach_pi": False,
    "detach_q": False,
    "double_q": False,
    "tau": 0.9,
    "seperate_policy": False,
    "seperate_target": False,
    "exp_weights": False,
    "dm_margin": 0.0,
    "advanced_mlp": False,
    "cql_temp": 1.0,
}
LOSS_DEFAULTS = {
    "awac_weight": 0.0,
    "v_loss_weight": 0.0,
    "q_loss_weight": 0.0,
    "cql_loss_weight": 0.0,
    "dm_loss_weight": 0.0,
    "mc_returns": False,
}
TABLE_KEYS = ("table", "token_data", "token_rewards", "token_reward", "rewards", "values", "data")
CONSTANT_KEYS = ("c", "constant", "value")
SCALE_KEYS, SHIFT_KEYS = ("scale", "multiplier"), ("shift", "offset", "bias")
LABEL_KEYS = ("kind", "type", "name", "cls", "cache_id")
# Spellings of decoding options, of the original's scores (first) and of its policies.
ACT_KEYS = {
    "beta": "beta",
    "adv_weight": "beta",
    "exp_weights": "exp_weights",
    "exp_adv": "exp_weights",
    "clip": "clip",
    "clip_weight": "clip",
    "adv_clip": "clip",
    "temp": "temperature",
    "logit_temp": "temperature",
    "temperature": "temperature",
    "top_k": "top_k",
    "logit_top_k": "top_k",
    "top_p": "top_p",
    "logit_top_p": "top_p",
}
ACT_OFF = {"clip": math.inf, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
ADAM_KEYS = ("lr", "weight_decay", "b1", "b2", "betas", "eps", "max_grad_norm")
OPTIMIZER_KEYS = ("name", *ADAM_KEYS, "steps", "polyak_after_each_step")
UNKNOWN_TOKENS = ("<|unk|>", "<unk>", "[UNK]")


def translate_options(settings: Mapping[str, Any], *, name: str) -> tuple[str, dict, ValueLMConfig, tuple[str, ...]]:
    """Translate a case's options to an algorithm, its options, the heads of its model, and notes on unknown ones."""
    kind = settings["kind"]
    if kind not in ALGORITHMS:
        raise UserError(f"case {name!r} is of kind {kind!r}. Known kinds: {', '.join(ALGORITHMS)}.")
    given = settings["model"], settings.get("loss", {})
    known = (MODEL_DEFAULTS, LOSS_DEFAULTS)
    unknown = [key for options, defaults in zip(given, known, strict=True) for key in options if key not in defaults]
    notes = tuple(f"option {key!r} is unknown and was ignored" for key in unknown)
    m, weights = MODEL_DEFAULTS | given[0], LOSS_DEFAULTS | given[1]
    if kind == "bc":
        return "bc", {"transition_weight": m["transition_weight"]}, ValueLMConfig(), notes
    heads = ValueLMConfig(
        double_q=m["double_q"],
        separate_policy=m["seperate_policy"],
        separate_target=m["seperate_target"],
        advanced_mlp=m["advanced_mlp"],
        level="token" if kind == "iql" else "utterance",
    )
    options = {
        "v_weight": weights["v_loss_weight"],
        "q_weight": weights["q_loss_weight"],
        "awac_weight": weights["awac_weight"],
        "cql_weight": weights["cql_loss_weight"],
        "dm_weight": weights["dm_loss_weight"],
        "mc_returns": weights["mc_returns"],
        "discount": m["gamma"],
        "expectile": m["tau"],
        "value_min": -math.inf if m["value_min"] is None else m["value_min"],
        "value_max": math.inf if m["value_max"] is None else m["value_max"],
        "cql_temperature": m["cql_temp"],
        "dm_margin": m["dm_margin"],
        "beta": m["beta"],
        "exp_weights": m["exp_weights"],
        "clip_weight": m["clip_weight"] or 0.0,
        "transition_weight": m["transition_weight"],
        "detach_v": m["detach_v"],
        "detach_q": m["detach_q"],
        "detach_policy": m["detach_pi"],
    }
    if m["clip_weight"] == 0:
        notes += ("clip_weight 0 means no clip here and weights of 0 in the original",)
    return ALGORITHMS[kind], options, heads, notes


def translate_sizes(sizes: Mapping[str, Any], *, vocab_size: int) -> tuple[GPT2Config, tuple[str, ...]]:
    """Translate transformers' GPT-2 settings; dropout stays off, and what is unknown is noted."""
    known = {field.name for field in fields(GPT2Config)} - {"vocab_size", "dropout"}
    chosen = {key: value for key, value in sizes.items() if key in known and value is not None}
    harmless = {"vocab_size", "n_ctx", "attn_pdrop", "resid_pdrop", "embd_pdrop", "use_cache", "model_type"}
    unknown = sorted(set(sizes) - known - harmless)
    if sizes.get("activation_function", "gelu_new") == "gelu_new":
        unknown = [key for key in unknown if key != "activation_function"]
    notes = tuple(f"size {key}={sizes[key]!r} is unknown and was ignored" for key in unknown)
    return GPT2Config(vocab_size=vocab_size, **chosen), notes


def make_token_reward(value: Any, tokenizer: CharacterTokenizer) -> tuple[TokenReward, tuple[str, ...]]:
    """Make a token reward from a number, or from a table with scale and shift; also return notes on what was ignored.

    A table is a list by id or an object keyed by id or by token; a token that it lacks has 0 before scale and shift, as
    in the original. The object around it may spell its parts in several ways (`TABLE_KEYS` and those after it).
    """
    if value is None or isinstance(value, (int, float)):
        return lambda tokens: np.full(len(tokens), float(value or 0.0)), ()
    if isinstance(value, list):
        value = {"table": value}
    if not isinstance(value, Mapping):
        raise UserError(f"token_reward={value!r} is neither a number nor a table. Give a number, a list or an object.")
    rest = dict(value)
    scale, shift = take_first(rest, SCALE_KEYS, 1.0), take_first(rest, SHIFT_KEYS, 0.0)
    table = take_first(rest, TABLE_KEYS, None)
    constant = take_first(rest, CONSTANT_KEYS, None) if table is None else None
    for key in LABEL_KEYS:
        rest.pop(key, None)
    if constant is not None:
        table = [constant] * tokenizer.vocab_size
    elif table is None:
        table, rest = rest, {}
    notes = tuple(f"token_reward's {key!r} is unknown and was ignored" for key in rest)
    paid = fill_table(table, tokenizer) * float(scale) + float(shift)
    return lambda tokens: paid[tokens], notes


def take_first(settings: dict[str, Any], keys: tuple[str, ...], default: Any) -> Any:
    """Remove and return the value of the first of `keys` that is there."""
    found = next((key for key in keys if settings.get(key) is not None), None)
    return default if found is None else settings.pop(found)


def fill_table(table: Any, tokenizer: CharacterTokenizer) -> np.ndarray:
    """Write a table by id or by token into an array over the vocabulary."""
    filled = np.zeros(tokenizer.vocab_size)
    special = {token: tokenizer.n_text + n for n, token in enumerate(tokenizer.special_tokens)}
    characters = {character: n for n, character in enumerate(tokenizer.charset)}
    if tokenizer.unk:
        special |= dict.fromkeys(UNKNOWN_TOKENS, len(tokenizer.charset))
    entries = dict(enumerate(table)) if isinstance(table, list) else dict(table)
    by_id = all(isinstance(key, int) or key.isdecimal() for key in entries)
    for key, reward in entries.items():
        index = int(key) if by_id else {**characters, **special}.get(key, -1)
        if not 0 <= index < tokenizer.vocab_size or not isinstance(reward, (int, float)) or not math.isfinite(reward):
            raise UserError(
                f"token_reward's entry {key!r}: {reward!r} is not a number for one of the "
                f"{tokenizer.vocab_size} tokens."
            )
        filled[index] = reward
    return filled


def translate_optimizer(settings: Mapping[str, Any]) -> OptimConfig:
    """Translate the optimizer; torch's plain Adam without decay is AdamW without decay.

    Raises:
        UserError: it is another, or has an option that ours lacks.
    """
    if unknown := sorted(set(settings) - set(OPTIMIZER_KEYS)):
        raise UserError(f"the optimizer's options {unknown} are unknown. Known: {', '.join(OPTIMIZER_KEYS)}.")
    b1, b2 = settings.get("betas", (settings.get("b1", 0.9), settings.get("b2", 0.999)))
    decay = settings.get("weight_decay", 0.01)
    kind = settings.get("name", "adamw").lower()
    if kind != "adamw" and (kind != "adam" or decay):
        raise UserError(f"optimizer {kind!r} with weight_decay={decay} is not AdamW, the only one that there is here.")
    eps, clip = settings.get("eps", 1e-8), settings.get("max_grad_norm") or 0.0
    return OptimConfig(lr=settings["lr"], weight_decay=decay, b1=b1, b2=b2, eps=eps, max_grad_norm=clip)


def translate_acting(settings: Mapping[str, Any], *, beta: float) -> tuple[DecodeConfig | None, str]:
    """Translate options of a score or a decoder; None and the reason where one of them is unknown.

    The original's `include_logits` and `include_adv` switch the policy or the advantage off; only the latter can be.
    `beta` is that of settings without one.
    """
    rest = dict(settings)
    include_advantage = take_first(rest, ("include_adv", "include_advantage"), True)
    if not take_first(rest, ("include_logits",), True):
        return None, "scores without the policy's logits are not implemented here"
    for key in ("beam_width", "max_generation_len"):
        rest.pop(key, None)
    unknown = sorted(set(rest) - set(ACT_KEYS))
    if unknown:
        return None, f"options {unknown} are unknown"
    chosen = {"beta": beta, "exp_weights": False}
    chosen |= {ACT_KEYS[key]: ACT_OFF.get(ACT_KEYS[key]) if value is None else value for key, value in rest.items()}
    if not include_advantage:
        chosen["beta"] = 0.0
    return DecodeConfig(**chosen), ""
