"""A policy's adapter (`ilqljax.models.lora`) in the form that PEFT reads: `adapter_config.json` and safetensors.

| ours (a layer's)        | PEFT's                                        | shape  |
|-------------------------|-----------------------------------------------|--------|
| `q_proj/lora_a` [D R]   | `...q_proj.lora_A.weight`                     | [R, D] |
| `q_proj/lora_b` [R F]   | `...q_proj.lora_B.weight`                     | [F, R] |
| `wte_rows` [N D]        | `...token_adapter.trainable_tokens_delta`     | [N, D] |

The last are not differences: PEFT puts them in the place of the embeddings' rows (`trainable_token_indices`), and of
the head's where it is tied to them; a head of its own has its own. GPT-2's `Conv1D` is PEFT's `fan_in_fan_out`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ilqljax.data.files import save_arrays, save_text
from ilqljax.models.io.families import find_family
from ilqljax.models.io.hf import Config
from ilqljax.models.io.tables import flatten

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
TOKEN_ROWS = "token_adapter.trainable_tokens_delta"


def save_adapter(directory: str | Path, config: Config, adapter: Mapping, *, alpha: float, base: str) -> None:
    """Write a trunk's adapter, with its trained rows of embeddings, for `peft.PeftModel.from_pretrained`.

    The base that PEFT puts it on must have as many rows of embeddings as ours (`resize_token_embeddings`).

    Args:
        directory: its files are replaced whole; what cannot be written is a `UserError`.
        config: of the backbone.
        adapter: as `lora.split_adapter` gives it.
        alpha: `ValueLMConfig.lora_alpha`.
        base: directory or name of the model that it adapts.
    """
    weights = adapter_to_torch(adapter, config)
    layers = [name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")]
    rows = {name.split(".")[-3]: len(w) for name, w in weights.items() if name.endswith(TOKEN_ROWS)}
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": len(weights[f"{layers[0]}.lora_A.weight"]),
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({layer.split(".")[-1] for layer in layers}),
        "fan_in_fan_out": not find_family(config).transposed,
        "trainable_token_indices": {
            name: [*range(config.vocab_size - n, config.vocab_size)] for name, n in rows.items()
        }
        or None,
    }
    save_arrays(Path(directory) / ADAPTER_WEIGHTS, weights, metadata={"format": "pt"})
    save_text(Path(directory) / ADAPTER_CONFIG, json.dumps(settings, indent=2) + "\n")


def adapter_to_torch(adapter: Mapping, config: Config) -> dict[str, np.ndarray]:
    """Name an adapter's arrays as PEFT does, one for each layer of the stacked ones."""
    family, flat, weights = find_family(config), flatten(adapter), {}
    for name, (path, _) in family.table(config).items():
        module = PREFIX + ("" if name.startswith("lm_head.") else family.prefix) + name.removesuffix(".weight")
        if f"{path}_rows" in flat:
            weights[f"{module}.{TOKEN_ROWS}"] = np.asarray(flat[f"{path}_rows"], np.float32)
        for ours, theirs in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
            stacked = flat.get(f"{path.removesuffix('kernel')}{ours}") if path.endswith("/kernel") else None
            for i, layer in enumerate([] if stacked is None else stacked):
                weights[f"{module.format(i=i)}.{theirs}.weight"] = np.ascontiguousarray(layer.T, np.float32)
    return weights
