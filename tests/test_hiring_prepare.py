"""Preparing a data folder: whole or not at all, the same for the same input, from every source."""

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict, astuple, replace
from pathlib import Path

import numpy as np
import pytest

from ilqljax.data.files import hash_text
from ilqljax.data.json_lines import save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.data import prepare
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.data.prepared import KEPT, ScoredRewrite, format_summary, load_prepared
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import save_candidates, save_postings
from ilqljax.hiring.postings.sources import detect_source, load_market
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.task import HiringData, build_dataset, build_environment, build_trained_bpe

SMALL = DataConfig(n_postings=24, n_candidates=120, reward=RewardConfig(k=10))
ROOT = Path(__file__).resolve().parents[1]


def read_folder(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".sqlite"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_data(SMALL, out_dir=tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture
def copied(prepared, tmp_path):
    """A folder of its own that a test may change: as cheap as its files."""
    return Path(shutil.copytree(prepared.folder, tmp_path / "out"))


def test_every_posting_has_four_or_more_scored_rewrites_the_original_first(prepared):
    by_posting = {}
    for row in prepared.rewrites:
        by_posting.setdefault(row.posting_id, []).append(row)
    assert len(by_posting) == 24
    for rows in by_posting.values():
        assert rows[0].operator == "original" and len(rows) >= 4
        assert len({row.text for row in rows}) == len(rows)


def test_rewards_are_those_of_the_reward(prepared):
    rows = prepared.rewrites
    rewards = prepared.make_reward().score([r.prompt for r in rows], [r.text for r in rows])
    assert rewards.tolist() == [row.reward for row in rows]


def test_loaded_folder_equals_the_prepared_one(prepared):
    assert load_prepared(prepared.folder) == prepared


def test_observations_and_environment_cover_the_split(prepared):
    assert len(prepared.make_observations("train")) == len(prepared.select_rewrites("train"))
    postings = prepared.select_postings("test")
    make_environment = build_environment(HiringData(prepared, SMALL, n_practice=0), split="test")
    assert [make_environment(i).reset().posting for i in range(len(postings) + 1)] == [*postings, postings[0]]
    with pytest.raises(UserError, match=r"split='tets' is unknown\. Known: train, eval, test"):
        prepared.select_postings("tets")


def test_centred_rewards_compare_rewrites_of_one_posting_only(prepared):
    data = HiringData(prepared, SMALL, n_practice=0)
    tokenizer = build_trained_bpe(data, vocab_size=300)
    plain, centred = (build_dataset(data, tokenizer, center=center) for center in (False, True))
    assert plain.as_paid and not centred.as_paid
    prompts = np.array([o.prompt for o in prepared.make_observations("train")])
    rewards = [np.array([d.get_item(i).utterance_rewards[0] for i in range(d.size())]) for d in (plain, centred)]
    for prompt in set(prompts):
        own = [each[prompts == prompt] for each in rewards]
        assert own[1].mean() == pytest.approx(0.0, abs=1e-6)
        deviations = own[0] - own[0].mean()
        np.testing.assert_allclose(own[1], deviations * centred.reward_scale / plain.reward_scale, atol=1e-5)
    assert rewards[1].std() == pytest.approx(1.0, abs=1e-5)
    assert rewards[0].std() == pytest.approx(1.0, abs=1e-5)


def test_a_dataset_may_keep_the_rewrites_that_pass_or_improve(prepared):
    def row(posting, operator, reward, *failures):
        return ScoredRewrite(ids[posting], "train", operator, "a prompt", f"{operator} {posting}", reward, failures)

    ids = prepared.splits["train"][:2]
    best, damaged = row(0, "neutralize", -1.0), row(0, "feminize", 0.0, "name_invented")
    rows = (row(0, "original", -2.0), best, damaged, row(0, "mix", -2.0), row(1, "original", -2.0), row(1, "mix", -3.0))
    folder = replace(prepared, rewrites=rows)
    kept = {keep: [o.rewrite for o in folder.make_observations("train", keep=keep)] for keep in KEPT}
    assert kept["all"] == [each.text for each in rows]
    assert kept["passing"] == [each.text for each in rows if each is not damaged]
    assert kept["improving"] == [best.text, "original 1"]
    data = HiringData(folder, SMALL, n_practice=0)
    assert build_dataset(data, build_trained_bpe(data, vocab_size=300), keep="improving").size() == 2
    with pytest.raises(UserError, match=r"keep='good' is unknown\. Known: all, passing, improving"):
        folder.make_observations("train", keep="good")


def test_guardrails_of_a_folder_are_those_of_its_reward(prepared, tmp_path):
    free = prepare_data(replace(SMALL, guardrails="free_text"), out_dir=tmp_path / "free")
    assert (prepared.make_reward().guardrails, free.make_reward().guardrails) == ("edits", "free_text")
    assert free.summary["fingerprint"] != prepared.summary["fingerprint"]


def test_same_settings_give_the_same_bytes(prepared, tmp_path):
    prepare_data(SMALL, out_dir=tmp_path / "again")
    assert read_folder(tmp_path / "again") == read_folder(prepared.folder)


def test_the_samples_data_is_that_of_this_version(prepared):
    """Where this fails because a change was meant, raise PREPARE_VERSION, so that folders made before follow it."""
    rows = [(*astuple(replace(row, reward=0.0)), round(row.reward, 6)) for row in prepared.rewrites]
    digest = hash_text(json.dumps([[asdict(posting) for posting in prepared.postings], rows]))
    assert (prepare.PREPARE_VERSION, digest[:16]) == (2, "677e0d43d46409b5")


def test_unchanged_folder_is_used_again_and_a_changed_setting_replaces_it(copied, tmp_path, monkeypatch):
    first = load_prepared(copied)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_fill_folder", None)  # would fail if it were called
        assert prepare_data(SMALL, out_dir=copied) == first
    other = prepare_data(replace(SMALL, seed=1), out_dir=copied)
    assert other.rewrites != first.rewrites
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_file_changed_by_hand_is_noticed(copied):
    with (copied / "offline.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"offline\.jsonl: is missing or was changed"):
        load_prepared(copied)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("summary.json", '"k": 10', '"k": 11'),
        ("summary.json", '"splits_sha256"', '"splits_sha257"'),
        ("summary.json", '"summary_sha256"', '"summary_sha257"'),
        ("splits.json", '"seed"', '"sead"'),
        ("jobs.jsonl", "{", ""),
    ],
)
def test_damage_says_to_prepare_the_data_again(copied, name, old, new):
    text = (copied / name).read_text()
    assert old in text
    (copied / name).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"{name}: is .*changed since it was made\. Prepare the data again"):
        load_prepared(copied)


