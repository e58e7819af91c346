"""Attention: plain, causal over a row, and of one new token over a cache.

Causal attention has three ways, which give the same numbers up to rounding:

| device, length                | way                                                                          |
|-------------------------------|------------------------------------------------------------------------------|
| GPU, half precision           | cuDNN's fused kernel                                                         |
| longer than `BLOCK`           | blocks of queries, each with the keys up to its end (`attend_in_blocks`)     |
| else, or with dropout         | the whole square, masked (`attend`)                                          |
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from ilqljax.models.half_products import is_half
from ilqljax.types import Array

# Queries of a block. Half of the square is masked: at 512 tokens blocks of 128 compute 62 % of it.
BLOCK = 128


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
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    if jax.default_backend() == "gpu" and half and dropout is None:
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (query, keys, values))
        return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn"), 1, 2)
    length = query.shape[2]
    if length > BLOCK and dropout is None:
        return attend_in_blocks(query, keys, values, BLOCK)
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
    return attend(query, keys, values, causal, dropout)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def attend_in_blocks(
    query: Float[Array, "B H T K"], keys: Float[Array, "B H T K"], values: Float[Array, "B H T K"], block: int
) -> Float[Array, "B H T K"]:
    """Attend causally, a block of queries at a time, over the keys that it can see.

    The gradient keeps each query's log normalizer and computes the weights again, as in FlashAttention (Dao et al.
    2022, arXiv 2205.14135, appendix B), so no [T T] array outlives its block.
    """
    return _attend_forward(query, keys, values, block)[0]


def _attend_forward(query, keys, values, block):
    scale, outputs, log_normalizers = query.shape[-1] ** -0.5, [], []
    for start, stop in _cut(query.shape[2], block):
        scores = scale * _multiply("bhtk,bhsk->bhts", query[:, :, start:stop], keys[:, :, :stop])
        seen = jnp.arange(stop)[None] <= jnp.arange(start, stop)[:, None]
        scores = jnp.where(seen[None, None], scores, jnp.finfo(jnp.float32).min)
        log_z = jax.nn.logsumexp(scores, axis=-1)
        weights = jnp.exp(scores - log_z[..., None]).astype(values.dtype)
        outputs.append(_multiply("bhts,bhsk->bhtk", weights, values[:, :, :stop]))
        log_normalizers.append(log_z)
    output = jnp.concatenate(outputs, axis=2).astype(values.dtype)
    return output, (query, keys, values, output, jnp.concatenate(log_normalizers, axis=2))


def _attend_backward(block, residuals, d_output):
    """Go through blocks of keys, with the queries that see them; weights [S T] lie as their products read them."""
    query, keys, values, output, log_z = residuals
    length, scale = query.shape[2], query.shape[-1] ** -0.5
    products = d_output.astype(jnp.float32) * output
    if is_half(output.dtype):  # of converted numbers XLA on a CPU sums windows, which takes ten times as long
        own = _multiply("bhtk,k->bht", products, jnp.ones(products.shape[-1]))
    else:
        own = jnp.sum(products, axis=-1)  # [B H T]
    d_query, d_keys, d_values = jnp.zeros(query.shape, jnp.float32), [], []
    for start, stop in _cut(length, block):
        key, value = keys[:, :, start:stop], values[:, :, start:stop]
        q, d_out = query[:, :, start:], d_output[:, :, start:]
        scores = scale * _multiply("bhsk,bhtk->bhst", key, q)
        seen = jnp.arange(start, stop)[:, None] <= jnp.arange(start, length)[None]
        weights = jnp.where(seen[None, None], jnp.exp(scores - log_z[:, :, None, start:]), 0.0)
        d_weights = _multiply("bhsk,bhtk->bhst", value, d_out)
        d_scores = (scale * weights * (d_weights - own[:, :, None, start:])).astype(query.dtype)
        d_values.append(_multiply("bhst,bhtk->bhsk", weights.astype(query.dtype), d_out))
        d_keys.append(_multiply("bhst,bhtk->bhsk", d_scores, q))
        d_query = d_query.at[:, :, start:].add(_multiply("bhst,bhsk->bhtk", d_scores, key))
    d_keys, d_values = (jnp.concatenate(x, axis=2).astype(query.dtype) for x in (d_keys, d_values))
    return d_query.astype(query.dtype), d_keys, d_values


attend_in_blocks.defvjp(_attend_forward, _attend_backward)


def _multiply(axes: str, a: Array, b: Array) -> Array:
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _cut(length: int, block: int) -> list[tuple[int, int]]:
    return [(start, min(start + block, length)) for start in range(0, length, block)]


def attend_cached(
    query: Float[Array, "B H 1 K"],
    keys: Float[Array, "BH S K"],
    values: Float[Array, "BH S K"],
    seen: Bool[Array, "B S"],
) -> Float[Array, "B H 1 K"]:
    """Attend of one new token to the cache's slots that it sees."""
    flat, mask = query.reshape(-1, 1, query.shape[-1]), jnp.repeat(seen, query.shape[1], axis=0)[:, None]
    return attend(flat, keys, values, mask).reshape(query.shape)
