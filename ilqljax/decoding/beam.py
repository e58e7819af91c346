"""Beam search as one compiled program, for a language model alone or with a critic.

A beam's score is the sum of its tokens' log-probabilities under the distribution that sampling would draw from: softmax
of the filtered policy logits plus the advantage term. So the advantage decides which beams survive, and is in their
scores. There is no length normalisation. A beam that closed itself keeps its score and its place among the beams of its
row for as long as it is one of the best; a row ends when all its beams have closed or its length is used up.

The cache is that of `ilqljax.decoding.generate`. After each step the surviving beams take over their parents' new
slots; a prompt's slots are the same for all beams of a row and stay where they are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import UNCLIPPED, Array
from ilqljax.decoding.generate import LoopState, decode
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.sampling import ActingNetworks, make_token_scores
from ilqljax.errors import UserError
from ilqljax.models.backbone import take_cache_rows
from ilqljax.models.value_lm import ValueLM


class Beams(NamedTuple):
    """Found utterances, W per prompt, best first.

    `lengths` counts tokens up to and including the closing one; later tokens are padding. A score of -inf marks a place
    for which there was no candidate (fewer than W tokens pass the filters).
    """

    tokens: Int[Array, "B W G"]
    lengths: Int[Array, "B W"]
    scores: Float[Array, "B W"]


def make_beam_search(
    model: ValueLM,
    config: DecodeConfig,
    *,
    width: int,
    end_ids: tuple[int, ...],
    pad_id: int,
    suppress_ids: tuple[int, ...] = (),
    value_range: tuple[float, float] = UNCLIPPED,
    max_length: int = 0,
) -> Callable[[ActingNetworks, Array, Array], Beams]:
    """Make the compiled search `search(networks, tokens [B P], lengths [B]) -> Beams`, of `width` beams per prompt.

    The rest is as in `make_generate`; of the config, `n_generations` and `rank_by` are not used. `max_length` is the
    longest row, prompt and utterance together; 0 is as many positions as the model has. A width of none, or of more
    beams than there are tokens, is a `UserError`.
    """
    vocab_size, n_kv_head = model.backbone.config.vocab_size, model.backbone.config.n_kv_head
    if not 0 < width <= vocab_size:
        raise UserError(f"width={width} is not in 1 to {vocab_size}, the size of the vocabulary. Choose a width in it.")
    score = make_token_scores(model, config, suppress_ids=suppress_ids, value_range=value_range)
    ends = jnp.asarray(end_ids, jnp.int32)
    longest = max_length or model.backbone.config.n_positions

    def search(networks: ActingNetworks, tokens: Array, lengths: Array) -> Beams:
        n_rows, n_columns = tokens.shape
        limits = jnp.minimum(config.max_new_tokens, longest - lengths)[:, None]  # [B 1]
        only_pad = jnp.where(jnp.arange(vocab_size) == pad_id, 0.0, -jnp.inf)[None, None]
        # All beams of a row are equal before the first token: one of them stands for all.
        first = (jnp.arange(width) == 0)[None, :, None]

        def choose(state: LoopState) -> tuple[Array, LoopState]:
            t, old = state.step, state.found
            step_scores = jax.nn.log_softmax(score(networks, state.hidden).scores, axis=-1)
            step_scores = jnp.where(state.done[..., None], only_pad, step_scores.reshape(n_rows, width, vocab_size))
            candidates = jnp.where(
                first | (t > 0) | state.done[..., None], old.scores[..., None] + step_scores, -jnp.inf
            )
            scores, chosen = jax.lax.top_k(candidates.reshape(n_rows, -1), width)
            parents, token = chosen // vocab_size, (chosen % vocab_size).astype(jnp.int32)
            was_done = take_beams(state.done, parents)
            token = jnp.where(was_done, pad_id, token)
            found = jax.lax.dynamic_update_slice(take_beams(old.tokens, parents), token[..., None], (0, 0, t))
            beams = Beams(found, take_beams(old.lengths, parents) + ~was_done, scores)
            done = was_done | jnp.isin(token, ends) | (t + 1 >= limits)
            rows = (jnp.arange(n_rows)[:, None] * width + parents).reshape(-1)

            def take_new_slots(x: Array) -> Array:
                return x.at[..., n_columns:, :].set(take_cache_rows(x[..., n_columns:, :], rows, n_kv_head=n_kv_head))

            caches = jax.tree.map(take_new_slots, state.caches)
            return token.reshape(-1), state._replace(found=beams, done=done, caches=caches)

        shape = (n_rows, width)
        empty = Beams(
            jnp.full((*shape, config.max_new_tokens), pad_id, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape)
        )
        done = jnp.broadcast_to(limits <= 0, shape)
        return decode(model, networks, tokens, lengths, choose, empty, done, steps=config.max_new_tokens, n=width)

    return jax.jit(search)


def take_beams(values: Array, parents: Int[Array, "B W"]) -> Array:
    """Pick each row's beams by number; `values` is [B W ...]."""
    index = parents.reshape(*parents.shape, *([1] * (values.ndim - 2)))
    return jnp.take_along_axis(values, index, axis=1, mode="clip")
