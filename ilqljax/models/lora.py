"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): small trained updates of a trunk that stays as it is.

A trunk with an adapter is one tree, in which the adapter's arrays lie beside what they change:

    kernel [D F]   lora_scale []   lora_a [D R]   lora_b [R F]     x kernel + lora_scale (x lora_a) lora_b
    wte [V D]      wte_rows [N D]                                  the last N rows: those of the control tokens
    lm_head [V D]  lm_head_rows [N D]                              the same of a head of its own

(with a leading axis L in blocks). `split_adapter` takes it apart into the frozen base, which the policy, the value
trunk and its slow copy share, and the adapter, of which each has its own; `join_adapter` puts them together. An adapter
may be of the last layers alone; its arrays in blocks then have a leading axis that is shorter than L.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ilqljax.data.types import Array
from ilqljax.errors import UserError

ADAPTED = ("lora_a", "lora_b", "wte_rows", "lm_head_rows")


def attach_adapter(
    key: Array, trunk: dict, *, rank: int, alpha: float, targets: tuple[str, ...] = (), n_rows: int = 0
) -> dict:
    """Give a trunk a new adapter, which changes nothing yet: `lora_b` is zero (Hu et al. 2021, section 4.1).

    Args:
        key: of the random `lora_a`.
        trunk: a backbone's parameters.
        rank: R.
        alpha: `lora_scale` is alpha / R.
        targets: names of the linear layers to adapt, such as "q_proj"; () is all of the blocks.
        n_rows: last rows of the embeddings that are trained whole.

    Raises:
        UserError: a target is not a linear layer of the blocks.
    """
    layers = sorted(path[:-1] for path in flatten_dict(trunk["h"]) if path[-1] == "kernel")
    if unknown := sorted(set(targets) - {path[-1] for path in layers}):
        known = ", ".join(sorted({path[-1] for path in layers}))
        raise UserError(f"lora_targets names {', '.join(unknown)}; the linear layers of the blocks are {known}.")
    chosen = [path for path in layers if not targets or path[-1] in targets]
    adapted = jax.tree.map(lambda x: x, trunk)  # new dicts, the same arrays
    for path, layer_key in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        layer = adapted["h"]
        for name in path:
            layer = layer[name]
        *n_layer, n_in, n_out = layer["kernel"].shape
        layer["lora_scale"] = jnp.full(n_layer, alpha / rank, jnp.float32)
        layer["lora_a"] = jax.random.uniform(layer_key, (*n_layer, n_in, rank), minval=-1.0) * n_in**-0.5
        layer["lora_b"] = jnp.zeros((*n_layer, rank, n_out), jnp.float32)
    if n_rows:
        for name in ("wte", "lm_head"):
            if name in trunk:
                adapted[f"{name}_rows"] = trunk[name][-n_rows:].astype(jnp.float32)
    return adapted


def split_adapter(trunk: dict) -> tuple[dict, dict]:
    """Take a trunk apart into its base and its adapter, which is {} where it has none."""
    base: dict[str, Any] = {}
    adapter: dict[str, Any] = {}
    for name, value in trunk.items():
        if isinstance(value, dict):
            base[name], inner = split_adapter(value)
            adapter |= {name: inner} if inner else {}
        else:
            (adapter if name in ADAPTED else base)[name] = value
    return base, adapter


def join_adapter(base: Any, adapter: Any) -> Any:
    """Put a base and an adapter together: the inverse of `split_adapter`.

    Layers in front of an adapter's own get one of zeros, which changes nothing; laid out for acting they get none.
    """
    if isinstance(base, tuple):  # layers that are laid out for acting
        none = ({},) * (len(base) - len(adapter))
        return tuple(join_adapter(*layer) for layer in zip(base, (*none, *adapter), strict=True))
    joined = dict(base)
    for name, value in adapter.items():
        if name in base:
            joined[name] = join_adapter(base[name], value)
        else:
            joined[name] = _fill_layers(value, base["lora_scale"]) if name.startswith("lora_") else value
    return joined


def _fill_layers(x: Array, scale: Array) -> Array:
    n_missing = scale.shape[0] - len(x) if scale.ndim else 0
    return jnp.pad(x, [(n_missing, 0)] + [(0, 0)] * (x.ndim - 1)) if n_missing else x


def merge_adapter(trunk: dict) -> dict:
    """Fold an adapter into the trunk's own arrays, in float32; one without an adapter is returned as it is."""
    if "lora_a" in trunk:
        update = jnp.matmul(trunk["lora_a"], trunk["lora_b"], precision="highest")
        trunk = {**trunk, "kernel": trunk["kernel"] + trunk["lora_scale"][..., None, None] * update}
    merged = {}
    for name, value in trunk.items():
        if isinstance(value, dict):
            merged[name] = merge_adapter(value)
        elif f"{name}_rows" in trunk:
            merged[name] = replace_last_rows(value, trunk[f"{name}_rows"])
        elif name not in (*ADAPTED, "lora_scale"):
            merged[name] = value
    return merged


def replace_last_rows(embedding: Array, rows: Array) -> Array:
    """Return an embedding [V D] whose last N rows are others [N D]."""
    return jnp.concatenate([embedding[: len(embedding) - len(rows)], rows])
