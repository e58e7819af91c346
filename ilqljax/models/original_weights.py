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

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ilqljax.errors import UserError
from ilqljax.models.hf_weights import trunk_from_torch

ONLINE_HEADS = {"v": "v", "q": "q1", "q2": "q2"}
TARGET_HEADS = {"target_q": "q1", "target_q2": "q2"}
# The plain head is an nn.Sequential (0: linear, 2: linear); the advanced one a module with named parts.
PLAIN_PARTS = {"0": "dense_in", "2": "dense_out"}
ADVANCED_PARTS = {"ln1": "ln1", "ff1": "ff1", "ff2": "ff2", "ln2": "ln2", "output_layer": "dense_out"}


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
    """Build one head's parameters, plain (two linear layers) or advanced (three, and two layer norms).

    Raises:
        UserError: the parts are neither.
    """
    parts = infer_parts({key.removesuffix(".weight"): w.shape for key, w in weights.items() if key.endswith(".weight")})
    expected = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    if not parts or set(weights) != expected:
        shapes = {key: np.shape(value) for key, value in weights.items()}
        raise UserError(
            f"Head {name!r} holds {shapes}. Expected weight and bias of {sorted(PLAIN_PARTS)} (plain) or of "
            f"{sorted(ADVANCED_PARTS)} (advanced), or of two linear layers, or of three and two layer norms."
        )
    tree: dict[str, dict[str, np.ndarray]] = {}
    for part, ours in parts.items():
        weight = np.asarray(weights[f"{part}.weight"], np.float32)
        bias = np.asarray(weights[f"{part}.bias"], np.float32)
        tree[ours] = {"scale": weight, "bias": bias} if weight.ndim == 1 else {"kernel": weight.T, "bias": bias}
    return tree


def infer_parts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Map a head's layers to ours, by the original's names or else by shapes; empty where neither fits.

    Of the linear layers ([out, in]) a pair [I, D], [D, I] is the residual branch and the third the output. Where shapes
    leave a choice (I = D, or as many outputs as I), a name with "out" is the output; else layers keep their order.
    """
    for known in (PLAIN_PARTS, ADVANCED_PARTS):
        if set(shapes) == set(known):
            return known
    norms = [part for part, shape in shapes.items() if len(shape) == 1]
    linear = sorted((part for part, shape in shapes.items() if len(shape) == 2), key=lambda part: "out" in part.lower())
    if len(shapes) == 2 and len(linear) == 2 and shapes[linear[1]][1] == shapes[linear[0]][0]:
        return dict(zip(linear, ("dense_in", "dense_out"), strict=True))
    if len(shapes) != 5 or len(norms) != 2:
        return {}
    width = shapes[norms[0]][0]
    for ff1, ff2, output in itertools.permutations(linear):
        inner = shapes[ff1][0]
        if (shapes[ff1], shapes[ff2], shapes[output][1]) == ((inner, width), (width, inner), width):
            return {norms[0]: "ln1", norms[1]: "ln2", ff1: "ff1", ff2: "ff2", output: "dense_out"}
    return {}
