"""Data points, the collated batch, what the networks put out, and scores for decoding."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.sampling import advantage_term, filter_logits
from ilqljax.models.value_lm import compute_logits, policy_trunk
from ilqljax.parity.cases import MOVES, Case
from ilqljax.parity.comparison import Comparison, compare_texts, relative_error
from ilqljax.parity.options import translate_acting
from ilqljax.parity.training import CAST
from ilqljax.steps import (
    ILQLConfig,
    compute_critic,
    select_transitions,
    token_weights,
    weigh_actions,
)
from ilqljax.types import Array, Batch

DATAPOINT_FIELDS = ("tokens", *MOVES, *(f"utterance_{name}" for name in MOVES))


def compare_data(case: Case) -> Iterator[Comparison]:
    """Compare raw texts, data points and the batch; of the batch only entries that are no padding."""
    if "raw" in case.settings:
        yield compare_texts(case.name, "raw", [point.raw for point in case.datapoints], case.settings["raw"])
    given = case.settings["datapoints"]
    if len(given) != len(case.datapoints):
        yield Comparison(case.name, "datapoints", math.inf, note=f"{len(case.datapoints)} instead of {len(given)} rows")
        return
    for field in sorted({key for row in given for key in row}):
        quantity = f"datapoints/{field}"
        if field not in DATAPOINT_FIELDS:
            yield Comparison(case.name, quantity, None, note="our data points have no field of this name")
            continue
        pairs = zip(case.datapoints, given, strict=True)
        errors = [relative_error(getattr(point, field), row[field]) for point, row in pairs]
        yield Comparison(case.name, quantity, max(errors))
    yield from compare_batch(case)


def compare_batch(case: Case) -> Iterator[Comparison]:
    """Compare the collated batch where it is no padding; the shape only up to what our rows need."""
    batch = case.batch
    tokens = case.arrays["batch/tokens"]
    yield Comparison(case.name, "batch/tokens", relative_error(batch.tokens, tokens))
    yield Comparison(case.name, "batch/attn_mask", relative_error(batch.token_mask, case.arrays["batch/attn_mask"]))
    for prefix, moves in (("", batch.per_token), ("u_", batch.per_utterance)):
        actions = moves.action_mask
        states = np.pad(actions, ((0, 0), (1, 0)), constant_values=True)
        masks = {"state_idxs": states, "action_idxs": actions, "rewards": actions, "terminals": states}
        for field, mask in masks.items():
            key = f"batch/{prefix}{field}"
            theirs = case.arrays[key][:, : mask.shape[1]]
            cast = prefix and field == "rewards" and np.issubdtype(theirs.dtype, np.integer)
            error = relative_error(getattr(moves, field), theirs, mask=mask)
            yield Comparison(case.name, key, error, note=CAST if cast else "")


def compare_outputs(case: Case) -> Iterator[Comparison]:
    """Compare the policy's logits at all tokens, and values and weights at valid actions."""
    logits, _, hidden = compute_outputs(case)
    mask = case.batch.token_mask
    yield Comparison(case.name, "out/logits", relative_error(logits, case.arrays["out/logits"], mask=mask))
    if case.is_bc:
        return
    config = ILQLConfig(**case.options)
    moves = select_transitions(case.model, case.batch)
    # The original's next values ignore terminal flags, which its loss applies.
    open_moves = moves._replace(terminals=np.zeros_like(moves.terminals))
    level = "per_token" if case.model.config.level == "token" else "per_utterance"
    open_batch = case.batch._replace(**{level: open_moves})
    critic = compute_critic(case.model, config, case.params, case.target, open_batch, hidden)
    values = {"vs": critic.v_t, "vns": critic.v_next, "target_qs": critic.target_q_t}
    values |= dict(zip(case.model.q_names, critic.q_t, strict=True))
    for name, value in values.items():
        key = f"out/{name}"
        theirs = case.arrays[key][:, : value.shape[1]]
        yield Comparison(case.name, key, relative_error(value, theirs, mask=moves.action_mask))
    action_weights = weigh_actions(case.model, config, case.batch, critic)
    weights = token_weights(case.batch, action_weights, transition_weight=config.transition_weight)
    if config.clip_weight:
        weights = np.minimum(weights, config.clip_weight)
    yield Comparison(case.name, "out/weights", relative_error(weights, case.arrays["out/weights"], mask=mask))


def compare_scores(case: Case) -> Iterator[Comparison]:
    """Compare log-weights at all tokens: the filtered policy's log-probabilities, plus the advantage at actions.

    Filters act on the policy first. The target Q is clipped to `value_min` and `value_max` as in training.
    """
    settings: Mapping[str, Any] = case.find("scores") or {}
    given = {key.removeprefix("score/") for key in case.arrays if key.startswith("score/")}
    outputs = compute_outputs(case)[:2] if given else None
    for name in sorted(given | set(settings)):
        key = f"score/{name}"
        if name not in given:
            yield Comparison(case.name, key, None, note="the case's file has no such array")
            continue
        if name not in settings:
            yield Comparison(case.name, key, None, note="cases.json does not say how it was made")
            continue
        config, reason = translate_acting(settings[name], beta=1.0)
        if config is None or outputs is None:
            yield Comparison(case.name, key, None, note=reason)
            continue
        scores = score_tokens(case.batch, *outputs, config=config)
        yield Comparison(case.name, key, relative_error(scores, case.arrays[key], mask=case.batch.token_mask))


def score_tokens(
    batch: Batch, logits: Float[Array, "B T V"], advantages: Float[Array, "B T V"] | None, *, config: DecodeConfig
) -> Float[Array, "B T V"]:
    """Compute log-weights of every token at every position; the advantage counts at action positions only."""
    scores = filter_logits(logits, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
    if advantages is None:
        return scores
    term = advantage_term(advantages, beta=config.beta, clip=config.clip, exponential=config.exp_weights)
    return scores + jnp.where(mark_actions(batch)[..., None], term, 0.0)


def mark_actions(batch: Batch) -> Bool[np.ndarray, "B T"]:
    """Mark the tokens' positions that are actions."""
    marked = np.zeros(batch.tokens.shape, bool)
    rows, columns = np.nonzero(batch.per_token.action_mask)
    marked[rows, batch.per_token.action_idxs[rows, columns]] = True
    return marked


def compute_outputs(case: Case) -> tuple[Array, Array | None, Any]:
    """Compute the policy's logits, a token critic's advantages of all actions (else None), and hidden states."""

    def compute(params: dict, target: dict, tokens: Array) -> tuple:
        if case.is_bc:
            return compute_logits(params["policy"], case.model.run_trunk(params["policy"], tokens).hidden), None, None
        hidden = case.model.compute_hidden(params, target, tokens, policy=True)
        logits = compute_logits(policy_trunk(params), hidden.policy)
        if case.model.config.level == "utterance":
            return logits, None, hidden
        q = case.model.compute_target_q_all(target, hidden.target)
        q = jnp.clip(q, case.options["value_min"], case.options["value_max"])
        return logits, q - case.model.compute_v(params, hidden.value)[..., None], hidden

    return jax.jit(compute)(case.params, case.target, case.batch.tokens)
