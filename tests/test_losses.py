"""The losses on hand-worked arrays, and their array tools against slow twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.rl import losses


def test_td_loss_is_the_squared_one_step_error():
    # 0.5 + 0.5 x 2 - 1 = 0.5; 1 + 0.5 x 0 - 4 = -3
    loss = losses.td_loss(jnp.array([[1.0, 4.0]]), jnp.array([[0.5, 1.0]]), jnp.array([[2.0, 0.0]]), discount=0.5)
    np.testing.assert_array_equal(loss, [[0.25, 9.0]])


def test_td_loss_sends_no_gradient_into_the_next_value():
    def loss(v_next):
        return losses.td_loss(jnp.zeros(2), jnp.ones(2), v_next, discount=0.9).sum()

    np.testing.assert_array_equal(jax.grad(loss)(jnp.array([1.0, -2.0])), [0.0, 0.0])


def test_td_gradient_carries_no_factor_one_half():
    gradient = jax.grad(lambda q: losses.td_loss(q, jnp.ones(1), jnp.zeros(1), discount=0.9).sum())(jnp.array([3.0]))
    np.testing.assert_array_equal(gradient, [4.0])  # 2 (q - r)


def test_expectile_loss_weighs_the_two_sides():
    # target above V: 0.75 x 2^2; below: 0.25 x 2^2; equal: 0
    v, target = jnp.array([0.0, 1.0, 5.0]), jnp.array([2.0, -1.0, 5.0])
    np.testing.assert_array_equal(losses.expectile_loss(v, target, expectile=0.75), [3.0, 1.0, 0.0])


def test_expectile_loss_sends_no_gradient_into_its_target():
    gradient = jax.grad(lambda t: losses.expectile_loss(jnp.zeros(2), t, expectile=0.75).sum())(jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_expectile_of_a_sample_is_where_the_loss_is_smallest():
    # For {0, 1} the 0.9 expectile is 0.9: 0.9 (1 - v) = 0.1 v.
    sample = jnp.array([0.0, 1.0])
    gradient = jax.grad(lambda v: losses.expectile_loss(jnp.full(2, v), sample, expectile=0.9).sum())(0.9)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


def test_cql_loss_at_a_temperature():
    q = jnp.array([[0.0, 2.0, 4.0]])
    log_normalizer = jax.nn.logsumexp(q / 2.0, axis=-1)
    expected = np.log(1.0 + np.e + np.e**2) - 1.0  # taken action 1: 2 / 2
    np.testing.assert_allclose(losses.cql_loss(log_normalizer, q[:, 1], temperature=2.0), [expected], rtol=1e-6)


def test_margin_loss_sums_over_the_vocabulary_with_the_taken_action():
    q = jnp.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    # row 0, action 0: 0.5^2 + 1.5^2 + 0; row 1, action 2: 0 + 0 + 0.5^2
    loss = losses.margin_loss(q, jnp.array([1.0, 3.0]), margin=0.5)
    np.testing.assert_array_equal(loss, [2.5, 0.25])


@pytest.mark.parametrize(
    ("beta", "exponential", "expected"),
    [
        (2.0, True, [np.e, 1.0, np.exp(-4.0)]),
        (0.0, True, [1.0, 1.0, 1.0]),
        (0.75, False, [0.75, 0.25, 0.25]),  # an advantage of exactly 0 is not positive
    ],
)
def test_advantage_weights(beta, exponential, expected):
    target_q, v = jnp.array([1.0, 3.0, 0.0]), jnp.array([0.5, 3.0, 2.0])
    weights = losses.advantage_weights(target_q, v, beta=beta, exponential=exponential)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_advantage_weights_carry_no_gradient():
    def total(values):
        return losses.advantage_weights(*values, beta=2.0, exponential=True).sum()

    for gradient in jax.grad(total)((jnp.array([1.0, 3.0]), jnp.array([0.5, 4.0]))):
        np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_discounted_returns_of_the_docstring():
    rewards = jnp.array([[0.0, 0.0, 4.0, 7.0], [1.0, 0.0, 0.0, 8.0]])  # what padding holds does not matter
    mask = jnp.array([[True, True, True, False], [True, True, True, True]])
    returns = losses.discounted_returns(rewards, mask, discount=0.5)
    np.testing.assert_array_equal(returns, [[1.0, 2.0, 4.0, 0.0], [2.0, 2.0, 4.0, 8.0]])


def test_discounted_returns_equal_the_double_loop():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 6)).astype(np.float32)
    mask = np.arange(6) < np.array([[6], [2], [0]])
    expected = np.zeros((3, 6))
    for row in range(3):
        for t in range(mask[row].sum()):
            expected[row, t] = sum(0.9 ** (u - t) * rewards[row, u] for u in range(t, mask[row].sum()))
    np.testing.assert_allclose(losses.discounted_returns(rewards, mask, discount=0.9), expected, rtol=1e-5, atol=1e-6)


def test_gathered_positions_equal_the_one_hot_product():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 5, 2)).astype(np.float32)
    indices = np.array([[0, 4, 4, 1], [3, 2, 1, 0], [0, 0, 0, 0]])
    one_hot = np.eye(5, dtype=np.float32)[indices]  # [B A T]
    np.testing.assert_array_equal(losses.gather_positions(values, indices), one_hot @ values)


def test_masked_mean_divides_by_the_count_given():
    values, mask = jnp.array([[1.0, 2.0], [4.0, 100.0]]), jnp.array([[True, True], [True, False]])
    assert losses.masked_mean(values, mask, count=jnp.float32(14.0)) == 0.5


def test_masked_mean_of_nothing_is_zero_with_zero_gradient():
    values = jnp.array([jnp.nan, jnp.inf, 1.0])  # whatever padding computes

    def mean(values):
        return losses.masked_mean(values, jnp.zeros(3, bool), count=jnp.float32(0.0))

    value, gradient = jax.value_and_grad(mean)(values)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, [0.0, 0.0, 0.0])


LAMBDA = {"discount": 1.0, "td_lambda": 0.5}


def test_lambda_mixture_by_hand():
    r, v, mask = jnp.array([[0.0, 0.0, 4.0, 9.0]]), jnp.array([[1.0, 1.0, 0.0, 9.0]]), jnp.array([[1, 1, 1, 0]], bool)
    np.testing.assert_allclose(losses.lambda_next(r, v, mask, **LAMBDA)[0, :3], [1.75, 2.5, 0.0], rtol=1e-6)


def test_lambda_zero_is_the_one_step_target():
    rng = np.random.default_rng(0)
    r, v = rng.normal(size=(2, 3, 5)).astype(np.float32)
    mask = np.arange(5) < np.array([5, 3, 0])[:, None]
    got = losses.lambda_next(r, v, mask, discount=0.9, td_lambda=0.0)
    np.testing.assert_array_equal(got, v)


def test_lambda_that_is_a_constant_leaves_v_its_exact_share():
    # In float32 1 - 0.95 is 0.05000001, and a last digit moves a whole run.
    r, v, mask = jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]), jnp.ones((1, 2), bool)
    assert losses.lambda_next(r, v, mask, discount=1.0, td_lambda=0.95)[0, 0] == np.float32(0.05)


def test_lambda_may_differ_between_actions():
    r, v, mask = jnp.array([[0.0, 0.0, 4.0]]), jnp.array([[1.0, 1.0, 0.0]]), jnp.ones((1, 3), bool)
    for lambdas, expected in (([0.5, 1.0, 0.0], [2.5, 4.0, 0.0]), ([1.0, 0.5, 0.0], [2.5, 2.5, 0.0])):
        got = losses.lambda_next(r, v, mask, discount=1.0, td_lambda=jnp.array([lambdas]))
        np.testing.assert_allclose(got, [expected])


def test_lambda_one_is_the_return_and_a_truncated_row_bootstraps_its_last_value():
    rng = np.random.default_rng(1)
    r, v = rng.normal(size=(2, 3, 5)).astype(np.float32)
    lengths = np.array([5, 3, 1])
    mask = np.arange(5) < lengths[:, None]
    got = losses.lambda_next(r, v, mask, discount=0.9, td_lambda=1.0)
    for row, n in enumerate(lengths):
        expected = v[row, n - 1]
        for t in reversed(range(n)):
            np.testing.assert_allclose(got[row, t], expected, rtol=1e-5)
            expected = r[row, t] + 0.9 * expected
