"""The value-learning objective (ILQL and its relatives): losses over V, Q and, where it is trained, the policy."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from ilqljax.data.types import Array, Batch, Counts, LossFn, Transitions
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.models import chunks, heads
from ilqljax.models.backbone import compute_logits
from ilqljax.models.value_lm import ValueLM, policy_trunk
from ilqljax.rl import losses
from ilqljax.rl.objectives.likelihood import policy_loss, score_rows, taken_tokens


@dataclass(frozen=True)
class ILQLConfig:
    """Weights and options of the ILQL objective; names and meaning as in `ilqljax.rl.losses`.

    Attributes:
        v_weight: weight of the expectile loss.
        q_weight: weight of the TD loss, summed over Q heads.
        cql_weight: weight of the conservative term, summed over Q heads.
        dm_weight: weight of the margin term, summed over Q heads.
        awac_weight: weight of the policy's advantage-weighted cross entropy; at 0 the policy is frozen and not run.
        discount: gamma.
        td_lambda: lambda of the TD target (`losses.lambda_next`); 0 is one step, as in the original. With one reward
            at the end of a long utterance, one-step targets carry it back by about one token an update.
        turn_lambda: factor of lambda where an utterance ends and more follow. With `td_lambda` 1 and this 0, values
            travel back a turn at a time, without V in between and without the noise of later turns.
        expectile: tau; 0.5 is one-step policy evaluation.
        mc_returns: regress V on the discounted return to go instead of the target Q.
        value_min: lower clip of the target Q, in training and in acting.
        value_max: upper clip of the target Q, likewise.
        cql_temperature: softness of the conservative term.
        dm_margin: margin of the margin term.
        backup: what the next state is worth: "v" (the V head, ILQL), "max" (the best action's target Q, as in
            Q-learning) or "soft" (`losses.soft_value` of the target Q with the policy as prior). With the last two, V
            regresses on the same value of its own state.
        beta: inverse temperature of the policy that is sought, prior * exp(beta A): in the advantage weights (or their
            sign weight) and in the soft backup. Decoding has its own.
        exp_weights: exponential weights; else beta where the advantage is positive and 1 - beta elsewhere.
        clip_weight: upper clip of the token weights; 0 is off.
        transition_weight: weight of tokens that are not actions in the policy loss.
        detach_v: keep the V loss from training the trunk.
        detach_q: keep the Q losses from training the trunk.
        detach_policy: keep the policy loss from training a trunk it shares with the values.
    """

    v_weight: float = 1.0
    q_weight: float = 1.0
    cql_weight: float = 0.25
    dm_weight: float = 0.0
    awac_weight: float = 0.0
    discount: float = 0.99
    td_lambda: float = 0.0
    turn_lambda: float = 1.0
    expectile: float = 0.7
    mc_returns: bool = False
    value_min: float = -jnp.inf
    value_max: float = jnp.inf
    cql_temperature: float = 1.0
    dm_margin: float = 0.0
    backup: str = "v"
    beta: float = 0.0
    exp_weights: bool = True
    clip_weight: float = 0.0
    transition_weight: float = 0.0
    detach_v: bool = False
    detach_q: bool = False
    detach_policy: bool = False

    def __post_init__(self) -> None:
        check_known(("v", "max", "soft"), backup=self.backup)
        check_range(self, "[0, 1]", "discount", "td_lambda", "turn_lambda", "expectile")
        # What turns the objective round, or makes it no number, where it is negative.
        check_range(self, "[0, inf)", "v_weight", "q_weight", "cql_weight", "dm_weight", "awac_weight")
        check_range(self, "[0, inf)", "transition_weight", "beta")
        check_range(self, "[0, inf]", "clip_weight")
        check_range(self, "(0, inf)", "cql_temperature")
        check_range(self, "(-inf, inf)", "dm_margin")
        if not self.value_min < self.value_max:
            raise UserError(
                f"value_min={self.value_min} is not below value_max={self.value_max}. -inf and inf do not clip."
            )
        if self.awac_weight and not self.exp_weights and self.beta > 1.0:
            raise UserError(
                f"beta={self.beta} with exp_weights=False would weigh actions without an advantage by 1 - beta, below "
                "0. Use a beta from 0 to 1, or exp_weights=True."
            )
        if self.backup == "soft" and not self.beta > 0.0:
            raise UserError(f"beta={self.beta} with backup='soft' must be positive: it is the inverse temperature.")


@dataclass(frozen=True)
class UtteranceILQLConfig(ILQLConfig):
    """The same for whole utterances as actions: V before one, Q where it ends; nothing to contrast an action with."""

    cql_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backup != "v":
            raise UserError(
                f"backup={self.backup!r} looks over all actions, which an utterance critic cannot. Use 'v'."
            )
        if self.cql_weight or self.dm_weight:
            raise UserError(
                f"cql_weight={self.cql_weight} and dm_weight={self.dm_weight} compare an action with all others, and "
                "an utterance critic knows no others. Set both to 0 for ilql_utterance."
            )


class Critic(NamedTuple):
    """Values at a batch's actions (A: tokens, or utterances). Entries where `action_mask` is false mean nothing."""

    v_t: Float[Array, "B A"]
    v_next: Float[Array, "B A"]
    target_q_t: Float[Array, "B A"]
    q_t: Float[Array, "heads B A"]
    cql: Float[Array, "heads B A"]
    margin: Float[Array, "heads B A"]


