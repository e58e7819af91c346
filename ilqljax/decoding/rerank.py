"""Judge whole utterances with an utterance critic, so that the best of several samples can be chosen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.models.value_lm import ValueLM
from ilqljax.types import UNCLIPPED, Array


def make_utterance_scores(
    model: ValueLM, *, value_range: tuple[float, float] = UNCLIPPED
) -> Callable[[dict, dict, Array, Array, Array], tuple[Array, Array]]:
    """Make the compiled `score(params, target, tokens [N T], starts [N], ends [N]) -> (advantages [N], values [N])`.

    An utterance's value is min target Q where it ends, clipped to `value_range`, its advantage that minus V where it
    starts, as the critic was trained (`ilqljax.data.datapoint.DataPoint`):

    | position    | 0     | 1 | 2      | 3 | 4      |
    |-------------|-------|---|--------|---|--------|
    | token       | `<s>` | q | `</s>` | a | `</a>` |
    | is read     |       |   | V: `starts` |  | Q: `ends` |
    """

    def score(params: dict, target: dict, tokens: Array, starts: Int[Array, "N"], ends: Int[Array, "N"]):
        hidden = model.compute_hidden(params, target, tokens, policy=False)
        v = model.compute_v(params, take_position(hidden.value, starts))
        q = model.compute_target_q(target, take_position(hidden.target, ends), None)
        q = jnp.clip(q, *value_range)
        return q - v, q

    return jax.jit(score)


def take_position(values: Float[Array, "N T D"], positions: Int[Array, "N"]) -> Float[Array, "N D"]:
    """Pick each row's hidden state at one position."""
    return jnp.take_along_axis(values, positions[:, None, None], axis=1, mode="clip")[:, 0]
