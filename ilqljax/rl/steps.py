"""The training state, and the one step that runs any algorithm: gradient, optimizer update and target update.

An algorithm adds a loss function (`ilqljax.data.types.LossFn`) and nothing else; `ilqljax.rl.objectives` holds them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array, Batch, Counts, LossFn
from ilqljax.errors import check_range
from ilqljax.rl.optim import global_norm


@dataclass(frozen=True)
class TargetConfig:
    """How targets follow the online networks.

    Attributes:
        polyak: share of the way that they go after every step (tau of Lillicrap et al. 2016, arXiv 1509.02971).
        hard_update_every: steps between copies of the whole; 0 copies never.

    Raises:
        UserError: a number is none or out of its range.
    """

    polyak: float = 0.005
    hard_update_every: int = 0

    def __post_init__(self) -> None:
        check_range(self, "[0, 1]", "polyak")
        check_range(self, "[0, inf)", "hard_update_every")


class TrainState(NamedTuple):
    """All that a step reads and writes, and all that a checkpoint must hold.

    `params` are trained, `frozen` are read only (a policy whose loss weight is 0), `target` are slow copies. The key
    never changes: a step's randomness is `fold_in(key, step)`, so a resumed run draws the same numbers.
    """

    step: Int[Array, ""]
    params: dict
    frozen: dict
    target: dict
    opt_state: optax.OptState
    key: Array


def init_state(
    params: dict, *, target: dict, frozen: dict, optimizer: optax.GradientTransformation, key: Array
) -> TrainState:
    """Create a state at step 0. Arrays given are copied, so that donating the state never eats another's buffers."""
    params, frozen, target = jax.tree.map(jnp.array, (params, frozen, target))
    return TrainState(jnp.zeros((), jnp.int32), params, frozen, target, optimizer.init(params), jax.random.clone(key))


def are_finite(params: dict) -> Bool[Array, ""]:
    """Return whether no parameter is NaN or infinite."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]).all()


def update_target(target: dict, params: dict, *, polyak: Float[Array, ""] | float) -> dict:
    """Move each target parameter towards its online twin: (1 - polyak) target + polyak params.

    Only keys that `target` has are moved; polyak 1 is a hard update.
    """
    online = {name: params[name] for name in target}

    def move(slow: Array, fast: Array) -> Array:
        # A hard update is a copy to the last bit, which slow + (fast - slow) is not.
        return jnp.where(polyak == 1.0, fast, slow + polyak * (fast - slow))

    return jax.tree.map(move, target, online)


def count_batch(batch: Batch) -> Counts:
    """Count what a batch's means divide by: actions, target tokens (all but each row's first), utterances, rows."""
    acted, spoken = batch.per_token.action_mask, batch.per_utterance.action_mask
    masks = (acted, batch.token_mask[:, 1:], spoken, batch.token_mask[:, 0])
    return Counts(*(mask.sum().astype(jnp.float32) for mask in masks))


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    target: TargetConfig,
    accumulate_steps: int = 1,
    group_size: int = 1,
    dropout: bool = False,
    unreached: tuple[tuple[str, ...], ...] = (),
    counts: Counts | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Make the train step: gradient, optimizer, targets. Pure; the caller jits it with donation and shardings.

    Args:
        loss_fn: an algorithm's loss.
        optimizer: applied to `state.params`.
        target: how the targets follow.
        accumulate_steps: microbatches per step; losses and gradients equal those of the whole batch.
        group_size: rows that a microbatch may not tear apart (`ListRLDataset.group_size`).
        dropout: whether to draw dropout keys.
        unreached: paths of parameters that no loss term reads, which weight decay must leave alone too.
        counts: what the losses' means divide by, equal for all batches, where rows of like length share a batch; None
            divides by what each batch holds.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        held = count_batch(batch)
        step_key = jax.random.fold_in(state.key, state.step)

        def microbatch_gradients(batch, index):
            key = jax.random.fold_in(step_key, index) if dropout else None

            def objective(params):
                return loss_fn({**params, **state.frozen}, state.target, batch, counts or held, key)

            (_, metrics), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
            return gradients, metrics

        if accumulate_steps == 1:
            gradients, metrics = microbatch_gradients(batch, 0)
        else:
            gradients, metrics = sum_microbatches(microbatch_gradients, batch, accumulate_steps, group_size=group_size)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            updates = zero_paths(updates, unreached)
            params = optax.apply_updates(state.params, updates)
        polyak = target.polyak
        if target.hard_update_every:
            polyak = ((state.step + 1) % target.hard_update_every == 0).astype(jnp.float32)
        with jax.named_scope("targets"):
            slow = update_target(state.target, {**params, **state.frozen}, polyak=polyak)
        with jax.named_scope("optimizer"):
            norm = global_norm(gradients)
        metrics |= {"grad_norm": norm, "actions": held.actions, "tokens": held.tokens}
        return TrainState(state.step + 1, params, state.frozen, slow, opt_state, state.key), metrics

    return step


def make_eval_step(loss_fn: LossFn) -> Callable[[TrainState, Batch, Counts], dict]:
    """Make the evaluation step: a batch's share of the metrics of everything that `counts` counts; no dropout."""

    def step(state: TrainState, batch: Batch, counts: Counts) -> dict:
        return loss_fn({**state.params, **state.frozen}, state.target, batch, counts, None)[1]

    return step


def sum_microbatches(
    function: Callable[[Batch, Int[Array, ""]], tuple], batch: Batch, n: int, *, group_size: int = 1
) -> tuple:
    """Sum a function's outputs over `n` microbatches; groups are dealt out in turn, so each device keeps its own rows.

    | rows, n=2, group_size=1 | 0 2 4 6 and 1 3 5 7 |
    |-------------------------|---------------------|
    | rows, n=2, group_size=2 | 0 1 4 5 and 2 3 6 7 |
    """

    def deal(x: Array) -> Array:
        groups = jnp.moveaxis(x.reshape(-1, n, group_size, *x.shape[1:]), 1, 0)
        return groups.reshape(n, -1, *x.shape[1:])

    split = jax.tree.map(deal, batch)
    first = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split), 0)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def accumulate(total, xs):
        index, microbatch = xs
        return jax.tree.map(jnp.add, total, function(microbatch, index)), None

    total, _ = jax.lax.scan(accumulate, zero, (jnp.arange(n), split))
    return total


def zero_paths(tree: dict, paths: tuple[tuple[str, ...], ...]) -> dict:
    """Replace the subtrees at `paths` by zeros."""
    for path in paths:
        head, *rest = path
        inner = zero_paths(tree[head], (tuple(rest),)) if rest else jax.tree.map(jnp.zeros_like, tree[head])
        tree = {**tree, head: inner}
    return tree