def make_ilql_loss(model: ValueLM, config: ILQLConfig) -> LossFn:
    """Make the ILQL loss (Snell et al. 2022, section 4); terms whose weight is 0 are not computed.

    The model's `level` says what an action is. The policy acts in tokens at either level.
    """

    def loss(params: dict, target: dict, batch: Batch, counts: Counts, dropout_key: Array | None) -> tuple[Array, dict]:
        moves = select_transitions(model, batch)
        n_actions = counts.actions if model.config.level == "token" else counts.utterances
        train_policy = config.awac_weight > 0
        read_policy = train_policy or config.backup == "soft"
        hidden = model.compute_hidden(
            params, target, batch.tokens, policy=read_policy, dropout_key=dropout_key, known=batch.hidden
        )
        with jax.named_scope("heads"):
            critic = compute_critic(model, config, params, target, batch, hidden)
        v_target = critic.target_q_t
        if config.backup != "v":
            values = back_up(model, config, params, target, moves, hidden)  # [B A+1]
            critic = critic._replace(v_next=values[:, 1:] * (1.0 - moves.terminals[:, 1:]))
            v_target = values[:, :-1]
        if config.mc_returns:
            v_target = losses.discounted_returns(moves.rewards, moves.action_mask, discount=config.discount)
        if config.td_lambda:
            v_next = jax.lax.stop_gradient(critic.v_next)
            td_lambda = config.td_lambda
            if config.turn_lambda != 1.0:
                td_lambda = jnp.where(ends_utterance(model, batch), td_lambda * config.turn_lambda, td_lambda)
            mixed = losses.lambda_next(
                moves.rewards, v_next, moves.action_mask, discount=config.discount, td_lambda=td_lambda
            )
            critic = critic._replace(v_next=mixed)

        def reduce(values: Float[Array, "B A"]) -> Float[Array, ""]:
            return losses.masked_mean(values, moves.action_mask, count=n_actions)

        td = losses.td_loss(critic.q_t, moves.rewards[None], critic.v_next[None], discount=config.discount)
        v_loss = losses.expectile_loss(critic.v_t, v_target, expectile=config.expectile)
        terms = {"v_loss": (config.v_weight, reduce(v_loss)), "q_loss": (config.q_weight, reduce(td.sum(0)))}
        if config.cql_weight:
            terms["cql_loss"] = (config.cql_weight, reduce(critic.cql.sum(0)))
        if config.dm_weight:
            terms["dm_loss"] = (config.dm_weight, reduce(critic.margin.sum(0)))
        if train_policy:
            detached = "policy" not in params and config.detach_policy  # from a trunk that is shared
            policy_hidden = jax.lax.stop_gradient(hidden.policy) if detached else hidden.policy
            token_loss = policy_loss(
                policy_trunk(params),
                policy_hidden,
                batch,
                counts,
                weigh_actions(model, config, batch, critic),
                transition_weight=config.transition_weight,
                clip=config.clip_weight,
            )
            terms["token_loss"] = (config.awac_weight, token_loss)
        total = sum(weight * value for weight, value in terms.values())
        metrics = {"loss": total} | {name: value for name, (_, value) in terms.items()}
        metrics |= {"v": reduce(critic.v_t), "q": reduce(critic.q_t.mean(0)), "target_q": reduce(critic.target_q_t)}
        return total, metrics

    return loss


