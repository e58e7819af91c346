"""Headroom: against a slow twin, on markets with and without a plant, and said where it matters."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ilqljax.cli import run_command
from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.evaluation import headroom
from ilqljax.hiring.evaluation.headroom import (
    Edits,
    HeadroomConfig,
    list_choices,
    list_edits,
    make_finding,
    measure_headroom,
)
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.matching.matcher import CheckedMatcher, TfidfMatcher, rank_halves, select_top_k
from ilqljax.hiring.postings.posting import Candidate, Posting
from ilqljax.hiring.reward.scores import RewardConfig, ShortlistScorer

N, K = 24, 6
TEXTS = ("a", "b", "a 1", "a 2", "b 1")
EDITS = Edits(TEXTS, ("original", "original", "x", "y", "x"), np.array([0, 1, 0, 0, 1]), n_refused=0)
PEOPLE = [Candidate(f"c{i}", "text", {"sex": "fm"[i % 2] if i % 5 else ""}) for i in range(N)]
TABLE = AttributeTable.from_candidates(PEOPLE)


class Ranked(CheckedMatcher):
    """Rank by fixed numbers, and count how many people were asked for."""

    n_candidates, fingerprint = N, "ranked"

    def __init__(self, seed=0):
        self.scores = dict(zip(TEXTS, np.random.default_rng(seed).normal(size=(len(TEXTS), N)), strict=True))
        self.asked = []

    def _rank(self, texts, k):
        self.asked.append(k)
        return select_top_k(np.stack([self.scores[text] for text in texts]), k)


def slow_numbers(matcher, codes, halves, scorer):
    """Return every posting's best gain and its gain on other people, with loops over all that is asked."""

    def score(people):
        known = [codes[i] for i in people if codes[i] >= 0]
        if not known:
            return -100.0
        share = np.array([known.count(0), known.count(1)]) / len(known)
        return -100 * 0.5 * np.abs(share - scorer.terms[0].targets["*"]).sum()

    def top(text, who, k):
        return sorted(who, key=lambda i: -matcher.scores[text][i])[:k]

    best, crossed = [], []
    for row in range(2):
        texts = [text for text, of in zip(TEXTS, EDITS.posting_of, strict=True) if of == row]
        everybody = [score(top(text, range(N), K)) for text in texts]
        best.append(max(everybody) - everybody[0])
        gains = []
        for half in halves:
            sides = [[i for i in range(N) if half[i] == side] for side in (True, False)]
            for chooser, judge in (sides, sides[::-1]):
                by_chooser = [score(top(text, chooser, K // 2)) for text in texts]
                chosen = texts[by_chooser.index(max(by_chooser))]
                gains.append(score(top(chosen, judge, K // 2)) - score(top(texts[0], judge, K // 2)))
        crossed.append(np.mean(gains))
    return np.mean(best), np.mean(crossed)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_the_slow_twin(seed):
    matcher, score = Ranked(seed), RewardConfig(attribute="sex", k=K)
    config = HeadroomConfig(n_splits=3, n_shuffles=19, seed=seed)
    (found,) = measure_headroom(EDITS, TABLE, [score], matcher=matcher, config=config)
    rng = np.random.default_rng(seed)
    halves = np.stack([rng.permutation(N) < N // 2 for _ in range(3)])
    shuffles = [rng.permutation(N) for _ in range(19)]
    scorer, codes = ShortlistScorer(TABLE, score), TABLE.attribute("sex").codes
    best, crossed = slow_numbers(matcher, codes, halves, scorer)
    assert found.best.value == pytest.approx(best)
    assert found.held_out.value == pytest.approx(crossed)
    chance = [slow_numbers(matcher, codes[people], halves, scorer) for people in shuffles]
    assert found.best.chance.value == pytest.approx(np.mean([b for b, _ in chance]))
    as_large = sum(c >= crossed - 1e-9 for _, c in chance)
    assert found.held_out.p_value == pytest.approx((1 + as_large) / 20)
    assert set(found.edits) == {"x", "y"}


def test_halves_are_ranked_among_themselves_however_deep_they_lie():
    scores, asked = np.random.default_rng(0).normal(size=(1, 100)), []

    def top_k(texts, k):
        asked.append(k)
        return select_top_k(scores, k)

    best = np.argsort(-scores[0])
    halves = np.zeros((1, 100), bool)
    halves[0, best[:50]] = True  # the other half begins behind the middle
    whole, of_halves = rank_halves(SimpleNamespace(n_candidates=100, top_k=top_k), ["a"], 4, halves)
    np.testing.assert_array_equal(whole, [best[:4]])
    np.testing.assert_array_equal(of_halves[0, :, 0], [best[:2], best[50:52]])
    assert asked == [28, 56]


def test_postings_with_fewer_edits_may_choose_their_original_again():
    np.testing.assert_array_equal(list_choices(EDITS), [[0, 2, 3], [1, 4, 1]])


def test_a_number_counts_among_those_of_chance():
    found = make_finding(2.0, np.arange(19.0))  # 2 to 18 are as large
    assert found.p_value == pytest.approx(18 / 20)
    assert not found.beyond_chance
    assert make_finding(20.0, np.arange(20.0)).beyond_chance


@pytest.mark.parametrize(("plant", "exists"), [(0.8, True), (0.0, False)])
def test_a_planted_market_has_headroom_and_an_unplanted_one_has_none(plant, exists):
    postings, candidates = make_market(n_postings=40, n_candidates=400, plant=plant)
    edits = list_edits(postings)
    score = RewardConfig(attribute="gender", k=20)
    matcher = TfidfMatcher([candidate.text for candidate in candidates])
    table = AttributeTable.from_candidates(candidates)
    (found,) = measure_headroom(edits, table, [score], matcher=matcher, config=HeadroomConfig(n_shuffles=39))
    assert found.exists == exists
    assert found.best.value > 2.0  # also where there is no headroom: the largest of many numbers
    assert found.distance.beyond_chance == exists
    sentence = found.describe()
    assert sentence.startswith("gender: the best edits gain +" if exists else "gender: shortlists are no further")


def test_edits_are_safe_and_distinct():
    text = "We need a strong nurse. Write to jobs@example.com."
    further = {
        "p": [("sample", text), ("sample", "Write to jobs@example.com. We need a kind nurse."), ("bad", "Hello.")]
    }
    edits = list_edits([Posting(id="p", title="Nurse", description=text)], further=further)
    assert edits.names[0] == "original" and edits.texts[0] == text
    assert len(set(edits.texts)) == len(edits.texts)
    assert "Hello." not in edits.texts and edits.n_refused >= 1
    with pytest.raises(UserError, match="at least one posting"):
        list_edits([])


def test_options_out_of_range_are_refused():
    with pytest.raises(UserError, match="n_shuffles=5"):
        HeadroomConfig(n_shuffles=5)
    scores = [RewardConfig(attribute="sex", k=k) for k in (2, 3)]
    with pytest.raises(UserError, match=r"k=\[2, 3\]"):
        measure_headroom(EDITS, TABLE, scores, matcher=Ranked())


def test_the_command_prints_a_table_and_writes_every_number(tmp_path, capsys):
    out = tmp_path / "headroom.json"
    words = f"data headroom --sample --max_postings 8 --attributes gender --top 20 --n_shuffles 19 --out {out}"
    run_command(words.split())
    shown = capsys.readouterr().out
    assert "8 postings, " in shown and "on other people" in shown and "neutralize gains" in shown
    (found,) = json.loads(out.read_text())["attributes"]
    assert found["attribute"] == "gender" and 0 < found["held_out"]["p_value"] <= 1
    for options, message in (("", "Give either --jobs"), ("--sample --attributes gendr", "Unknown attribute 'gendr'")):
        with pytest.raises(UserError, match=message):
            run_command(f"data headroom {options}".split())


def test_prepared_data_say_it_unless_the_matcher_may_cost_money(tmp_path, monkeypatch):
    config = DataConfig(n_postings=24, n_candidates=120, reward=RewardConfig(k=10))
    prepared = prepare_data(config, out_dir=tmp_path / "sample")
    assert prepared.summary["headroom"].startswith("gender: ")
    monkeypatch.setattr("ilqljax.hiring.data.prepare.HEADROOM_MATCHERS", ())
    monkeypatch.setattr(headroom, "measure_headroom", None)
    assert prepare_data(config, out_dir=tmp_path / "paid").summary["headroom"] == ""
