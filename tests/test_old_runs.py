"""A run folder and a data folder of version 0.1 (commit 9158ab1) open as before: read, judged, resumed, not asked.

The archive was made by that commit's `train` with the settings of `make_config`.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ilqljax.data.files import save_with_checksum
from ilqljax.hiring.data import prepare
from ilqljax.hiring.evaluation.record import load_evaluations
from ilqljax.hiring.matching.matcher import TfidfMatcher
from ilqljax.models.io.hf import load_language_model
from ilqljax.train import train
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.evaluation import evaluate_run, open_run
from ilqljax.training.run_config import load_run_config

ARCHIVE = Path(__file__).parent / "golden" / "run_0_1.tar.xz"
MADE_IN = "/tmp/w/old/data"


@pytest.fixture
def old_run(tmp_path):
    """The run folder, with its data folder where it now is."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    config = tmp_path / "run" / "config.json"
    save_with_checksum(config, config.read_text().replace(MADE_IN, str(tmp_path / "data")))
    return tmp_path / "run"


def make_config(run_dir):
    config = load_run_config("configs/workable.py")
    config.data.update({"folder": str(run_dir.parent / "data"), "n_postings": 24, "n_candidates": 80, "n_practice": 4})
    config.data.fractions = (0.5, 0.2, 0.3)
    config.reward.k = 20
    config.tokenizer.vocab_size = 320
    config.model.update({"n_embd": 8, "n_head": 2, "n_layer": 1, "unroll": 1, "n_positions": 512})
    for stage in (config.pretrain, config.train):
        stage.update({"eval_every": 2, "save_every": 2, "log_every": 1, "n_rollouts": 1, "warmup_steps": 1})
        stage.update({"length_buckets": (512,), "action_buckets": (256,), "select": "last", "batch_size": 4})
        stage.total_steps = 2
    config.decode.max_new_tokens = 16
    config.acting.length_buckets = (320,)
    config.evaluator.update({"best_of": 2, "max_postings": 3, "fluency": ""})
    config.mesh.data = 1
    return config


def test_its_evaluation_file_is_read(old_run):
    policies = load_evaluations(old_run / "evaluation.jsonl")
    assert list(policies) == ["echo", "bc", "bc best of 2", "ilql"]
    rows = {row["policy"]: row for row in json.loads((old_run / "results.json").read_text())}
    for name, rewrites in policies.items():
        assert np.mean([r.reward for r in rewrites]) == pytest.approx(rows[name]["reward_rewrite"])


def test_its_networks_are_those_that_it_exported(old_run):
    run = open_run(old_run)
    assert list(run.policies) == ["bc", "ilql"] and run.config.decode.rank_by == "policy+advantage"
    _, exported = load_language_model(str(old_run / "export" / "policy"))
    acting = run.select_policy("ilql").params["policy"]
    np.testing.assert_array_equal(exported["wte"], acting["wte"])


@pytest.mark.slow
def test_it_is_judged_again_without_asking_the_matcher_for_its_rewards(old_run, tmp_path, monkeypatch):
    asked = []
    ranks = TfidfMatcher.top_k

    def count(self, texts, k):
        asked.append(list(texts))
        return ranks(self, texts, k)

    monkeypatch.setattr(TfidfMatcher, "top_k", count)
    monkeypatch.setattr(prepare, "HEADROOM_MATCHERS", ())  # as for an engine that may cost money
    data = open_run(old_run).build_section("data")
    assert len(data.prepared.rewrites) > 100 and not asked
    evaluate_run(old_run, out_dir=tmp_path / "again")
    before, again = (load_evaluations(folder / "evaluation.jsonl") for folder in (old_run, tmp_path / "again"))
    assert list(again) == list(before)
    assert [(r.posting_id, r.reward) for r in again["echo"]] == [(r.posting_id, r.reward) for r in before["echo"]]


@pytest.mark.slow
def test_it_is_resumed(old_run):
    config = make_config(old_run)
    config.resume = str(old_run)
    config.train.total_steps = 3
    assert train(config) == old_run
    assert CheckpointStore(old_run / "checkpoints" / "ilql").latest_step() == 3
    assert json.loads((old_run / "config-1.json").read_text())["train"]["total_steps"] == 2
    records = (old_run / "metrics" / "ilql" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["step"] for record in records] == [1, 2, 2, 3, 3]
