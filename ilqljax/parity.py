"""Compare ilqljax with numbers of the original PyTorch implementation, case by case.

A folder of cases holds `cases.json` (dialogues and options in the original's spelling) and one `NAME.npz` a case with
initial parameters and what the original computed from them. Everything is rebuilt from dialogues and parameters alone.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ilqljax.algorithms import make_learner
from ilqljax.data.datapoint import ConstantTokenReward, DataPoint, TableTokenReward, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.original_weights import params_from_original
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.optim import OptimConfig, make_optimizer
from ilqljax.state import TrainState, init_state
from ilqljax.steps import ILQLConfig, TargetConfig, count_batch, make_train_step, unreached_paths
from ilqljax.types import Batch

TOLERANCE = 1e-4
TOLERANCE_AFTER_STEPS = 1e-3
# Arrays of dead gradients (a key's bias moves every score of a query alike) hold rounding noise only.
NOISE = 1e-7


class Comparison(NamedTuple):
    """One quantity's largest error, relative to the original array's largest value; nan where nothing was compared."""

    case: str
    quantity: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the numbers agree, or could not be compared for the reason in `note`."""
        return np.isnan(self.error) or self.error <= self.tolerance


class Dialogue(NamedTuple):
    """A dialogue of `cases.json`."""

    sequence: list
    terminal: bool

    def to_sequence(self) -> tuple[list, bool]:
        """Return utterances with rewards, and whether the dialogue is over."""
        return [tuple(item) for item in self.sequence], self.terminal

    def metadata(self) -> dict:
        """Return nothing."""
        return {}


class Case(NamedTuple):
    """A case rebuilt as our objects."""

    name: str
    settings: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    tokenizer: CharacterTokenizer
    datapoints: list[DataPoint]
    batch: Batch
    model: ValueLM
    algorithm: str
    options: dict[str, Any]
    params: dict
    target: dict


def load_cases(folder: str | Path) -> dict[str, Any]:
    """Read `cases.json`."""
    path = Path(folder) / "cases.json"
    if not path.is_file():
        raise UserError(f"{path} is missing. Give a folder with cases.json and one NAME.npz per case.")
    return json.loads(path.read_text(encoding="utf-8"))


