"""Drafts by prompt lookup: what follows where the last tokens of a row stand earlier in it."""

import jax.numpy as jnp
from jaxtyping import Int

from ilqljax.data.types import Array

LONGEST_MATCH = 3


def look_up(
    text: Int[Array, "N W"], known: Int[Array, " N"], near: Int[Array, " N"], *, n: int
) -> tuple[Int[Array, " N"], Int[Array, "N {n}"]]:
    """Guess n next tokens of each row, of which the first `known` tokens of `text` are there; the others are filler.

    A place is as good as the number of last tokens (`LONGEST_MATCH` at most) that end there in their order; of the best
    ones the first from `near` on counts, else the first of all. So a copy goes on from where it has come to, also past
    a token that is new. Two drafted tokens of texts of which five are known:

    | text        | near | ends of the last tokens | place | draft |
    |-------------|------|-------------------------|-------|-------|
    | a b c a b   | 0    | 1 (a b)                 | 1     | c a   |
    | a b a c a   | 1    | 0 (a), 2 (a)            | 2     | c a   |
    | a b a c a   | 3    | 0 (a), 2 (a)            | 0     | b a   |
    | a b c d x   | 1    | none                    | 1     | c d   |

    Returns the places, each that of a row's last token, and the drafts. Prompt lookup is Saxena's (2023,
    github.com/apoorvumang/prompt-lookup-decoding).
    """
    width = text.shape[1]
    places = jnp.arange(width)[None]
    earlier = jnp.pad(text, ((0, 0), (LONGEST_MATCH, 0)), constant_values=-1)
    same = places < known[:, None] - 1
    matches = jnp.where(same, 0, -1)
    for back in range(LONGEST_MATCH):
        shift = LONGEST_MATCH - back
        last = jnp.take_along_axis(earlier, known[:, None] - 1 + shift, axis=1)
        same &= earlier[:, shift : shift + width] == last
        matches += same
    place = jnp.argmax(2 * matches + (places >= near[:, None]), axis=1)
    return place, jnp.take_along_axis(text, place[:, None] + 1 + jnp.arange(n)[None], axis=1, mode="clip")
