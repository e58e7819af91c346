"""The reward: its value by hand, what its cache depends on, and how bad settings and files are refused."""

from dataclasses import replace

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.matching.http import HttpMatcher, HttpSource
from ilqljax.hiring.matching.matcher import Matches, TfidfMatcher
from ilqljax.hiring.postings.posting import Candidate, Posting, build_prompt, parse_prompt
from ilqljax.hiring.reward import reward as reward_module
from ilqljax.hiring.reward.reward import DiversityReward
from ilqljax.hiring.reward.scores import RewardConfig

GENDERS = ("female", "female", "male", "male")
CANDIDATES = [Candidate(str(i), "text", {"gender": gender}) for i, gender in enumerate(GENDERS)]
TABLE = AttributeTable.from_candidates(CANDIDATES)
SHORTLISTS = {"women": [0, 1], "mixed": [0, 2], "men": [2, 3]}


class CountingMatcher:
    """Return the shortlists above, and record what was asked."""

    def __init__(self, fingerprint="counting"):
        self.fingerprint, self.n_candidates, self.asked = fingerprint, 4, []

    def top_k(self, texts, k):
        self.asked.append(list(texts))
        return Matches(np.array([SHORTLISTS[t][:k] for t in texts]), np.zeros((len(texts), k)))


def make_reward(matcher=None, *, cache_path="", **settings):
    return DiversityReward(matcher or CountingMatcher(), TABLE, RewardConfig(k=2, **settings), cache_path=cache_path)


def test_score_is_minus_100_times_total_variation_from_the_pool():
    np.testing.assert_allclose(
        make_reward().score(["p"] * 3, ["women", "mixed", "men"]), [-50.0, 0.0, -50.0], atol=1e-12
    )


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_rewrite_gets_the_empty_reward_and_no_shortlist(text):
    reward = make_reward()
    assert reward.score(["p"], [text])[0] == -200.0
    assert reward.shortlists([text, "mixed"]).tolist() == [[-1, -1], [0, 2]]
    assert reward.matcher.asked == [["mixed"]]


def test_original_distance_is_available_on_request():
    # The old distance compares sorted vectors: all women against half and half gives (0.5 + 0.5) / 2.
    assert make_reward(compat="original").score(["p"], ["women"])[0] == pytest.approx(-50.0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # The mean of KL((1, 0) || (.75, .25)) and KL((.5, .5) || (.75, .25)) in bits, under a root.
        ({"distance": "jensen_shannon"}, -100 * np.sqrt((np.log2(4 / 3) + np.log2(2 / 3) / 2 + np.log2(2) / 2) / 2)),
        ({"distance": "wasserstein", "ground": "female < male"}, -50.0),
        ({"distance": "kullback_leibler", "smoothing": 0.0}, -100 * np.log(2)),
        ({"target": "fixed", "shares": "female=0.9, male=0.1"}, -10.0),
        ({"weights": "exposure"}, -50.0),
    ],
)
def test_other_distances_targets_and_weights_of_all_women(settings, expected):
    assert make_reward(**settings).score(["p"], ["women"])[0] == pytest.approx(expected, abs=1e-9)


def test_target_differs_by_the_group_of_the_prompts_posting():
    shares = "nurse: female=1, male=0; *: female=0.5, male=0.5"
    config = RewardConfig(k=2, target="group", shares=shares)
    reward = DiversityReward(CountingMatcher(), TABLE, config, group_of={"a nurse's prompt": "nurse"})
    scores = reward.score(["a nurse's prompt", "another prompt"], ["women", "women"])
    np.testing.assert_allclose(scores, [0.0, -50.0])
    assert reward.scorer.describe_targets()["gender, nurse"] == {"female": 1.0, "male": 0.0}


def test_matcher_is_asked_once_a_batch_for_new_texts_only(tmp_path):
    reward = make_reward(cache_path=tmp_path / "r.sqlite")
    reward.score(["p", "p", "q"], ["women", "mixed", "women"])
    reward.score(["p", "p"], ["mixed", "men"])
    assert reward.matcher.asked == [["women", "mixed"], ["men"]]


def test_texts_are_asked_and_saved_in_parts_and_a_text_of_two_prompts_once(tmp_path, monkeypatch):
    expected = make_reward().score(["p"] * 3 + ["q"], ["women", "mixed", "men", "women"])
    monkeypatch.setattr(reward_module, "PAIRS_AT_A_TIME", 2)
    reward = make_reward(cache_path=tmp_path / "r.sqlite")
    assert reward.score(["p"] * 3 + ["q"], ["women", "mixed", "men", "women"]).tolist() == expected.tolist()
    assert reward.matcher.asked == [["women", "mixed"], ["men"]]