def test_folder_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a prepared data folder"):
        load_prepared(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operators": ("neutralise",)}, r"operators='neutralise' is unknown"),
        ({"source": "kaggle"}, r"source='kaggle' is unknown\. Known: sample, jobs"),
        ({"source": "jobs"}, r"source='jobs' needs the path"),
        ({"source": "sample", "path": "x"}, r"takes no path"),
        ({"path": "no/such/file.jsonl"}, r"file\.jsonl: no such file"),
        ({"max_words": 5}, r"have more than 5 words\. Raise max_words"),
        ({"splits": "given"}, r"the source has no index files"),
        ({"splits": "random"}, r"splits='random' is unknown"),
        ({"guardrails": "none"}, r"guardrails='none' is unknown"),
        ({"reward": RewardConfig(k=500)}, r"k=500"),
        ({"reward": RewardConfig(attribute="age")}, r"Unknown attribute 'age'"),
        ({"max_postings": -1}, r"max_postings=-1"),
    ],
)
def test_bad_setting_is_refused_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        prepare_data(replace(SMALL, **changes), out_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "setting", [{"operators": ("neutralise",)}, {"splits": "random"}, {"max_postings": -1}, {"max_words": -2}]
)
def test_an_option_out_of_its_range_is_refused_before_a_file_is_read(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        DataConfig(path="no/such/file.jsonl", **setting)


def save_jobs(folder):
    postings, candidates = make_market(n_postings=12, n_candidates=60)
    save_postings(folder / "jobs.jsonl", postings)
    save_candidates(folder / "candidates.jsonl", candidates)


def test_users_own_files_are_prepared_and_the_fingerprint_follows_them(tmp_path):
    save_jobs(tmp_path)
    config = replace(SMALL, path=str(tmp_path))
    first = prepare_data(config, out_dir=tmp_path / "out")
    save_candidates(tmp_path / "candidates.jsonl", first.candidates[:30])
    assert len(prepare_data(config, out_dir=tmp_path / "out").candidates) == 30


def test_repeated_long_and_surplus_postings_are_counted(tmp_path):
    postings, candidates = make_market(n_postings=12, n_candidates=60)
    postings += [replace(postings[0], id="copy"), replace(postings[1], id="long", description="word " * 90)]
    save_postings(tmp_path / "jobs.jsonl", postings)
    save_candidates(tmp_path / "candidates.jsonl", candidates)
    config = replace(SMALL, path=str(tmp_path), max_words=60, max_postings=10)
    summary = prepare_data(config, out_dir=tmp_path / "out").summary
    assert list(summary["dropped"].values()) == [1, 1, 2]
    assert summary["counts"]["postings"] == 10


def make_posts():
    text = "Fernwerk{0} | Oslo | Senior Python Engineer\nWe want an ambitious nurse who plans patient care number {0}."
    return [{"id": str(i), "text": text.format(i), "locations": [], "remote": False} for i in range(6)]


def test_hacker_news_posts_meet_the_samples_candidates(tmp_path):
    posts = make_posts()
    posts.append(posts[0] | {"id": "99", "text": "Fernwerk9 | Oslo\n" + "word " * 130})
    save_json_lines(tmp_path / "hn.jsonl", posts)
    prepared = prepare_data(replace(SMALL, path=str(tmp_path / "hn.jsonl")), out_dir=tmp_path / "out")
    assert prepared.summary["source"] == "hackernews" and len(prepared.candidates) == 120
    assert prepared.summary["dropped"]["longer than 120 words"] == 1
    assert "capable" not in prepared.rewrites[0].text
    assert any("a practical nurse" in row.text for row in prepared.rewrites)


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"job": {}, "candidates": []}, "workable_raw"),
        ({"id": "1", "title": "t", "description": "d"}, "jobs"),
        (make_posts()[0], "hackernews"),
        ({"text": "t", "q_value": -1.0}, "hackernews"),
    ],
)
def test_source_is_detected_from_the_first_line(tmp_path, row, source):
    save_json_lines(tmp_path / "data.jsonl", [row])
    assert detect_source(tmp_path / "data.jsonl") == source


