"""The training state: slow copies by hand, and a start that owns its buffers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilqljax.rl.steps import init_state, update_target


def test_polyak_moves_the_target_by_its_share():
    target, params = {"q1": {"w": jnp.array([1.0, 0.0])}}, {"q1": {"w": jnp.array([3.0, -4.0])}}
    np.testing.assert_array_equal(update_target(target, params, polyak=0.25)["q1"]["w"], [1.5, -1.0])


def test_polyak_zero_leaves_the_target():
    target = {"q1": jnp.array([0.1, 0.2])}
    np.testing.assert_array_equal(update_target(target, {"q1": jnp.array([5.0, 7.0])}, polyak=0.0)["q1"], target["q1"])


def test_hard_update_copies_every_bit():
    rng = np.random.default_rng(0)
    fast, slow = rng.normal(size=(2, 1000)).astype(np.float32) * [[1.0], [100.0]]
    target, params = {"q1": jnp.float32(slow)}, {"q1": jnp.float32(fast)}
    np.testing.assert_array_equal(update_target(target, params, polyak=jnp.float32(1.0))["q1"], params["q1"])


def test_a_target_that_equals_the_parameters_stays():
    values = jnp.float32(np.random.default_rng(1).normal(size=1000))
    np.testing.assert_array_equal(update_target({"q1": values}, {"q1": values}, polyak=0.005)["q1"], values)


def test_only_what_the_target_has_is_moved():
    params = {"trunk": jnp.ones(2), "q1": jnp.ones(2), "v": jnp.ones(2)}
    assert update_target({"q1": jnp.zeros(2)}, params, polyak=0.5).keys() == {"q1"}


@pytest.fixture
def started():
    """Parameters that share buffers, as a policy that starts from the trunk does, and a state made of them."""
    trunk = {"w": jnp.arange(4.0)}
    params, key = {"trunk": trunk, "policy": trunk}, jax.random.key(3)
    state = init_state(params, target={"trunk": trunk}, frozen={"x": trunk}, optimizer=optax.adam(0.1), key=key)
    return state, trunk, key


def test_state_starts_at_step_zero_with_the_values_given(started):
    state, trunk, key = started
    assert state.step == 0
    for copy in (state.params["trunk"], state.params["policy"], state.target["trunk"], state.frozen["x"]):
        np.testing.assert_array_equal(copy["w"], trunk["w"])
    assert jax.random.key_data(state.key).tolist() == jax.random.key_data(key).tolist()


def test_donating_the_state_leaves_the_given_arrays(started):
    state, trunk, key = started
    moved = jax.jit(lambda s: s._replace(step=s.step + 1), donate_argnums=0)(state)
    assert state.params["trunk"]["w"].is_deleted()
    assert moved.step == 1
    np.testing.assert_array_equal(trunk["w"], np.arange(4.0))
    assert 0.0 <= jax.random.uniform(key) < 1.0
