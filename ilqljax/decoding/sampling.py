"""The networks as acting reads them; from logits and advantages to scores, and from scores to a token."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.data.types import UNCLIPPED, Array
from ilqljax.decoding.options import DecodeConfig
from ilqljax.models.backbone import compute_logits
from ilqljax.models.cpu import decoding as on_cpu
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.lora import join_adapter, merge_adapter
from ilqljax.models.value_lm import ValueLM, policy_trunk


class ActingNetworks(NamedTuple):
    """What acting needs of an ILQL or BC model.

    `trunks` are keyed by role: "policy", and where there is a critic with a trunk of its own, "value" and "target"; a
    trunk that two roles share appears once. `v` and `q` are the online V head and the target Q heads, {} without a
    critic. `base` is the trunk whose adapters `trunks` are, {} where they are whole (`join_trunks`).
    """

    trunks: dict
    v: dict
    q: dict
    base: dict

    def join_trunks(self) -> dict:
        """Return the whole trunks by role."""
        return {role: join_adapter(self.base, t) for role, t in self.trunks.items()} if self.base else self.trunks


def prepare_for_decoding(model: ValueLM, params: dict, target: dict, *, critic: bool) -> ActingNetworks:
    """Choose what acting reads and have it on the device, once for any number of batches.

    `target` is {} for a BC model; `critic` says whether the critic has a say (`DecodeConfig.beta` is not 0). On a CPU
    the networks are laid out for products of few rows.
    """
    if "base" in params and (critic or model.config.base_dtype != "float32"):  # one copy of the base for all, as it is
        base, trunks = params["base"], {"policy": params.get("policy", params.get("trunk"))}
    else:
        base, trunks = {}, {"policy": merge_adapter(policy_trunk(params))}
    if critic and "policy" in params:
        trunks["value"] = params.get("trunk", {})
    if critic and "trunk" in target:
        trunks["target"] = target["trunk"]
    q = {name: target[name] for name in model.q_names} if critic else {}
    if use_cpu_tricks():
        # Adapters train faster with their layers stacked, and act faster with them apart.
        split = model.config.lora_rank > 0 or model.backbone.config.unroll >= model.backbone.config.n_layer
        trunks, q = on_cpu.lay_out({**trunks, "base": base}, q, split=split)
        base = trunks.pop("base")
    if critic:
        q = model.get_q_heads(q, {"base": base} if base else {"trunk": trunks.get("value", trunks["policy"])})
    return jax.device_put(ActingNetworks(trunks, params["v"] if critic else {}, q, base))


class TokenScores(NamedTuple):
    """What is known of each next token.

    `scores` are to choose from (not normalised), `log_probabilities` the unfiltered policy's, `advantages` min target
    Q - V and `values` min target Q; without a critic these two are zeros [B 1].
    """

    scores: Float[Array, "B V"]
    log_probabilities: Float[Array, "B V"]
    advantages: Float[Array, "B V"]
    values: Float[Array, "B V"]


def make_token_scores(
    model: ValueLM,
    config: DecodeConfig,
    *,
    suppress_ids: tuple[int, ...] = (),
    value_range: tuple[float, float] = UNCLIPPED,
) -> Callable[[ActingNetworks, dict], TokenScores]:
    """Make `score(networks, hidden)`, from one position's hidden states a row to the next token's scores.

    `hidden` holds, by trunk, what the language-model head reads and what value heads read. Filters act on the policy
    before the advantage; `beta` 0 never runs the critic. Tokens of `suppress_ids` are never chosen, and the target Q is
    clipped to `value_range`.
    """
    suppressed = jnp.asarray(suppress_ids, jnp.int32)

    def score(networks: ActingNetworks, hidden: dict) -> TokenScores:
        logits = compute_logits(networks.join_trunks()["policy"], hidden["policy"][0])
        logits = logits.at[:, suppressed].set(-jnp.inf)
        scores = filter_logits(logits, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
        log_probabilities = jax.nn.log_softmax(logits, axis=-1)
        if config.beta == 0.0:
            nothing = jnp.zeros((logits.shape[0], 1))
            return TokenScores(scores, log_probabilities, nothing, nothing)
        value_hidden = hidden.get("value", hidden["policy"])[1]
        target_hidden = hidden["target"][1] if "target" in hidden else value_hidden
        q = jnp.clip(model.compute_target_q_all(networks.q, target_hidden), *value_range)
        advantages = q - model.compute_v({"v": networks.v}, value_hidden)[:, None]
        steered = scores + advantage_term(
            advantages, beta=config.beta, clip=config.clip, exponential=config.exp_weights
        )
        if config.beta == 1.0 and not config.exp_weights:
            # Tokens without a positive advantage have no weight; where that is all of them, the policy alone decides.
            steered = jnp.where(jnp.isneginf(steered).all(axis=-1, keepdims=True), scores, steered)
        return TokenScores(steered, log_probabilities, advantages, q)

    return score


def filter_logits(
    logits: Float[Array, "*B V"], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "*B V"]:
    """Return log-probabilities after temperature, top-k and nucleus (top-p) filtering; -inf where filtered out.

    The temperature divides the logits; 0 (greedy) leaves them alone. `top_k` keeps the k likeliest tokens (0: all) and
    those that tie with the k-th. `top_p` keeps the smallest set of likeliest tokens whose probability reaches it
    (Holtzman et al. 2020), the likeliest token always.
    """
    if temperature:
        logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if top_p < 1.0:
        probabilities = jax.nn.softmax(logits, axis=-1)
        logits = jnp.where(probabilities > nucleus_threshold(probabilities, top_p), logits, -jnp.inf)
    return jax.nn.log_softmax(logits, axis=-1)


def nucleus_threshold(probabilities: Float[Array, "*B V"], top_p: float) -> Float[Array, "*B 1"]:
    """Find the largest x for which the tokens likelier than x still hold `top_p` of the mass: the nucleus is above it.

    A token belongs to the nucleus if all likelier ones together have less than `top_p`. Sorting would tell, but is the
    slowest thing a decoder can do to a vocabulary; as the bits of positive floats are ordered like the floats, 30
    halvings of the bit pattern find the exact threshold with one pass over the row each.
    """

    def test_bit(i: Int[Array, ""], bits: Int[Array, "*B 1"]) -> Int[Array, "*B 1"]:
        candidate = bits | jnp.left_shift(jnp.int32(1), 29 - i)  # probabilities stay below 2: bit 30 is never set
        x = jax.lax.bitcast_convert_type(candidate, jnp.float32)
        mass = jnp.where(probabilities > x, probabilities, 0.0).sum(-1, keepdims=True)
        return jnp.where(mass >= top_p, candidate, bits)

    start = jnp.zeros((*probabilities.shape[:-1], 1), jnp.int32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 30, test_bit, start), jnp.float32)


def advantage_term(
    advantages: Float[Array, "*B V"], *, beta: float, clip: float = jnp.inf, exponential: bool = True
) -> Float[Array, "*B V"]:
    """Return what the advantage adds to a log-probability: min(clip, beta A), or the logarithm of the sign weights.

    The sign form is log(beta) where A > 0 and log(1 - beta), -inf for a beta of 1, elsewhere. A clip of 0 only pushes
    bad tokens down.
    """
    if exponential:
        return jnp.minimum(beta * advantages, clip)
    return jnp.minimum(jnp.log(jnp.where(advantages > 0.0, beta, 1.0 - beta)), clip)


def sample_tokens(keys: Array, scores: Float[Array, "B V"], *, greedy: bool) -> Int[Array, " B"]:
    """Draw one token a row from softmax(scores), each row with its own key; or take the best, the first of equals."""
    if use_cpu_tricks():
        return on_cpu.find_largest(scores) if greedy else on_cpu.draw_tokens(keys, scores)
    return scores.argmax(axis=-1) if greedy else jax.vmap(jax.random.categorical)(keys, scores)
