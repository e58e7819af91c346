"""The terms of the ILQL loss on models, against a slow twin, and where their values stand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chats import (
    ADVANCED,
    BATCH,
    DIALOGUES,
    FULL,
    SEPARATE,
    SHARED,
    TOKENIZER,
    Talk,
    make_batch,
    make_model,
    make_params,
)

from ilqljax.models.backbone import compute_logits
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.objectives import likelihood, values
from ilqljax.rl.objectives.likelihood import BCConfig
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import count_batch

# A slow twin, written from the convention and the loss definitions alone.


def model_arrays(networks, batch):
    """Compute what the twin starts from: v [B T], q and target q [heads B T V], policy logits [B T V]."""
    model = make_model(networks)

    @jax.jit
    def compute(params, target):
        hidden = model.compute_hidden(params, target, batch.tokens, policy=True)

        def q(heads, x):
            return jnp.stack([model.q_head.apply({"params": heads[name]}, x) for name in model.q_names])

        logits = compute_logits(policy_trunk(params), hidden.policy)
        return model.compute_v(params, hidden.value), q(params, hidden.value), q(target, hidden.target), logits

    return [np.float64(x) for x in compute(*make_params(networks))]


def log_sum_exp(values):
    return np.log(np.exp(values - values.max()).sum()) + values.max()


def lay_out(dialogue):
    """Return a dialogue's tokens and (position, reward) of each action."""
    t = TOKENIZER
    tokens = [t.bos_id if dialogue.sequence[0][1] is None else t.boa_id]
    actions = []
    for text, reward in dialogue.sequence:
        start = len(tokens) - 1
        tokens += [*t.encode(text), t.eos_id if reward is None else t.eoa_id]
        if reward is not None:
            actions += [(j, 0.0) for j in range(start, len(tokens) - 2)] + [(len(tokens) - 2, reward)]
    return tokens + [t.eod_id] * dialogue.terminal, actions


def slow_losses(dialogues, arrays, c):
    """Sum the loss terms over rows and actions, one at a time."""
    v, qs, target_qs, logits = arrays
    sums = dict.fromkeys(("v_loss", "q_loss", "cql_loss", "dm_loss", "token_loss"), 0.0)
    n_actions = n_targets = 0
    for b, dialogue in enumerate(dialogues):
        tokens, actions = lay_out(dialogue)
        weights = dict.fromkeys(range(len(tokens) - 1), c.transition_weight)
        states = [j for j, _ in actions] + [len(tokens) - 1]
        for n, (j, reward) in enumerate(actions):
            a = tokens[j + 1]
            over = dialogue.terminal and n == len(actions) - 1
            v_next = 0.0 if over else v[b, states[n + 1]]
            target_q = np.clip(min(q[b, j, a] for q in target_qs), c.value_min, c.value_max)
            to_go = sum(c.discount**k * r for k, (_, r) in enumerate(actions[n:]))
            difference = (to_go if c.mc_returns else target_q) - v[b, j]
            sums["v_loss"] += abs(c.expectile - (difference < 0)) * difference**2
            for q in qs:
                sums["q_loss"] += (reward + c.discount * v_next - q[b, j, a]) ** 2
                sums["cql_loss"] += log_sum_exp(q[b, j] / c.cql_temperature) - q[b, j, a] / c.cql_temperature
                sums["dm_loss"] += (np.maximum(q[b, j] - q[b, j, a] + c.dm_margin, 0.0) ** 2).sum()
            advantage = target_q - v[b, j]
            sign = c.beta if advantage > 0 else 1.0 - c.beta
            weights[j] = np.exp(c.beta * advantage) if c.exp_weights else sign
        for j, weight in weights.items():
            weight = min(weight, c.clip_weight) if c.clip_weight else weight
            sums["token_loss"] += weight * (log_sum_exp(logits[b, j]) - logits[b, j, tokens[j + 1]])
        n_actions += len(actions)
        n_targets += len(tokens) - 1
    means = {name: total / n_actions for name, total in sums.items()} | {"token_loss": sums["token_loss"] / n_targets}
    term_weights = (c.v_weight, c.q_weight, c.cql_weight, c.dm_weight, c.awac_weight)
    total = sum(weight * mean for weight, mean in zip(term_weights, means.values(), strict=True))
    on = {name: mean for (name, mean), weight in zip(means.items(), term_weights, strict=True) if weight}
    return on | {"loss": total}


