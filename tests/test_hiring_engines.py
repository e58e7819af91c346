"""BM25, parts of words, and a reward that several engines, halves of the people and other attributes share."""

import math
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.matching.lexical import Bm25Matcher, Bm25Source, NgramMatcher, NgramSource
from ilqljax.hiring.matching.matcher import Matches, TfidfMatcher, TfidfSource
from ilqljax.hiring.postings.posting import Candidate, Posting, build_prompt
from ilqljax.hiring.reward.combined import CombinedReward, make_engines
from ilqljax.hiring.reward.reward import HALVES_SEED, DiversityReward
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.task import HiringData, build_judge

PROFILES = ["python python sql", "Java and python", "warehouse picker, nights", "", "sql sql sql sql", "nurse"]


def score_bm25(text, *, k1, b):
    """Compute BM25 word by word."""
    profiles = [re.findall(r"\w+", profile.lower()) for profile in PROFILES]
    mean = sum(map(len, profiles)) / len(profiles)
    scores = []
    for words in profiles:
        n_of, score = Counter(words), 0.0
        for word in set(re.findall(r"\w+", text.lower())):
            df = sum(word in other for other in profiles)
            idf = math.log(1.0 + (len(profiles) - df + 0.5) / (df + 0.5))
            score += n_of[word] and idf * n_of[word] * (k1 + 1.0) / (
                n_of[word] + k1 * (1.0 - b + b * len(words) / mean)
            )
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.0, 0.5), (2.0, 0.0)])
def test_bm25_is_that_of_a_loop_over_words(k1, b):
    texts = ["Python and SQL, python!", "nurse at nights", "nothing known"]
    matches = Bm25Matcher(PROFILES, k1=k1, b=b).top_k(texts, len(PROFILES))
    for text, rows, scores in zip(texts, *matches, strict=True):
        expected = np.array(score_bm25(text, k1=k1, b=b))
        np.testing.assert_allclose(scores, expected[rows], rtol=1e-6)
        np.testing.assert_array_equal(rows, np.argsort(-expected.astype(np.float32), kind="stable"))


def test_parts_of_words_bring_forms_of_a_word_together():
    profiles = ["Designing buildings", "Selling insurance"]
    assert TfidfMatcher(profiles).top_k(["a designer"], 2).scores.max() == 0.0
    indices, scores = NgramMatcher(profiles).top_k(["a designer"], 2)
    assert indices[0, 0] == 0
    assert scores[0, 0] > scores[0, 1] == 0.0


@pytest.mark.parametrize("make", [Bm25Matcher, NgramMatcher])
def test_lexical_engines_refuse_no_candidates_and_rank_candidates_without_words(make):
    with pytest.raises(UserError, match="at least one candidate"):
        make([])
    np.testing.assert_array_equal(make(["", "?"]).top_k(["python"], 2).indices, [[0, 1]])
    assert make(["a"]).fingerprint != make(["b"]).fingerprint


def test_settings_of_bm25_are_checked_and_told_apart():
    with pytest.raises(UserError, match=r"b=1\.5"):
        Bm25Source(b=1.5)
    assert Bm25Source().fingerprint != Bm25Source(k1=2.0).fingerprint


# --- Combined rewards -------------------------------------------------------------------------------------------------

PEOPLE = [Candidate(str(i), "text", {"gender": g, "region": r}) for i, (g, r) in enumerate(["fn", "fs", "mn", "ms"])]
TABLE = AttributeTable.from_candidates(PEOPLE)
POSTING = Posting("p", "Nurse", "mixed")


def make_engine(name, *, n=4, **lists):
    """Return an engine that knows the shortlist of each text."""
    return SimpleNamespace(
        fingerprint=name,
        n_candidates=n,
        top_k=lambda texts, k: Matches(np.array([lists[t][:k] for t in texts]), np.zeros((len(texts), k))),
    )


ONE = make_engine("one", mixed=[0, 3, 1, 2], same=[0, 1, 2, 3])  # women alone, of both regions
TWO = make_engine("two", mixed=[0, 3, 1, 2], same=[0, 2, 1, 3])  # both genders, of one region