@pytest.mark.parametrize(("texts_at_once", "sizes"), [(1, [2, 1]), (3, [3])])
def test_a_call_holds_as_many_texts_as_the_matcher_takes_at_once(monkeypatch, texts_at_once, sizes):
    monkeypatch.setattr(reward_module, "PAIRS_AT_A_TIME", 2)
    matcher = CountingMatcher()
    matcher.texts_at_once = texts_at_once
    make_reward(matcher).score(["p"] * 3, ["women", "mixed", "men"])
    assert [len(texts) for texts in matcher.asked] == sizes


def test_a_failing_matcher_costs_one_part(tmp_path, monkeypatch):
    monkeypatch.setattr(reward_module, "PAIRS_AT_A_TIME", 2)
    with pytest.raises(KeyError):  # the matcher knows no such text
        make_reward(cache_path=tmp_path / "r.sqlite").score(["p"] * 4, ["women", "mixed", "men", "unknown"])
    again = make_reward(cache_path=tmp_path / "r.sqlite")
    again.score(["p"] * 3, ["women", "mixed", "men"])
    assert again.matcher.asked == [["men"]]


def test_cache_is_keyed_by_prompt_too(tmp_path):
    reward = make_reward(cache_path=tmp_path / "r.sqlite")
    reward.score(["p"], ["women"])
    reward.score(["q"], ["women"])
    assert reward.matcher.asked == [["women"], ["women"]]


def test_prompt_and_text_do_not_run_into_each_other():
    reward = make_reward()
    assert reward._make_key("ab", "c") != reward._make_key("a", "bc")


def test_cache_survives_and_depends_on_matcher_and_settings(tmp_path):
    path = tmp_path / "r.sqlite"
    make_reward(cache_path=path).score(["p"], ["women"])
    again, other, uniform = CountingMatcher(), CountingMatcher("other"), CountingMatcher()
    make_reward(again, cache_path=path).score(["p"], ["women"])
    make_reward(other, cache_path=path).score(["p"], ["women"])
    make_reward(uniform, cache_path=path, target="uniform").score(["p"], ["women"])
    assert (again.asked, other.asked, uniform.asked) == ([], [["women"]], [["women"]])


# What these say is on users' disks, and was paid for: a change of any of them scores everything again.
GROUPED = {"target": "group", "shares": "nurse: female=1, male=0; *: female=0.5, male=0.5", "guardrail_penalty": 30.0}
KEYS = [
    ({}, "f893274ada22c426", "b8bd8b6e849b5d3d"),
    (GROUPED, "363fac1671550513", "2d6819762c50e8ff"),
    ({"compat": "original"}, "d04368b8d220a255", "b7db010a49ceecfa"),
]


@pytest.mark.parametrize(("settings", "fingerprint", "key"), KEYS)
def test_keys_of_rewards_are_those_of_earlier_versions(settings, fingerprint, key):
    config = RewardConfig(k=2, **settings)
    reward = DiversityReward(CountingMatcher(), TABLE, config, group_of={"p": "nurse"} if settings == GROUPED else {})
    assert reward.fingerprint[:16] == fingerprint
    assert reward._make_key("p", "women").hex()[:16] == key


def test_fingerprints_of_matchers_are_those_of_earlier_versions():
    tfidf = TfidfMatcher(["a nurse in C++", "zwei Köche"])
    assert tfidf.fingerprint == "tfidf-56bc9bb4e939fcc190c46570dfea76f9"
    http = HttpMatcher(HttpSource("http://127.0.0.1:8000/match", version="2"), ["0", "1", "2", "3"])
    assert http.fingerprint == "http-5fdf71c88a98008a556994651ea8a8b0"


def test_a_file_of_another_kind_is_kept_aside(tmp_path, caplog):
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    make_reward(cache_path=path).score(["p"], ["women"])
    assert (tmp_path / "r.sqlite.damaged-1").read_bytes() == b"not a database at all" * 100
    assert "is damaged or not a reward cache (file is not a database)" in caplog.text


