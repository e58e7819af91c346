"""The train step: accumulation, devices, targets, randomness, and where a run starts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chats import (
    ADVANCED,
    BATCH,
    SEPARATE,
    SEPARATE_SINGLE,
    SHARED,
    TOKENIZER,
    TRUNK,
    assert_close,
    leaf_paths,
    make_model,
    make_params,
)
from ml_collections import ConfigDict

from ilqljax.data.types import Counts
from ilqljax.errors import UserError
from ilqljax.models import chunks
from ilqljax.models.backbone import compute_logits
from ilqljax.models.cpu import attention
from ilqljax.models.io.hf import load_language_model, save_language_model
from ilqljax.models.value_lm import policy_trunk
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.rl.objectives import values
from ilqljax.rl.objectives.values import ILQLConfig
from ilqljax.rl.steps import TargetConfig, TrainState, count_batch, init_state, make_train_step, sum_microbatches
from ilqljax.training.mesh import MeshConfig, infer_param_shardings, make_mesh, shard_batch

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
