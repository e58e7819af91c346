"""The compiled sampler against a slow loop that runs the whole row again for every token."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.decoding.generate import DecodeConfig, make_generate, prefill
from ilqljax.decoding.sampling import make_token_scores, prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk

V, N_NEW, FULL_WIDTH = 40, 5, 16
TRUNK = GPT2Config(vocab_size=V, n_positions=24, n_embd=16, n_layer=2, n_head=2)
PAD, SUPPRESSED, ENDS = 39, (39, 17), (2, 5, 11, 20, 23, 31)  # many ends, so that rows end at different steps
PROMPTS = ([33], [7, 8, 9, 10, 12, 13], [34, 1, 3], [33, 36, 0, 4])

SEPARATE = ValueLMConfig()
SHARED = ValueLMConfig(double_q=False, separate_policy=False, separate_target=False)
MIXED = ValueLMConfig(double_q=False, separate_policy=False, advanced_mlp=True)


@functools.cache
def make_networks(networks):
    """Return `(model, params, target)`, all networks different."""
    model = ValueLM(GPT2(TRUNK), networks)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(3)

    def draw(shape):
        return rng.normal(0.0, 0.35, shape.shape).astype(np.float32)

    return model, jax.tree.map(draw, shapes), jax.tree.map(draw, jax.eval_shape(model.init_target, shapes))


@functools.cache
def generator(networks, config, suppress_ids=SUPPRESSED):
    """Compile the sampler of a model: `run(prompts, keys, width)`."""
    model, params, target = make_networks(networks)
    sampler = make_generate(model, config, end_ids=ENDS, pad_id=PAD, suppress_ids=suppress_ids)

    def run(prompts, keys, width=8):
        tokens = np.full((len(prompts), width), PAD, np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        bc = {"policy": policy_trunk(params)}
        trees = (params, target) if config.beta else (bc, {})  # without a critic a BC model will do
        networks = prepare_for_decoding(model, *trees, critic=config.beta != 0.0)
        return jax.device_get(sampler(networks, tokens, lengths, keys))

    return run


def make_keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.cache
def full_forward(networks):
    """Compile what the slow loop reads: `run(row)` gives logits [T V], v [T] and min target Q [T V]."""
    model, params, target = make_networks(networks)

    @jax.jit
    def compute(params, target, tokens):
        hidden = model.compute_hidden(params, target, tokens, policy=True)
        logits = compute_logits(policy_trunk(params), hidden.policy)
        heads = [model.q_head.apply({"params": target[name]}, hidden.target) for name in model.q_names]
        return logits[0], model.compute_v(params, hidden.value)[0], jnp.min(jnp.stack(heads), axis=0)[0]

    def run(row):
        padded = np.full((1, FULL_WIDTH), PAD)
        padded[0, : len(row)] = row
        return [np.float64(x[: len(row)]) for x in compute(params, target, padded)]

    return run


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def slow_greedy(networks, config, prompt, suppress_ids=SUPPRESSED):
    """Generate one row; return its tokens, the policy's log-probability and the advantage, summed, and the last Q."""
    row, total, advantage, value = list(prompt), 0.0, 0.0, 0.0
    for _ in range(config.max_new_tokens):
        logits, v, q = (x[-1] for x in full_forward(networks)(row))
        logits[list(suppress_ids)] = -np.inf
        kept = logits >= np.sort(logits)[-config.top_k] if config.top_k else np.full(V, True)
        scores = log_softmax(np.where(kept, logits, -np.inf))
        advantages = q - v
        if config.beta and config.exp_weights:
            scores = scores + np.minimum(config.clip, config.beta * advantages)
        elif config.beta:
            scores = scores + np.log(np.where(advantages > 0, config.beta, 1.0 - config.beta))
        token = int(scores.argmax())
        row.append(token)
        total += log_softmax(logits)[token]
        advantage += advantages[token] if config.beta else 0.0
        value = q[token] if config.beta else 0.0
        if token in ENDS:
            break
    return row[len(prompt) :], total, advantage, value


# Name: networks, how to act, what is suppressed. Where nothing is, the log-probability is the plain policy's.
GREEDY = {
    "cloned policy": (SHARED, DecodeConfig(N_NEW, temperature=0.0), ()),
    "separate trunks, filter before the advantage": (
        SEPARATE,
        DecodeConfig(N_NEW, temperature=0.0, top_k=6, beta=3.0, clip=2.0),
        SUPPRESSED,
    ),
    "shared trunks, one Q, sign weights": (
        SHARED,
        DecodeConfig(N_NEW, temperature=0.0, beta=0.9, exp_weights=False),
        SUPPRESSED,
    ),
    "target trunk, heads before the norm": (MIXED, DecodeConfig(N_NEW, temperature=0.0, beta=1.0), SUPPRESSED),
}


