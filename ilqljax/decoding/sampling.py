"""From the policy's logits and the critic's advantages to scores, and from scores to a token."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.types import Array


def filter_logits(
    logits: Float[Array, "B V"], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "B V"]:
    """Return log-probabilities after temperature, top-k and nucleus (top-p) filtering; -inf where filtered out.

    Args:
        logits: the policy's logits.
        temperature: divides the logits; 0 (greedy) leaves them alone.
        top_k: keep the k likeliest tokens (0: all); ties with the k-th are kept.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this (Holtzman et al. 2020); the
            likeliest token is always kept.
    """
    if temperature:
        logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if top_p < 1.0:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities  # mass of all likelier tokens
        kept = before < top_p
        threshold = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.nn.log_softmax(logits, axis=-1)


def advantage_term(
    advantages: Float[Array, "B V"], *, beta: float, clip: float = jnp.inf, exponential: bool = True
) -> Float[Array, "B V"]:
    """Return what the advantage adds to a log-probability: min(clip, beta A), or the logarithm of the sign weights.

    The sign form is log(beta) where A > 0 and log(1 - beta) elsewhere. A clip of 0 only pushes bad tokens down.
    """
    if exponential:
        return jnp.minimum(beta * advantages, clip)
    return jnp.minimum(jnp.log(jnp.where(advantages > 0.0, beta, 1.0 - beta)), clip)


def sample_tokens(keys: Array, scores: Float[Array, "B V"], *, greedy: bool) -> Int[Array, "B"]:
    """Draw one token a row from softmax(scores), each row with its own key; or take the best."""
    if greedy:
        return jnp.argmax(scores, axis=-1)
    return jax.vmap(jax.random.categorical)(keys, scores)
