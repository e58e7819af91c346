"""Losses on models, and the train step: a slow twin, masks, gradient stops, accumulation, devices, targets."""

import dataclasses
import functools
import string
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.types import Counts
from ilqljax.errors import UserError
from ilqljax.models import chunks
from ilqljax.models.backbone import compute_logits
from ilqljax.models.cpu import attention
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.hf import load_language_model, save_language_model
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.rl.objectives import likelihood, values
from ilqljax.rl.objectives.likelihood import BCConfig
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import TargetConfig, TrainState, count_batch, init_state, make_train_step, sum_microbatches
from ilqljax.training.mesh import MeshConfig, infer_param_shardings, make_mesh, shard_batch

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + " .,!?'-")  # 40 ids
TRUNK = GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=32, n_embd=16, n_layer=2, n_head=2)
SEPARATE = ValueLMConfig()
SEPARATE_SINGLE = ValueLMConfig(double_q=False)
JOINT = ValueLMConfig(separate_policy=False)
SHARED = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)
ADVANCED = ValueLMConfig(separate_policy=False, advanced_mlp=True)
# Every term is on, so that whatever breaks one breaks a test.
FULL = ILQLConfig(dm_weight=0.1, dm_margin=0.1, awac_weight=1.0, beta=0.5, transition_weight=0.3, discount=0.9)


@dataclass(frozen=True)
class Chat:
    """A dialogue: utterances with the agent's rewards, and whether it is over."""

    sequence: tuple
    terminal: bool = True

    def to_sequence(self) -> tuple[list, bool]:
        return list(self.sequence), self.terminal

    def metadata(self) -> dict[str, Any]:
        return {}


DIALOGUES = (
    Chat((("ab", None), ("cd", 1.5))),
    Chat((("hi there", None), ("yo.", -0.5), ("ok?", None), ("", 2.0)), terminal=False),
    Chat((("a", 0.25), ("b", None))),
    Chat((("nobody answers", None),)),  # no action
    Chat((("x", None), ("long answer", -1.0)), terminal=False),
    Chat((("q", None), ("w", 1.0), ("e", None), ("rt", 0.5))),
)


def make_batch(dialogues=DIALOGUES, *, length=20, n_actions=13, batch_size=8):
    points = [DataPoint.from_observation(dialogue, TOKENIZER) for dialogue in dialogues]
    return collate(
        points,
        length=length,
        n_actions=n_actions,
        n_utterance_actions=2,
        pad_id=TOKENIZER.pad_id,
        batch_size=batch_size,
    )


BATCH = make_batch()


@functools.cache
def make_model(networks=SEPARATE, **numerics):
    return ValueLM(GPT2(dataclasses.replace(TRUNK, **numerics)), networks)


@functools.cache
def make_params(networks):
    """Draw `(params, target)`, all networks different, at a scale at which every term counts."""
    model = make_model(networks)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(rng.normal(0.0, 0.3, shape.shape), jnp.float32)

    return jax.tree.map(draw, shapes), jax.tree.map(draw, jax.eval_shape(model.init_target, shapes))


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


