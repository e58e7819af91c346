"""The config's matchers: vectors kept and reused, given embeddings, engines of the user's, and the held-out judge."""

import dataclasses
import json
import logging
import shutil
from array import array

import numpy as np
import pytest
from small_bert import save_bert

import ilqljax.hiring.task  # noqa: F401  (registers the matchers)
from ilqljax.config import BuildContext, build
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import Generation
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.data.prepared import load_prepared
from ilqljax.hiring.matching.encoders import EmbeddingsSource, EncoderSource
from ilqljax.hiring.matching.http import HttpSource
from ilqljax.hiring.matching.matcher import Matcher, MatcherSource, TfidfSource
from ilqljax.hiring.matching.user_supplied import CallableSource
from ilqljax.hiring.postings.posting import Candidate, load_candidates, save_candidates
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.task import HiringData, build_judge
from ilqljax.models.sentence_encoder import SentenceEncoder
from ilqljax.training.judgement import begin_judgement
from ilqljax.training.run_config import load_run_config

SMALL = DataConfig(n_postings=24, n_candidates=60, reward=RewardConfig(k=10))
TEXTS = ("night nurse", "python sql", "the care nurse", "sqls", "care " * 30)
CANDIDATES = [Candidate(f"c{i}", text, {"gender": "female"}) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_bert(folder)
    return folder


def with_embeddings(source, candidates=CANDIDATES):
    vectors = source.encoder.encode([c.text for c in candidates])
    return [dataclasses.replace(c, embedding=array("f", v)) for c, v in zip(candidates, vectors, strict=True)]


def make_from_config(tmp_path, candidates=CANDIDATES, **section):
    source = build("matcher", section, context=BuildContext())
    assert isinstance(source, MatcherSource)
    return source.make(candidates, folder=tmp_path)


def rank_alike(texts, k):
    """Rank c0, c1, ... whatever the text."""
    return [[f"c{i}" for i in range(k)]] * len(texts), [list(range(k, 0, -1))] * len(texts)


@pytest.mark.parametrize("name", ["tfidf", "encoder", "embeddings", "callable"])
def test_config_builds_every_matcher(tmp_path, bert, name):
    section = {"callable": {"function": "test_hiring_matchers:rank_alike"}, "tfidf": {}}.get(name, {"path": str(bert)})
    candidates = with_embeddings(EncoderSource(path=str(bert)))
    matcher = make_from_config(tmp_path, candidates, name=name, **section)
    assert isinstance(matcher, Matcher) and matcher.n_candidates == 5
    assert matcher.top_k(["night nurse"], 1).indices.tolist() == [[0]]


def test_http_matcher_is_built_from_its_address_and_asks_nothing_yet(tmp_path):
    matcher = make_from_config(tmp_path, name="http", url="http://127.0.0.1:9/match", n_retries=0)
    assert isinstance(matcher, Matcher) and matcher.n_candidates == 5


def test_encoder_ranks_by_the_cosine_of_its_vectors(tmp_path, bert):
    matcher = EncoderSource(path=str(bert)).make(CANDIDATES, folder=tmp_path)
    vectors = SentenceEncoder(bert).encode([*TEXTS, "nurse"]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = vectors[:-1] @ vectors[-1]
    matches = matcher.top_k(["nurse"], 5)
    np.testing.assert_array_equal(matches.indices[0], np.argsort(-scores))
    np.testing.assert_allclose(matches.scores[0], np.sort(scores)[::-1], atol=1e-6)


def test_vectors_are_computed_once_and_again_for_other_texts_or_another_encoder(tmp_path, bert, monkeypatch):
    encoded = []
    encode = SentenceEncoder.encode
    monkeypatch.setattr(
        SentenceEncoder, "encode", lambda self, texts: encoded.append(len(texts)) or encode(self, texts)
    )
    prints = [EncoderSource(path=str(bert)).make(CANDIDATES, folder=tmp_path).fingerprint for _ in range(2)]
    assert encoded == [5] and prints[0] == prints[1]
    prints.append(EncoderSource(path=str(bert)).make(CANDIDATES[:4], folder=tmp_path).fingerprint)
    prints.append(EncoderSource(path=str(bert), pooling="cls").make(CANDIDATES, folder=tmp_path).fingerprint)
    assert encoded == [5, 4, 5] and len(set(prints)) == 3
    EncoderSource(path=str(bert), metric="dot").make(CANDIDATES, folder=tmp_path)
    assert encoded == [5, 4, 5, 5]  # the file held the four


def test_texts_that_were_cut_are_reported(tmp_path, bert, caplog):
    with caplog.at_level(logging.INFO):
        EncoderSource(path=str(bert)).make(CANDIDATES, folder=tmp_path)
    assert "1 of 5 texts cut to 12 tokens" in caplog.text


def test_given_embeddings_rank_as_the_encoder_that_made_them(tmp_path, bert):
    source = EmbeddingsSource(path=str(bert))
    given = source.make(with_embeddings(source), folder=tmp_path)
    computed = EncoderSource(path=str(bert)).make(CANDIDATES, folder=tmp_path)
    for found, expected in zip(given.top_k(["nurse"], 5), computed.top_k(["nurse"], 5), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert given.fingerprint != source.make(with_embeddings(source)[::-1], folder=tmp_path).fingerprint


def test_embeddings_of_another_encoder_are_refused_unless_that_is_meant(tmp_path, bert):
    others = with_embeddings(EncoderSource(path=str(bert), pooling="cls"))
    with pytest.raises(
        UserError, match=r"embedding of the candidate 'c\d' is not what the encoder .* makes of its text"
    ):
        EmbeddingsSource(path=str(bert)).make(others, folder=tmp_path)
    assert EmbeddingsSource(path=str(bert), same_encoder=False).make(others, folder=tmp_path).n_candidates == 5


def test_missing_or_narrow_embeddings_are_refused(tmp_path, bert):
    source = EmbeddingsSource(path=str(bert))
    with pytest.raises(UserError, match="'c0' has no embedding"):
        source.make(CANDIDATES, folder=tmp_path)
    narrow = [dataclasses.replace(c, embedding=array("f", [1.0, 2.0])) for c in CANDIDATES]
    with pytest.raises(UserError, match=r"embeddings have 2 numbers, and the encoder .* gives 16"):
        source.make(narrow, folder=tmp_path)


def test_embeddings_survive_the_candidates_file_bit_for_bit(tmp_path):
    vector = array("f", np.random.default_rng(0).normal(size=200).astype(np.float32) * 1e-3)
    candidates = [Candidate("a", "nurse", {}, vector), Candidate("b", "cook", {}, array("f", [0.1] * 200))]
    save_candidates(tmp_path / "c.jsonl", candidates)
    assert load_candidates(tmp_path / "c.jsonl") == candidates


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ("[1, NaN]", r"c\.jsonl:2: the field 'embedding' holds nan"),
        ("[1, Infinity]", "holds inf"),
        ("[1, 1e39]", r"holds 1e\+39"),
        ('[1, "2"]', "holds '2'"),
        ("[1, true]", "holds True"),
        ("[]", "is empty"),
        ("3", "must be a list"),
        ("[1, 2, 3]", r"c\.jsonl:2: the embedding has 3 numbers, and the one at .*c\.jsonl:1 has 2"),
    ],
)
def test_bad_embedding_names_the_line(tmp_path, vector, message):
    lines = ('{"id": "a", "text": "t", "embedding": [1, 2]}', '{"id": "b", "text": "t", "embedding": %s}' % vector)  # noqa: UP031
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        load_candidates(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "encoder", "path": "no/such/folder"}, "no such directory"),
        ({"name": "encoder", "metric": "l1", "path": "x"}, "metric='l1' is unknown"),
        ({"name": "callable", "function": ""}, "does not name a function"),
        ({"name": "http", "url": ""}, "url='' is not a matcher's address"),
        ({"name": "tfidf", "path": "x"}, "config.path is not an option of matcher 'tfidf'"),
        (
            {"name": "bm26"},
            "'bm26' is not a known matcher.*Known: bm25, callable, embeddings, encoder, http, ngrams, postgres, tfidf",
        ),
    ],
)
def test_bad_matcher_section_is_refused_before_data_is_read(section, message):
    with pytest.raises(UserError, match=message):
        build("matcher", section, context=BuildContext())


