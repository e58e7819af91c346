"""Losses of a policy's likelihood: cloning, preferences, and the weighted cross entropy that cloning shares with ILQL.

Filtered cloning and the decision transformer are cloning too: they differ in the rows and prompts that they are given
(`ilqljax.data.transforms`), not in the loss.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import Array, Batch, Counts, LossFn, Transitions
from ilqljax.errors import check_range
from ilqljax.models.backbone import output_embedding
from ilqljax.models.chunks import Scores, gather_kernel, keep_scores, reduce_scores, scan_vocabulary
from ilqljax.models.cpu import products as on_cpu
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.value_lm import ValueLM, get_trunk, policy_trunk
from ilqljax.rl import losses


@dataclass(frozen=True)
class BCConfig:
    """Behavioural cloning: cross entropy at actions.

    Attributes:
        transition_weight: of the cross entropy at other tokens.
    """

    transition_weight: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "transition_weight")


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
        check_range(self, "(0, 1]", "top_fraction")
        check_range(self, "[-inf, inf]", "min_return")


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
        check_range(self, "[2, 26]", "n_labels")
        check_range(self, "[0, 1]", "target_quantile")


@dataclass(frozen=True)
class DPOConfig:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): a policy from pairs of answers.

    Which pairs there are (`data.transforms.PreferencePairs`), and how far the policy may leave the reference.

    Attributes:
        beta: weight of the divergence from the reference that the implied reward has.
        min_gap: least difference of the returns of a pair, in the task's unit.
        pairs_per_prompt: most pairs of one prompt; 0 takes all.
        seed: of the choice of pairs.
    """

    beta: float = 0.1
    min_gap: float = 0.0
    pairs_per_prompt: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "(0, inf)", "beta")
        check_range(self, "[0, inf)", "min_gap", "pairs_per_prompt", "seed")


def make_bc_loss(model: ValueLM, config: BCConfig) -> LossFn:
    """Make the behavioural-cloning loss of the policy."""

    def loss(params: dict, target: dict, batch: Batch, counts: Counts, dropout_key: Array | None) -> tuple[Array, dict]:
        trunk = policy_trunk(params)
        hidden = model.run_trunk(trunk, batch.tokens, dropout_key=dropout_key).hidden
        weights = jnp.ones(batch.per_token.action_idxs.shape)
        value = policy_loss(trunk, hidden, batch, counts, weights, transition_weight=config.transition_weight)
        return value, {"loss": value}

    return loss


def make_dpo_loss(model: ValueLM, config: DPOConfig) -> LossFn:
    """Make the DPO loss of batches whose rows 2 i and 2 i + 1 are the better and the worse answer to one prompt.

    `params` holds the policy and the frozen `reference`. The loss is a mean over pairs; `accuracy` is the share of
    pairs that the policy has moved the right way from the reference, `margin` by how many nats.
    """

    def loss(params: dict, target: dict, batch: Batch, counts: Counts, dropout_key: Array | None) -> tuple[Array, dict]:
        policy = sum_log_probability(model, policy_trunk(params), batch, dropout_key=dropout_key)
        reference = sum_log_probability(model, jax.lax.stop_gradient(get_trunk(params, "reference")), batch)
        chosen, rejected = (policy - reference).reshape(-1, 2).T
        is_pair = batch.token_mask[::2, 0]

        def reduce(values: Float[Array, " pairs"]) -> Float[Array, ""]:
            return losses.masked_mean(values, is_pair, count=counts.rows / 2)

        value = reduce(losses.dpo_loss(chosen, rejected, beta=config.beta))
        accuracy = reduce((chosen > rejected).astype(jnp.float32))
        return value, {"loss": value, "accuracy": accuracy, "margin": reduce(chosen - rejected)}

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
    """Compute -log softmax(logits)[target] with the language-model head; logits exist for a chunk of rows only."""
    features, ids = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    head, last_rows = output_embedding(trunk)
    if last_rows is None:
        scores = score_rows(features, head, None, ids, axis=1)
    else:  # the frozen rows apart, whose gradient nobody asks for
        n_kept = len(head) - len(last_rows)
        frozen = score_rows(features, head[:n_kept], None, jnp.minimum(ids, n_kept - 1), axis=1)
        own = score_rows(features, last_rows, None, jnp.maximum(ids - n_kept, 0), axis=1)
        taken = jnp.where(ids < n_kept, frozen.taken, own.taken)
        scores = Scores(taken, jnp.logaddexp(frozen.log_normalizer, own.log_normalizer))
    return (scores.log_normalizer - scores.taken).reshape(targets.shape)


