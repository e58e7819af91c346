"""The optimizer against a NumPy AdamW, and the schedule against its docstring's table."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilqljax.errors import UserError
from ilqljax.rl.optim import (
    OptimConfig,
    clip_by_norm,
    global_norm,
    make_optimizer,
    make_schedule,
)


def adamw_twin(params, gradients, config, learning_rates):
    """torch.optim.AdamW in float64: decay first, by lr x weight_decay, on every parameter; then the Adam step."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for t, (gradient, lr) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        for name, g in gradient.items():
            params[name] *= 1 - lr * config.weight_decay
            m[name] = config.b1 * m[name] + (1 - config.b1) * g
            v[name] = config.b2 * v[name] + (1 - config.b2) * g**2
            m_hat, v_hat = m[name] / (1 - config.b1**t), v[name] / (1 - config.b2**t)
            params[name] -= lr * m_hat / (np.sqrt(v_hat) + config.eps)
    return params


def run_optimizer(config, params, gradients):
    optimizer = make_optimizer(config)
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, params)
        params = optax.apply_updates(params, updates)
    return params


def draw_problem():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    gradients = [{n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()} for _ in range(3)]
    return params, gradients


def test_three_steps_equal_torch_adamw():
    config = OptimConfig(lr=1e-2, weight_decay=0.1)
    params, gradients = draw_problem()
    actual = run_optimizer(config, params, gradients)
    expected = adamw_twin(params, gradients, config, [1e-2] * 3)
    for name in params:
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-6)


def test_three_steps_with_a_schedule_equal_torch_adamw():
    config = OptimConfig(lr=1e-2, weight_decay=0.1, schedule="linear", warmup_steps=2, total_steps=6)
    params, gradients = draw_problem()
    actual = run_optimizer(config, params, gradients)
    expected = adamw_twin(params, gradients, config, [0.5e-2, 1e-2, 1e-2])
    for name in params:
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-6)


def test_gradients_above_the_norm_are_scaled_down_together():
    config = OptimConfig(lr=1e-2, max_grad_norm=0.5)
    params, gradients = draw_problem()
    norms = [np.sqrt(sum((g**2).sum() for g in gradient.values())) for gradient in gradients]
    clipped = [
        {n: g * 0.5 / norm for n, g in gradient.items()} for gradient, norm in zip(gradients, norms, strict=True)
    ]
    assert min(norms) > 0.5
    actual = run_optimizer(config, params, gradients)
    expected = adamw_twin(params, clipped, config, [1e-2] * 3)
    for name in params:
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-6)