def test_source_fingerprints_follow_what_can_change_a_ranking(bert):
    sources = [
        TfidfSource(),
        EncoderSource(path=str(bert)),
        EncoderSource(path=str(bert), metric="dot"),
        EncoderSource(path=str(bert), pooling="cls"),
        EmbeddingsSource(path=str(bert)),
        CallableSource("test_hiring_matchers:rank_alike"),
        CallableSource("test_hiring_matchers:rank_alike", version="2"),
        HttpSource("http://a/b"),
        HttpSource("http://a/b", version="2"),
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)
    assert EncoderSource(path=str(bert)).fingerprint == sources[1].fingerprint


@pytest.fixture(scope="module")
def prepared(bert, tmp_path_factory):
    return prepare_data(SMALL, out_dir=tmp_path_factory.mktemp("data") / "d", matcher=EncoderSource(path=str(bert)))


def test_data_is_scored_by_its_matcher_and_prepared_again_for_another(prepared, bert, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "d")
    by_words = prepare_data(SMALL, out_dir=tmp_path / "d")
    assert (prepared.summary["matcher"], by_words.summary["matcher"]) == (bert.name, "tfidf")
    assert [r.reward for r in by_words.rewrites] != [r.reward for r in prepared.rewrites]
    reward = prepared.make_reward(EncoderSource(path=str(bert)))
    rows = prepared.rewrites
    assert reward.score([r.prompt for r in rows], [r.text for r in rows]).tolist() == [r.reward for r in rows]
    assert reward.fingerprint != prepared.make_reward(TfidfSource()).fingerprint


