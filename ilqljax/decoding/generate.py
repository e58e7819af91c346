"""Sampling as one compiled program: prefill, then a loop over a static key/value cache, all rows at once.

Cache slots are storage, not positions. With prompts padded to P columns and G new tokens at most, row b uses

| slots                  | hold                                  | seen when                     |
|------------------------|---------------------------------------|-------------------------------|
| 0 .. length[b]-1       | the prompt, at positions 0..length-1  | always                        |
| length[b] .. P-1       | padding                               | never                         |
| P + t                  | new token t, at position length[b]+t  | from step t + 1 on            |

so that every row writes the same slot at the same step, and neither padding nor neighbours change a row's result.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import UNCLIPPED, Array
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import ActingNetworks, make_token_scores, sample_tokens
from ilqljax.models.backbone import CacheSlots, TrunkOutput, take_cache_rows
from ilqljax.models.value_lm import ValueLM


class Samples(NamedTuple):
    """Sampled utterances, n per prompt (N = B n rows, a prompt's samples side by side).

    `lengths` counts tokens up to and including the closing one; later tokens are padding. `log_probability` is that of
    the policy before its filters (renormalised without the suppressed tokens), `advantage` the critic's min Q - V; both
    are summed over the tokens. `value` is min target Q of the last token. The last two are zero where no critic of
    tokens runs.
    """

    tokens: Int[Array, "N G"]
    lengths: Int[Array, " N"]
    log_probability: Float[Array, " N"]
    advantage: Float[Array, " N"]
    value: Float[Array, " N"]


class LoopState(NamedTuple):
    """What a decode loop carries. `hidden` and `caches` are keyed by trunk: policy, value, target."""

    step: Int[Array, ""]
    found: Any
    done: Bool[Array, "..."]
    hidden: dict
    caches: dict


def make_generate(
    model: ValueLM,
    config: DecodeConfig,
    *,
    end_ids: tuple[int, ...],
    pad_id: int,
    suppress_ids: tuple[int, ...] = (),
    value_range: tuple[float, float] = UNCLIPPED,
) -> Callable[[ActingNetworks, Array, Array, Array], Samples]:
    """Make the compiled sampler `generate(networks, tokens [B P], lengths [B], keys [B]) -> Samples`.

    The networks are those of `prepare_for_decoding`, with a critic where `beta` is not 0. A token of `end_ids` closes
    an utterance, and `pad_id` is written after it; those of `suppress_ids`, such as a bare `<s>`, are never sampled.
    The target Q is clipped to `value_range`, as in training.
    """
    critic = config.beta != 0.0
    n = config.n_generations
    ends = jnp.asarray(end_ids, jnp.int32)
    score = make_token_scores(model, config, suppress_ids=suppress_ids, value_range=value_range)

    def generate(networks: ActingNetworks, tokens: Array, lengths: Array, keys: Array) -> Samples:
        row_keys = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n)))(keys).reshape(-1)

        def choose(state: LoopState) -> tuple[Array, LoopState]:
            t, old, live = state.step, state.found, ~state.done
            scores, log_probabilities, advantages, values = score(networks, state.hidden)
            step_keys = jax.vmap(lambda key: jax.random.fold_in(key, t))(row_keys)
            token = sample_tokens(step_keys, scores, greedy=config.temperature == 0)
            token = jnp.where(state.done, pad_id, token).astype(jnp.int32)
            samples = Samples(
                jax.lax.dynamic_update_slice(old.tokens, token[:, None], (0, t)),
                old.lengths + live,
                old.log_probability + jnp.where(live, take_column(log_probabilities, token), 0.0),
                old.advantage + jnp.where(live, take_column(advantages, token), 0.0) if critic else old.advantage,
                jnp.where(live, take_column(values, token), old.value) if critic else old.value,
            )
            return token, state._replace(found=samples, done=state.done | jnp.isin(token, ends))

        n_rows = row_keys.shape[0]
        zeros = jnp.zeros(n_rows)
        empty = Samples(
            jnp.full((n_rows, config.max_new_tokens), pad_id, jnp.int32), jnp.zeros(n_rows, jnp.int32), *[zeros] * 3
        )
        done = jnp.zeros(n_rows, bool)
        return decode(model, networks, tokens, lengths, choose, empty, done, steps=config.max_new_tokens, n=n)

    return jax.jit(generate)


def decode(
    model: ValueLM,
    networks: ActingNetworks,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    choose: Callable[[LoopState], tuple[Int[Array, " N"], LoopState]],
    empty: NamedTuple,
    done: Bool[Array, "..."],
    *,
    steps: int,
    n: int,
) -> Any:
    """Prefill, and let `choose` decide n rows for each prompt, a token a step, until all are done or `steps` are over.

    It returns each row's next token, and the state with what is found and done by now; `empty` and `done` are what
    holds before the first step. Returns what is found after the last.
    """
    n_columns, trunks = tokens.shape[1], networks.join_trunks()
    hidden, caches = repeat_rows(model, *prefill(model, trunks, tokens, lengths, room=steps), n)
    row_lengths = jnp.repeat(lengths, n)
    in_prompt = jnp.arange(n_columns + steps)[None] < row_lengths[:, None]

    def advance(state: LoopState) -> LoopState:
        t, hidden, caches = state.step, {}, {}
        token, state = choose(state)
        # It sees its row's prompt and the new tokens up to itself.
        slots, new = jnp.arange(in_prompt.shape[1])[None], n_columns + t
        place = CacheSlots(new, in_prompt | ((slots >= n_columns) & (slots <= new)))
        for role, trunk in trunks.items():
            output = model.run_trunk(
                trunk, token[:, None], (row_lengths + t)[:, None], cache=state.caches[role], slots=place
            )
            hidden[role] = pick_hidden(model, output, lambda x: x[:, 0])
            caches[role] = output.cache
        return LoopState(t + 1, state.found, state.done, hidden, caches)

    start = LoopState(jnp.int32(0), empty, done, hidden, caches)
    return jax.lax.while_loop(lambda state: (state.step < steps) & ~state.done.all(), advance, start).found


def prefill(
    model: ValueLM, trunks: dict, tokens: Int[Array, "B P"], lengths: Int[Array, " B"], *, room: int
) -> tuple[dict, dict]:
    """Run the trunks over prompts: what each row's last token gives, and caches with `room` more slots."""
    hidden, caches = {}, {}
    for role, trunk in trunks.items():
        output = model.run_trunk(trunk, tokens, return_kv=True)
        hidden[role] = pick_hidden(
            model, output, lambda x: jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
        )
        caches[role] = jax.tree.map(lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)]), output.cache)
    return hidden, caches


def pick_hidden(model: ValueLM, output: TrunkOutput, pick: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Return what the language-model head reads and what value heads read, of the position that is picked a row."""
    picked = TrunkOutput(pick(output.hidden), pick(output.block_output), None)
    return picked.hidden, model.select_hidden(picked)


def repeat_rows(model: ValueLM, hidden: dict, caches: dict, n: int) -> tuple[dict, dict]:
    """Repeat what `prefill` gives of each row n times, side by side."""
    if n == 1:
        return hidden, caches
    n_rows = jax.tree.leaves(hidden)[0].shape[0]
    rows = jnp.repeat(jnp.arange(n_rows), n)
    n_kv_head = model.backbone.config.n_kv_head
    caches = jax.tree.map(lambda x: take_cache_rows(x, rows, n_kv_head=n_kv_head), caches)
    return jax.tree.map(lambda x: x[rows], hidden), caches


def take_column(values: Float[Array, "B V"], ids: Int[Array, " B"]) -> Float[Array, " B"]:
    """Pick each row's entry at `ids`."""
    return jnp.take_along_axis(values, ids[:, None], axis=1, mode="clip")[:, 0]
