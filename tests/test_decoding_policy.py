"""A policy in text: batches that do not matter, prompts that are too long, and the choice among generations."""

import string
from dataclasses import dataclass
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.data.datapoint import DataPoint, collate, encode_prompt
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.beam import make_beam_search
from ilqljax.decoding.generate import DecodeConfig, Samples
from ilqljax.decoding.policy import Generation, TextPolicy, check_choice
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.envs.base import LanguageObservation
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.objectives.values import UtteranceILQLConfig, compute_critic

TOKENIZER = CharacterTokenizer(string.ascii_lowercase + " .,!?'-")
N_POSITIONS, N_NEW = 16, 4
MODEL = ValueLM(
    GPT2(GPT2Config(vocab_size=TOKENIZER.vocab_size, n_positions=N_POSITIONS, n_embd=16, n_layer=2, n_head=2)),
    ValueLMConfig(double_q=False, separate_policy=False, separate_target=False),
)


@dataclass(frozen=True)
class Said(LanguageObservation):
    """The environment said one thing."""

    text: str
    over: bool = False

    def to_sequence(self):
        return [(self.text, None)], self.over

    def __str__(self):
        return self.text


OBSERVATIONS = [Said(text) for text in ("hello", "a", "", "what is it", "yes no")]


@pytest.fixture(scope="module")
def networks():
    shapes = jax.eval_shape(MODEL.init_params, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), jnp.float32), shapes)
    return params, MODEL.init_target(params)


def make_policy(networks, *, batch_size=2, length_buckets=(), seed=0, value_range=(-np.inf, np.inf), **options):
    options = {"max_new_tokens": N_NEW} | options
    return TextPolicy(
        MODEL,
        DecodeConfig(**options),
        TOKENIZER,
        params=networks[0],
        target=networks[1],
        seed=seed,
        batch_size=batch_size,
        length_buckets=length_buckets,
        value_range=value_range,
    )


@pytest.fixture(scope="module")
def compiled(networks):
    return make_policy(networks, beta=1.0, n_generations=2)


@pytest.fixture
def policy(compiled):
    """A policy that has not acted yet; its compiled sampler is shared."""
    compiled.n_acted = 0
    compiled.batch_size = 2
    return compiled


@pytest.mark.slow
def test_grouping_into_batches_changes_nothing(policy):
    together = policy.generate_batch(OBSERVATIONS)
    policy.n_acted = 0
    apart = [*policy.generate_batch(OBSERVATIONS[:3]), *policy.generate_batch(OBSERVATIONS[3:])]
    policy.n_acted, policy.batch_size = 0, 1
    singly = policy.generate_batch(OBSERVATIONS)
    for other in (apart, singly):
        for generations, expected in zip(other, together, strict=True):
            assert [g.text for g in generations] == [g.text for g in expected]
            for g, e in zip(generations, expected, strict=True):
                assert g.log_probability == pytest.approx(e.log_probability, rel=1e-4)
                assert g.advantage == pytest.approx(e.advantage, rel=1e-3, abs=1e-4)


def test_acting_one_by_one_is_acting_as_a_batch(policy):
    together = policy.act_batch(OBSERVATIONS)
    policy.n_acted = 0
    assert [policy.act(obs) for obs in OBSERVATIONS] == together
    assert policy.n_acted == len(OBSERVATIONS)


def test_the_same_observation_is_answered_anew_each_time(policy):
    answers = [policy.act(OBSERVATIONS[0]) for _ in range(6)]
    assert len(set(answers)) > 3


def test_no_observations_get_no_answers(policy):
    assert policy.act_batch([]) == []


def test_finished_dialogue_is_refused(policy):
    with pytest.raises(UserError, match="dialogue 'bye' is over"):
        policy.act(Said("bye", over=True))


class Recorder:
    """Stand in for the compiled sampler: keep what it is given, answer "a" and, in every second row, `</a>`."""

    def __init__(self):
        self.calls = []

    def __call__(self, networks, tokens, lengths, keys):
        self.calls.append((tokens, lengths))
        n = len(tokens)
        said = np.full((n, N_NEW), TOKENIZER.pad_id)
        said[:, 0] = TOKENIZER.encode("a")[0]
        said[::2, 1] = TOKENIZER.eoa_id
        said[1::2, 1:] = TOKENIZER.encode("b")[0]
        return Samples(said, np.where(np.arange(n) % 2, N_NEW, 2), np.zeros(n), np.zeros(n), np.zeros(n))