def test_gradients_below_the_norm_are_left_alone():
    params, gradients = draw_problem()
    clipped = run_optimizer(OptimConfig(max_grad_norm=1e6), params, gradients)
    plain = run_optimizer(OptimConfig(), params, gradients)
    for name in params:
        np.testing.assert_array_equal(clipped[name], plain[name])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447, 0]),
    ],
)
def test_schedule_is_the_docstrings_table(schedule, expected):
    rate = make_schedule(OptimConfig(lr=1.0, schedule=schedule, warmup_steps=2, total_steps=6))
    np.testing.assert_allclose([rate(count) for count in range(7)], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedule_stays_at_its_end_share(schedule):
    rate = make_schedule(OptimConfig(lr=2.0, schedule=schedule, total_steps=4, end_lr_fraction=0.25))
    np.testing.assert_allclose([rate(count) for count in (0, 4, 9)], [2.0, 0.5, 0.5], rtol=1e-6)


def test_state_has_one_structure_whatever_the_options():
    params = {"w": jnp.ones(2)}
    plain = make_optimizer(OptimConfig()).init(params)
    other = make_optimizer(OptimConfig(schedule="cosine", total_steps=5, max_grad_norm=1.0)).init(params)
    assert jax.tree.structure(plain) == jax.tree.structure(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd' is unknown. Known: adamw, muon"),
        ({"schedule": "exp"}, "schedule='exp' is unknown. Known: constant, cosine, linear"),
        ({"schedule": "cosine"}, "leaves no step after the warm-up"),
        ({"schedule": "linear", "warmup_steps": 5, "total_steps": 5}, "leaves no step after the warm-up"),
        ({"lr": -1.0}, "lr=-1.0 is out of range"),
        ({"lr": float("nan")}, "lr=nan is out of range"),
        ({"lr": float("inf")}, "lr=inf is out of range"),
        ({"weight_decay": float("inf")}, "weight_decay=inf is out of range"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan is out of range"),
        ({"b1": 1.0}, "b1=1.0 is out of range"),
        ({"end_lr_fraction": 2.0}, "end_lr_fraction=2.0 is out of range"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError) as raised:
        OptimConfig(**options)
    assert message in str(raised.value)


@pytest.mark.usefixtures("each_way")
def test_norm_is_that_of_all_numbers_of_a_tree():
    tree = {"a": jnp.array([[1.0, 2.0], [2.0, 4.0]]), "b": jnp.array(5.0), "c": jnp.full((2, 1, 3), 1.0)}
    assert float(global_norm(tree)) == pytest.approx(np.sqrt(1 + 4 + 4 + 16 + 25 + 6), rel=1e-6)


@pytest.mark.usefixtures("each_way")
def test_clipping_equals_that_of_optax():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array(-3.0)}
    for limit in (1.0, 100.0):
        ours, theirs = (
            t.update(tree, t.init(tree))[0] for t in (clip_by_norm(limit), optax.clip_by_global_norm(limit))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_without_a_limit_huge_gradients_whose_norm_overflows_are_left_alone():
    params, gradients = {"w": jnp.zeros(2)}, {"w": jnp.array([1e30, -1e30])}
    optimizer = make_optimizer(OptimConfig(lr=0.1, weight_decay=0.0))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert np.isfinite(updates["w"]).all()


def newton_schulz_twin(x):
    """Jordan et al. 2024: five quintic iterations that push the singular values of [I O] towards 1, in float64."""
    assert x.shape[0] <= x.shape[1]
    y = x.astype(np.float64) / np.linalg.norm(x)
    for _ in range(5):
        gram = y @ y.T
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y


def draw_block():
    rng = np.random.default_rng(3)
    head = {"dense_in": {"kernel": (4, 8)}, "dense_out": {"kernel": (8, 5)}}
    shapes = {"h": {"mlp": {"kernel": (2, 4, 6), "bias": (2, 6)}}, "wte": (5, 4), "q1": head}
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


def update_once(optimizer, gradients, params):
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.slow
def test_muon_moves_hidden_kernels_by_their_orthogonal_momentum():
    config = OptimConfig("muon", lr=1e-2, weight_decay=0.0)
    gradients = draw_block()
    updates = update_once(make_optimizer(config), gradients, gradients)

    def check(update, gradient):  # the first momentum points where the gradient does
        scale = 0.2 * np.sqrt(max(gradient.shape))
        np.testing.assert_allclose(update, -1e-2 * scale * newton_schulz_twin(gradient), rtol=1e-4, atol=1e-7)

    for layer in range(2):
        check(updates["h"]["mlp"]["kernel"][layer], gradients["h"]["mlp"]["kernel"][layer])
    check(updates["q1"]["dense_in"]["kernel"], gradients["q1"]["dense_in"]["kernel"])


@pytest.mark.slow
def test_muon_leaves_embeddings_outputs_and_biases_to_adamw_with_decay_and_clipping():
    config = OptimConfig("muon", lr=1e-2, weight_decay=0.1, max_grad_norm=0.5)
    params, gradients = draw_block(), jax.tree.map(jnp.square, draw_block())
    updates = update_once(make_optimizer(config), gradients, params)
    adamw = optax.chain(clip_by_norm(0.5), optax.adamw(1e-2, weight_decay=0.1, nesterov=True))
    expected = update_once(adamw, gradients, params)
    np.testing.assert_allclose(updates["wte"], expected["wte"], rtol=1e-6)
    output = [tree["q1"]["dense_out"]["kernel"] for tree in (updates, expected)]
    np.testing.assert_allclose(*output, rtol=1e-6)
    np.testing.assert_allclose(updates["h"]["mlp"]["bias"], expected["h"]["mlp"]["bias"], rtol=1e-6)
    assert not np.allclose(updates["h"]["mlp"]["kernel"], expected["h"]["mlp"]["kernel"], rtol=0.1)
