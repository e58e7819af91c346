"""Attention: plain, causal over a row, and of new tokens over a cache.

Causal attention has four ways, which give the same numbers up to rounding:

| platform, length              | way                                                                          |
|-------------------------------|------------------------------------------------------------------------------|
| any, with dropout             | the whole square, masked (`attend`)                                          |
| GPU, half precision           | cuDNN's fused kernel                                                         |
| else an accelerator           | JAX's own (`jax.nn.dot_product_attention`)                                   |
| CPU                           | the whole square, or blocks of queries (`ilqljax.models.cpu.attention`)      |
"""

import math

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
    keys: Float[Array, "B G T K"],
    values: Float[Array, "B G T K"],
    dropout: nn.Module | None = None,
) -> Float[Array, "B H T K"]:
    """Attend to a token itself and those before it; each head of keys serves H / G neighbouring heads of queries."""
    length = query.shape[2]
    if dropout is None and not use_cpu_tricks():
        return _attend_fused(query, keys, values)
    if query.shape[1] != keys.shape[1]:
        keys, values = (jnp.repeat(x, query.shape[1] // x.shape[1], axis=1) for x in (keys, values))
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
    query: Float[Array, "B H T K"],
    keys: Float[Array, "B G S K"] | Float[Array, "BG S K"],
    values: Float[Array, "B G S K"] | Float[Array, "BG S K"],
    seen: Bool[Array, "B T S"],
) -> Float[Array, "B H T K"]:
    """Attend of new tokens to the cache's slots that each sees."""
    batch, n_head, length, head_size = query.shape
    n_kv_head = math.prod(keys.shape[:-2]) // batch
    grouped = query.reshape(*keys.shape[:-2], -1, head_size)  # queries of a head of keys, each of T tokens
    mask = jnp.tile(seen, (1, n_head // n_kv_head, 1)) if length > 1 else seen
    mask = jnp.repeat(mask, n_kv_head, axis=0) if use_cpu_tricks() else mask[:, None]
    return attend(grouped, keys, values, mask).reshape(query.shape)