def test_cache_in_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be used .* Make the file and its folder, which must exist, writable"):
        make_reward(cache_path=tmp_path / "nowhere" / "r.sqlite")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute": "age"}, r"Unknown attribute 'age'\. The candidates declare: gender"),
        ({"k": 5}, r"k=5 was asked for, but there are 4 candidates"),
        ({"k": 0}, r"k=0"),
        ({"distance": "euclid"}, r"distance='euclid' is unknown"),
        ({"target": "half"}, r"target='half' is unknown\. Known: pool, uniform"),
        ({"compat": "old"}, r"compat='old' is unknown"),
    ],
)
def test_bad_setting_is_refused_before_any_work(settings, message):
    matcher = CountingMatcher()
    with pytest.raises(UserError, match=message):
        DiversityReward(matcher, TABLE, RewardConfig(**({"k": 2} | settings)))
    assert matcher.asked == []


@pytest.mark.parametrize(
    "setting",
    [{"distance": "far"}, {"target": "half"}, {"compat": "old"}, {"weights": "log"}, {"guardrail_penalty": -1}],
)
def test_an_option_out_of_its_range_is_refused_before_there_are_candidates(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        RewardConfig(**setting)


def test_table_of_other_candidates_is_refused():
    with pytest.raises(UserError, match=r"ranks 1 candidates, but the attribute table holds 4"):
        DiversityReward(TfidfMatcher(["one"]), TABLE, RewardConfig(k=1))


def test_unequal_lists_are_refused():
    with pytest.raises(UserError, match=r"two lists of equal length"):
        make_reward().score(["p"], ["women", "men"])


TRUE, FALSE = "Blue Oak needs a warm nurse in Leeds.", "Blue Oak needs a warm nurse in York."


class SteadyMatcher(CountingMatcher):
    """Return the same two women for every text."""

    def top_k(self, texts, k):
        self.asked.append(list(texts))
        return Matches(np.tile([0, 1], (len(texts), 1)), np.zeros((len(texts), k)))


def make_penalized(penalty, **settings):
    return make_reward(SteadyMatcher(), guardrail_penalty=penalty, **settings)


def test_guardrail_penalty_asks_the_guardrails_that_it_was_told_to():
    posting = Posting(
        "p", "", "Blue Oak is looking for a nurse who takes blood samples from patients and writes down results."
    )
    text, prompt = (
        "Writing down results, taking samples of blood: for patients, Blue Oak needs this nurse.",
        build_prompt(posting),
    )
    for mode, reward in (("edits", -80.0), ("free_text", -50.0)):
        penalized = DiversityReward(SteadyMatcher(), TABLE, RewardConfig(k=2, guardrail_penalty=30.0), guardrails=mode)
        assert penalized.score([prompt], [text]).tolist() == [reward]


def test_guardrail_penalty_is_taken_from_damaged_rewrites_only():
    posting = Posting("p", "", "Blue Oak needs a driven nurse in Leeds.", company="Blue Oak", location="Leeds")
    prompts = [build_prompt(posting)] * 4
    texts = [posting.description, TRUE, FALSE, posting.description.upper()]
    assert make_penalized(30.0).score(prompts, texts).tolist() == [-50.0, -50.0, -80.0, -50.0]  # a copy is not damage
    assert make_penalized(0.0).score(prompts, texts).tolist() == [-50.0] * 4
    assert make_penalized(30.0).score(prompts[:1], [""])[0] == -200.0


def test_guardrail_penalty_is_part_of_the_cache_key_and_is_not_taken_twice(tmp_path):
    path, prompt = tmp_path / "cache.sqlite", build_prompt(Posting("p", "", TRUE, location="Leeds"))
    assert make_penalized(30.0).fingerprint != make_penalized(0.0).fingerprint
    for _ in range(2):
        reward = make_penalized(30.0, cache_path=path)
        assert reward.score([prompt], [FALSE])[0] == -80.0
    assert reward.matcher.asked == []
    assert make_penalized(0.0, cache_path=path).score([prompt], [FALSE])[0] == -50.0


@pytest.mark.parametrize("penalty", [-1.0, float("inf"), float("nan")])
def test_guardrail_penalty_that_is_no_number_from_zero_on_is_refused(penalty):
    with pytest.raises(UserError, match=r"guardrail_penalty=.* is out of range"):
        make_penalized(penalty)


def test_guardrail_penalty_needs_a_prompt_that_states_the_posting():
    with pytest.raises(UserError, match="'p' is not a posting's prompt"):
        make_penalized(1.0).score(["p"], [TRUE])


def test_posting_is_read_back_from_its_prompt():
    posting = Posting("", "Ward: Nurse", "Posting: a  job.\nTitle: b", "Blue Oak", "Leeds", "", "SQL, Go", True)
    folded = replace(posting, description="Posting: a job. Title: b")
    assert parse_prompt(build_prompt(posting)) == folded
    bare = Posting("", "", "Text.")
    assert parse_prompt(build_prompt(bare)) == bare
