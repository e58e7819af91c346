"""Array mathematics of the losses: nothing here knows a model, a batch or a device.

Every `*_loss` returns one value per action (or token); `masked_mean` is the one place that reduces. Suffixes as in
rlax: `q_t`, `v_t`, `a_t`, `r_t` belong to an action position, `v_next` to the state that the action leads to (zero
after a terminal). Sources: ILQL (Snell et al. 2022, arXiv 2206.11871), CQL (Kumar et al. 2020, arXiv 2006.04779),
AWAC (Nair et al. 2020, arXiv 2006.09359), expectile regression (Kostrikov et al. 2021, arXiv 2110.06169), DPO (Rafailov
et al. 2023, arXiv 2305.18290), psi-learning (Jaques et al. 2017, arXiv 1611.02796). Squared losses carry no factor one
half (LMRL-Gym has one, which doubles every relative weight).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array


def masked_mean(values: Float[Array, "*B"], mask: Bool[Array, "*B"], *, count: Float[Array, ""]) -> Float[Array, ""]:
    """Sum `values` where `mask` is true and divide by `count`, which is at least one.

    The count is an argument because gradient accumulation divides every microbatch by the whole batch's count. A
    batch without a single action has loss 0, not NaN: masked values are selected away, never multiplied by zero.
    """
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(count, 1.0)


def td_loss(
    q_t: Float[Array, "*B A"], r_t: Float[Array, "*#B A"], v_next: Float[Array, "*#B A"], *, discount: float
) -> Float[Array, "*B A"]:
    """Square the one-step temporal-difference error (ILQL eq. 3); no gradient flows into `v_next`."""
    return jnp.square(r_t + discount * jax.lax.stop_gradient(v_next) - q_t)


def expectile_loss(
    v_t: Float[Array, "*B A"], target: Float[Array, "*B A"], *, expectile: float
) -> Float[Array, "*B A"]:
    """Regress `v_t` on the `expectile` of `target` (ILQL eq. 4): |expectile - 1(target < v)| (target - v)^2.

    At an expectile of 0.5 this is half the squared error, which the mean minimises; towards 1 its minimiser approaches
    the maximum over the actions in the data. No gradient flows into `target`.
    """
    difference = jax.lax.stop_gradient(target) - v_t
    return jnp.where(difference < 0.0, 1.0 - expectile, expectile) * jnp.square(difference)


def cql_loss(
    log_normalizer: Float[Array, "*B A"], q_t: Float[Array, "*B A"], *, temperature: float = 1.0
) -> Float[Array, "*B A"]:
    """Penalise Q of actions outside the data: logsumexp(Q / temperature) - Q(a) / temperature (CQL eq. 4)."""
    return log_normalizer - q_t / temperature


def margin_loss(q_t: Float[Array, "*N V"], q_taken: Float[Array, "*N"], *, margin: float) -> Float[Array, "*N"]:
    """Sum max(Q(s, .) - Q(s, a) + margin, 0)^2 over the vocabulary (the original's `dm` term).

    The taken action itself contributes margin^2, as in the original.
    """
    return jnp.square(jnp.maximum(q_t - q_taken[..., None] + margin, 0.0)).sum(-1)


def advantage_weights(
    target_q_t: Float[Array, "*B A"], v_t: Float[Array, "*B A"], *, beta: float, exponential: bool
) -> Float[Array, "*B A"]:
    """Weigh policy extraction by the advantage: exp(beta A), or beta where A > 0 and 1 - beta elsewhere.

    No gradient flows through the weights (AWAC eq. 9).
    """
    advantage = jax.lax.stop_gradient(target_q_t - v_t)
    if exponential:
        return jnp.exp(beta * advantage)
    return jnp.where(advantage > 0.0, beta, 1.0 - beta)


def soft_value(q: Float[Array, "*B V"], log_prior: Float[Array, "*B V"], *, beta: float) -> Float[Array, "*B"]:
    """Value a state for the policy that weighs Q against divergence from a prior: log E_prior[exp(beta Q)] / beta.

    It is the maximum over policies of E[Q] - KL(policy || prior) / beta, reached by prior * exp(beta (Q - value)).
    Large beta gives the maximum over actions, beta towards 0 the prior's mean (psi-learning, Jaques et al. 2017, with
    Psi = beta Q + log prior).
    """
    return jax.nn.logsumexp(log_prior + beta * q, axis=-1) / beta


def dpo_loss(chosen: Float[Array, "*P"], rejected: Float[Array, "*P"], *, beta: float) -> Float[Array, "*P"]:
    """Prefer one answer over another: -log sigmoid(beta (chosen - rejected)) (DPO eq. 7).

    Both are the answer's log-probability under the policy minus that under the reference.
    """
    return -jax.nn.log_sigmoid(beta * (chosen - rejected))


def discounted_returns(
    rewards: Float[Array, "B A"], mask: Bool[Array, "B A"], *, discount: float
) -> Float[Array, "B A"]:
    """Sum each action's reward and the discounted rewards after it: G_t = r_t + discount G_{t+1}.

    | rewards  | 0    | 0   | 4 | (padding) |
    |----------|------|-----|---|-----------|
    | discount .5: | 1 | 2   | 4 | 0         |
    """
    rewards = jnp.where(mask, rewards, 0.0)

    def accumulate(later: Float[Array, " B"], r_t: Float[Array, " B"]):
        total = r_t + discount * later
        return total, total

    _, returns = jax.lax.scan(accumulate, jnp.zeros_like(rewards[:, 0]), rewards.T, reverse=True)
    return jnp.where(mask, returns.T, 0.0)


def lambda_next(
    r_t: Float[Array, "B A"],
    v_next: Float[Array, "B A"],
    mask: Bool[Array, "B A"],
    *,
    discount: float,
    td_lambda: Float[Array, "B A"] | float,
) -> Float[Array, "B A"]:
    """Mix the value after each action with the return that followed it: (1 - lambda) v_next + lambda G_next.

    G_t = r_t + discount * mixed_t is the lambda-return (Sutton 1988), uncorrected for the policy as in Peng and
    Williams 1996. 0 leaves `v_next` alone; 1 gives the return that followed, with `v_next` after a row's last action
    only. Lambda may differ between actions (Sutton and Barto 2018, section 12.8).

    | r_t                          | 0   | 0   | 4   |
    |------------------------------|-----|-----|-----|
    | v_next                       | 1   | 1   | 0   |
    | mixed, discount 1, lambda .5 | 1.75 | 2.5 | 0  |
    """
    rows = v_next.shape[0]
    has_next = jnp.concatenate([mask[:, 1:], jnp.zeros((rows, 1), bool)], axis=1)

    def accumulate(g_next: Float[Array, " B"], step: tuple[Array, ...]):
        r, v, followed, from_v, from_return = step
        mixed = jnp.where(followed, from_v * v + from_return * g_next, v)
        return r + discount * mixed, mixed

    from_v, from_return = (jnp.broadcast_to(share, v_next.shape).T for share in (1.0 - td_lambda, td_lambda))
    steps = (jnp.where(mask, r_t, 0.0).T, v_next.T, has_next.T, from_v, from_return)
    _, mixed = jax.lax.scan(accumulate, jnp.zeros_like(v_next[:, 0]), steps, reverse=True)
    return mixed.T


def gather_positions(values: Float[Array, "B T D"], indices: Int[Array, "B A"]) -> Float[Array, "B A D"]:
    """Pick each row's hidden states at `indices`: O(B A D), not a one-hot product over B T x B T."""
    return jnp.take_along_axis(values, indices[..., None], axis=1, mode="clip")
