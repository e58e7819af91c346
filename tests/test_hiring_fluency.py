"""The fluency guardrail: likelihoods are the model's own, the floor is calibrated, and broken sentences fail."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.data.datapoint import DataPoint
from ilqljax.data.tokenizer import train_bpe
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import TextPolicy
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.guardrails import check_rewrite
from ilqljax.hiring.guardrails.fluency import PASS_SHARE, calibrate_fluency
from ilqljax.hiring.guardrails.language_model import make_fluency, score_texts
from ilqljax.hiring.proposals import judge_samples
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.task import HiringData, build_judge
from ilqljax.models.backbone import compute_logits
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.networks import Networks, save_networks
from ilqljax.models.value_lm import ValueLM, ValueLMConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = DataConfig(n_postings=60, n_candidates=100, fractions=(0.4, 0.3, 0.3), reward=RewardConfig(k=10))
    return prepare_data(config, out_dir=tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def policy(data):
    tokenizer = train_bpe([row.text for row in data.rewrites], vocab_size=400)
    model = ValueLM(GPT2(GPT2Config(tokenizer.vocab_size, 320, 16, 1, 2)), ValueLMConfig())
    params = {"policy": model.init_params(jax.random.key(0))["policy"]}
    # Small random parameters predict the same everywhere.
    params = jax.tree.map(lambda x: 8 * x, params)
    options = {"batch_size": 4, "length_buckets": (128, 256)}
    return TextPolicy(model, DecodeConfig(max_new_tokens=8), tokenizer, params=params, target={}, **options)


def observe(rows) -> list[PostingObservation]:
    return [PostingObservation(row.prompt, row.text, 0.0) for row in rows]


@pytest.mark.slow
def test_a_likelihood_is_the_mean_over_what_was_said_whatever_the_batch(data, policy):
    observations = observe(data.rewrites[:6])
    parts = {"model": policy.model, "trunk": policy.params["policy"], "tokenizer": policy.tokenizer}
    found = score_texts(observations, batch_size=4, **parts)
    for observation, value in zip(observations, found, strict=True):
        row = DataPoint.from_observation(observation, policy.tokenizer, max_length=320)
        trunk = policy.params["policy"]
        hidden = policy.model.run_trunk(trunk, jnp.asarray(row.tokens)[None]).hidden
        logs = np.asarray(jax.nn.log_softmax(compute_logits(trunk, hidden)[0]), np.float64)
        expected = np.mean([logs[i, row.tokens[i + 1]] for i in row.action_idxs])
        assert value == pytest.approx(expected, rel=1e-5)
    assert score_texts([], **parts).size == 0


@pytest.mark.slow
def test_the_settings_name_the_clone_a_directory_or_nothing(data, policy, tmp_path):
    assert make_fluency("", data, clone=policy) is None
    assert make_fluency("bc", data, clone=None) is None
    with pytest.raises(UserError, match="is not a language model's directory"):
        make_fluency(str(tmp_path / "nowhere"), data, clone=policy)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    save_networks(tmp_path / "lm", Networks(policy.model, policy.params, {}), special_ids=ids)
    policy.tokenizer.save(tmp_path / "lm")
    ours, theirs = (make_fluency(source, data, clone=policy) for source in ("bc", str(tmp_path / "lm")))
    assert ours.floor == pytest.approx(theirs.floor, abs=1e-4)
    assert (ours.name, theirs.name) == ("the clone", str(tmp_path / "lm"))


def test_a_source_that_cannot_be_used_is_refused_before_training(data, tmp_path):
    with pytest.raises(UserError, match="is not a language model's directory"):
        build_judge(HiringData(data, DataConfig(), n_practice=0), fluency=str(tmp_path))
    copies = DataConfig(n_postings=12, n_candidates=50, operators=("original",), reward=RewardConfig(k=5))
    only_copies = HiringData(prepare_data(copies, out_dir=tmp_path / "data"), copies, n_practice=0)
    with pytest.raises(UserError, match="no undamaged edit"):
        build_judge(only_copies, fluency="bc")


class Bigrams:
    """A language model of word pairs, counted on the training split."""

    def __init__(self, data):
        texts = [f"^ {row.text} $" for row in data.select_rewrites("train")]
        self.pairs = Counter(pair for text in texts for pair in pairwise(text.split()))
        self.words = Counter(word for text in texts for word in text.split())

    def __call__(self, observations):
        means = []
        for observation in observations:
            pairs = list(pairwise(f"^ {observation.rewrite} $".split()))
            means.append(np.mean([np.log((self.pairs[a, b] + 0.1) / (self.words[a] + 100)) for a, b in pairs]))
        return np.array(means)


def swap_words(text: str) -> str:
    """Swap three words in a row of the middle: readable to a check of words, not to a reader."""
    words = text.split()
    i = len(words) // 2
    words[i], words[i + 2] = words[i + 2], words[i]
    return " ".join(words)


def test_edits_pass_and_swapped_words_fail_though_every_other_check_passes_many(data):
    fluency = calibrate_fluency("bigrams", Bigrams(data), data)
    postings = {posting.id: posting for posting in data.postings}
    originals = {row.posting_id: row.text for row in data.rewrites if row.operator == "original"}
    rows = [row for row in data.select_rewrites("test") if row.operator != "original"]
    prompts, before = [row.prompt for row in rows], [originals[row.posting_id] for row in rows]

    def refuse(texts):
        return np.array([bool(fluency.judge(d)) for d in fluency.compare(prompts, before, texts)])

    assert fluency.n_calibration > 50
    assert refuse([row.text for row in rows]).mean() < 0.1
    swapped = [swap_words(row.text) for row in rows]
    others = [bool(check_rewrite(postings[r.posting_id], t, r.prompt)) for r, t in zip(rows, swapped, strict=True)]
    assert refuse(swapped).mean() > 0.5
    assert np.mean(others) < 0.3


def test_the_floor_lets_the_stated_share_of_undamaged_edits_pass(data):
    lengths = lambda observations: np.array([float(len(o.rewrite)) for o in observations])  # noqa: E731
    fluency = calibrate_fluency("lengths", lengths, data)
    originals = {row.posting_id: row.text for row in data.rewrites if row.operator == "original"}
    edits = [r for r in data.select_rewrites("eval") if r.operator != "original" and not r.guardrail_failures]
    differences = np.array([len(r.text) - len(originals[r.posting_id]) for r in edits])
    assert fluency.n_calibration == len(edits)
    assert np.mean(differences >= fluency.floor) == pytest.approx(PASS_SHARE, abs=1 / len(edits))
    assert f"{-fluency.floor:.2f} nats" in fluency.describe()
    failure = fluency.judge(fluency.floor - 1.0)[0]
    assert (failure.check, failure.severity) == ("fluency", "damage")
    assert fluency.judge(fluency.floor) == []


def test_nothing_to_calibrate_on_is_said(data):
    empty = SimpleNamespace(folder="f", select_rewrites=lambda split: [])
    with pytest.raises(UserError, match="no undamaged edit"):
        calibrate_fluency("x", len, empty)


def test_an_unlikely_sample_is_never_proposed(data):
    posting = data.select_postings("test")[0]
    fluency = calibrate_fluency("bigrams", Bigrams(data), data)
    rows = [row for row in data.select_rewrites("test") if row.posting_id == posting.id and row.operator == "reorder"]
    text = rows[0].text
    samples = [(text, 0.0, 0.0), (swap_words(text), 0.0, 0.0)]
    known = {text: 1.0, swap_words(text): 2.0}
    rewards = SimpleNamespace(score=lambda prompts, texts: np.array([known.get(text, 0.0) for text in texts]))
    rewriting = judge_samples(posting, samples, rewards, fluency=fluency)
    assert [p.text for p in rewriting.safe] == [text]
    assert "fluency" in rewriting.refused[0].failed_checks
