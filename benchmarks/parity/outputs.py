"""Data points, the collated batch, what the networks put out, and scores for decoding."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from benchmarks.parity.cases import MOVES, Case
from benchmarks.parity.comparison import Comparison, compare_texts, relative_error
from benchmarks.parity.options import translate_acting
from benchmarks.parity.training import CAST
from ilqljax.data.types import Array, Batch
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import advantage_term, filter_logits
from ilqljax.models.backbone import compute_logits
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.objectives.likelihood import token_weights
from ilqljax.rl.objectives.values import ILQLConfig, compute_critic, select_transitions, weigh_actions

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
            theirs = crop(case.arrays[key], mask.shape[1])
            cast = prefix and field == "rewards" and np.issubdtype(theirs.dtype, np.integer)
            error = relative_error(getattr(moves, field), theirs, mask=mask)
            yield Comparison(case.name, key, error, note=CAST if cast else "")


def compare_outputs(case: Case, outputs: Mapping[str, Array]) -> Iterator[Comparison]:
    """Compare the policy's logits and weights at all tokens, and values at valid actions."""
    tokens, actions = case.batch.token_mask, select_transitions(case.model, case.batch).action_mask
    for name in sorted(set(outputs) - {"advantages"}):
        key = f"out/{name}"
        mask, theirs = tokens, case.arrays[key]
        if name not in ("logits", "weights"):
            mask, theirs = actions, crop(theirs, actions.shape[1])
        yield Comparison(case.name, key, relative_error(outputs[name], theirs, mask=mask))


def crop(values: np.ndarray, width: int) -> np.ndarray:
    """Drop padding columns beyond those of our batch; what is no table of rows is left alone."""
    return values[:, :width] if values.ndim == 2 else values


def compare_scores(case: Case, outputs: Mapping[str, Array]) -> Iterator[Comparison]:
    """Compare log-weights at all tokens: the filtered policy's log-probabilities, plus the advantage at actions.

    Filters act on the policy first. The target Q is clipped to `value_min` and `value_max` as in training.
    """
    settings: Mapping[str, Any] = case.find("scores") or {}
    given = {key.removeprefix("score/") for key in case.arrays if key.startswith("score/")}
    for name in sorted(given | set(settings)):
        key = f"score/{name}"
        if name not in given:
            yield Comparison(case.name, key, None, note="the case's file has no such array")
            continue
        if name not in settings:
            yield Comparison(case.name, key, None, note="cases.json does not say how it was made")
            continue
        config, reason = translate_acting(settings[name], beta=1.0)
        if config is None:
            yield Comparison(case.name, key, None, note=reason)
            continue
        scores = score_tokens(case.batch, outputs["logits"], outputs.get("advantages"), config=config)
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


def compute_outputs(case: Case) -> dict[str, Array]:
    """Compute what a case's networks put out, by the original's names, and a token critic's `advantages` [B T V]."""

    def compute(params: dict, target: dict, batch: Batch) -> dict[str, Array]:
        model = case.model
        if case.is_bc:
            hidden = model.run_trunk(params["policy"], batch.tokens).hidden
            return {"logits": compute_logits(params["policy"], hidden)}
        config = ILQLConfig(**case.options)
        hidden = model.compute_hidden(params, target, batch.tokens, policy=True)
        critic = compute_critic(model, config, params, target, ignore_terminals(batch), hidden)
        weights = weigh_actions(model, config, batch, critic)
        weights = token_weights(batch, weights, transition_weight=config.transition_weight)
        outputs = {
            "logits": compute_logits(policy_trunk(params), hidden.policy),
            "vs": critic.v_t,
            "vns": critic.v_next,
            "target_qs": critic.target_q_t,
            "weights": jnp.minimum(weights, config.clip_weight or jnp.inf),
            **dict(zip(model.q_names, critic.q_t, strict=True)),
        }
        if model.config.level == "token":
            q = jnp.clip(model.compute_target_q_all(target, hidden.target), config.value_min, config.value_max)
            outputs["advantages"] = q - model.compute_v(params, hidden.value)[..., None]
        return outputs

    return jax.jit(compute)(case.params, case.target, case.batch)


def ignore_terminals(batch: Batch) -> Batch:
    """Clear all terminal flags: the original's `vns` ignores them, and only its loss applies them."""
    clear = lambda moves: moves._replace(terminals=jnp.zeros_like(moves.terminals))  # noqa: E731
    return batch._replace(per_token=clear(batch.per_token), per_utterance=clear(batch.per_utterance))
