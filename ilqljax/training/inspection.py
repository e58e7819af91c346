"""Look inside a critic: what it thinks of each action of given texts, and which n-grams it likes most and least."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilqljax.data.datapoint import extend_buckets
from ilqljax.data.dataset import ListRLDataset
from ilqljax.data.loader import eval_batches
from ilqljax.data.pages import render_page
from ilqljax.data.types import UNCLIPPED, Array, Batch
from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM, policy_trunk
from ilqljax.rl import losses
from ilqljax.rl.objectives.likelihood import taken_tokens, token_cross_entropy
from ilqljax.rl.objectives.values import ILQLConfig, compute_critic, number_utterances, select_transitions

COLUMNS = ("token", "advantage", "V", "target Q", "Q", "log p", "reward")
WIDTHS = (9, 9, 9, 19, 9, 9)


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
    q: list[float]
    target_q: float
    advantage: float
    log_probability: float
    reward: float

    def format_numbers(self) -> list[str]:
        """Return the numbers as text, in the order of `COLUMNS`."""
        shown = [(self.advantage,), (self.v,), (self.target_q,), self.q, (self.log_probability,), (self.reward,)]
        return [" / ".join(f"{value:.3f}" for value in values) for values in shown]


def make_value_step(model: ValueLM, *, value_range: tuple[float, float]) -> Callable[[dict, dict, Batch], tuple]:
    """Make the compiled function from networks and a batch to V, Q, target Q and log-probabilities of its actions.

    These are [B A], Q [heads B A]. Actions are tokens, or utterances; entries where there is no action mean nothing.
    """
    # Without weights on the terms that look over the vocabulary, nothing else of the options matters here.
    config = ILQLConfig(cql_weight=0.0, value_min=value_range[0], value_max=value_range[1])

    def values(params: dict, target: dict, batch: Batch) -> tuple[Array, Array, Array, Array]:
        hidden = model.compute_hidden(params, target, batch.tokens, policy=True)
        critic = compute_critic(model, config, params, target, batch, hidden)
        moves = batch.per_token
        acted = losses.gather_positions(hidden.policy, moves.action_idxs)
        nll = token_cross_entropy(policy_trunk(params), acted, taken_tokens(batch.tokens, moves))
        log_probability = -jnp.where(moves.action_mask, nll, 0.0)
        if model.config.level == "utterance":
            belongs = jax.nn.one_hot(number_utterances(batch), critic.v_t.shape[1])  # [B A U]
            log_probability = jnp.einsum("ba,bau->bu", log_probability, belongs)
        return critic.v_t, critic.q_t, critic.target_q_t, log_probability

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
    """Return the values of every action of every row under a model at the level of its critic's actions.

    Rows are padded to `length_buckets`, as far as the model has positions, and computed `batch_size` at a time. The
    target Q is clipped to `value_range`, as in training. Parameters without a critic are a `UserError`.
    """
    if "v" not in params:
        raise UserError("The policy has no critic to look into: it was cloned. Give a run of ilql or one of its kin.")
    n_positions = model.backbone.config.n_positions
    buckets = extend_buckets(length_buckets, n_positions)
    step = make_value_step(model, value_range=value_range)
    rows: list[list[ActionValue]] = []
    for batch in eval_batches(dataset, batch_size=batch_size, length_buckets=buckets):
        v, q, target_q, log_probability = jax.device_get(step(params, target, batch))
        rewards, numbers = select_transitions(model, batch).rewards, np.asarray(number_utterances(batch))
        for row in range(min(batch_size, dataset.size() - len(rows))):
            # In the order of the fields; what is left after the last action is padding.
            columns = (v[row], q[:, row].T, target_q[row], target_q[row] - v[row], log_probability[row], rewards[row])
            values = zip(*(column.tolist() for column in columns), strict=True)
            actions = read_actions(model, dataset.tokenizer, batch, numbers, row)
            rows.append([ActionValue(*action, *found) for action, found in zip(actions, values, strict=False)])
    return rows


def read_actions(
    model: ValueLM, tokenizer: Any, batch: Batch, utterances: np.ndarray, row: int
) -> list[tuple[str, int]]:
    """Return a row's actions as text (an utterance's end is `</a>`), each with the number of its utterance."""
    moves = batch.per_token
    ids = batch.tokens[row, moves.action_idxs[row][moves.action_mask[row]] + 1].tolist()
    taken = list(zip(ids, utterances[row, : len(ids)].tolist(), strict=True))
    if model.config.level == "token":
        return [("</a>" if t == tokenizer.eoa_id else tokenizer.decode([t]), number) for t, number in taken]
    numbers = {number: None for _, number in taken}
    return [(tokenizer.decode([t for t, n in taken if n == number][:-1]), number) for number in numbers]


def format_table(row: Sequence[ActionValue]) -> str:
    """Lay out a row's actions, one a line."""
    lines = [(COLUMNS[1:], COLUMNS[0]), *((a.format_numbers(), repr(a.text)) for a in row)]
    return "\n".join(
        " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)) + f"  {text}"
        for cells, text in lines
    )