def assert_close(got, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, expected)


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
    values, v = critic(make_batch([Chat((("", None), ("a", 1.0)))], length=5, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_t[0], v[0, [1, 2]])
    np.testing.assert_array_equal(values.v_next[0], [v[0, 2], 0.0])


def test_truncated_dialogue_bootstraps_from_its_last_state(critic):
    # `<s> </s> a </a>`, padded: the state after the last action is that of `</a>`, at 3.
    chat = Chat((("", None), ("a", 1.0)), terminal=False)
    values, v = critic(make_batch([chat], length=5, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_next[0], v[0, [2, 3]])


def test_environment_tokens_are_skipped(critic):
    # `<s> </s> </a> b </s> </a>`: from the action at 1, the next state is the next action's, at 4.
    chat = Chat((("", None), ("", 1.0), ("b", None), ("", 1.0)), terminal=False)
    values, v = critic(make_batch([chat], length=6, n_actions=2, batch_size=1))
    np.testing.assert_array_equal(values.v_next[0], v[0, [4, 5]])


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
    (loss, metrics), gradients = full(make_batch([Chat((("only them", None),))] * 2))
    assert all(metrics[name] == 0.0 for name in ("v_loss", "q_loss", "cql_loss", "dm_loss"))
    assert loss == metrics["token_loss"] > 0.0  # transition_weight counts the environment's tokens
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_batch_of_filler_rows_has_loss_zero_and_zero_gradients(full):
    (loss, metrics), gradients = full(make_batch([], batch_size=8))
    assert loss == 0.0
    assert all(value == 0.0 for value in metrics.values())
    assert all((g == 0.0).all() for g in jax.tree.leaves(gradients))


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


def leaf_paths(tree, condition):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(key.key for key in path) for path, leaf in leaves if condition(leaf)}


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


STEP_LOSS = ILQLConfig(awac_weight=1.0, beta=0.5)


@functools.cache
def jit_step(networks=SHARED, config=STEP_LOSS, *, accumulate_steps=1, **numerics):
    """Compile a train step with plain gradient descent, whose updates are as exact as the gradients."""
    loss = values.make_ilql_loss(make_model(networks, **numerics), config)
    options = {"target": TargetConfig(polyak=0.25), "accumulate_steps": accumulate_steps}
    return jax.jit(make_train_step(loss, optax.sgd(0.01), **options), donate_argnums=0)


def make_state(networks=SHARED, frozen=()):
    params, target = make_params(networks)
    kept = {name: tree for name, tree in params.items() if name not in frozen}
    read = {name: params[name] for name in frozen}
    return init_state(kept, target=target, frozen=read, optimizer=optax.sgd(0.01), key=jax.random.key(0))


@pytest.fixture(scope="module")
def stepped():
    """State and metrics after one step on one device."""
    state, metrics = jit_step()(make_state(), BATCH)
    return jax.device_get(state._replace(key=0)), jax.device_get(metrics)


def assert_same_step(got, expected):
    (state, metrics), (expected_state, expected_metrics) = got, expected
    assert state.step == expected_state.step == 1
    assert_close(metrics, expected_metrics, rtol=2e-5)
    assert_close(jax.device_get(state.params), expected_state.params, rtol=2e-5)
    assert_close(jax.device_get(state.target), expected_state.target, rtol=2e-5)


@pytest.mark.slow
def test_accumulated_microbatches_equal_the_whole_batch(stepped):
    # The rows' numbers of actions differ, so a mean of the microbatches' means would not do.
    assert_same_step(jit_step(accumulate_steps=2)(make_state(), BATCH), stepped)


def test_remat_and_unrolled_layers_leave_the_numbers(stepped):
    assert_same_step(jit_step(remat=True, unroll=2)(make_state(), BATCH), stepped)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)], ids=["data", "all axes"])
def test_eight_devices_give_the_numbers_of_one(stepped, sizes):
    mesh = make_mesh(sizes)
    state = make_state()
    shardings = infer_param_shardings(jax.eval_shape(lambda: state), mesh)
    state, metrics = jit_step()(jax.device_put(state, shardings), shard_batch(BATCH, mesh))
    assert len(state.params["q1"]["dense_out"]["kernel"].sharding.device_set) == 8
    assert_same_step((state, metrics), stepped)


@pytest.mark.slow
def test_attention_in_blocks_and_scores_in_chunks_on_eight_devices_give_the_numbers_of_one(stepped, monkeypatch):
    # Rows of 20 tokens in blocks of 8, 104 actions in chunks of at most 60.
    monkeypatch.setattr(attention, "BLOCK", 8)
    monkeypatch.setattr(chunks, "MAX_LOGITS", 60 * TOKENIZER.vocab_size)
    mesh = make_mesh(MeshConfig())
    state = make_state()
    shardings = infer_param_shardings(jax.eval_shape(lambda: state), mesh)
    step = jit_step.__wrapped__()  # compiled anew
    assert_same_step(step(jax.device_put(state, shardings), shard_batch(BATCH, mesh)), stepped)