def select_transitions(model: ValueLM, batch: Batch) -> Transitions:
    """Return what the critic calls actions: a batch's tokens or its utterances."""
    return batch.per_token if model.config.level == "token" else batch.per_utterance


def weigh_actions(model: ValueLM, config: ILQLConfig, batch: Batch, critic: Critic) -> Float[Array, "B A"]:
    """Weigh a batch's action tokens by advantage; at the utterance level a token has its utterance's weight.

    | token            | `<s>` | q | `</s>` | a | b | `</a>` | r | `</s>` | c | `</a>` |
    |------------------|-------|---|--------|---|---|--------|---|--------|---|--------|
    | action positions |       |   | 2      | 3 | 4 |        |   | 7      | 8 |        |
    | weight, token    |       |   | w0     | w1 | w2 |      |   | w3     | w4 |       |
    | weight, utterance |      |   | w0     | w0 | w0 |      |   | w1     | w1 |       |
    """
    weights = losses.advantage_weights(critic.target_q_t, critic.v_t, beta=config.beta, exponential=config.exp_weights)
    if model.config.level == "token":
        return weights
    return jnp.take_along_axis(weights, number_utterances(batch), axis=1, mode="clip")


def number_utterances(batch: Batch) -> Int[Array, "B A"]:
    """Number the agent's utterances of a row, and return of which each action token is."""
    utterances = batch.per_utterance
    closed = utterances.action_idxs[:, None] <= batch.per_token.action_idxs[..., None]  # [B A U]
    return (closed & utterances.action_mask[:, None]).sum(-1)


def ends_utterance(model: ValueLM, batch: Batch) -> Bool[Array, "B A"]:
    """Find the actions that close an utterance; at the utterance level each does."""
    if model.config.level == "utterance":
        return jnp.ones_like(batch.per_utterance.action_mask)
    number = number_utterances(batch)
    return jnp.concatenate([number[:, 1:] != number[:, :-1], jnp.ones_like(number[:, :1], bool)], axis=1)


def compute_critic(
    model: ValueLM, config: ILQLConfig, params: dict, target: dict, batch: Batch, hidden: NamedTuple
) -> Critic:
    """Evaluate V, Q and target Q at a batch's actions, from its hidden states.

    | position j            | 0     | 1 `</s>` | 2       | 3        | 4      |
    |-----------------------|-------|----------|---------|----------|--------|
    | token                 | `<s>` | `</s>`   | a       | `</a>`   | `</eod>` |
    | action index          |       | 1 (-> a) | 2 (-> `</a>`) |    |        |
    | `v_t`                 |       | V(1)     | V(2)    |          |        |
    | `v_next`              |       | V(2)     | 0: terminal |       |         |

    A dialogue that is not over has no `</eod>`: its last state is its last token,
    3, and the second `v_next` is V(3).
    """
    moves = select_transitions(model, batch)
    states = losses.gather_positions(hidden.value, moves.state_idxs)
    acted = losses.gather_positions(hidden.value, moves.action_idxs)
    acted_slow = losses.gather_positions(hidden.target, moves.action_idxs)
    actions = taken_tokens(batch.tokens, moves) if model.config.level == "token" else None
    v = model.compute_v(params, jax.lax.stop_gradient(states) if config.detach_v else states)
    target_q_t = model.compute_target_q(model.get_q_heads(target, params), acted_slow, actions)
    acted = jax.lax.stop_gradient(acted) if config.detach_q else acted
    q_heads = model.get_q_heads(params, params)
    per_head = [q_statistics(model, config, head, acted, actions) for head in q_heads.values()]
    q_t, cql, margin = (jnp.stack(values) for values in zip(*per_head, strict=True))
    return Critic(
        v_t=v[:, :-1],
        v_next=v[:, 1:] * (1.0 - moves.terminals[:, 1:]),
        target_q_t=jnp.clip(target_q_t, config.value_min, config.value_max),
        q_t=q_t,
        cql=cql,
        margin=margin,
    )