def record(networks, **options):
    policy = make_policy(networks, **options)
    policy.generate = Recorder()
    return policy


def test_prompt_too_long_loses_its_start(networks):
    policy = record(networks)
    policy.act(Said("abcdefghijklmnopqrstuvwxyz"))
    ((tokens, lengths),) = policy.generate.calls
    assert lengths.tolist() == [N_POSITIONS - N_NEW]
    assert tokens[0].tolist() == [TOKENIZER.bos_id, *TOKENIZER.encode("qrstuvwxyz"), TOKENIZER.eos_id]


def test_prompt_that_just_fits_is_whole(networks):
    policy = record(networks)
    policy.act(Said("qrstuvwxyz"))
    tokens = policy.generate.calls[0][0][0].tolist()
    assert tokens == [TOKENIZER.bos_id, *TOKENIZER.encode("qrstuvwxyz"), TOKENIZER.eos_id]


def test_prompts_are_padded_to_the_smallest_bucket_and_rows_to_a_power_of_two(networks):
    policy = record(networks, batch_size=4, length_buckets=(4, 8, 100))
    policy.act_batch([Said("abcdefgh"), Said("a"), Said("b"), Said("c"), Said("d"), Said("ab"), Said("abcd")])
    # Sorted by length: four rows of 3 tokens, then 4, 6 and 10 tokens filled up to four rows; 100 exceeds the room.
    assert [tokens.shape for tokens, _ in policy.generate.calls] == [(4, 4), (4, 12)]


def test_no_call_has_more_rows_than_the_batch_size(networks):
    policy = record(networks, batch_size=6, length_buckets=(12,))
    policy.act_batch([Said("a")] * 11)
    assert [tokens.shape for tokens, _ in policy.generate.calls] == [(6, 12), (6, 12)]


def test_answers_keep_the_order_of_the_observations(networks):
    policy = record(networks, batch_size=2)
    answers = policy.generate_batch([Said("abc"), Said("a")])  # run in the order of their lengths
    assert [(g.text, g.finished) for (g,) in answers] == [("abbb", False), ("a", True)]


@pytest.mark.parametrize("name", ["log_probability", "advantage", "value"])
def test_networks_that_give_nan_are_refused(policy, name):
    zeros = np.zeros(2)
    samples = Samples(np.full((2, N_NEW), TOKENIZER.eoa_id), np.full(2, 1), zeros, zeros, zeros)
    with pytest.raises(UserError, match="parameters are not finite"):
        policy.decode(samples._replace(**{name: np.array([0.0, np.nan])}))


@pytest.mark.parametrize("options", [{}, {"beam_width": 2}])
def test_parameters_that_are_not_finite_are_refused(networks, options):
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), networks)
    with pytest.raises(UserError, match="parameters are not finite"):
        make_policy(broken, **options).act(OBSERVATIONS[0])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_calls_without_rows_are_refused(networks, batch_size):
    with pytest.raises(UserError, match=rf"batch_size={batch_size} is not positive"):
        make_policy(networks, batch_size=batch_size)


@pytest.mark.parametrize("max_new_tokens", [N_POSITIONS, 100])
def test_more_new_tokens_than_positions_are_refused(networks, max_new_tokens):
    with pytest.raises(UserError, match=rf"max_new_tokens={max_new_tokens} .*16 positions"):
        make_policy(networks, max_new_tokens=max_new_tokens)


GENERATIONS = [
    Generation("x", -1.0, -3.0, 0.5, True),
    Generation("y", -4.0, 1.0, 0.0, True),
    Generation("z", -2.0, 0.0, 1.0, True),
]


@pytest.mark.parametrize(
    ("rank_by", "beta", "best_first"),
    [
        ("log_probability", 1.0, "xzy"),
        ("advantage", 1.0, "yzx"),
        ("value", 1.0, "zxy"),
        ("policy+advantage", 1.0, "zyx"),  # -4, -3, -2
        ("policy+advantage", 4.0, "yzx"),  # -13, 0, -2
        ("policy+value", 1.0, "xzy"),  # -0.5, -4, -1
        ("policy+value", 4.0, "zxy"),  # 1, -4, 2
    ],
)
def test_generations_are_ranked_by_the_criterion(networks, rank_by, beta, best_first):
    policy = make_policy(networks, rank_by=rank_by, beta=beta)
    assert "".join(g.text for g in policy.rank(GENERATIONS)) == best_first


