"""Attention: plain, causal over a row, and of one new token over a cache.

Causal attention has four ways, which give the same numbers up to rounding:

| platform, length              | way                                                                          |
|-------------------------------|------------------------------------------------------------------------------|
| any, with dropout             | the whole square, masked (`attend`)                                          |
| GPU, half precision           | cuDNN's fused kernel                                                         |
| else an accelerator           | JAX's own (`jax.nn.dot_product_attention`)                                   |
| CPU                           | the whole square, or blocks of queries (`ilqljax.models.cpu.attention`)      |
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ilqljax.data.types import Array
from ilqljax.models.cpu import attention as on_cpu
from ilqljax.models.cpu import find_platform, use_cpu_tricks


def attend(
    query: Float[Array, "*B T K"],
    keys: Float[Array, "*B S K"],
    values: Float[Array, "*B S K"],
    mask: Bool[Array, "*#B #T S"],
    dropout: nn.Module | None = None,
) -> Float[Array, "*B T K"]:
    """Mix `values` by a softmax (in float32) of the scaled products of `query` and `keys`, where `mask` is true."""
    scores = jnp.einsum("...tk,...sk->...ts", query, keys, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("...ts,...sk->...tk", weights, values)


def attend_causally(
    query: Float[Array, "B H T K"],
    keys: Float[Array, "B H T K"],
    values: Float[Array, "B H T K"],
    dropout: nn.Module | None = None,
) -> Float[Array, "B H T K"]:
    """Attend to a token itself and those before it."""
    length = query.shape[2]
    if dropout is None and not use_cpu_tricks():
        return _attend_fused(query, keys, values)
    if dropout is None and length > on_cpu.BLOCK:
        return on_cpu.attend_in_blocks(query, keys, values, on_cpu.BLOCK)
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
    return attend(query, keys, values, causal, dropout)


def _attend_fused(query: Array, keys: Array, values: Array) -> Array:
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (query, keys, values))
    # What cuDNN's kernel takes: half precision, and heads of a multiple of 8.
    fits = query.dtype.itemsize == 2 and query.shape[-1] % 8 == 0
    implementation = "cudnn" if fits and find_platform() == "gpu" else None
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation), 1, 2)


def attend_cached(
    query: Float[Array, "B H 1 K"],
    keys: Float[Array, "B H S K"] | Float[Array, "B*H S K"],
    values: Float[Array, "B H S K"] | Float[Array, "B*H S K"],
    seen: Bool[Array, "B S"],
) -> Float[Array, "B H 1 K"]:
    """Attend of one new token to the cache's slots that it sees."""
    if use_cpu_tricks():  # its cache has rows and heads as one axis
        flat, mask = query.reshape(-1, 1, query.shape[-1]), jnp.repeat(seen, query.shape[1], axis=0)[:, None]
        return attend(flat, keys, values, mask).reshape(query.shape)
    return attend(query, keys, values, seen[:, None, None])