def test_unknown_format_names_the_fields(tmp_path):
    save_json_lines(tmp_path / "data.jsonl", [{"name": "x"}])
    with pytest.raises(UserError, match=r"data\.jsonl:1: the fields \['name'\] are of no known format"):
        detect_source(tmp_path / "data.jsonl")


def test_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds neither jobs\.jsonl"):
        detect_source(tmp_path)


def test_jobs_without_candidates_name_the_missing_file(tmp_path):
    save_jobs(tmp_path)
    (tmp_path / "candidates.jsonl").unlink()
    with pytest.raises(UserError, match=r"candidates\.jsonl: no such file"):
        load_market(path=tmp_path)


def test_summary_shows_operators_and_the_noise_floor(prepared):
    text = format_summary(prepared.summary)
    assert "random shortlists score" in text and "neutralize" in text and "24 postings" in text


SCRIPT = str(ROOT / "scripts" / "prepare_data.py")


def test_script_prepares_and_reports(tmp_path, monkeypatch, capsys):
    save_jobs(tmp_path)
    options = {"--out_dir": tmp_path / "out", "--path": tmp_path, "--top": 10}
    monkeypatch.setattr("sys.argv", [SCRIPT, *(str(word) for option in options.items() for word in option)])
    runpy.run_path(SCRIPT, run_name="__main__")
    assert "12 postings" in capsys.readouterr().out and (tmp_path / "out" / "offline.jsonl").is_file()


def test_script_turns_bad_data_into_one_line_and_status_2(tmp_path):
    save_jobs(tmp_path)
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write(json.dumps({"id": "x"}) + "\n")
    command = [sys.executable, SCRIPT, "--out_dir", str(tmp_path / "out"), "--path", str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "jobs.jsonl:13" in done.stderr
    assert not (tmp_path / "out").exists()