def test_first_of_equal_generations_wins(networks):
    policy = make_policy(networks, rank_by="advantage")
    assert "".join(g.text for g in policy.rank([Generation(t, 0.0, 1.0, 1.0, True) for t in "abc"])) == "abc"


@pytest.mark.parametrize("rank_by", ["advantage", "value"])
def test_ranking_samples_by_a_critic_that_never_runs_is_refused(networks, rank_by):
    policy = make_policy(networks, rank_by=rank_by, n_generations=3)
    for choose in (policy.act_batch, policy.choose_batch):
        with pytest.raises(UserError, match=f"rank_by='{rank_by}' with beta=0.*3 samples"):
            choose(OBSERVATIONS)
    # Without a choice there is nothing to refuse: who asks for all samples gets them.
    assert [len(found) for found in policy.generate_batch(OBSERVATIONS)] == [3] * len(OBSERVATIONS)


def test_best_generation_is_what_is_said(policy):
    generations = policy.generate_batch(OBSERVATIONS)
    policy.n_acted = 0
    assert policy.choose_batch(OBSERVATIONS) == [policy.rank(g)[0] for g in generations]
    policy.n_acted = 0
    assert policy.act_batch(OBSERVATIONS) == [policy.rank(g)[0].text for g in generations]


# Beams.


def test_beams_are_those_of_the_search_best_first(networks):
    policy = make_policy(networks, beam_width=3, beta=1.0, batch_size=8)
    found = policy.generate_batch(OBSERVATIONS[:2])
    t = TOKENIZER
    search = make_beam_search(
        MODEL,
        policy.config,
        width=3,
        end_ids=(t.eoa_id, t.eod_id),
        pad_id=t.pad_id,
        suppress_ids=(t.pad_id, t.bos_id, t.boa_id, t.eos_id),
    )
    for observation, generations in zip(OBSERVATIONS, found, strict=False):
        prompt = encode_prompt(observation, TOKENIZER)
        laid_out = prepare_for_decoding(MODEL, *networks, critic=True)
        beams = search(laid_out, prompt[None], np.array([len(prompt)]))
        scores = [generation.log_probability for generation in generations]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, beams.scores[0], rtol=1e-4)
        length = int(beams.lengths[0, 0]) - generations[0].finished
        assert generations[0].text == TOKENIZER.decode(beams.tokens[0, 0, :length].tolist())


@pytest.mark.slow
def test_beams_do_not_depend_on_neighbours_or_padding(networks):
    together = make_policy(networks, beam_width=2, batch_size=4, length_buckets=(12,)).generate_batch(OBSERVATIONS)
    policy = make_policy(networks, beam_width=2, batch_size=1, length_buckets=(4, 8))
    alone = [policy.generate_batch([observation])[0] for observation in OBSERVATIONS]
    for a, b in zip(together, alone, strict=True):
        assert [g.text for g in a] == [g.text for g in b]
        np.testing.assert_allclose([g.log_probability for g in a], [g.log_probability for g in b], rtol=1e-4)


def test_places_without_a_candidate_are_ranked_last(networks):
    beams = make_policy(networks, beam_width=4, top_k=1).generate_batch(OBSERVATIONS[:1])[0]
    assert np.isfinite(beams[0].log_probability)
    assert [(g.text, g.log_probability) for g in beams[1:]] == [("", -np.inf)] * 3


def test_beams_and_several_samples_at_once_are_refused():
    with pytest.raises(UserError, match="beam_width=2"):
        DecodeConfig(beam_width=2, n_generations=2)


# The range of values.


@pytest.mark.slow
@pytest.mark.parametrize(("options", "value"), [({}, 1.0), ({"beam_width": 2}, 0.0)])  # beams tell no value
def test_a_target_q_clipped_to_a_point_leaves_the_policy(networks, options, value):
    flat = make_policy(networks, beta=3.0, value_range=(1.0, 1.0), **options).generate_batch(OBSERVATIONS)
    plain = make_policy(networks, **options).generate_batch(OBSERVATIONS)
    assert [[g.text for g in found] for found in flat] == [[g.text for g in found] for found in plain]
    assert {g.value for found in flat for g in found} == {value}


# A critic of utterances.


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


# A view.


def test_the_model_is_shown_the_view_of_an_observation(networks):
    plain = make_policy(networks, temperature=0.0)
    viewing = make_policy(networks, temperature=0.0)
    viewing.view = lambda dialogue: Said(dialogue.text + "!")
    assert viewing.act_batch([Said("hello")]) == plain.act_batch([Said("hello!")])