def test_bfloat16_activations_keep_float32_parameters_and_the_loss(stepped):
    # The types need no compiled step, and the numbers no gradients.
    state, metrics = jax.eval_shape(jit_step(dtype="bfloat16"), make_state(), BATCH)
    assert {x.dtype for x in jax.tree.leaves((state.params, state.target, metrics))} == {jnp.dtype("float32")}
    loss = jax.jit(values.make_ilql_loss(make_model(SHARED, dtype="bfloat16"), STEP_LOSS))
    value, _ = loss(*make_params(SHARED), BATCH, count_batch(BATCH), None)
    assert value == pytest.approx(stepped[1]["loss"], rel=0.05)


# The step's own work.


def test_policy_without_weight_is_frozen_while_targets_follow_every_step():
    step = jit_step(SEPARATE_SINGLE, ILQLConfig(cql_weight=0.0))
    state = make_state(SEPARATE_SINGLE, frozen=("policy",))
    for _ in range(3):
        before = jax.device_get(state._replace(key=0))
        state, metrics = step(state, BATCH)
        assert "token_loss" not in metrics
        for name, slow in state.target.items():
            expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.target[name], state.params[name])
            assert_close(slow, expected, rtol=1e-5)
    moved = leaf_paths(jax.tree.map(lambda a, b: np.any(a != b), jax.device_get(state.params), before.params), bool)
    assert {path[0] for path in moved} == {"trunk", "v", "q1"}
    jax.tree.map(np.testing.assert_array_equal, state.frozen["policy"], make_params(SEPARATE_SINGLE)[0]["policy"])


def test_a_fixed_divisor_scales_losses_and_gradients_and_leaves_the_batchs_own_counts():
    step = make_train_step(
        values.make_ilql_loss(make_model(SHARED), STEP_LOSS),
        optax.sgd(1.0),
        target=TargetConfig(),
        counts=Counts(*(2 * number for number in count_batch(BATCH))),
    )
    halved, metrics = jax.jit(step)(make_state(), BATCH)
    plain, expected = jit_step()(make_state(), BATCH)
    for name, value in metrics.items():
        factor = 1.0 if name in ("actions", "tokens") else 0.5
        np.testing.assert_allclose(value, factor * expected[name], rtol=1e-5, err_msg=name)
    start = make_params(SHARED)[0]
    moved, full_move = (jax.tree.map(jnp.subtract, start, state.params) for state in (halved, plain))
    assert_close(moved, jax.tree.map(lambda x: 50.0 * x, full_move), rtol=1e-2, atol=1e-3)  # rates 1 and 0.01


def toy_loss(params, target, batch, counts, dropout_key):
    """A loss whose gradient is 1 everywhere; `draw` shows the step's randomness."""
    draw = jnp.zeros(()) if dropout_key is None else jax.random.uniform(dropout_key)
    total = sum(x.sum() for x in jax.tree.leaves(params))
    return total, {"loss": total, "draw": draw}


def run_toy(n_steps, **options):
    """Run steps on two parameters that start at 0; return the states and metrics after each, and the step."""
    params = {"q1": jnp.zeros(2), "v": {"w": jnp.zeros(2)}}
    target = {"q1": jnp.full(2, 10.0)}
    state = init_state(params, target=target, frozen={}, optimizer=optax.sgd(1.0), key=jax.random.key(1))
    step = jax.jit(make_train_step(toy_loss, optax.sgd(1.0), **options))
    history = []
    for _ in range(n_steps):
        history.append(step(state, BATCH))
        state = history[-1][0]
    return history, step


def targets_of(run):
    return [state.target["q1"].tolist()[0] for state, _ in run[0]]


def test_targets_move_by_polyak_after_the_optimizer():
    # Parameters go -1, -2; 10 + 0.5 (-1 - 10) = 4.5; 4.5 + 0.5 (-2 - 4.5) = 1.25
    assert targets_of(run_toy(2, target=TargetConfig(polyak=0.5))) == [4.5, 1.25]


def test_hard_updates_copy_every_so_many_steps_and_leave_polyak_out():
    run = run_toy(5, target=TargetConfig(polyak=0.5, hard_update_every=2))
    assert targets_of(run) == [10.0, -2.0, -2.0, -4.0, -4.0]


