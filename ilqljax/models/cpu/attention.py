"""Causal attention in blocks, with its own gradient; and attention over a cache with rows and heads as one axis."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.models.cpu import trick
from ilqljax.models.cpu.products import is_half

# Queries of a block. Half of the square is masked: at 512 tokens blocks of 128 compute 62 % of it.
BLOCK = 128


@trick
def attend_in_blocks(
    query: Float[Array, "B H T K"], keys: Float[Array, "B H T K"], values: Float[Array, "B H T K"], block: int
) -> Float[Array, "B H T K"]:
    """Attend causally, a block of queries at a time, over the keys that it can see.

    The gradient keeps each query's log normalizer and computes the weights again, as in FlashAttention (Dao et al.
    2022, arXiv 2205.14135, appendix B), so no [T T] array outlives its block.
    """
    return _attend(query, keys, values, block)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query, keys, values, block):
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
    if is_half(output.dtype):  # of converted numbers XLA sums windows, which takes ten times as long
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


_attend.defvjp(_attend_forward, _attend_backward)


def _multiply(axes: str, a: Array, b: Array) -> Array:
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _cut(length: int, block: int) -> list[tuple[int, int]]:
    return [(start, min(start + block, length)) for start in range(0, length, block)]
