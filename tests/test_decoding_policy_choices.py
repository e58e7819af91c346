"""How a policy chooses: generations ranked by a criterion, beams, and values that are clipped."""

import numpy as np
import pytest
from said import MODEL, OBSERVATIONS, TOKENIZER, draw_networks, make_policy

from ilqljax.data.datapoint import encode_prompt
from ilqljax.decoding.beam import make_beam_search
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import Generation
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.errors import UserError


@pytest.fixture(scope="module")
def networks():
    return draw_networks()


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