def test_weight_decay_leaves_unreached_parameters_alone():
    decay = optax.chain(optax.scale(0.0), optax.add_decayed_weights(1.0), optax.sgd(1.0))
    params = {"trunk": {"ln_f": jnp.ones(2), "wte": jnp.ones(2)}}
    state = init_state(params, target={}, frozen={}, optimizer=decay, key=jax.random.key(0))
    step = make_train_step(toy_loss, decay, target=TargetConfig(), unreached=(("trunk", "ln_f"),))
    state, _ = jax.jit(step)(state, BATCH)
    assert state.params["trunk"]["ln_f"].tolist() == [1.0, 1.0]
    assert state.params["trunk"]["wte"].tolist() == [0.0, 0.0]


def test_each_step_draws_anew_and_a_resumed_run_the_same():
    history, step = run_toy(3, target=TargetConfig(), dropout=True)
    draws = [float(metrics["draw"]) for _, metrics in history]
    assert len(set(draws)) == 3
    _, again = step(history[0][0], BATCH)
    assert float(again["draw"]) == draws[1]


def test_without_dropout_no_key_is_drawn():
    assert [float(metrics["draw"]) for _, metrics in run_toy(2, target=TargetConfig())[0]] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("group_size", "dealt"), [(1, [[0, 2, 4, 6], [1, 3, 5, 7]]), (2, [[0, 1, 4, 5], [2, 3, 6, 7]])]
)
def test_microbatches_are_dealt_in_groups(group_size, dealt):
    seen = sum_microbatches(lambda rows, i: jnp.zeros((2, 4)).at[i].set(rows), jnp.arange(8), 2, group_size=group_size)
    np.testing.assert_array_equal(seen, dealt)


def test_microbatches_draw_their_own_randomness():
    def draw(n):
        (_, metrics), *_ = run_toy(1, target=TargetConfig(), dropout=True, accumulate_steps=n)[0]
        return float(metrics["draw"])

    assert draw(2) not in (draw(1), 2 * draw(1))


# Where a run starts.


@pytest.mark.parametrize(
    ("algorithm", "networks", "options"),
    [
        ("bc", SEPARATE, {}),
        ("ilql", SEPARATE, {}),
        ("ilql", SEPARATE, {"awac_weight": 1.0}),
        ("ilql", SHARED, {"awac_weight": 1.0}),
    ],
)
def test_policy_starts_as_the_loaded_language_model(algorithm, networks, options, loaded):
    trunk, run = loaded
    model = make_model(networks)
    learner = make_learner(algorithm, model, ConfigDict(options))
    state = init_learner_state(learner, optimizer=optax.sgd(0.1), key=jax.random.key(5), trunk=trunk)
    policy = policy_trunk({**state.params, **state.frozen})
    np.testing.assert_array_equal(run(policy), run(trunk))
    frozen = algorithm == "ilql" and not options
    assert set(state.frozen) == ({"policy"} if frozen else set())
    for name, slow in state.target.items():
        jax.tree.map(np.testing.assert_array_equal, slow, state.params[name])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A language model read from disk, and its compiled logits."""
    folder = tmp_path_factory.mktemp("gpt2")
    save_language_model(folder, TRUNK, make_params(SEPARATE)[0]["policy"], special_ids={})
    trunk = load_language_model(str(folder))[1]
    model = make_model()
    return trunk, jax.jit(lambda trunk: compute_logits(trunk, model.run_trunk(trunk, BATCH.tokens).hidden))


def test_what_a_learner_lists_as_unreached_is_a_part_of_its_state():
    model = make_model(ADVANCED)
    learner = make_learner("ilql", model, ConfigDict({}))
    state = TrainState(0, make_params(ADVANCED)[0], {}, {}, (), None)
    assert find_unreached(learner, state) == (("trunk", "ln_f"),)
    assert find_unreached(make_learner("bc", model, ConfigDict({})), state) == ()


@pytest.mark.parametrize("options", [{"polyak": 1.5}, {"polyak": -0.1}, {"hard_update_every": -1}])
def test_targets_that_cannot_follow_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        TargetConfig(**options)
