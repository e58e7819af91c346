"""What a critic thinks of each action of given rows: V, Q, advantage, beside the policy's log-probability."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.loader import eval_batches
from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM, policy_trunk
from ilqljax.rl import losses
from ilqljax.rl.objectives.likelihood import taken_tokens, token_cross_entropy
from ilqljax.rl.objectives.values import ILQLConfig, compute_critic, number_utterances, select_transitions
from ilqljax.types import UNCLIPPED, Array, Batch


@dataclass(frozen=True)
class ActionValue:
    """One action as the critic and the policy see it.

    Attributes:
        text: the token, or the utterance of an utterance critic.
        utterance: number of the agent's utterance that it belongs to.
        v: value of the state before it.
        q: its value under each online head.
        target_q: the least of the target heads' values, clipped as in training.
        advantage: target_q - v, which decoding multiplies by beta.
        log_probability: under the policy, natural logarithm; of an utterance, summed.
        reward: what it earned, in the unit that the critic was trained in.
    """

    text: str
    utterance: int
    v: float
    q: tuple[float, ...]
    target_q: float
    advantage: float
    log_probability: float
    reward: float


class BatchValues(NamedTuple):
    """A batch's values at its actions (A: tokens, or utterances); entries where there is no action mean nothing."""

    v: Float[Array, "B A"]
    q: Float[Array, "heads B A"]
    target_q: Float[Array, "B A"]
    log_probability: Float[Array, "B A"]


def make_value_step(model: ValueLM, *, value_range: tuple[float, float]) -> Callable[[dict, dict, Batch], BatchValues]:
    """Make the compiled function `values(params, target, batch) -> BatchValues`."""
    # Without weights on the terms that look over the vocabulary, nothing else of the options matters here.
    config = ILQLConfig(cql_weight=0.0, value_min=value_range[0], value_max=value_range[1])

    def values(params: dict, target: dict, batch: Batch) -> BatchValues:
        hidden = model.compute_hidden(params, target, batch.tokens, policy=True)
        critic = compute_critic(model, config, params, target, batch, hidden)
        moves = batch.per_token
        acted = losses.gather_positions(hidden.policy, moves.action_idxs)
        nll = token_cross_entropy(policy_trunk(params), acted, taken_tokens(batch.tokens, moves))
        log_probability = -jnp.where(moves.action_mask, nll, 0.0)
        if model.config.level == "utterance":
            belongs = jax.nn.one_hot(number_utterances(batch), critic.v_t.shape[1])  # [B A U]
            log_probability = jnp.einsum("ba,bau->bu", log_probability, belongs)
        return BatchValues(critic.v_t, critic.q_t, critic.target_q_t, log_probability)

    return jax.jit(values)


def inspect_rows(
    model: ValueLM,
    dataset: ListRLDataset,
    *,
    params: dict,
    target: dict,
    batch_size: int = 8,
    length_buckets: Sequence[int] = (128, 256, 512, 1024),
    value_range: tuple[float, float] = UNCLIPPED,
) -> list[list[ActionValue]]:
    """Return the values of every action of every row.

    Args:
        model: at the level of its critic's actions.
        dataset: the rows.
        params: online parameters, the policy's included.
        target: target parameters.
        batch_size: rows of a compiled call.
        length_buckets: row lengths to compile for; those above the model's positions are left out.
        value_range: the target Q is clipped to it, as in training.

    Raises:
        UserError: there is no critic, no row, or a row is too long.
    """
    if "v" not in params:
        raise UserError("The policy has no critic to look into: it was cloned. Give a run of ilql or one of its kin.")
    n_positions = model.backbone.config.n_positions
    buckets = (*(length for length in length_buckets if length < n_positions), n_positions)
    step = make_value_step(model, value_range=value_range)
    rows: list[list[ActionValue]] = []
    for batch in eval_batches(dataset, batch_size=batch_size, length_buckets=buckets):
        values = jax.device_get(step(params, target, batch))
        moves = select_transitions(model, batch)
        utterances = np.asarray(number_utterances(batch))
        for row in range(min(batch_size, dataset.size() - len(rows))):
            texts = read_actions(model, dataset.tokenizer, batch, utterances, row)
            rows.append(
                [
                    ActionValue(
                        text=text,
                        utterance=utterance,
                        v=float(values.v[row, i]),
                        q=tuple(map(float, values.q[:, row, i])),
                        target_q=float(values.target_q[row, i]),
                        advantage=float(values.target_q[row, i] - values.v[row, i]),
                        log_probability=float(values.log_probability[row, i]),
                        reward=float(moves.rewards[row, i]),
                    )
                    for i, (text, utterance) in enumerate(texts)
                ]
            )
    return rows


def read_actions(
    model: ValueLM, tokenizer: Any, batch: Batch, utterances: np.ndarray, row: int
) -> list[tuple[str, int]]:
    """Return a row's actions as text, each with the number of its utterance."""
    moves = batch.per_token
    ids = batch.tokens[row, moves.action_idxs[row][moves.action_mask[row]] + 1].tolist()
    numbers = utterances[row, : len(ids)].tolist()
    if model.config.level == "token":
        return [(read_token(tokenizer, token), number) for token, number in zip(ids, numbers, strict=True)]
    said = [[token for token, n in zip(ids, numbers, strict=True) if n == number] for number in sorted(set(numbers))]
    return [(tokenizer.decode(tokens[:-1]), number) for number, tokens in enumerate(said)]


def read_token(tokenizer: Any, token: int) -> str:
    """Return a token as text, an utterance's end as `</a>`."""
    return "</a>" if token == tokenizer.eoa_id else tokenizer.decode([token])