TWINS = {
    "everything on": (SEPARATE, FULL),
    "options off their defaults": (
        SHARED,
        ILQLConfig(
            v_weight=0.5,
            q_weight=2.0,
            dm_weight=0.2,
            dm_margin=0.3,
            awac_weight=1.5,
            discount=0.8,
            mc_returns=True,
            value_min=-0.4,
            value_max=0.3,
            cql_temperature=2.0,
            beta=0.7,
            exp_weights=False,
            clip_weight=0.6,
        ),
    ),
    "values only": (ADVANCED, ILQLConfig(cql_weight=0.0, expectile=0.9, value_max=0.1)),
}


@pytest.mark.parametrize("case", TWINS)
def test_loss_terms_equal_the_slow_twin(case):
    networks, config = TWINS[case]
    expected = slow_losses(DIALOGUES, model_arrays(networks, BATCH), config)
    loss = jax.jit(values.make_ilql_loss(make_model(networks), config))
    total, metrics = loss(*make_params(networks), BATCH, count_batch(BATCH), None)
    assert {name for name in metrics if name.endswith("loss")} == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=2e-5), name
    assert total == metrics["loss"]


def test_cloning_loss_is_the_unweighted_cross_entropy_of_actions():
    networks, config = SHARED, ILQLConfig(v_weight=0.0, q_weight=0.0, cql_weight=0.0, awac_weight=1.0)
    expected = slow_losses(DIALOGUES, model_arrays(networks, BATCH), config)["token_loss"]  # beta 0: all weights are 1
    loss = jax.jit(likelihood.make_bc_loss(make_model(networks), BCConfig()))
    total, _ = loss({"policy": make_params(networks)[0]["trunk"]}, {}, BATCH, count_batch(BATCH), None)
    assert total == pytest.approx(expected, rel=2e-5)


@pytest.fixture(scope="module")
def critic():
    """`critic(batch)` gives the values at a batch's actions and V [B T] at every position."""
    model = make_model()

    @jax.jit
    def compute(params, target, batch):
        hidden = model.compute_hidden(params, target, batch.tokens, policy=False)
        return values.compute_critic(model, ILQLConfig(), params, target, batch, hidden), model.compute_v(
            params, hidden.value
        )

    return lambda batch: compute(*make_params(SEPARATE), batch)


def test_terminal_step_bootstraps_zero(critic):
    # `<s> </s> a </a> </eod>`: actions at 1 and 2, as in `compute_critic`'s table.
    values, v = critic(make_batch([Talk((("", None), ("a", 1.0)))], length=5, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_t[0], v[0, [1, 2]])
    np.testing.assert_array_equal(values.v_next[0], [v[0, 2], 0.0])


def test_truncated_dialogue_bootstraps_from_its_last_state(critic):
    # `<s> </s> a </a>`, padded: the state after the last action is that of `</a>`, at 3.
    chat = Talk((("", None), ("a", 1.0)), terminal=False)
    values, v = critic(make_batch([chat], length=5, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_next[0], v[0, [2, 3]])


def test_environment_tokens_are_skipped(critic):
    # `<s> </s> </a> b </s> </a>`: from the action at 1, the next state is the next action's, at 4.
    chat = Talk((("", None), ("", 1.0), ("b", None), ("", 1.0)), terminal=False)
    values, v = critic(make_batch([chat], length=6, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_next[0], v[0, [4, 5]])


# Counts and weights.


def test_counts_are_actions_and_target_tokens():
    counts = count_batch(make_batch(DIALOGUES[:2]))
    # `<s> ab </s> cd </a> </eod>`: 3 actions, 7 targets; 13 + 9 + ... : 4 + 1 actions, 18 targets.
    rows = [lay_out(dialogue) for dialogue in DIALOGUES[:2]]
    assert [len(actions) for _, actions in rows] == [3, 5]
    assert (counts.actions, counts.tokens) == (8.0, sum(len(tokens) - 1 for tokens, _ in rows))


def test_token_weights_stand_at_actions_and_transition_weight_elsewhere():
    batch = make_batch([DIALOGUES[0]], length=9, n_actions=4, batch_size=1)  # <s> a b </s> c d </a> </eod>
    weights = likelihood.token_weights(batch, np.array([[2.0, 3.0, 4.0, 9.0]], np.float32), transition_weight=0.5)
    np.testing.assert_array_equal(weights, [[0.5, 0.5, 0.5, 2.0, 3.0, 4.0, 0.5, 0.5, 0.5]])
