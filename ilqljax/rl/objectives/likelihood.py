"""Losses of a policy's likelihood: behavioural cloning, and the weighted cross entropy that it shares with ILQL.

Filtered cloning and the decision transformer are cloning too: they differ in the rows and prompts that they are given
(`ilqljax.data.transforms`), not in the loss.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM, policy_trunk
from ilqljax.rl import losses, vocabulary
from ilqljax.types import Array, Batch, Counts, LossFn, Transitions


@dataclass(frozen=True)
class BCConfig:
    """Behavioural cloning: cross entropy at actions, and `transition_weight` times it at other tokens."""

    transition_weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.transition_weight >= 0.0:
            raise UserError(f"transition_weight={self.transition_weight} is negative or not a number. Use 0 or more.")


@dataclass(frozen=True)
class FilteredBCConfig(BCConfig):
    """Cloning of the best rows only ("%BC" of Chen et al. 2021, arXiv 2106.01345).

    Attributes:
        top_fraction: share of the training rows that is kept, by return.
        min_return: least return of a row that is kept, in the task's unit; -inf is off.
    """

    top_fraction: float = 0.25
    min_return: float = -float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.top_fraction <= 1.0:
            raise UserError(f"top_fraction={self.top_fraction} is not in (0, 1]. Use 0.25 to clone the best quarter.")
        if math.isnan(self.min_return):
            raise UserError("min_return=nan is not a number. Use -inf to keep rows of any return.")


@dataclass(frozen=True)
class DecisionTransformerConfig(BCConfig):
    """Cloning conditioned on the return (Chen et al. 2021, arXiv 2106.01345), which acting asks to be high.

    Attributes:
        n_labels: ranges that returns to go are cut into; each has a letter.
        target_quantile: of the training returns, the one that acting asks for; 1 is the best.
        prefix: text before the letter.
    """

    n_labels: int = 8
    target_quantile: float = 1.0
    prefix: str = "\nReturn: "

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.n_labels <= 26 or not 0.0 <= self.target_quantile <= 1.0:
            raise UserError(
                f"n_labels={self.n_labels} and target_quantile={self.target_quantile}: use 2 to 26 labels (there is a "
                "letter for each) and a quantile from 0 to 1."
            )


def make_bc_loss(model: ValueLM, config: BCConfig) -> LossFn:
    """Make the behavioural-cloning loss of the policy."""

    def loss(params, target, batch, counts, dropout_key):
        trunk = policy_trunk(params)
        hidden = model.run_trunk(trunk, batch.tokens, dropout_key=dropout_key).hidden
        weights = jnp.ones(batch.per_token.action_idxs.shape)
        value = policy_loss(trunk, hidden, batch, counts, weights, transition_weight=config.transition_weight)
        return value, {"loss": value}

    return loss


def policy_loss(
    trunk: dict,
    hidden: Float[Array, "B T D"],
    batch: Batch,
    counts: Counts,
    action_weights: Float[Array, "B A"],
    *,
    transition_weight: float,
    clip: float = 0.0,
) -> Float[Array, ""]:
    """Sum the weighted cross entropies of a row's tokens and divide by all non-padding target tokens of the batch.

    With `transition_weight` 0 only action positions reach the vocabulary-size layer.
    """
    moves = batch.per_token
    if transition_weight:
        weights = token_weights(batch, action_weights, transition_weight=transition_weight)[:, :-1]
        hidden, targets, mask = hidden[:, :-1], batch.tokens[:, 1:], batch.token_mask[:, 1:]
    else:
        weights, mask = action_weights, moves.action_mask
        hidden, targets = losses.gather_positions(hidden, moves.action_idxs), taken_tokens(batch.tokens, moves)
    if clip:
        weights = jnp.minimum(weights, clip)
    # Padding's weights mean nothing; an infinite one would make the gradient NaN, whatever is selected afterwards.
    weights = jnp.where(mask, weights, 0.0)
    nll = token_cross_entropy(trunk, hidden, targets)
    return losses.masked_mean(weights * nll, mask, count=counts.tokens)


def token_weights(
    batch: Batch, action_weights: Float[Array, "B A"], *, transition_weight: float
) -> Float[Array, "B T"]:
    """Spread action weights to token positions; positions that are no actions get `transition_weight`."""
    moves = batch.per_token
    rows = jnp.arange(batch.tokens.shape[0])[:, None]
    # Padding actions point past the row's end, where `drop` discards them.
    idxs = jnp.where(moves.action_mask, moves.action_idxs, batch.tokens.shape[1])
    return jnp.full(batch.tokens.shape, transition_weight).at[rows, idxs].set(action_weights, mode="drop")


def token_cross_entropy(trunk: dict, hidden: Float[Array, "B A D"], targets: Int[Array, "B A"]) -> Float[Array, "B A"]:
    """Compute -log softmax(logits)[target] with the tied head; logits exist for a chunk of rows only."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    scores = vocabulary.score_rows(rows, trunk["wte"], None, targets.reshape(-1), axis=1)
    return (scores.log_normalizer - scores.taken).reshape(targets.shape)


def sum_log_probability(
    model: ValueLM, trunk: dict, batch: Batch, *, dropout_key: Array | None = None
) -> Float[Array, "B"]:
    """Sum the log-probabilities of each row's action tokens under one language model."""
    moves = batch.per_token
    hidden = model.run_trunk(trunk, batch.tokens, dropout_key=dropout_key).hidden
    acted = losses.gather_positions(hidden, moves.action_idxs)
    nll = token_cross_entropy(trunk, acted, taken_tokens(batch.tokens, moves))
    return -jnp.where(moves.action_mask, nll, 0.0).sum(-1)


def taken_tokens(tokens: Int[Array, "B T"], moves: Transitions) -> Int[Array, "B A"]:
    """Return the token that each action position predicts: the one after it."""
    return jnp.take_along_axis(tokens, moves.action_idxs + 1, axis=1, mode="clip")
