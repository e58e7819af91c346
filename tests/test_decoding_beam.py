"""Beam search against a search in plain Python that runs the whole row again for every token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.decoding.beam import make_beam_search
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk

VOCAB, PAD = 11, 9
ENDS = (0, 5, 10)
PROMPTS = ([3, 1, 4], [1, 5, 2, 6, 5, 3, 5], [8])


@pytest.fixture(scope="module")
def model() -> ValueLM:
    return ValueLM(GPT2(GPT2Config(vocab_size=VOCAB, n_positions=24, n_embd=8, n_layer=2, n_head=2)), ValueLMConfig())


@pytest.fixture(scope="module")
def networks(model) -> tuple[dict, dict]:
    """Return parameters large enough that beams differ, with a policy and a target of their own."""
    keys = jax.random.split(jax.random.key(0), 3)
    params, policy, target = (jax.jit(model.init_params)(key) for key in keys)
    params = {**params, "policy": policy["trunk"]}
    return jax.tree.map(lambda x: 4.0 * x, (params, model.init_target(target)))


def pad_prompts(prompts, width):
    tokens = np.full((len(prompts), width), PAD, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, np.array([len(p) for p in prompts], np.int32)


def make_search(model, config, **changes):
    settings = {"width": 3, "end_ids": ENDS, "pad_id": PAD, "suppress_ids": (PAD,)}
    search = make_beam_search(model, config, **{**settings, **changes})
    critic = config.beta != 0.0
    return lambda params, target, *rows: search(prepare_for_decoding(model, params, target, critic=critic), *rows)


def search_slowly(model, params, target, prompt, config, *, width, limit):
    """Keep the `width` best of all continuations; every step runs every beam from its first token."""

    @jax.jit
    def outputs(row, last):
        hidden = model.compute_hidden(params, target, row[None], policy=True)
        q = model.compute_target_q_all(target, hidden.target)[0, last]
        v = model.compute_v(params, hidden.value)[0, last]
        return compute_logits(policy_trunk(params), hidden.policy)[0, last], q - v

    beams = [(0.0, [])]
    for _ in range(limit):
        candidates = []
        for score, found in beams:
            if found and found[-1] in ENDS:
                candidates.append((score, found))
                continue
            row = np.full(24, PAD, np.int32)
            row[: len(prompt) + len(found)] = [*prompt, *found]
            logits, advantage = (np.array(x, np.float64) for x in outputs(row, len(prompt) + len(found) - 1))
            logits[PAD] = -np.inf
            logits /= config.temperature
            if config.top_k:
                logits[np.argsort(logits)[: -config.top_k]] = -np.inf
            logits += np.minimum(config.beta * advantage, config.clip)
            log_probabilities = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            candidates += [(score + log_probabilities[token], [*found, token]) for token in range(VOCAB)]
        beams = sorted(candidates, key=lambda beam: -beam[0])[:width]
    return beams


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        DecodeConfig(max_new_tokens=8),
        DecodeConfig(max_new_tokens=8, beta=1.5),
        DecodeConfig(max_new_tokens=8, beta=1.5, clip=0.1, temperature=0.7, top_k=5),
    ],
    ids=["policy", "critic", "filters"],
)
def test_beams_are_those_of_a_slow_search(model, networks, config):
    found = make_search(model, config)(*networks, *pad_prompts(PROMPTS, 7))
    closed = 0
    for row, prompt in enumerate(PROMPTS):
        expected = search_slowly(model, *networks, prompt, config, width=3, limit=8)
        np.testing.assert_allclose(found.scores[row], [score for score, _ in expected], rtol=1e-4)
        beams = zip(found.tokens[row], found.lengths[row], strict=True)
        assert [tokens[:length].tolist() for tokens, length in beams] == [tokens for _, tokens in expected]
        closed += sum(tokens[-1] in ENDS for _, tokens in expected)
    assert 0 < closed < 9  # else the case says nothing of beams that close beside others that do not


@pytest.mark.slow
def test_a_row_depends_neither_on_its_neighbours_nor_on_padding(model, networks):
    search = make_search(model, DecodeConfig(max_new_tokens=6, beta=1.5))
    together = search(*networks, *pad_prompts(PROMPTS, 12))
    for row, prompt in enumerate(PROMPTS):
        alone = search(*networks, *pad_prompts([prompt], 7))
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_array_equal(alone.lengths[0], together.lengths[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


@pytest.mark.slow
def test_nothing_follows_the_closing_token(model, networks):
    found = make_search(model, DecodeConfig(max_new_tokens=8))(*networks, *pad_prompts(PROMPTS, 7))
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    after = np.arange(8) >= lengths[..., None]
    assert (tokens[after] == PAD).all() and not (tokens[~after] == PAD).any()
    inside = np.arange(8) < lengths[..., None] - 1
    assert not np.isin(tokens[inside], ENDS).any()


def test_a_row_stops_where_the_model_has_no_more_positions(model, networks):
    found = make_search(model, DecodeConfig(max_new_tokens=5), end_ids=(), max_length=8)(
        *networks, *pad_prompts([[1, 2, 3], [1, 2, 3, 4, 5, 6], [1] * 8], 8)
    )
    assert found.lengths.tolist() == [[5] * 3, [2] * 3, [0] * 3]
    assert found.scores[2].tolist() == [0.0, 0.0, 0.0]


def test_a_language_model_needs_no_critic(model, networks):
    params, target = networks
    search = make_search(model, DecodeConfig(max_new_tokens=5))
    alone = search({"policy": params["policy"]}, {}, *pad_prompts(PROMPTS, 7))
    np.testing.assert_array_equal(alone.tokens, search(params, target, *pad_prompts(PROMPTS, 7)).tokens)


def test_clipping_the_target_q_to_a_point_leaves_the_policy(model, networks):
    flat = make_search(model, DecodeConfig(max_new_tokens=5, beta=3.0), value_range=(1.0, 1.0))
    plain = make_search(model, DecodeConfig(max_new_tokens=5))
    prompts = pad_prompts(PROMPTS, 7)
    np.testing.assert_array_equal(flat(*networks, *prompts).tokens, plain(*networks, *prompts).tokens)


def test_beams_without_any_positive_advantage_are_those_of_the_policy(model, networks):
    sign = DecodeConfig(max_new_tokens=5, beta=1.0, exp_weights=False)
    bad, plain = make_search(model, sign, value_range=(-1e6, -1e6)), make_search(model, DecodeConfig(max_new_tokens=5))
    prompts = pad_prompts(PROMPTS, 7)
    found, expected = bad(*networks, *prompts), plain(*networks, *prompts)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_places_without_a_candidate_score_minus_infinity(model, networks):
    found = make_search(model, DecodeConfig(max_new_tokens=4, top_k=1))(*networks, *pad_prompts(PROMPTS, 7))
    assert np.isfinite(found.scores[:, 0]).all()
    assert np.isneginf(found.scores[:, 1:]).all()


@pytest.mark.parametrize("width", [0, VOCAB + 1])
def test_a_width_that_is_no_number_of_tokens_is_refused(model, width):
    with pytest.raises(UserError, match=r"width=.* is not in 1 to 11"):
        make_search(model, DecodeConfig(), width=width)


def test_an_utterance_critic_cannot_weigh_tokens(model, networks):
    utterance = model.at_level("utterance")
    params = jax.jit(utterance.init_params)(jax.random.key(0))
    search = make_search(model, DecodeConfig(max_new_tokens=2, beta=1.0))
    with pytest.raises(UserError, match="utterance critic cannot weigh tokens"):
        search(params, utterance.init_target(params), jnp.zeros((1, 2), jnp.int32), jnp.array([2]))


@pytest.mark.slow
def test_layers_with_arrays_of_their_own_find_the_same_beams(model, networks):
    config = DecodeConfig(max_new_tokens=6, beta=1.5)
    unrolled = ValueLM(GPT2(dataclasses.replace(model.backbone.config, unroll=2)), model.config)
    scanned, split = (make_search(m, config)(*networks, *pad_prompts(PROMPTS, 7)) for m in (model, unrolled))
    np.testing.assert_array_equal(split.tokens, scanned.tokens)
    np.testing.assert_array_equal(split.lengths, scanned.lengths)
    np.testing.assert_allclose(split.scores, scanned.scores, rtol=1e-5)
