"""Losses on models: what padding leaves alone, where gradients go, and the same numbers by other routes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chats import (
    BATCH,
    FULL,
    JOINT,
    SEPARATE_SINGLE,
    SHARED,
    TOKENIZER,
    Talk,
    assert_close,
    leaf_paths,
    make_batch,
    make_model,
    make_params,
)

from ilqljax.models import chunks
from ilqljax.models.value_lm import ValueLMConfig
from ilqljax.rl.objectives import likelihood, values
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import count_batch


def grad_fn(model, config):
    """Compile the loss with its metrics, and its gradients with respect to parameters and targets."""
    loss = values.make_ilql_loss(model, config)

    def objective(params, target, batch, key):
        return loss(params, target, batch, count_batch(batch), key)

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))


@pytest.fixture(scope="module")
def full():
    """The compiled full loss: `full(batch)` gives ((loss, metrics), gradients)."""
    compiled = grad_fn(make_model(JOINT), FULL)
    return lambda batch=BATCH: compiled(*make_params(JOINT), batch, None)


# Masks.


@pytest.mark.slow
def test_more_padding_changes_neither_loss_nor_gradients(full):
    (_, metrics), gradients = full()
    (_, more_metrics), more_gradients = full(make_batch(length=27, n_actions=16, batch_size=11))
    assert_close(more_metrics, metrics, rtol=1e-5)
    assert_close(more_gradients, gradients)


def test_what_padding_holds_changes_nothing(full):
    (_, metrics), gradients = full()
    tokens = np.where(BATCH.token_mask, BATCH.tokens, 3)
    moves = BATCH.per_token
    rewards = np.where(moves.action_mask, moves.rewards, 50.0).astype(np.float32)
    indices = np.where(moves.action_mask, moves.action_idxs, 7)
    filled = BATCH._replace(tokens=tokens, per_token=moves._replace(rewards=rewards, action_idxs=indices))
    (_, other_metrics), other_gradients = full(filled)
    assert_close(other_metrics, metrics, rtol=1e-5)
    assert_close(other_gradients, gradients)


def test_batch_without_action_has_no_value_loss_and_finite_gradients(full):
    (loss, metrics), gradients = full(make_batch([Talk((("only them", None),))] * 2))
    assert all(metrics[name] == 0.0 for name in ("v_loss", "q_loss", "cql_loss", "dm_loss"))
    assert loss == metrics["token_loss"] > 0.0  # transition_weight counts the environment's tokens
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_batch_of_filler_rows_has_loss_zero_and_zero_gradients(full):
    (loss, metrics), gradients = full(make_batch([], batch_size=8))
    assert loss == 0.0
    assert all(value == 0.0 for value in metrics.values())
    assert all((g == 0.0).all() for g in jax.tree.leaves(gradients))


def test_an_infinite_weight_of_padding_leaves_the_gradient_finite():
    weights = jnp.where(BATCH.per_token.action_mask, 1.0, jnp.inf)
    wte, hidden = jnp.ones((TOKENIZER.vocab_size, 4)), jnp.ones((*BATCH.tokens.shape, 4))

    @jax.jit
    @jax.grad
    def gradient(hidden, weights):
        trunk = {"wte": wte}
        return likelihood.policy_loss(trunk, hidden, BATCH, count_batch(BATCH), weights, transition_weight=0.0)

    np.testing.assert_array_equal(gradient(hidden, weights), gradient(hidden, jnp.ones_like(weights)))


# Where gradients go.


def reached(networks, config):
    """Return, for each loss term, the networks (and parts of the trunk) that its gradient reaches."""
    loss = values.make_ilql_loss(make_model(networks), config)

    def terms(trees):
        _, metrics = loss(*trees, BATCH, count_batch(BATCH), None)
        return {name: value for name, value in metrics.items() if name.endswith("loss")}

    def nonzero(gradients):
        params, target = gradients
        names = {name for name, tree in params.items() if any(jnp.any(g != 0) for g in jax.tree.leaves(tree))}
        slow = {f"target {name}" for name, tree in target.items() if any(jnp.any(g) for g in jax.tree.leaves(tree))}
        parts = {f"trunk/{part}" for part, g in params["trunk"].items() if any(jnp.any(x) for x in jax.tree.leaves(g))}
        return names | slow | parts

    gradients = jax.device_get(jax.jit(jax.jacrev(terms))(make_params(networks)))
    return {name: nonzero(gradient) for name, gradient in gradients.items()}


WHOLE_TRUNK = {"trunk", "trunk/wte", "trunk/wpe", "trunk/h", "trunk/ln_f"}


def test_each_term_trains_its_own_networks_and_never_a_target():
    terms = reached(SEPARATE_SINGLE, FULL)
    # V_next carries no gradient, so the TD loss leaves V alone; advantage weights carry none, so the policy loss
    # leaves the critic alone.
    assert terms["q_loss"] == terms["cql_loss"] == terms["dm_loss"] == WHOLE_TRUNK | {"q1"}
    assert terms["v_loss"] == WHOLE_TRUNK | {"v"}
    assert terms["token_loss"] == {"policy"}
    assert terms["loss"] == WHOLE_TRUNK | {"q1", "v", "policy"}


def test_detached_terms_leave_the_trunk_to_the_tied_head():
    config = dataclasses.replace(FULL, detach_v=True, detach_q=True, detach_policy=True)
    terms = reached(SHARED, config)
    assert terms["q_loss"] == terms["cql_loss"] == {"q1"}
    assert terms["v_loss"] == {"v"}
    assert terms["token_loss"] == {"trunk", "trunk/wte"}
    params = make_params(SHARED)[0]
    listed = values.unreached_paths(make_model(SHARED), config, params)
    assert {*listed} == {("trunk", name) for name in params["trunk"]} - {("trunk", "wte")}


def test_advanced_heads_never_read_the_final_layer_norm():
    networks = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False, advanced_mlp=True)
    config = ILQLConfig(cql_weight=0.0)
    (_, _), (gradients, _) = grad_fn(make_model(networks), config)(*make_params(networks), BATCH, None)
    zero = leaf_paths(gradients, lambda g: not g.any())
    assert zero == {("trunk", "ln_f", "scale"), ("trunk", "ln_f", "bias")}
    listed = values.unreached_paths(make_model(networks), config, gradients)
    assert {path for path in leaf_paths(gradients, lambda g: True) if path[:2] in listed} == zero


# The same numbers by other routes.


def test_chunked_vocabulary_equals_the_direct_one(full, monkeypatch):
    (_, metrics), gradients = full()
    monkeypatch.setattr(chunks, "MAX_LOGITS", 9 * TOKENIZER.vocab_size)  # 104 actions and 152 targets: ragged chunks
    (_, chunked_metrics), chunked = grad_fn(make_model(JOINT), FULL)(*make_params(JOINT), BATCH, None)
    assert_close(chunked_metrics, metrics, rtol=1e-5)
    assert_close(chunked, gradients)


def test_target_never_sees_dropout(full):
    (_, undropped), _ = full()
    loss = jax.jit(values.make_ilql_loss(make_model(JOINT, dropout=0.5), FULL))
    counts = count_batch(BATCH)
    first, second = (loss(*make_params(JOINT), BATCH, counts, jax.random.key(n))[1] for n in range(2))
    # The target Q reads the target trunk and target heads alone; V, Q and the policy read a trunk with dropout.
    np.testing.assert_allclose(first["target_q"], undropped["target_q"], rtol=1e-5)
    np.testing.assert_allclose(second["target_q"], undropped["target_q"], rtol=1e-5)
    for name in ("v", "q", "token_loss"):
        assert len({float(x[name]) for x in (first, second, undropped)}) == 3, name
