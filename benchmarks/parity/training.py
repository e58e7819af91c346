"""Losses, gradients and the first optimizer steps."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.parity.cases import Case
from benchmarks.parity.comparison import TOLERANCE_AFTER_STEPS, Comparison, compare_trees, relative_error, select
from benchmarks.parity.options import translate_optimizer
from benchmarks.parity.original_batch import count_padding
from ilqljax.data.types import LossFn
from ilqljax.models.io.original import params_from_original
from ilqljax.rl.algorithms import Learner, make_learner
from ilqljax.rl.objectives.values import ILQLConfig, select_transitions, unreached_paths
from ilqljax.rl.optim import make_optimizer
from ilqljax.rl.steps import TargetConfig, TrainState, count_batch, init_state, make_train_step

NO_CRITIC = {"v_weight": 0.0, "q_weight": 0.0, "cql_weight": 0.0, "dm_weight": 0.0}
CAST = "utterance rewards cast to integers, as the original does (DOMAIN 2.4); our training uses floats"
PADDING = (
    "one padding transition counted per unfinished padded row, as the original does (DOMAIN 2.3); ours counts none"
)
CUT = "rows cut at their end, as the original does (DOMAIN 2.2); ours cut the prompt"


def compare_training(case: Case, *, optimizer: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare loss terms, gradients, the losses of the first steps and the parameters after them."""
    learner = make_learner(case.algorithm, case.model, case.options)
    loss_fn = make_original_loss(case, case.options)
    params, frozen = dict(case.params), {}
    if "policy" in params and not learner.trains_policy():
        frozen = {"policy": params.pop("policy")}
    adam = make_optimizer(translate_optimizer(optimizer))
    state = init_state(params, target=case.target, frozen=frozen, optimizer=adam, key=jax.random.key(0))
    counts = count_batch(case.batch)

    def objective(params: dict) -> tuple:
        return loss_fn({**params, **state.frozen}, state.target, case.batch, counts, None)

    (total, _), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(state.params)
    yield compare(case, "loss/total", total, note="; ".join(describe_batch(case)))
    yield from compare_terms(case)
    expected, _ = params_from_gradients(case, gradients)
    yield from compare_trees(case.name, "grad", gradients, expected, tolerance=1e-4)
    yield from compare_steps(case, learner, loss_fn, state, optimizer=optimizer)


def compare_terms(case: Case) -> Iterator[Comparison]:
    """Compare each loss term, also those that the total leaves out."""
    options = dict(case.options)
    if case.algorithm == "ilql":
        options |= {name: case.options[name] or 1.0 for name in ("cql_weight", "dm_weight")}
    # Without a weight the original feeds a separate policy's loss zero logits: the term means nothing.
    meaningless = set()
    if not case.is_bc and not case.options["awac_weight"]:
        if "policy" in case.params:
            meaningless.add("token_loss")
        else:
            options["awac_weight"] = 1.0
    loss_fn = make_original_loss(case, options)
    _, metrics = jax.jit(loss_fn)(case.params, case.target, case.batch, count_batch(case.batch), None)
    if case.is_bc:
        metrics["token_loss"] = metrics["loss"]
    for key in sorted(k for k in case.arrays if k.startswith("loss/") and k != "loss/total"):
        term = key.removeprefix("loss/")
        if term in meaningless:
            yield Comparison(case.name, key, None, note="awac_weight is 0: the original fed this term zero logits")
        elif term in metrics:
            yield compare(case, key, metrics[term])
        else:
            yield Comparison(case.name, key, None, note="our loss has no term of this name")


def compare_steps(
    case: Case, learner: Learner, loss_fn: LossFn, state: TrainState, *, optimizer: Mapping[str, Any]
) -> Iterator[Comparison]:
    """Compare the training losses of the first steps, and parameters and targets after them."""
    unreached = ()
    if isinstance(learner.config, ILQLConfig):
        unreached = unreached_paths(case.model, learner.config, state.params)
    moves_target = optimizer.get("polyak_after_each_step", True)
    target = TargetConfig(polyak=case.settings["model"].get("alpha", 0.005) if moves_target else 0.0)
    adam = make_optimizer(translate_optimizer(optimizer))
    step = jax.jit(make_train_step(loss_fn, adam, target=target, unreached=unreached))
    for i in range(optimizer.get("steps", 3)):
        state, metrics = step(state, case.batch)
        yield compare(case, f"train_loss/{i}", metrics["loss"])
    params, slow = params_from_original(select(case.arrays, "after3/"))
    ours = {**state.params, **state.frozen}
    yield from compare_trees(case.name, "after3", ours, params, tolerance=TOLERANCE_AFTER_STEPS)
    if slow:
        yield from compare_trees(case.name, "after3/target", state.target, slow, tolerance=TOLERANCE_AFTER_STEPS)


def make_original_loss(case: Case, options: Mapping[str, Any]) -> LossFn:
    """Make our loss; where the batch has padding that the original counts, critic and policy see different masks."""
    loss_fn = make_learner(case.algorithm, case.model, options).loss_fn
    if not counts_padding(case):
        return loss_fn
    name = "per_token" if case.model.config.level == "token" else "per_utterance"
    padded = case.batch._replace(**{name: count_padding(getattr(case.batch, name))})
    critic = make_learner(case.algorithm, case.model, {**options, "awac_weight": 0.0}).loss_fn
    policy = make_learner(case.algorithm, case.model, {**options, **NO_CRITIC}).loss_fn

    def loss(params, target, batch, counts, dropout_key):
        total, metrics = critic(params, target, padded, count_batch(padded), dropout_key)
        if options["awac_weight"]:
            share, terms = policy(params, target, batch, counts, dropout_key)
            total, metrics = total + share, metrics | {"token_loss": terms["token_loss"], "loss": total + share}
        return total, metrics

    return loss


def counts_padding(case: Case) -> bool:
    """Say whether the original counts a padding transition in this case's batch."""
    if case.is_bc:
        return False
    moves = select_transitions(case.model, case.batch)
    return not np.array_equal(count_padding(moves).action_mask, moves.action_mask)


def describe_batch(case: Case) -> Iterator[str]:
    """Say where the batch is the original's and not what ours would be."""
    longest = max(len(point.tokens) for point in case.datapoints)
    if longest > case.batch.tokens.shape[1]:
        yield CUT
    if not case.is_bc and counts_padding(case):
        yield PADDING
    if case.algorithm == "ilql_utterance" and np.issubdtype(case.arrays["batch/u_rewards"].dtype, np.integer):
        yield CAST


def params_from_gradients(case: Case, gradients: dict) -> tuple[dict, dict]:
    """Build the tree of the original's gradients; parameters it gave none get zeros."""
    given = select(case.arrays, "grad/")
    filled = {k: np.zeros_like(v) for k, v in select(case.arrays, "init/").items() if k.split(".")[0] not in ("pi",)}
    tree, target = params_from_original({**filled, **given})
    return {name: tree[name] for name in gradients}, target


def compare(case: Case, key: str, value: Any, *, note: str = "") -> Comparison:
    """Compare one number with the original's under `key`."""
    return Comparison(case.name, key, relative_error(value, case.arrays[key]), note=note)
