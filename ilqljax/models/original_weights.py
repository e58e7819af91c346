"""Parameters of the original PyTorch ILQL under our names.

| original                               | ours                                     |
|----------------------------------------|------------------------------------------|
| `model.*` (ILQL), `model.*` (BC)       | `params["trunk"]`, `params["policy"]`    |
| `lm_policy.*`, `lm_target.*`           | `params["policy"]`, `target["trunk"]`    |
| `v.*`, `q.*`, `q2.*`                   | `params["v"]`, `["q1"]`, `["q2"]`        |
| `target_q.*`, `target_q2.*`            | `target["q1"]`, `target["q2"]`           |
| `pi.*`                                 | the policy's tied head: nothing          |

torch's linear layers keep weights [out, in]; our kernels are [in, out].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ilqljax.errors import UserError
from ilqljax.models.hf_weights import trunk_from_torch

ONLINE_HEADS = {"v": "v", "q": "q1", "q2": "q2"}
TARGET_HEADS = {"target_q": "q1", "target_q2": "q2"}
# The plain head is an nn.Sequential (0: linear, 2: linear); the advanced one a module with named parts.
PLAIN_PARTS = {"0": ("dense_in", "kernel"), "2": ("dense_out", "kernel")}
ADVANCED_PARTS = {
    "ln1": ("ln1", "scale"),
    "ff1": ("ff1", "kernel"),
    "ff2": ("ff2", "kernel"),
    "ln2": ("ln2", "scale"),
    "output_layer": ("dense_out", "kernel"),
}


def params_from_original(weights: Mapping[str, np.ndarray]) -> tuple[dict, dict]:
    """Build `(params, target)` of a `ValueLM` from an original model's state dict.

    Args:
        weights: arrays by the original's names; gradients of the same names work as well.

    Raises:
        UserError: names are missing or unexpected.
    """
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = np.asarray(value)
    known = {"model", "lm_policy", "lm_target", "pi", *ONLINE_HEADS, *TARGET_HEADS}
    if unexpected := sorted(set(groups) - known):
        raise UserError(f"Unexpected names in the original's weights: {unexpected}. Known groups: {sorted(known)}.")
    is_ilql = "v" in groups
    params: dict[str, Any] = {}
    target: dict[str, Any] = {}
    if "model" in groups:
        params["trunk" if is_ilql else "policy"] = trunk_from_torch(groups["model"])
    if "lm_policy" in groups:
        params["policy"] = trunk_from_torch(groups["lm_policy"])
    if "lm_target" in groups:
        target["trunk"] = trunk_from_torch(groups["lm_target"])
    for tree, names in ((params, ONLINE_HEADS), (target, TARGET_HEADS)):
        for original, ours in names.items():
            if original in groups:
                tree[ours] = head_from_original(groups[original], name=original)
    return params, target


def head_from_original(weights: Mapping[str, np.ndarray], *, name: str) -> dict:
    """Build one head's parameters; plain or advanced is told by the names of its parts."""
    parts = ADVANCED_PARTS if any(key.startswith("ff1") for key in weights) else PLAIN_PARTS
    expected = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    if set(weights) != expected:
        raise UserError(
            f"Head {name!r}: missing {sorted(expected - set(weights)) or 'none'}, "
            f"unexpected {sorted(set(weights) - expected) or 'none'}."
        )
    tree: dict[str, dict[str, np.ndarray]] = {}
    for part, (ours, kind) in parts.items():
        weight = np.asarray(weights[f"{part}.weight"], np.float32)
        tree[ours] = {
            kind: weight.T if kind == "kernel" else weight,
            "bias": np.asarray(weights[f"{part}.bias"], np.float32),
        }
    return tree
