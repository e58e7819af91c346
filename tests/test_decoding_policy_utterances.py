"""A critic of utterances, which chooses among samples of the language model."""

from dataclasses import dataclass
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from said import MODEL, N_NEW, OBSERVATIONS, TOKENIZER, Said

from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import TextPolicy, check_choice
from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.objectives.values import UtteranceILQLConfig, compute_critic


def make_utterance_policy(*, value_range=(-np.inf, np.inf), **options):
    model = ValueLM(MODEL.backbone, ValueLMConfig(level="utterance"))
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)
    target = jax.tree.map(lambda x: x + 0.1, model.init_target(params))
    options = {"n_generations": 3, "rank_by": "advantage", "beta": 2.0} | options
    config = DecodeConfig(max_new_tokens=N_NEW, **options)
    networks = {"params": params, "target": target, "value_range": value_range}
    return TextPolicy(model, config, TOKENIZER, **networks, batch_size=2, length_buckets=(8,))


@pytest.fixture(scope="module")
def utterance_policy():
    return make_utterance_policy()


@dataclass(frozen=True)
class Answered(Said):
    answer: str = ""

    def to_sequence(self):
        return [(self.text, None), (self.answer, 0.0)], True


@pytest.mark.slow
def test_an_utterance_is_judged_as_it_is_in_training(utterance_policy):
    policy = utterance_policy
    model = ValueLM(MODEL.backbone, ValueLMConfig(level="utterance"))
    for observation, generations in zip(OBSERVATIONS, policy.generate_batch(OBSERVATIONS), strict=True):
        for generation in generations:
            # An utterance that was cut off is judged as if it had ended at its last token.
            text = generation.text if generation.finished else generation.text[: N_NEW - 1]
            point = DataPoint.from_observation(Answered(observation.text, answer=text), TOKENIZER)
            shape = {"length": 24, "n_actions": 8, "n_utterance_actions": 1, "pad_id": TOKENIZER.pad_id}
            batch = collate([point], **shape)
            hidden = model.compute_hidden(policy.params, policy.target, batch.tokens, policy=False)
            critic = compute_critic(model, UtteranceILQLConfig(), policy.params, policy.target, batch, hidden)
            expected = float(critic.target_q_t[0, 0] - critic.v_t[0, 0])
            assert generation.advantage == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert generation.value == pytest.approx(float(critic.target_q_t[0, 0]), rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_the_critic_of_utterances_chooses_among_samples_of_the_language_model(utterance_policy):
    generations = utterance_policy.generate_batch(OBSERVATIONS)
    for ranked in map(utterance_policy.rank, generations):
        assert ranked[0].advantage == max(g.advantage for g in ranked)
    assert any(utterance_policy.rank(g)[0] != g[0] for g in generations)


@pytest.mark.slow
def test_values_of_utterances_are_clipped(utterance_policy):
    utterance_policy.n_acted = 0
    free = utterance_policy.generate_batch(OBSERVATIONS)
    clipped = make_utterance_policy(value_range=(-np.inf, 0.0)).generate_batch(OBSERVATIONS)
    assert any(g.value > 0.0 for found in free for g in found)
    for g, c in zip(chain(*free), chain(*clipped), strict=True):
        assert c.value == pytest.approx(min(g.value, 0.0), abs=1e-6)
        assert c.advantage == pytest.approx(g.advantage - g.value + c.value, abs=1e-5)


def test_equal_samples_are_no_choice_for_a_critic_of_utterances():
    with pytest.raises(UserError, match=r"temperature=0 makes all 3 samples equal"):
        make_utterance_policy(temperature=0.0).act_batch(OBSERVATIONS)


def test_a_critic_of_utterances_may_have_one_sample_only_of_a_policy_that_it_trained():
    alone = DecodeConfig(n_generations=1)
    check_choice(alone, level="utterance")
    with pytest.raises(UserError, match=r"n_generations=1.*no say in one, nor in beams"):
        check_choice(alone, level="utterance", frozen=True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_clone_and_a_frozen_critic_of_tokens_act_by_one_sample(temperature):
    check_choice(DecodeConfig(temperature=temperature), level="token", frozen=True)