def score_rows(
    features: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    bias: Float[Array, " V"] | None,
    ids: Int[Array, " N"],
    *,
    axis: int = 0,
    temperature: float = 1.0,
) -> Scores:
    """Compute scores = features @ kernel + bias, and of each row what `Scores` holds; sums are float32.

    The kernel is rounded to the features' dtype for the products, its gradient stays in its own; `axis` of it is
    contracted, 1 for a language model's embedding as it lies. `ids` are the taken entries, and `temperature` divides
    the scores of the normalizer. Scores exist for as many rows at a time as `ilqljax.models.chunks.MAX_LOGITS` allows.
    """
    if bias is None:
        bias = jnp.zeros(kernel.shape[1 - axis], jnp.float32)

    with jax.named_scope("vocabulary"):
        if use_cpu_tricks():
            return on_cpu.score_rows(features, kernel, bias, ids, axis, temperature)
        rounded = gather_kernel(jax.lax.stop_gradient(kernel).astype(features.dtype), axis)

        def score(x: Array, i: Array) -> Scores:
            scores = keep_scores(_multiply(axis, x, kernel, rounded) + bias[None])
            return reduce_scores(scores, i, temperature=temperature)

        return scan_vocabulary(score, features, ids, vocab_size=len(bias))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(
    axis: int,
    x: Float[Array, "N F"],
    kernel: Float[Array, "F V"] | Float[Array, "V F"],
    rounded: Float[Array, "F V"] | Float[Array, "V F"],
) -> Float[Array, "N V"]:
    """Multiply by a kernel, given in the dtype of `x` too, whose `axis` is contracted; sums are float32.

    The gradient's products are of that dtype as well (JAX's own would multiply float32 by float32, several times as
    slowly on an accelerator); it goes to the kernel itself.
    """
    return _contract(x, rounded, axis)


def _contract(x: Array, kernel: Array, axis: int) -> Array:
    return jax.lax.dot_general(x, kernel, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def _multiply_forward(axis: int, x: Array, kernel: Array, rounded: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _contract(x, rounded, axis), (x, kernel, rounded)


def _multiply_backward(
    axis: int, residuals: tuple[Array, Array, Array], d_scores: Float[Array, "N V"]
) -> tuple[Array, Array, Array]:
    x, kernel, rounded = residuals
    d_scores = d_scores.astype(x.dtype)
    left, right = (x, d_scores) if axis == 0 else (d_scores, x)
    d_kernel = jnp.matmul(left.T, right, preferred_element_type=jnp.float32).astype(kernel.dtype)
    return _contract(d_scores, rounded, 1 - axis).astype(x.dtype), d_kernel, jnp.zeros_like(rounded)


_multiply.defvjp(_multiply_forward, _multiply_backward)


def sum_log_probability(
    model: ValueLM, trunk: dict, batch: Batch, *, dropout_key: Array | None = None
) -> Float[Array, " B"]:
    """Sum the log-probabilities of each row's action tokens under one language model."""
    moves = batch.per_token
    hidden = model.run_trunk(trunk, batch.tokens, dropout_key=dropout_key).hidden
    acted = losses.gather_positions(hidden, moves.action_idxs)
    nll = token_cross_entropy(trunk, acted, taken_tokens(batch.tokens, moves))
    return -jnp.where(moves.action_mask, nll, 0.0).sum(-1)


def taken_tokens(tokens: Int[Array, "B T"], moves: Transitions) -> Int[Array, "B A"]:
    """Return the token that each action position predicts: the one after it."""
    return jnp.take_along_axis(tokens, moves.action_idxs + 1, axis=1, mode="clip")
