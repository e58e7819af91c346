"""Sampling as one compiled program: prefill, then a loop over a static key/value cache, all rows at once.

Cache slots are storage, not positions. With prompts padded to P columns and G new tokens at most, row b uses

| slots                  | hold                                  | seen when                     |
|------------------------|---------------------------------------|-------------------------------|
| 0 .. length[b]-1       | the prompt, at positions 0..length-1  | always                        |
| length[b] .. P-1       | padding                               | never                         |
| P + t                  | new token t, at position length[b]+t  | from step t + 1 on            |

so that every row writes the same slot at the same step, and neither padding nor neighbours change a row's result.

With drafts (`DecodeConfig.draft_tokens`) rows advance at their own pace, and a token's slot is its position: a pass
writes a row's last token and k drafted ones at slots length[b]+t-1 .. length[b]+t+k-1, each of which sees the slots up
to its own. What was rejected there is written over by the next pass before anything sees it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import UNCLIPPED, Array
from ilqljax.decoding.drafts import look_up
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import ActingNetworks, make_token_scores, sample_tokens
from ilqljax.models.backbone import CacheSlots, TrunkOutput, take_cache_rows
from ilqljax.models.value_lm import ValueLM


class Samples(NamedTuple):
    """Sampled utterances, n per prompt (N = B n rows, a prompt's samples side by side).

    `lengths` counts tokens up to and including the closing one; later tokens are padding. `log_probability` is that of
    the policy before its filters (renormalised without the suppressed tokens), `advantage` the critic's min Q - V; both
    are summed over the tokens. `value` is min target Q of the last token. These two are zero where no critic of
    tokens runs. `passes` counts the passes of the networks that a row took: one for each token, or fewer with drafts.
    """

    tokens: Int[Array, "N G"]
    lengths: Int[Array, " N"]
    log_probability: Float[Array, " N"]
    advantage: Float[Array, " N"]
    value: Float[Array, " N"]
    passes: Int[Array, " N"]


class DrawnTokens(NamedTuple):
    """Tokens of R rows, one each, and what `Samples` adds up of them."""

    tokens: Int[Array, " R"]
    log_probabilities: Float[Array, " R"]
    advantages: Float[Array, " R"]
    values: Float[Array, " R"]


class LoopState(NamedTuple):
    """What a decode loop carries. `hidden` and `caches` are keyed by trunk: policy, value, target."""

    step: Int[Array, ""]
    found: Any
    done: Bool[Array, "..."]
    hidden: dict
    caches: dict


class DraftState(NamedTuple):
    """What the loop with drafts carries; `found.tokens` are whole rows, and what they copy from next is near `near`."""

    found: Samples
    near: Int[Array, " N"]
    done: Bool[Array, " N"]
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
    n = config.n_generations
    steps = config.max_new_tokens
    ends = jnp.asarray(end_ids, jnp.int32)
    score = make_token_scores(model, config, suppress_ids=suppress_ids, value_range=value_range)

    def generate(networks: ActingNetworks, tokens: Array, lengths: Array, keys: Array) -> Samples:
        row_keys = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n)))(keys).reshape(-1)

        def draw(hidden: dict, indices: Int[Array, "N T"]) -> DrawnTokens:
            """Draw tokens number `indices` of their utterances; the key of one is the same however it is come to."""
            scores, *numbers = score(networks, hidden)
            token_keys = jax.vmap(lambda key, row: jax.vmap(lambda t: jax.random.fold_in(key, t))(row))(
                row_keys, indices
            )
            tokens = sample_tokens(token_keys.reshape(-1), scores, greedy=config.temperature == 0).astype(jnp.int32)
            return DrawnTokens(tokens, *(take_column(x, tokens) for x in numbers))

        def choose(state: LoopState) -> tuple[Array, LoopState]:
            t, old, live = state.step, state.found, ~state.done
            drawn = draw(state.hidden, jnp.full((n_rows, 1), t))
            token = jnp.where(live, drawn.tokens, pad_id)
            samples = Samples(
                jax.lax.dynamic_update_slice(old.tokens, token[:, None], (0, t)),
                old.lengths + live,
                old.log_probability + jnp.where(live, drawn.log_probabilities, 0.0),
                old.advantage + jnp.where(live, drawn.advantages, 0.0),
                jnp.where(live, drawn.values, old.value),
                old.passes + live,
            )
            return token, state._replace(found=samples, done=state.done | jnp.isin(token, ends))

        n_rows = row_keys.shape[0]
        zeros, none = jnp.zeros(n_rows), jnp.zeros(n_rows, jnp.int32)
        empty = Samples(jnp.full((n_rows, steps), pad_id, jnp.int32), none, zeros, zeros, zeros, none)
        if k := config.draft_tokens:
            return decode_drafts(model, networks, tokens, lengths, draw, empty, end_ids=ends, pad_id=pad_id, n=n, k=k)
        return decode(model, networks, tokens, lengths, choose, empty, jnp.zeros(n_rows, bool), steps=steps, n=n)

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
        place = CacheSlots(new, (in_prompt | ((slots >= n_columns) & (slots <= new)))[:, None])
        for role, trunk in trunks.items():
            output = model.run_trunk(
                trunk, token[:, None], (row_lengths + t)[:, None], cache=state.caches[role], slots=place
            )
            hidden[role] = pick_hidden(model, output, lambda x: x[:, 0])
            caches[role] = output.cache
        return LoopState(t + 1, state.found, state.done, hidden, caches)

    start = LoopState(jnp.int32(0), empty, done, hidden, caches)
    return jax.lax.while_loop(lambda state: (state.step < steps) & ~state.done.all(), advance, start).found


def decode_drafts(
    model: ValueLM,
    networks: ActingNetworks,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    draw: Callable[[dict, Int[Array, "N T"]], DrawnTokens],
    empty: Samples,
    *,
    end_ids: Int[Array, " ends"],
    pad_id: int,
    n: int,
    k: int,
) -> Samples:
    """Sample what the loop of `decode` samples, several tokens a pass where k drafted ones are right.

    A pass runs a row's last token and its drafts, and draws the token after each. Drawn tokens count up to the first
    that is not as drafted (that one is right too: all it was drawn from is), or that closes the utterance. This is
    speculative sampling (Leviathan et al. 2023, arXiv 2211.17192, algorithm 1) where the draft is certain, with the
    random numbers of each token fixed, so that not only the distribution is the same. A pass at token t with k = 3:

    | reads | last token, t - 1 | draft a, t | draft b, t + 1 | draft c, t + 2 |
    |-------|-------------------|------------|----------------|----------------|
    | draws | a                 | b          | x              | any            |
    | keeps | a                 | b          | x              |                |
    """
    trunks, steps = networks.join_trunks(), empty.tokens.shape[1]
    n_slots, ahead = tokens.shape[1] + steps + k, jnp.arange(k + 1)[None]
    _, caches = repeat_rows(model, *prefill(model, trunks, tokens, lengths, room=steps + k), n)
    prompt_lengths = jnp.repeat(lengths, n)
    rows = jnp.pad(jnp.repeat(tokens, n, axis=0), ((0, 0), (0, steps + k + 1)), constant_values=pad_id)

    def advance(state: DraftState) -> DraftState:
        old, live, hidden, caches = state.found, ~state.done, {}, {}
        known = prompt_lengths + old.lengths
        place, draft = look_up(old.tokens, known, state.near, n=k)
        last = jnp.take_along_axis(old.tokens, known[:, None] - 1, axis=1)
        positions = known[:, None] - 1 + ahead
        slots = CacheSlots(known - 1, jnp.arange(n_slots)[None, None] <= positions[..., None])
        within = jnp.minimum(positions, model.backbone.config.n_positions - 1)  # of drafts that are too long to count
        for role, trunk in trunks.items():
            output = model.run_trunk(
                trunk, jnp.concatenate([last, draft], axis=1), within, cache=state.caches[role], slots=slots
            )
            hidden[role] = pick_hidden(model, output, lambda x: x.reshape(-1, x.shape[-1]))
            caches[role] = output.cache
        indices = old.lengths[:, None] + ahead
        drawn = DrawnTokens(*(x.reshape(indices.shape) for x in draw(hidden, indices)))
        ended = jnp.isin(drawn.tokens, end_ids)
        goes_on = (drawn.tokens[:, :-1] == draft) & ~ended[:, :-1]
        kept = jnp.cumprod(jnp.concatenate([live[:, None], goes_on], axis=1), axis=1).astype(bool) & (indices < steps)
        found = add_tokens(old, drawn, kept, known, pad_id)
        done = ~live | (kept & ended).any(axis=1) | (found.lengths >= steps)
        return DraftState(found, place + found.lengths - old.lengths, done, caches)

    n_rows = len(prompt_lengths)
    start = DraftState(empty._replace(tokens=rows), jnp.zeros(n_rows, jnp.int32), jnp.zeros(n_rows, bool), caches)
    found = jax.lax.while_loop(lambda state: ~state.done.all(), advance, start).found
    index = jnp.arange(steps)[None]
    written = jnp.take_along_axis(found.tokens, prompt_lengths[:, None] + index, axis=1)
    return found._replace(tokens=jnp.where(index < found.lengths[:, None], written, pad_id))


def add_tokens(
    old: Samples, drawn: DrawnTokens, kept: Bool[Array, "N T"], known: Int[Array, " N"], pad_id: int
) -> Samples:
    """Add the first drawn tokens [N T] of each row, those that are kept, to rows of which `known` tokens are known."""
    live, n_kept = kept[:, 0], kept.sum(axis=1)
    new = jnp.where(kept, drawn.tokens, pad_id)
    return Samples(
        jax.vmap(jax.lax.dynamic_update_slice_in_dim, (0, 0, 0, None))(old.tokens, new, known, 0),
        old.lengths + n_kept,
        old.log_probability + jnp.where(kept, drawn.log_probabilities, 0.0).sum(axis=1),
        old.advantage + jnp.where(kept, drawn.advantages, 0.0).sum(axis=1),
        jnp.where(live, take_column(drawn.values, n_kept - 1), old.value),
        old.passes + live,
    )


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