def render_heatmap(rows: Sequence[Sequence[ActionValue]], *, titles: Sequence[str]) -> str:
    """Return an HTML page: each text coloured by advantage, its numbers on hover and in a table below it.

    Blue is liked, red disliked; white is 0, and the scale is the same for all texts: its ends are four times the
    median size of an advantage, so that a few extreme tokens (names that training never saw) do not pale the rest.
    Nothing is loaded from outside, and all text is escaped.
    """
    sizes = np.abs([a.advantage for row in rows for a in row])
    limit = max(4.0 * float(np.median(sizes)) if len(sizes) else 0.0, 1e-6)

    def show(action: ActionValue) -> dict[str, Any]:
        strength = min(abs(action.advantage) / limit, 1.0)
        full = (33, 102, 172) if action.advantage > 0 else (178, 24, 43)
        background = [round(255 + (channel - 255) * strength) for channel in full]
        ink = "#fff" if strength > 0.6 else "#111"
        return {"cells": [action.text, *action.format_numbers()], "background": background, "ink": ink}

    texts = [(title, [show(action) for action in row]) for title, row in zip(titles, rows, strict=True)]
    return render_page(__package__, "heatmap.html.j2", texts=texts, columns=COLUMNS, limit=limit)


@dataclass(frozen=True)
class NGram:
    """An n-gram of actions, with what the critic thinks of it on average.

    Attributes:
        texts: its tokens (an utterance critic's n-grams have one entry, the utterance).
        count: how often it occurs.
        advantage: mean over its occurrences of the mean advantage of its tokens.
        error: standard error of that mean; NaN for one occurrence.
    """

    texts: tuple[str, ...]
    count: int
    advantage: float
    error: float


def rank_ngrams(rows: Sequence[Sequence[ActionValue]], *, longest: int = 3, min_count: int = 3) -> list[NGram]:
    """Return the n-grams of 1 to `longest` tokens within an utterance, most liked first; ties go by their text.

    As the original's `TopAdvantageNGrams`; it is a `UserError` if none occurs `min_count` times. Two rows "a b" and
    "a c" with the advantages (1, 3) and (2, 0), longest=2, min_count=1 give

    | n-gram    | b   | a b | a    | a c | c   |
    |-----------|-----|-----|------|-----|-----|
    | advantage | 3   | 2   | 1.5  | 1   | 0   |
    | count     | 1   | 1   | 2    | 1   | 1   |
    """
    if longest < 1 or min_count < 1:
        raise UserError(f"longest={longest} and min_count={min_count}: both must be at least 1.")
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        for n in range(1, longest + 1):
            for start in range(len(row) - n + 1):
                gram = row[start : start + n]
                if gram[0].utterance == gram[-1].utterance:
                    found[tuple(a.text for a in gram)].append(float(np.mean([a.advantage for a in gram])))
    ngrams = []
    for texts, seen in found.items():
        if len(seen) >= min_count:
            error = float(np.std(seen, ddof=1) / np.sqrt(len(seen))) if len(seen) > 1 else float("nan")
            ngrams.append(NGram(texts, len(seen), float(np.mean(seen)), error))
    if not ngrams:
        raise UserError(f"No n-gram occurs {min_count} times in {len(rows)} rows. Lower min_count, or give more rows.")
    return sorted(ngrams, key=lambda gram: (-gram.advantage, gram.texts))


def format_ngrams(ngrams: Sequence[NGram], *, k: int = 20) -> str:
    """Lay out the k most and the k least liked as plain text."""
    lines = []
    for title, chosen in (("most liked", ngrams[:k]), ("least liked", ngrams[::-1][:k])):
        lines.append(f"{title:<12} advantage  +- error  count  n-gram")
        lines += [f"{'':<12} {g.advantage:>9.4f} {g.error:>9.4f} {g.count:>6}  {''.join(g.texts)!r}" for g in chosen]
    return "\n".join(lines)
