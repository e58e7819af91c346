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
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import LAYER_NAMES, REDUNDANT_SUFFIXES, TOP_NAMES, trunk_from_torch
from ilqljax.models.io.networks import Networks, check_names, check_networks
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

ONLINE_HEADS = {"v": "v", "q": "q1", "q2": "q2"}
TARGET_HEADS = {"target_q": "q1", "target_q2": "q2"}
# The plain head is an nn.Sequential (0: linear, 2: linear); the advanced one a module with named parts.
TRUNKS = ("model", "lm_policy", "lm_target")
# What training loops wrap a state dict in.
WRAPPERS = ("model", "state_dict", "model_state_dict")
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


def load_original(path: str | Path, *, n_head: int = 0) -> Networks:
    """Read a state dict that the original saved (`model.pkl`, `model_converted.pkl`).

    Args:
        path: written by `torch.save`; read with `weights_only=True`, so nothing in it is executed.
        n_head: attention heads, which weights do not tell; 0 takes heads of 64 entries, as every GPT-2 has.

    Raises:
        UserError: torch is not installed, the file is no state dict, or names are missing, unexpected or misshapen.
    """
    weights = read_state_dict(Path(path))
    sizes = infer_sizes(weights, n_head=n_head, where=str(path))
    check_trunks(weights, sizes, where=str(path))
    check_heads(weights, where=str(path))
    params, target = params_from_original(weights)
    if "v" not in params:
        return Networks(ValueLM(GPT2(sizes), ValueLMConfig()), params, {})
    heads = ValueLMConfig(
        double_q="q2" in params,
        separate_policy="policy" in params,
        separate_target="trunk" in target,
        advanced_mlp="ff1" in params["v"],
        level="utterance" if params.get("q1", {}).get("dense_out", {"bias": [0]})["bias"].shape == (1,) else "token",
    )
    model = ValueLM(GPT2(sizes), heads)
    check_networks(model, params, target, where=str(path))
    return Networks(model, params, target)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a torch state dict as float32 arrays, without wrappers and the prefix of data-parallel training."""
    try:
        import torch
    except ImportError as error:
        raise UserError("Reading the original's checkpoints needs torch: pip install 'ilqljax[torch]'.") from error
    if not path.is_file():
        raise UserError(f"{path} is not there. Give the model.pkl or model_converted.pkl that the original saved.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a file of plain tensors written by torch.save ({reason}).") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise UserError(f"{path} holds a {type(loaded).__name__}, not a state dict. Save model.state_dict().")
    if wrong := sorted(str(name) for name, value in loaded.items() if not isinstance(value, torch.Tensor)):
        raise UserError(f"{path} holds {', '.join(wrong[:9])}, which are no tensors. Save model.state_dict() alone.")
    return {str(name).removeprefix("module."): value.float().numpy() for name, value in loaded.items()}


def infer_sizes(weights: Mapping[str, np.ndarray], *, n_head: int, where: str) -> GPT2Config:
    """Read the size of a GPT-2 off the shapes of its weights."""
    shapes = {name.replace(".transformer.", ".", 1): value.shape for name, value in weights.items()}
    needed = ("model.wte.weight", "model.wpe.weight", "model.h.0.mlp.c_fc.weight")
    if missing := [name for name in needed if name not in shapes]:
        raise UserError(
            f"{where} is no checkpoint of the original: {', '.join(missing)} missing. It begins with "
            f"{', '.join(sorted(weights)[:4])}."
        )
    (vocab_size, width), (n_positions, _), (_, inner) = (shapes[name] for name in needed)
    if not n_head and width % 64:
        raise UserError(f"{where} has width {width}, which is no multiple of 64: say how many heads with --n_head.")
    layers = [int(name.split(".")[2]) for name in shapes if name.startswith("model.h.")]
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=n_positions,
        n_embd=width,
        n_layer=1 + max(layers),
        n_head=n_head or width // 64,
        n_inner=0 if inner == 4 * width else inner,
    )


def check_trunks(weights: Mapping[str, np.ndarray], sizes: GPT2Config, *, where: str) -> None:
    """Refuse language models that lack weights, have others, or whose output layer is not tied to the embeddings."""
    width, inner = sizes.n_embd, sizes.inner_size
    layer_shapes = {
        "attn.c_attn.weight": (width, 3 * width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "mlp.c_fc.weight": (width, inner),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (inner, width),
    }
    top_shapes = {"wte.weight": (sizes.vocab_size, width), "wpe.weight": (sizes.n_positions, width)}
    expected = {}
    for group in {name.partition(".")[0] for name in weights} & set(TRUNKS):
        expected |= {f"{group}.{name}": top_shapes.get(name, (width,)) for name in TOP_NAMES}
        for i in range(sizes.n_layer):
            expected |= {f"{group}.h.{i}.{name}": layer_shapes.get(name, (width,)) for name in LAYER_NAMES}
    found = {}
    for name, value in weights.items():
        group, _, rest = name.partition(".")
        if group == "pi" or (group in TRUNKS and rest.endswith("lm_head.weight")):
            own_policy = any(n.startswith("lm_policy.") for n in weights)
            tied = group if group != "pi" else "lm_policy" if own_policy else "model"
            embeddings = find_embeddings(weights, tied)
            if embeddings is not None and not np.array_equal(value, embeddings):
                raise UserError(
                    f"{where}: {name} differs from the token embeddings, and only tied heads are supported."
                )
        elif group in TRUNKS:
            found[f"{group}.{rest.removeprefix('transformer.')}"] = value.shape
    found = {name: shape for name, shape in found.items() if name in expected or not name.endswith(REDUNDANT_SUFFIXES)}
    check_names(expected, found, where=where)


def check_heads(weights: Mapping[str, np.ndarray], *, where: str) -> None:
    """Refuse a critic of which V, Q or target Q is missing; a language model alone has none of them."""
    groups = {name.partition(".")[0] for name in weights}
    heads = sorted(groups & {*ONLINE_HEADS, *TARGET_HEADS})
    if heads and (missing := [name for name in ("v", "q", "target_q") if name not in groups]):
        raise UserError(
            f"{where} holds the heads {', '.join(heads)} of a critic, but not {', '.join(missing)}. Save the whole "
            "model's state_dict(), or no head at all for the language model alone."
        )


def find_embeddings(weights: Mapping[str, np.ndarray], group: str) -> np.ndarray | None:
    """Return a trunk's token embeddings under either of torch's names."""
    names = (f"{group}.transformer.wte.weight", f"{group}.wte.weight")
    return next((weights[name] for name in names if name in weights), None)
