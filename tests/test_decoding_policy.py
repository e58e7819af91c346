"""A policy in text: batches that do not matter, prompts that are too long, and what is refused."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from said import N_NEW, N_POSITIONS, OBSERVATIONS, TOKENIZER, Said, draw_networks, make_policy

from ilqljax.decoding.generate import Samples
from ilqljax.errors import UserError


@pytest.fixture(scope="module")
def networks():
    return draw_networks()


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
        return Samples(said, np.where(np.arange(n) % 2, N_NEW, 2), *[np.zeros(n)] * 4)


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


@dataclass(frozen=True)
class Grown(Said):
    """Three things were said, of which two by the environment."""

    def to_sequence(self):
        return [("abcdef", None), ("gh", -1.0), (self.text, None)], self.over


@pytest.mark.parametrize(("too_long", "room"), [("cut", True), ("drop", True), ("end", False)])
def test_old_turns_of_a_dialogue_that_grew_too_long_are_left_out_and_counted(networks, too_long, room):
    policy = record(networks)
    policy.too_long = too_long
    fitting, grown = Grown("ijk"), Grown("ijklmno")
    assert policy.has_room(fitting) and policy.has_room(grown) == room
    policy.act_batch([fitting, grown, grown])
    assert policy.n_dropped_turns == {"cut": 2, "drop": 3, "end": 2}[too_long]
    (tokens, lengths), *_ = policy.generate.calls
    assert tokens[-1, : lengths[-1]].tolist() == [TOKENIZER.bos_id, *TOKENIZER.encode("ijklmno"), TOKENIZER.eos_id]


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
    samples = Samples(np.full((2, N_NEW), TOKENIZER.eoa_id), np.full(2, 1), *[zeros] * 4)
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


def test_best_generation_is_what_is_said(policy):
    generations = policy.generate_batch(OBSERVATIONS)
    policy.n_acted = 0
    assert policy.choose_batch(OBSERVATIONS) == [policy.rank(g)[0] for g in generations]
    policy.n_acted = 0
    assert policy.act_batch(OBSERVATIONS) == [policy.rank(g)[0].text for g in generations]


def test_the_model_is_shown_the_view_of_an_observation(networks):
    plain = make_policy(networks, temperature=0.0)
    viewing = make_policy(networks, temperature=0.0)
    viewing.view = lambda dialogue: Said(dialogue.text + "!")
    assert viewing.act_batch([Said("hello")]) == plain.act_batch([Said("hello!")])