def test_reward_without_a_matcher_is_refused_where_it_would_not_be_that_of_the_data(prepared):
    with pytest.raises(UserError, match="was scored by the matcher"):
        load_prepared(prepared.folder).make_reward()


def test_vectors_outlive_a_change_of_other_settings(prepared, bert, tmp_path, monkeypatch):
    shutil.copytree(prepared.folder, tmp_path / "d")
    source = EncoderSource(path=str(bert))
    asked = []
    encode = SentenceEncoder.encode
    monkeypatch.setattr(SentenceEncoder, "encode", lambda self, texts: asked.append(len(texts)) or encode(self, texts))
    config = dataclasses.replace(SMALL, max_postings=10, reward=RewardConfig(k=11))
    assert len(prepare_data(config, out_dir=tmp_path / "d", matcher=source).postings) == 10
    assert len(asked) == 1  # the rewrites; the candidates' vectors were there


class FixedPolicy:
    """Write each posting in a fixed way."""

    def __init__(self, edit):
        self.edit = edit

    def generate_batch(self, observations):
        return [[Generation(self.edit(o.posting.description), -1.0, 0.5, 0.0, True)] for o in observations]

    def choose_batch(self, observations):
        return [found[0] for found in self.generate_batch(observations)]


def make_policy(name, **overrides):
    return FixedPolicy(lambda text: " ".join(text.split()) + (" We welcome everyone." if name == "ilql" else ""))


@pytest.fixture(scope="module")
def judged(prepared, bert, tmp_path_factory):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    judge = build_judge(data, best_of=1, n_selected=3, held_out_matcher=TfidfSource())
    out = tmp_path_factory.mktemp("judged")
    return out, *judge(["bc", "ilql"], make_policy, out_dir=out)


def test_every_rewrite_is_scored_by_both_matchers(prepared, bert, judged):
    out, _, _ = judged
    lines = [json.loads(line) for line in (out / "evaluation.jsonl").read_text().splitlines()]
    assert {line["policy"] for line in lines} == {"echo", "bc", "ilql"}
    prompts, texts = [line["prompt"] for line in lines], [line["rewrite"] for line in lines]
    for source, key in ((EncoderSource(path=str(bert)), "reward"), (TfidfSource(), "held_out_reward")):
        expected = prepared.make_reward(source).score(prompts, texts).tolist()
        assert [line[key] for line in lines] == expected
        before = {line["posting_id"]: line[key] for line in lines if line["policy"] == "echo"}
        assert all(line[f"{key}_original"] == before[line["posting_id"]] for line in lines)


def test_held_out_gain_is_paired_by_posting_and_stands_in_rows_and_table(judged):
    out, rows, table = judged
    lines = [json.loads(line) for line in (out / "evaluation.jsonl").read_text().splitlines()]
    for row in rows:
        own = [line for line in lines if line["policy"] == row["policy"]]
        gain = np.mean([line["held_out_reward"] - line["held_out_reward_original"] for line in own])
        assert row["held_out_difference"] == pytest.approx(gain, abs=1e-12)
        assert row["held_out_difference_low"] <= row["held_out_difference"] <= row["held_out_difference_high"]
        assert f"{row['held_out_difference']:+.2f}" in table.partition("held-out matcher tfidf")[2]
    assert rows[2]["policy"] == "ilql" and "held_out_over_bc" in rows[2]
    assert [row["held_out_difference"] for row in rows[:2]] == [0.0, 0.0]


def test_without_a_held_out_matcher_nothing_speaks_of_one(prepared, bert, tmp_path):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    rows, table = build_judge(data, best_of=1, n_selected=3)(["bc"], make_policy, out_dir=tmp_path)
    assert "held" not in table and not any(key.startswith("held") for row in rows for key in row)
    assert "held" not in (tmp_path / "evaluation.jsonl").read_text()


