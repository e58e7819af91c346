"""Value heads against NumPy twins, and the split into features and outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ilqljax.models.heads import TORCH_UNIFORM, MLPHead, ResidualMLPHead, apply_features, project, take_outputs

B, A, D, V = 2, 3, 4, 7


def make_params(head, seed):
    """Draw every array of a head, so that biases and norms count as well."""
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((1, D)))["params"]
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])


@pytest.fixture(scope="module", params=[MLPHead, ResidualMLPHead])
def case(request):
    """A head, its parameters, and hidden states [B A D]."""
    head = request.param(V)
    return head, make_params(head, seed=1), np.random.default_rng(2).normal(size=(B, A, D)).astype(np.float32)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def layer_norm(params, x, epsilon=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * params["scale"] + params["bias"]


def slow_head(head, params, x):
    params, x = jax.tree.map(np.float64, (params, x))
    if isinstance(head, MLPHead):
        return dense(params["dense_out"], np.maximum(dense(params["dense_in"], x), 0.0))
    inner = dense(params["ff1"], layer_norm(params["ln1"], x))
    gelu = inner * 0.5 * (1.0 + erf(inner / np.sqrt(2.0)))
    residual = x + dense(params["ff2"], gelu)
    return dense(params["dense_out"], layer_norm(params["ln2"], residual))


def test_head_equals_its_numpy_twin(case):
    head, params, x = case
    np.testing.assert_allclose(head.apply({"params": params}, x), slow_head(head, params, x), rtol=1e-4, atol=1e-4)


def test_features_projected_are_the_head(case):
    head, params, x = case
    outputs = project(params, apply_features(head, params, x))
    np.testing.assert_allclose(outputs, head.apply({"params": params}, x), rtol=1e-5, atol=1e-5)


def test_taken_outputs_are_the_projected_ones(case):
    head, params, x = case
    features = apply_features(head, params, x)
    ids = np.array([[0, 6, 3], [3, 3, 1]])
    expected = np.take_along_axis(np.asarray(project(params, features)), ids[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(take_outputs(params, features, ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [MLPHead, ResidualMLPHead])
def test_a_half_precision_head_multiplies_rounded_numbers_and_gives_float32_values(case, kind):
    _, _, x = case
    head = kind(V, "bfloat16")
    params = make_params(head, seed=1)
    features = apply_features(head, params, x)
    values = project(params, features)
    assert (features.dtype, values.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(values, head.apply({"params": params}, x))
    rounded = np.asarray(params["dense_out"]["kernel"].astype(jnp.bfloat16), np.float64)
    expected = np.asarray(features, np.float64) @ rounded + params["dense_out"]["bias"]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)  # no output is rounded to half precision
    assert 0 < np.abs(values - slow_head(head, params, x)).max() < 0.3
    ids = np.array([[0, 6, 3], [3, 3, 1]])
    taken = np.take_along_axis(np.asarray(values), ids[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(take_outputs(params, features, ids), taken, rtol=1e-5, atol=1e-5)


def test_hidden_layers_have_the_original_widths():
    plain = make_params(MLPHead(V), seed=0)
    assert plain["dense_in"]["kernel"].shape == (D, 2 * D)
    assert plain["dense_out"]["kernel"].shape == (2 * D, V)
    advanced = make_params(ResidualMLPHead(V), seed=0)
    assert advanced["ff1"]["kernel"].shape == (D, 4 * D)
    assert advanced["ff2"]["kernel"].shape == (4 * D, D)
    assert advanced["dense_out"]["kernel"].shape == (D, V)


def test_weights_start_uniform_within_one_over_the_root_of_the_inputs():
    kernel = np.asarray(TORCH_UNIFORM(jax.random.key(0), (64, 128)))
    bound = 64**-0.5
    assert np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.03)  # standard error of the deviation: 0.5 %
