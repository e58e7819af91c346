"""The training state, its sharded creation, and the slow copies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int

from ilqljax.types import Array


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