def test_best_of_n_are_samples_where_the_run_searches_with_beams(prepared, bert, tmp_path):
    made = []

    def make_checked_policy(name, **overrides):
        made.append(dataclasses.replace(DecodeConfig(beam_width=4), **overrides))
        return make_policy(name)

    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    rows, _ = build_judge(data, best_of=4, n_selected=3)(["bc"], make_checked_policy, out_dir=tmp_path)
    assert [row["policy"] for row in rows] == ["echo", "bc", "bc best of 4"]
    assert [(c.beam_width, c.n_generations) for c in made[-2:]] == [(4, 1), (0, 4)]


def test_an_interrupted_judgement_of_postings_ends_as_an_unbroken_one(prepared, bert, tmp_path):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    judge, made = build_judge(data, best_of=2, n_selected=3), []

    class Killed(FixedPolicy):
        def choose_batch(self, observations):
            raise KeyboardInterrupt

    def make_counted(name, **overrides):
        made.append((name, *overrides))
        return make_policy(name)

    names = ["bc", "ilql"]
    unbroken = judge(names, make_policy, out_dir=tmp_path)
    expected = (tmp_path / "evaluation.jsonl").read_bytes()
    begin_judgement(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        judge(names, lambda name, **_: Killed(str) if name == "ilql" else make_policy(name), out_dir=tmp_path)
    assert judge(names, make_counted, out_dir=tmp_path) == unbroken
    assert [name for name, *_ in made] == ["bc", "ilql"]  # the first for the fluency
    assert (tmp_path / "evaluation.jsonl").read_bytes() == expected
    fewer = build_judge(data, best_of=2, n_selected=3, max_postings=3)
    fewer(names, make_counted, out_dir=tmp_path)
    assert len(made) == 2 + 4


def test_the_judge_lets_a_policy_refuse_a_choice_that_it_cannot_make(prepared, bert, tmp_path):
    class Undecided(FixedPolicy):
        def choose_batch(self, observations):
            raise UserError("no critic runs")

    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    with pytest.raises(UserError, match="no critic runs"):
        build_judge(data, best_of=1, n_selected=3)(["ilql"], lambda name: Undecided(str), out_dir=tmp_path)


def test_matcher_of_training_holds_nothing_out(prepared, bert):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    with pytest.raises(UserError, match="is the one that training is rewarded by"):
        build_judge(data, held_out_matcher=EncoderSource(path=str(bert)))


def test_judged_postings_are_a_seeded_choice_in_their_order(prepared, bert):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    every = [p.id for p in prepared.select_postings("test")]

    def choose(n, seed):
        return [p.id for p in build_judge(data, n_selected=3, max_postings=n, seed=seed).postings]

    chosen = [choose(2, seed) for seed in range(8)]
    assert choose(0, 0) == choose(len(every), 1) == choose(len(every) + 1, 1) == every
    assert chosen[0] == choose(2, 0) and set().union(*chosen) - set(every[:2])
    assert all(len(ids) == 2 and every.index(ids[0]) < every.index(ids[1]) for ids in chosen)
    with pytest.raises(UserError, match=r"max_postings=-1 is out of range\. Give a number in \[0, inf\)"):
        choose(-1, 0)


@pytest.mark.parametrize("n_selected", [10, 11])
def test_selection_that_is_no_part_of_a_shortlist_is_refused_before_training(prepared, bert, n_selected):
    data = HiringData(prepared, SMALL, n_practice=0, matcher=EncoderSource(path=str(bert)))
    message = rf"evaluator\.n_selected and config\.reward\.k: {n_selected} are to be selected of a shortlist of 10\."
    with pytest.raises(UserError, match=message):
        build_judge(data, n_selected=n_selected)


@pytest.mark.parametrize(
    ("arg", "matcher", "held_out"),
    [
        ("", "tfidf", ""),
        ("minilm", "tfidf", "encoder"),
        ("encoder,held_out_tfidf", "encoder", "tfidf"),
        ("http,minilm,bc", "http", "encoder"),
        ("embeddings", "embeddings", ""),
        ("callable", "callable", ""),
        ("postgres", "postgres", ""),
    ],
)
def test_config_flags_choose_both_matchers(arg, matcher, held_out):
    config = load_run_config(f"configs/workable.py:{arg}")
    assert config.matcher.name == matcher
    assert config.evaluator.to_dict().get("held_out_matcher", {"name": ""})["name"] == held_out


@pytest.mark.parametrize(
    ("name", "cls"),
    [("encoder", EncoderSource), ("embeddings", EmbeddingsSource), ("callable", CallableSource), ("http", HttpSource)],
)
def test_completed_sections_have_all_options_of_their_matchers(name, cls):
    section = load_run_config(f"configs/workable.py:{name}").matcher.to_dict()
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    given = {key: value for key, value in section.items() if key in defaults}
    assert given == {key: defaults[key] for key in given}
    assert section.keys() - {"name"} == {f.name for f in dataclasses.fields(cls)}