@pytest.mark.parametrize(("combine", "expected"), [("mean", -25.0), ("worst", -50.0)])
def test_several_engines_share_a_reward(combine, expected):
    reward = CombinedReward([ONE, TWO], TABLE, RewardConfig(k=2, engines="two", combine=combine))
    np.testing.assert_allclose(reward.score([build_prompt(POSTING)] * 2, ["same", "mixed"]), [expected, 0.0])
    np.testing.assert_array_equal(reward.shortlists(["same"]), [[0, 1]])


def test_what_another_attribute_loses_is_taken_off():
    config = RewardConfig(k=2, side_weight=0.5)
    reward = CombinedReward([TWO], TABLE, config)
    # The rewrite's shortlist has both genders and one region; the original's both of either.
    np.testing.assert_allclose(reward.score([build_prompt(POSTING)] * 3, ["same", "mixed", ""]), [-25.0, 0.0, -200.0])


def test_halves_of_the_people_are_averaged():
    people = [Candidate(str(i), "text", {"gender": "mf"[i % 3 > 0]}) for i in range(40)]
    order = np.random.default_rng(3).permutation(40)
    engine = make_engine("e", n=40, a=list(order))
    config = RewardConfig(k=8, halves=3)
    table = AttributeTable.from_candidates(people)
    rng, scores = np.random.default_rng(HALVES_SEED), []
    single = DiversityReward(engine, table, RewardConfig(k=4))
    for _ in range(3):
        member = rng.permutation(40) < 20
        for half in (member, ~member):
            best = np.array([i for i in order if half[i]][:4])
            scores.append(single.scorer.score(best[None])[0])
    reward = DiversityReward(engine, table, config)
    np.testing.assert_allclose(reward.score(["p"], ["a"]), [np.mean(scores)])
    floors = [r.estimate_noise_floor().value for r in (reward, single)]
    assert floors[0] == floors[1]  # a half's shortlist is half as long


def test_each_engines_answers_are_kept_apart_from_the_combination(tmp_path):
    path = tmp_path / "rewards.sqlite"
    DiversityReward(ONE, TABLE, RewardConfig(k=2), cache_path=path).score([build_prompt(POSTING)], ["same"])
    deaf = SimpleNamespace(fingerprint="one", n_candidates=4, top_k=None)  # would fail if it were asked
    reward = CombinedReward([deaf, TWO], TABLE, RewardConfig(k=2, engines="two"), cache_path=path)
    np.testing.assert_allclose(reward.score([build_prompt(POSTING)], ["same"]), [-25.0])


@pytest.mark.parametrize(
    ("engines", "message"),
    [("tfidf", "own engine"), ("bm25, bm25", "twice"), ("bm52", "bm25"), ("http", "url")],
)
def test_engines_that_cannot_share_are_refused(engines, message):
    with pytest.raises(UserError, match=message):
        make_engines(engines, TfidfSource())


@pytest.mark.parametrize("setting", [{"combine": "median"}, {"halves": -1}, {"side_weight": -0.5}])
def test_options_of_combinations_are_checked(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        RewardConfig(**setting)


def test_a_folder_is_scored_by_all_engines_and_judged_by_one_that_is_none_of_them(tmp_path):
    reward = RewardConfig(k=20, engines="bm25", halves=1, side_weight=0.2)
    config = DataConfig(n_postings=30, n_candidates=60, reward=reward)
    prepared = prepare_data(config, out_dir=tmp_path / "data")
    rows = prepared.rewrites[:3]
    engines = [s.make(prepared.candidates, folder=tmp_path) for s in (TfidfSource(), Bm25Source())]
    expected = CombinedReward(engines, AttributeTable.from_candidates(prepared.candidates), reward)
    np.testing.assert_allclose(
        [row.reward for row in rows], expected.score([row.prompt for row in rows], [row.text for row in rows])
    )
    data = HiringData(prepared, config, 0)
    with pytest.raises(UserError, match="holds nothing out"):
        build_judge(data, held_out_matcher=Bm25Source())
    judge = build_judge(data, held_out_matcher=NgramSource())
    assert type(judge.held_out) is DiversityReward
    assert judge.held_out.config == RewardConfig(k=20, halves=1)
