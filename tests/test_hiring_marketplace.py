"""The built-in sample: deterministic, small in vocabulary, and with exactly the effect that was planted."""

import re

import numpy as np
import pytest
from coded_words import CODE_OF_WORD, classify_wording

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.matching.matcher import TfidfMatcher
from ilqljax.hiring.postings.posting import INSTRUCTION, build_prompt
from ilqljax.hiring.reward.diversity import diversity_score, pool_share
from ilqljax.hiring.statistics import bootstrap_mean


def score_postings(postings, candidates, *, attribute="gender", k=50):
    indices = TfidfMatcher([c.text for c in candidates]).top_k([p.description for p in postings], k).indices
    column = AttributeTable.from_candidates(candidates).attribute(attribute)
    return diversity_score(column.codes[indices], pool_share(column.codes, len(column.categories)))


def test_same_seed_gives_the_same_market_and_another_seed_another():
    assert make_market(seed=3, n_postings=20, n_candidates=20) == make_market(seed=3, n_postings=20, n_candidates=20)
    assert make_market(seed=3, n_postings=20, n_candidates=20) != make_market(seed=4, n_postings=20, n_candidates=20)


def test_plant_changes_only_the_planted_words_of_candidates():
    postings, without = make_market(plant=0.0, n_candidates=200)
    same_postings, planted = make_market(plant=1.0, n_candidates=200)
    assert postings == same_postings
    assert [c.attributes for c in without] == [c.attributes for c in planted]

    def drop_planted(text):
        return re.sub(rf"\b(an?|{'|'.join(CODE_OF_WORD)})\b|I hold .*", "", text)

    assert [drop_planted(c.text) for c in without] == [drop_planted(c.text) for c in planted]


def test_sizes_and_shares_are_as_documented():
    postings, candidates = make_market()
    assert (len(postings), len(candidates), len({p.company for p in postings})) == (300, 2000, 100)
    assert {len(p.description.split()) for p in postings} <= set(range(30, 47))
    words = {
        w for text in [p.description for p in postings] + [c.text for c in candidates] for w in re.findall(r"\w+", text)
    }
    assert len({w.lower() for w in words}) < 700
    for attribute in ("gender", "region"):
        assert 0.05 < np.mean([c.attributes[attribute] == "" for c in candidates]) < 0.11
    codes = [classify_wording(p.description) for p in postings]
    shares = [codes.count(code) / len(codes) for code in ("masculine", "neutral", "feminine")]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.08)


def test_candidate_texts_name_no_city_and_no_region():
    postings, candidates = make_market(n_candidates=500)
    words = set(re.findall(r"\w+", " ".join(c.text for c in candidates).lower()))
    assert not words & ({p.location.lower() for p in postings} | {"north", "south", "east", "west"})


def test_share_of_own_code_is_plant_plus_a_third_of_the_rest():
    _, candidates = make_market(n_candidates=4000, plant=0.7)
    own = {"female": "feminine", "male": "masculine"}
    known = [c for c in candidates if c.attributes["gender"]]
    share = np.mean([classify_wording(c.text) == own[c.attributes["gender"]] for c in known])
    assert share == pytest.approx(0.7 + 0.3 / 3, abs=0.02)


def test_planted_effect_is_found():
    postings, candidates = make_market()
    scores = score_postings(postings, candidates)
    codes = np.array([classify_wording(p.description) for p in postings])
    assert -35 < scores[codes == "masculine"].mean() < -20
    assert -35 < scores[codes == "feminine"].mean() < -20
    assert -10 < scores[codes == "neutral"].mean() < -3


@pytest.mark.slow
def test_without_the_plant_the_audit_finds_nothing_in_about_95_percent_of_seeds():
    """Intervals of (share of women for feminine minus for masculine wording) cover 0 as often as they claim."""
    covered = []
    for seed in range(40):
        postings, candidates = make_market(seed=seed, plant=0.0, n_postings=90, n_candidates=600)
        codes = np.array([classify_wording(p.description) for p in postings])
        column = AttributeTable.from_candidates(candidates).attribute("gender")
        indices = TfidfMatcher([c.text for c in candidates]).top_k([p.description for p in postings], 30).indices
        women = np.where(column.codes[indices] < 0, np.nan, column.codes[indices] == 0)
        share = np.nanmean(women, axis=1)
        difference = share[codes == "feminine"].mean() - share[codes == "masculine"].mean()
        # Shortlists of one market overlap, so the candidates, not the postings, are the independent units: permute
        # labels.
        rng = np.random.default_rng(seed)
        null = []
        for _ in range(100):
            shuffled = rng.permutation(column.codes)[indices]
            share = np.nanmean(np.where(shuffled < 0, np.nan, shuffled == 0), axis=1)
            null.append(share[codes == "feminine"].mean() - share[codes == "masculine"].mean())
        covered.append(np.quantile(null, 0.025) <= difference <= np.quantile(null, 0.975))
    assert 0.85 <= np.mean(covered) <= 1.0


def test_neutral_words_gain_nothing_at_plant_zero():
    postings, candidates = make_market(plant=0.0)
    codes = np.array([classify_wording(p.description) for p in postings])
    scores = score_postings(postings, candidates)
    coded = bootstrap_mean(scores[codes != "neutral"], seed=0)
    neutral = bootstrap_mean(scores[codes == "neutral"], seed=0)
    assert abs(coded.value - neutral.value) < 1.5


@pytest.mark.parametrize("arguments", [{"plant": 1.2}, {"plant": -0.1}, {"n_postings": 0}, {"n_candidates": 0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match=r"plant|n_postings"):
        make_market(**arguments)


def test_prompt_states_every_known_field_and_leaves_out_empty_ones():
    posting = make_market(n_postings=1, n_candidates=1)[0][0]
    lines = build_prompt(posting).split("\n")
    assert lines[0] == f"Posting: {posting.description}" and lines[-1] == INSTRUCTION
    assert {line.split(":")[0] for line in lines[1:-1]} == {"Title", "Company", "Location", "Requirements", "Remote"}
    assert len(build_prompt(posting).split()) - len(posting.description.split()) < 30
    assert "Company" not in build_prompt(type(posting)("1", "", "Text"))
