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

import numpy as np

from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.families import GPT2_FAMILY, GPT2_NAMES
from ilqljax.models.io.networks import Networks, check_networks
from ilqljax.models.io.tables import build_tree, unflatten
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

TRUNKS = {"model": "params/trunk", "lm_policy": "params/policy", "lm_target": "target/trunk"}
HEADS = {"v": "params/v", "q": "params/q1", "q2": "params/q2", "target_q": "target/q1", "target_q2": "target/q2"}
# What training loops wrap a state dict in.
WRAPPERS = ("model", "state_dict", "model_state_dict")
# The plain head is an nn.Sequential (0: linear, 2: linear); the advanced one a module with named parts.
PLAIN_PARTS = {"0": "dense_in", "2": "dense_out"}
ADVANCED_PARTS = {"ln1": "ln1", "ff1": "ff1", "ff2": "ff2", "ln2": "ln2", "output_layer": "dense_out"}


def params_from_original(weights: Mapping[str, np.ndarray], *, where: str = "weights") -> tuple[dict, dict]:
    """Build `(params, target)` of a `ValueLM` from an original model's state dict, which messages call `where`.

    Gradients under the weights' names work as well. Names that are missing or unexpected, and shapes that do not fit
    each other, are a `UserError`.
    """
    groups = group_names(weights)
    known = {"pi", *TRUNKS, *HEADS}
    if unexpected := sorted(groups.keys() - known):
        raise UserError(f"{where} has unexpected names: {unexpected}. Known groups: {sorted(known)}.")
    flat = {TRUNKS[g]: trunk_from_original(groups[g], where=f"{where} ({g}.*)") for g in TRUNKS if g in groups}
    flat |= {HEADS[g]: head_from_original(groups[g], name=g) for g in HEADS if g in groups}
    if "model" in groups and "v" not in groups:
        flat["params/policy"] = flat.pop("params/trunk")
    trees = unflatten(flat)
    return trees.get("params", {}), trees.get("target", {})


def trunk_from_original(weights: Mapping[str, np.ndarray], *, where: str) -> dict:
    """Build a GPT-2 of the size that its weights have; errors are those of `build_tree`."""
    arrays = {name: array for name, array in weights.items() if not name.endswith(GPT2_FAMILY.redundant)}
    n_layer = 1 + max((int(name.split(".")[1]) for name in arrays if name.startswith("h.")), default=0)
    return build_tree(arrays, GPT2_NAMES, layers=n_layer, where=where)


def group_names(weights: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Group arrays by the first part of their names."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest.removeprefix("transformer.")] = np.asarray(value)
    return groups


def head_from_original(weights: Mapping[str, np.ndarray], *, name: str) -> dict:
    """Build one head's parameters, plain (two linear layers) or advanced (three, and two layer norms)."""
    parts = infer_parts({key.removesuffix(".weight"): w.shape for key, w in weights.items() if key.endswith(".weight")})
    expected = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    if not parts or set(weights) != expected:
        shapes = {key: np.shape(value) for key, value in weights.items()}
        wanted = "weight and bias of two linear layers (plain), or of three and two layer norms (advanced)"
        raise UserError(f"Head {name!r} holds {shapes}. Expected {wanted}.")
    tree: dict[str, dict[str, np.ndarray]] = {}
    for part, ours in parts.items():
        weight, bias = (np.asarray(weights[f"{part}.{kind}"], np.float32) for kind in ("weight", "bias"))
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
    """Read a state dict that the original saved (`model.pkl`, `model_converted.pkl`); nothing in it is executed.

    `n_head` is attention heads, which weights do not tell; 0 takes heads of 64 entries, as every GPT-2 has. What is no
    state dict of the original's, or not all of a model, is a `UserError`.
    """
    weights = read_state_dict(Path(path))
    groups = group_names(weights)
    if "wte.weight" not in groups.get("model", {}):
        raise UserError(
            f"{path} is not a checkpoint of the original: model.wte.weight is missing. It begins with "
            f"{', '.join(sorted(weights)[:4])}. Give the model.pkl or model_converted.pkl that the original saved."
        )
    params, target = params_from_original(weights, where=str(path))
    check_groups(groups, where=str(path))
    trunk = params["trunk"] if "v" in params else params["policy"]
    (vocab_size, width), inner = trunk["wte"].shape, trunk["h"]["mlp"]["c_fc"]["bias"].shape[1]
    if not n_head and width % 64:
        raise UserError(f"{path} has width {width}, not a multiple of 64: say how many heads with --n_head.")
    sizes = GPT2Config(
        vocab_size=vocab_size,
        n_positions=len(trunk["wpe"]),
        n_embd=width,
        n_layer=len(trunk["h"]["ln_1"]["scale"]),
        n_head=n_head or width // 64,
        n_inner=0 if inner == 4 * width else inner,
    )
    if "v" not in params:
        return Networks(ValueLM(GPT2(sizes), ValueLMConfig()), params, {})
    heads = ValueLMConfig(
        double_q="q2" in params,
        separate_policy="policy" in params,
        separate_target="trunk" in target,
        advanced_mlp="ff1" in params["v"],
        level="utterance" if params["q1"]["dense_out"]["bias"].shape == (1,) else "token",
    )
    model = ValueLM(GPT2(sizes), heads)
    check_networks(model, params, target, where=str(path))
    return Networks(model, params, target)


def check_groups(groups: Mapping[str, Mapping[str, np.ndarray]], *, where: str) -> None:
    """Refuse output layers that are not tied to their embeddings, and a critic without one of V, Q and target Q."""
    policy = "lm_policy" if "lm_policy" in groups else "model"
    for group, arrays in groups.items():
        trunk = groups.get(policy if group == "pi" else group, {})
        for name, value in arrays.items():
            is_output = group == "pi" or (group in TRUNKS and name.endswith("lm_head.weight"))
            if is_output and not np.array_equal(value, trunk["wte.weight"]):
                raise UserError(
                    f"{where}: {group}.{name} differs from the token embeddings, and only tied heads are supported. "
                    "Choose a checkpoint whose output layer is tied."
                )
    heads = sorted(groups.keys() & HEADS.keys())
    if heads and (missing := [name for name in ("v", "q", "target_q") if name not in groups]):
        raise UserError(
            f"{where} holds the heads {', '.join(heads)} of a critic, but not {', '.join(missing)}. Save the whole "
            "model's state_dict(), or no head at all for the language model alone."
        )


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
        raise UserError(f"{path} holds {', '.join(wrong[:9])}, which are not tensors. Save model.state_dict() alone.")
    return {str(name).removeprefix("module."): value.float().numpy() for name, value in loaded.items()}
