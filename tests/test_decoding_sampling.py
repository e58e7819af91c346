"""Filters and the advantage's share of a score, by hand and against a NumPy twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.decoding.options import SMALLEST_TEMPERATURE, DecodeConfig
from ilqljax.decoding.sampling import advantage_term, filter_logits, sample_tokens

PROBABILITIES = np.array([[0.1, 0.4, 0.2, 0.3]], np.float32)
LOGITS = np.log(PROBABILITIES) + 5.0  # a constant changes nothing


def test_without_filters_the_scores_are_log_probabilities():
    np.testing.assert_allclose(np.exp(filter_logits(LOGITS)), PROBABILITIES, rtol=1e-5)


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [0, 1, 0, 0]), (2, [0, 4 / 7, 0, 3 / 7]), (4, [0.1, 0.4, 0.2, 0.3]), (9, [0.1, 0.4, 0.2, 0.3])],
)
def test_top_k_keeps_the_k_likeliest(top_k, expected):
    np.testing.assert_allclose(np.exp(filter_logits(LOGITS, top_k=top_k)), [expected], rtol=1e-5)


def test_top_k_keeps_ties_with_the_kth():
    scores = filter_logits(jnp.array([[1.0, 2.0, 1.0, 0.0]]), top_k=2)
    np.testing.assert_array_equal(np.isfinite(scores), [[True, True, True, False]])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.01, [0, 1, 0, 0]),  # the likeliest is always kept
        (0.39, [0, 1, 0, 0]),
        (0.5, [0, 4 / 7, 0, 3 / 7]),  # 0.4 does not reach 0.5, 0.7 does
        (0.8, [0, 4 / 9, 2 / 9, 3 / 9]),
        (0.95, [0.1, 0.4, 0.2, 0.3]),
        (1.0, [0.1, 0.4, 0.2, 0.3]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, expected):
    np.testing.assert_allclose(np.exp(filter_logits(LOGITS, top_p=top_p)), [expected], rtol=1e-5)


def test_temperature_divides_the_logits():
    # p^(1/2), normalised
    expected = PROBABILITIES**0.5 / (PROBABILITIES**0.5).sum()
    np.testing.assert_allclose(np.exp(filter_logits(LOGITS, temperature=2.0)), expected, rtol=1e-5)


def test_temperature_zero_leaves_the_logits():
    np.testing.assert_array_equal(filter_logits(LOGITS, temperature=0.0), filter_logits(LOGITS))


@pytest.mark.parametrize("temperature", [SMALLEST_TEMPERATURE, 1e-4, 1e-2])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.5}])
def test_temperatures_towards_zero_draw_what_greedy_takes(temperature, options):
    logits = 40.0 * jax.random.normal(jax.random.key(0), (64, 50))
    scores = filter_logits(logits, temperature=temperature, **options)
    assert not jnp.isnan(scores).any()
    drawn = sample_tokens(jax.random.split(jax.random.key(1), 64), scores, greedy=False)
    np.testing.assert_array_equal(drawn, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 1e-7, 1e-40, 5e-324])
def test_a_temperature_that_single_precision_cannot_divide_by_is_greedy(temperature):
    assert DecodeConfig(temperature=temperature).temperature == 0.0
    assert DecodeConfig(temperature=SMALLEST_TEMPERATURE).temperature == SMALLEST_TEMPERATURE


def slow_filter(logits, *, temperature, top_k, top_p):
    """Temperature, then top-k, then the nucleus of what top-k left, one row at a time."""
    scores = np.full(logits.shape, -np.inf)
    for row, values in enumerate(np.float64(logits) / temperature):
        order = np.argsort(-values)[:top_k]
        probabilities = np.exp(values[order]) / np.exp(values[order]).sum()
        total, kept = 0.0, []
        for token, probability in zip(order, probabilities, strict=True):
            kept.append(token)
            total += probability
            if total >= top_p:
                break
        scores[row, kept] = values[kept] - np.log(np.exp(values[kept]).sum())
    return scores


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 20, 0.7), (0.5, 5, 0.9), (2.0, 12, 0.3)])
def test_filters_equal_their_numpy_twin(temperature, top_k, top_p):
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    logits = 2.0 * np.random.default_rng(0).normal(size=(16, 20)).astype(np.float32)
    np.testing.assert_allclose(filter_logits(logits, **options), slow_filter(logits, **options), rtol=1e-4, atol=1e-5)


def test_advantage_term_is_beta_times_the_advantage():
    np.testing.assert_array_equal(advantage_term(jnp.array([[-1.0, 0.0, 2.0]]), beta=4.0), [[-4.0, 0.0, 8.0]])


@pytest.mark.parametrize(("clip", "expected"), [(3.0, [-4.0, 0.0, 3.0]), (0.0, [-4.0, 0.0, 0.0])])
def test_advantage_term_is_clipped_from_above_only(clip, expected):
    np.testing.assert_array_equal(advantage_term(jnp.array([[-1.0, 0.0, 2.0]]), beta=4.0, clip=clip), [expected])


def test_sign_form_is_the_logarithm_of_the_sign_weights():
    term = advantage_term(jnp.array([[-1.0, 0.0, 2.0]]), beta=0.75, exponential=False)
    np.testing.assert_allclose(np.exp(term), [[0.25, 0.25, 0.75]], rtol=1e-6)


def test_greedy_takes_the_best_whatever_the_key():
    keys = jax.random.split(jax.random.key(0), 2)
    scores = jnp.array([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample_tokens(keys, scores, greedy=True).tolist() == [1, 0]


def test_each_row_is_drawn_with_its_own_key():
    keys = jax.random.split(jax.random.key(0), 200)
    scores = np.zeros((200, 4), np.float32)
    tokens = sample_tokens(keys, scores, greedy=False)
    swapped = sample_tokens(keys[::-1], scores, greedy=False)
    np.testing.assert_array_equal(tokens, swapped[::-1])
    assert set(tokens.tolist()) == {0, 1, 2, 3}


def test_a_filtered_token_is_never_drawn():
    keys = jax.random.split(jax.random.key(1), 200)
    scores = np.repeat(filter_logits(LOGITS, top_k=2), 200, axis=0)
    assert set(sample_tokens(keys, scores, greedy=False).tolist()) == {1, 3}


@pytest.mark.usefixtures("each_way")
def test_draws_are_those_of_jax_categorical_and_the_best_is_the_first_of_equals():
    keys, scores = jax.random.split(jax.random.key(5), 6), jax.random.normal(jax.random.key(6), (6, 501))
    scores = scores.at[:, :300].set(-jnp.inf).at[1].set(-jnp.inf)
    drawn = jax.jit(lambda k, s: sample_tokens(k, s, greedy=False))(keys, scores)
    np.testing.assert_array_equal(drawn, jax.vmap(jax.random.categorical)(keys, scores))
    tied = scores.at[:, 400:403].set(9.0)
    assert sample_tokens(keys, tied, greedy=True).tolist() == [400] * 6
    assert sample_tokens(keys, jnp.full((6, 501), jnp.nan), greedy=True).max() < 501  # no token beyond the vocabulary