@pytest.mark.parametrize("case", GREEDY)
def test_greedy_generation_equals_the_slow_loop(case):
    networks, config, suppress_ids = GREEDY[case]
    samples = generator(networks, config, suppress_ids)(PROMPTS, make_keys(len(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        tokens, log_probability, advantage, value = slow_greedy(networks, config, prompt, suppress_ids)
        assert samples.tokens[row].tolist() == tokens + [PAD] * (N_NEW - len(tokens))
        assert samples.lengths[row] == len(tokens)
        assert samples.log_probability[row] == pytest.approx(log_probability, rel=1e-4)
        assert samples.advantage[row] == pytest.approx(advantage, rel=1e-4, abs=1e-4)
        assert samples.value[row] == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_greedy_cases_differ_from_the_policy_alone():
    # Otherwise the cases above would not see the critic.
    policy_alone = DecodeConfig(N_NEW, temperature=0.0)
    for networks, config, _ in GREEDY.values():
        if config.beta:
            with_critic, without = (
                [slow_greedy(networks, c, prompt)[0] for prompt in PROMPTS] for c in (config, policy_alone)
            )
            assert with_critic != without


SAMPLING = DecodeConfig(N_NEW, beta=1.0)


@pytest.fixture(scope="module")
def samples():
    """Samples of the four prompts with a critic, each row with its own key."""
    return generator(SEPARATE, SAMPLING)(PROMPTS, make_keys(len(PROMPTS)))


def test_row_does_not_depend_on_its_neighbours(samples):
    order = [2, 0, 3, 1]
    moved = generator(SEPARATE, SAMPLING)([PROMPTS[i] for i in order], make_keys(len(PROMPTS))[np.array(order)])
    np.testing.assert_array_equal(moved.tokens, samples.tokens[order])
    np.testing.assert_allclose(moved.log_probability, samples.log_probability[order], rtol=1e-5)
    np.testing.assert_allclose(moved.advantage, samples.advantage[order], rtol=1e-4, atol=1e-5)


def test_row_does_not_depend_on_batch_size_or_padding_width(samples):
    keys = make_keys(len(PROMPTS))
    for row in (0, 1):
        alone = generator(SEPARATE, SAMPLING)([PROMPTS[row]], keys[row : row + 1], width=11)
        np.testing.assert_array_equal(alone.tokens[0], samples.tokens[row])
        np.testing.assert_allclose(alone.log_probability[0], samples.log_probability[row], rtol=1e-5)
        np.testing.assert_allclose(alone.advantage[0], samples.advantage[row], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def many():
    """Eight samples of each prompt."""
    config = DecodeConfig(N_NEW, beta=1.0, n_generations=8)
    return generator(SEPARATE, config)(PROMPTS, make_keys(len(PROMPTS)))


def test_generations_of_a_prompt_lie_side_by_side_and_the_first_is_the_single_one(samples, many):
    # Sample i of a prompt draws from fold_in(key, i), whatever the number of samples.
    np.testing.assert_array_equal(many.tokens[::8], samples.tokens)
    for start in range(0, len(many.tokens), 8):
        assert len({tuple(tokens) for tokens in many.tokens[start : start + 8]}) > 1


def test_rows_stay_padded_after_their_end(many):
    assert len(set(many.lengths.tolist())) > 2
    for tokens, length in zip(many.tokens, many.lengths, strict=True):
        assert all(token not in ENDS for token in tokens[: length - 1])
        assert tokens[length - 1] in ENDS or length == N_NEW
        assert (tokens[length:] == PAD).all()


def test_suppressed_tokens_are_never_sampled(many):
    sampled = {int(t) for row, n in zip(many.tokens, many.lengths, strict=True) for t in row[:n]}
    assert len(sampled) > 15
    assert not sampled & set(SUPPRESSED)


def test_sums_over_an_utterance_equal_a_full_forward(many):
    for row in range(0, len(many.tokens), 5):
        prompt, tokens = PROMPTS[row // 8], many.tokens[row, : many.lengths[row]].tolist()
        logits, v, q = full_forward(SEPARATE)([*prompt, *tokens])
        logits[:, list(SUPPRESSED)] = -np.inf
        at = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        expected = sum(log_softmax(logits[j])[token] for j, token in zip(at, tokens, strict=True))
        assert many.log_probability[row] == pytest.approx(expected, rel=1e-4)
        advantage = sum(q[j, token] - v[j] for j, token in zip(at, tokens, strict=True))
        assert many.advantage[row] == pytest.approx(advantage, rel=1e-4, abs=1e-4)


def test_sampling_frequencies_match_the_filtered_softmax():
    n = 4000
    config = DecodeConfig(1, temperature=0.7, top_k=8, beta=0.5, n_generations=n)
    drawn = generator(SHARED, config)(PROMPTS[1:2], make_keys(1, seed=4)).tokens[:, 0]
    logits, v, q = (x[-1] for x in full_forward(SHARED)(PROMPTS[1]))
    logits[list(SUPPRESSED)] = -np.inf
    filtered = log_softmax(np.where(logits >= np.sort(logits)[-8], logits / 0.7, -np.inf))
    expected = np.exp(log_softmax(filtered + 0.5 * (q - v)))
    frequencies = np.bincount(drawn, minlength=V) / n
    errors = np.sqrt(expected * (1.0 - expected) / n)
    assert (np.abs(frequencies - expected) <= 4.0 * errors).all()  # exactly 0 where filtered out
    assert (expected > 0.02).sum() >= 3


@pytest.mark.slow
def test_half_precision_activations_give_nearly_the_same_sums():
    _, params, target = make_networks(SHARED)
    model = ValueLM(GPT2(dataclasses.replace(TRUNK, dtype="bfloat16")), SHARED)
    sampler = make_generate(model, DecodeConfig(1, beta=1.0), end_ids=ENDS, pad_id=PAD)
    tokens, lengths = np.array(PROMPTS[1:2], np.int32), np.array([6], np.int32)
    networks = prepare_for_decoding(model, params, target, critic=True)
    samples = jax.device_get(sampler(networks, tokens, lengths, make_keys(1)))
    logits, v, q = (x[-1] for x in full_forward(SHARED)(PROMPTS[1]))
    token = samples.tokens[0, 0]
    cache = model.run_trunk(params["trunk"], tokens, return_kv=True).cache
    # Float32 on a CPU; the numbers are rounded all the same.
    assert {x.dtype.name for x in jax.tree.leaves(cache)} == {"float32"}
    assert all((x == x.astype(jnp.bfloat16)).all() for x in jax.tree.leaves(cache))
    assert samples.log_probability.dtype == np.float32
    assert samples.log_probability[0] == pytest.approx(log_softmax(logits)[token], rel=0.02)
    assert samples.advantage[0] == pytest.approx(q[token] - v, rel=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"n_generations": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"beta": math.nan},
        {"beta": math.inf},
        {"beta": -4.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"clip": -math.inf},
        {"top_p": 0.0},
        {"top_p": math.nan},
        {"top_p": 1.5},
        {"top_k": -1},
        {"rank_by": "luck"},
        {"beta": 2.0, "exp_weights": False},  # log(1 - beta) is not a number
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        DecodeConfig(**options)


@pytest.mark.parametrize("limit", [np.inf, -1e3])
def test_sign_weights_of_beta_1_keep_good_tokens_or_else_the_policy(limit):
    model, params, target = make_networks(SHARED)
    networks = prepare_for_decoding(model, params, target, critic=True)
    hidden, _ = prefill(model, networks.trunks, np.array([[7, 8, 9], [34, 1, 3]]), np.array([3, 3]), room=1)
    config = DecodeConfig(beta=1.0, exp_weights=False, top_k=6)
    found = make_token_scores(model, config, value_range=(-np.inf, limit))(networks, hidden)
    policy = make_token_scores(model, dataclasses.replace(config, beta=0.0))(networks, hidden).scores
    good = np.asarray(found.advantages > 0)
    assert good.any() == (limit > 0) and not good.all()
    some = (good & np.isfinite(policy)).any(axis=1, keepdims=True)
    np.testing.assert_array_equal(found.scores, np.where(good | ~some, policy, -np.inf))


@pytest.mark.slow
@pytest.mark.parametrize("networks", [SEPARATE, SHARED, MIXED])
def test_layers_with_arrays_of_their_own_sample_the_same(networks):
    model, params, target = make_networks(networks)
    unrolled = ValueLM(GPT2(dataclasses.replace(TRUNK, unroll=TRUNK.n_layer)), networks)
    tokens = np.array([[7, 8, 9, 10], [33, 36, 0, PAD]], np.int32)
    config = DecodeConfig(max_new_tokens=N_NEW, beta=1.0, n_generations=2)

    def sample(model):
        generate = make_generate(model, config, end_ids=ENDS, pad_id=PAD)
        laid_out = prepare_for_decoding(model, params, target, critic=True)
        return jax.device_get(generate(laid_out, tokens, np.array([4, 3]), make_keys(2)))

    scanned, split = sample(model), sample(unrolled)
    np.testing.assert_array_equal(split.tokens, scanned.tokens)
    np.testing.assert_array_equal(split.lengths, scanned.lengths)
    np.testing.assert_allclose(split.log_probability, scanned.log_probability, rtol=1e-5)
    np.testing.assert_allclose(split.advantage, scanned.advantage, rtol=1e-4, atol=1e-5)