def back_up(
    model: ValueLM, config: ILQLConfig, params: dict, target: dict, moves: Transitions, hidden: NamedTuple
) -> Float[Array, "B {moves.rewards.shape[1]}+1"]:
    """Value a batch's states by the target Q of all their actions (`ILQLConfig.backup`); carries no gradient."""

    slow_heads = model.get_q_heads(target, params)

    def rows(states: Float[Array, "N D"], policy_states: Float[Array, "N D"]) -> Float[Array, " N"]:
        q = chunks.keep_scores(model.compute_target_q_all(slow_heads, states))  # [N V]
        q = jnp.clip(q, config.value_min, config.value_max)
        if config.backup == "max":
            return q.max(-1)
        log_prior = jax.nn.log_softmax(chunks.keep_scores(compute_logits(policy_trunk(params), policy_states)), axis=-1)
        return losses.soft_value(q, log_prior, beta=config.beta)

    read = (hidden.target, hidden.policy if config.backup == "soft" else hidden.target)
    states = [losses.gather_positions(x, moves.state_idxs).reshape(-1, x.shape[-1]) for x in read]
    values = chunks.scan_vocabulary(rows, *states, vocab_size=model.backbone.config.vocab_size)
    return jax.lax.stop_gradient(values.reshape(moves.state_idxs.shape))


def q_statistics(
    model: ValueLM, config: ILQLConfig, head: dict, hidden: Float[Array, "B A D"], actions: Int[Array, "B A"] | None
) -> tuple[Array, Array, Array]:
    """Compute one head's Q(s, a), conservative and margin terms; all-action values exist for a chunk of rows only."""
    features = model.compute_q_features(head, hidden)
    if actions is None or (not config.cql_weight and not config.dm_weight):
        q_t = model.finish_q(head, features, actions)
        return q_t, jnp.zeros_like(q_t), jnp.zeros_like(q_t)
    rows, taken, temperature = features.reshape(-1, features.shape[-1]), actions.reshape(-1), config.cql_temperature

    def score_with_margin(features: Float[Array, "N F"], taken: Int[Array, " N"]) -> tuple[Array, Array, Array]:
        q = chunks.keep_scores(heads.project(head, features))  # [N V]
        scores = chunks.reduce_scores(q, taken, temperature=temperature)
        return *scores, losses.margin_loss(q, scores.taken, margin=config.dm_margin)

    if config.dm_weight:
        vocab_size = model.backbone.config.vocab_size
        q_t, log_z, margin = chunks.scan_vocabulary(score_with_margin, rows, taken, vocab_size=vocab_size)
    else:
        q_t, log_z = score_actions(head, rows, taken, temperature=temperature)
        margin = jnp.zeros_like(q_t)
    cql = losses.cql_loss(log_z, q_t, temperature=temperature)
    return tuple(x.reshape(actions.shape) for x in (q_t, cql, margin))


def score_actions(
    head: dict, features: Float[Array, "N F"], actions: Int[Array, " N"], *, temperature: float
) -> chunks.Scores:
    """Compute Q of taken actions, and log sum exp(Q / temperature) over all, from one head's features."""
    layer = head["dense_out"]
    if "embedding" not in head:
        return score_rows(features, layer["kernel"], layer["bias"], actions, temperature=temperature)
    own, shared = features[:, :-1], features[:, -1].astype(jnp.float32)
    scores = score_rows(own, head["embedding"], layer["bias"], actions, axis=1, temperature=temperature)
    return chunks.Scores(scores.taken + shared, scores.log_normalizer + shared / temperature)


def unreached_paths(model: ValueLM, config: ILQLConfig, params: dict) -> tuple[tuple[str, ...], ...]:
    """List parameters that no term of the ILQL loss reads, as torch would leave their gradient `None`."""
    if "trunk" not in params:  # frozen
        return ()
    policy_in_trunk = config.awac_weight > 0 and "policy" not in params
    if config.detach_v and config.detach_q and not policy_in_trunk:
        return (("trunk",),)
    if config.detach_v and config.detach_q and config.detach_policy:  # what is left is the language-model head
        head = "lm_head" if "lm_head" in params["trunk"] else "wte"
        return tuple(("trunk", name) for name in params["trunk"] if name not in (head, f"{head}_rows"))
    unread = () if policy_in_trunk else ("lm_head", "lm_head_rows", *(("ln_f",) if model.config.advanced_mlp else ()))
    return tuple(("trunk", name) for name in unread if name in params["trunk"])