def rebuild_case(folder: str | Path, name: str, *, cases: Mapping[str, Any]) -> Case:
    """Rebuild a case's data, model and parameters."""
    settings = cases["cases"][name]
    with np.load(Path(folder) / f"{name}.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    tokenizer = make_tokenizer(cases)
    reward = make_token_reward(settings["token_reward"])
    datapoints = [
        DataPoint.from_observation(
            Dialogue(d["sequence"], d["terminal"]), tokenizer, token_reward=reward, max_length=settings["max_len"] or 0
        )
        for d in settings["dialogues"]
    ]
    batch = collate(
        datapoints,
        length=max(len(d.tokens) for d in datapoints),
        n_actions=max(len(d.action_idxs) for d in datapoints),
        n_utterance_actions=max(len(d.utterance_action_idxs) for d in datapoints),
        pad_id=tokenizer.pad_id,
    )
    algorithm, options, heads = translate_options(settings)
    backbone = GPT2(GPT2Config(vocab_size=settings["vocab"], **settings["gpt2"]))
    params, target = params_from_original(select(arrays, "init/"))
    model = ValueLM(backbone, heads)
    return Case(name, settings, arrays, tokenizer, datapoints, batch, model, algorithm, options, params, target)


def make_tokenizer(cases: Mapping[str, Any]) -> CharacterTokenizer:
    """Make the character tokenizer whose ids the cases use."""
    return CharacterTokenizer("".join(cases["charset"]), unk=True, special_tokens=tuple(cases["special"]))


def make_token_reward(value: Any) -> ConstantTokenReward | TableTokenReward:
    """Make a token reward from a number, or from a table with scale and shift."""
    if isinstance(value, (int, float)):
        return ConstantTokenReward(float(value))
    if isinstance(value, Mapping) and "table" in value:
        table = np.asarray(value["table"], np.float32)
        return TableTokenReward(table, float(value.get("scale", 1.0)), shift=float(value.get("shift", 0.0)))
    raise UserError(f"token_reward={value!r} is neither a number nor an object with 'table', 'scale' and 'shift'.")


def translate_options(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], ValueLMConfig]:
    """Translate a case's options to an algorithm, its options and the heads of its model."""
    m, weights = settings["model"], settings["loss"]
    if settings["kind"] == "bc":
        return "bc", {"transition_weight": m["transition_weight"]}, ValueLMConfig()
    heads = ValueLMConfig(
        double_q=m["double_q"],
        separate_policy=m["seperate_policy"],
        separate_target=m["seperate_target"],
        advanced_mlp=m["advanced_mlp"],
    )
    options = {
        "v_weight": weights["v_loss_weight"],
        "q_weight": weights["q_loss_weight"],
        "awac_weight": weights["awac_weight"],
        "cql_weight": weights.get("cql_loss_weight", 0.0),
        "dm_weight": weights.get("dm_loss_weight", 0.0),
        "mc_returns": weights.get("mc_returns", False),
        "discount": m["gamma"],
        "expectile": m["tau"],
        "value_min": float("-inf") if m["value_min"] is None else m["value_min"],
        "value_max": float("inf") if m["value_max"] is None else m["value_max"],
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
    return "ilql", options, heads


def compare_training(case: Case, *, optimizer: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare loss terms, gradients, the losses of the first steps and the parameters after them."""
    learner = make_learner(case.algorithm, case.model, case.options)
    params, frozen = dict(case.params), {}
    if "policy" in params and not learner.trains_policy():
        frozen = {"policy": params.pop("policy")}
    adam = make_optimizer(
        OptimConfig(
            lr=optimizer["lr"],
            weight_decay=optimizer["weight_decay"],
            b1=optimizer["b1"],
            b2=optimizer["b2"],
            eps=optimizer["eps"],
        )
    )
    state = init_state(params, target=case.target, frozen=frozen, optimizer=adam, key=jax.random.key(0))
    counts = count_batch(case.batch)

    def objective(params: dict) -> tuple:
        return learner.loss_fn({**params, **state.frozen}, state.target, case.batch, counts, None)

    (total, metrics), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(state.params)
    yield compare(case, "loss/total", total)
    for key in sorted(k for k in case.arrays if k.startswith("loss/") and k != "loss/total"):
        term = key.removeprefix("loss/")
        if term in metrics:
            yield compare(case, key, metrics[term])
        else:
            yield Comparison(case.name, key, np.nan, TOLERANCE, "not computed: its weight is 0")
    expected, _ = params_from_gradients(case, gradients)
    yield from compare_trees(case, "grad", gradients, expected, tolerance=TOLERANCE)
    yield from compare_steps(case, learner, state, adam, optimizer)


def compare_steps(
    case: Case, learner: Any, state: TrainState, adam: Any, optimizer: Mapping[str, Any]
) -> Iterator[Comparison]:
    """Compare the training losses of the first steps, and parameters and targets after them."""
    unreached = ()
    if isinstance(learner.config, ILQLConfig):
        unreached = unreached_paths(case.model, learner.config, state.params)
    target = TargetConfig(polyak=case.settings["model"].get("alpha", 0.0))
    step = jax.jit(make_train_step(learner.loss_fn, adam, target=target, unreached=unreached))
    for i in range(optimizer["steps"]):
        state, metrics = step(state, case.batch)
        yield compare(case, f"train_loss/{i}", metrics["loss"])
    params, slow = params_from_original(select(case.arrays, "after3/"))
    ours = {**state.params, **state.frozen}
    yield from compare_trees(case, "after3", ours, params, tolerance=TOLERANCE_AFTER_STEPS)
    if slow:
        yield from compare_trees(case, "after3/target", state.target, slow, tolerance=TOLERANCE_AFTER_STEPS)


def params_from_gradients(case: Case, gradients: dict) -> tuple[dict, dict]:
    """Build the tree of the original's gradients; parameters it gave none get zeros."""
    given = select(case.arrays, "grad/")
    filled = {k: np.zeros_like(v) for k, v in select(case.arrays, "init/").items() if k.split(".")[0] not in ("pi",)}
    tree, target = params_from_original({**filled, **given})
    return {name: tree[name] for name in gradients}, target


def compare_trees(case: Case, what: str, ours: dict, expected: dict, *, tolerance: float) -> Iterator[Comparison]:
    """Compare two trees and report one row per top-level entry.

    The key part of `c_attn`'s bias is left out after steps: its gradient is zero in exact arithmetic (softmax ignores
    what is added to all scores of a query), and AdamW turns rounding noise of any size into full steps.
    """
    for name in sorted(expected):
        worst = 0.0
        theirs = dict(jax.tree_util.tree_leaves_with_path(expected[name]))
        for path, value in jax.tree_util.tree_leaves_with_path(ours[name]):
            a, b = np.asarray(value, np.float64), np.asarray(theirs[path], np.float64)
            if [getattr(k, "key", None) for k in path][-2:] == ["c_attn", "bias"]:
                third = a.shape[-1] // 3
                a, b = (np.delete(x, np.s_[third : 2 * third], axis=-1) for x in (a, b))
            worst = max(worst, relative_error(a, b))
        yield Comparison(case.name, f"{what}/{name}", worst, tolerance)


def compare(case: Case, key: str, value: Any, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare one array with the original's under `key`."""
    return Comparison(case.name, key, relative_error(np.asarray(value), case.arrays[key]), tolerance)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference over the largest expected value; a wrong shape is infinitely wrong."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    if not theirs.size:
        return 0.0
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), NOISE))


def select(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Pick the arrays under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
