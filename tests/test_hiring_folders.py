"""A prepared folder is replaced whole or not at all, and what a matcher was once asked is not asked again."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ilqljax.data.files import lock_path
from ilqljax.errors import UserError
from ilqljax.hiring.data import folders, prepare
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.data.prepared import load_prepared
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.matching.matcher import TfidfMatcher
from ilqljax.hiring.postings.posting import save_candidates, save_postings
from ilqljax.hiring.reward import reward
from ilqljax.hiring.reward.cache import RewardCache
from ilqljax.hiring.reward.scores import RewardConfig

SMALL = DataConfig(n_postings=24, n_candidates=120, reward=RewardConfig(k=10))
ROOT = Path(__file__).resolve().parents[1]


def read_folder(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".sqlite"}


@pytest.fixture(scope="module")
def by_words(tmp_path_factory):
    """A folder that TF-IDF scored, to copy and never to change."""
    return prepare_data(SMALL, out_dir=tmp_path_factory.mktemp("data") / "by_words").folder


@pytest.fixture
def out(by_words, tmp_path):
    return Path(shutil.copytree(by_words, tmp_path / "out"))


@pytest.fixture(scope="module")
def first_asked(tmp_path_factory):
    """A folder that a counting matcher scored, to copy and never to change; its data and what was asked for."""
    return ask(tmp_path_factory.mktemp("data") / "asked")


@pytest.fixture
def asked_out(first_asked, tmp_path):
    return Path(shutil.copytree(first_asked[0].folder, tmp_path / "out"))


def list_shown(folder):
    """Return what stands in a folder but for hidden siblings of "out", which must hold scored rewards only."""
    hidden = list(folder.glob(".out.making-*"))
    assert all(file.name == "rewards.sqlite" for one in hidden for file in one.rglob("*") if file.is_file())
    return [file.name for file in folder.iterdir() if file not in hidden]


def test_error_half_way_leaves_no_folder_or_the_old_one(by_words, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise UserError("half way")

    monkeypatch.setattr(prepare, "save_manifest", fail)
    with pytest.raises(UserError, match="half way"):
        prepare_data(SMALL, out_dir=tmp_path / "out")
    assert list_shown(tmp_path) == []
    shutil.copytree(by_words, tmp_path / "out")
    before = read_folder(tmp_path / "out")
    with pytest.raises(UserError, match="half way"):
        prepare_data(replace(SMALL, seed=1), out_dir=tmp_path / "out")
    assert read_folder(tmp_path / "out") == before
    assert list_shown(tmp_path) == ["out"]


class BreakingMatcher:
    """Rank as TF-IDF does, but end otherwise when asked for the time of number `last`; a source and its matcher."""

    name = fingerprint = "breaking"

    def __init__(self, *, last=-1, end=None):
        self.last, self.end, self.asked = last, end, []

    def make(self, candidates, *, folder):
        self.matcher = TfidfMatcher([candidate.text for candidate in candidates])
        self.n_candidates = len(candidates)
        return self

    def top_k(self, texts, k):
        if len(self.asked) == self.last:
            self.end()
        self.asked.append(texts)
        return self.matcher.top_k(texts, k)


def refuse():
    raise UserError("no more")


def list_texts(matcher):
    return [text for texts in matcher.asked for text in texts]


def ask(out, config=SMALL):
    """Prepare, and return the data and the texts that the matcher was asked for."""
    matcher = BreakingMatcher()
    return prepare_data(config, out_dir=out, matcher=matcher), list_texts(matcher)


def prepare_and_fail(out, *, last):
    matcher = BreakingMatcher(last=last, end=refuse)
    with pytest.raises(UserError, match="no more"):
        prepare_data(SMALL, out_dir=out, matcher=matcher)
    return matcher.asked


def prepare_and_be_killed(out, *, last):
    program = f"""
import os, signal
from test_hiring_folders import SMALL, BreakingMatcher, prepare_data, reward
reward.PAIRS_AT_A_TIME = {reward.PAIRS_AT_A_TIME}
end = lambda: os.kill(os.getpid(), signal.SIGKILL)
prepare_data(SMALL, out_dir={str(out)!r}, matcher=BreakingMatcher(last={last}, end=end))
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "tests", capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("attempt", [prepare_and_fail, prepare_and_be_killed])
def test_what_was_scored_before_an_attempt_ended_is_not_asked_again(tmp_path, monkeypatch, attempt):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    unbroken = BreakingMatcher()
    expected = prepare_data(SMALL, out_dir=tmp_path / "other", matcher=unbroken)
    attempt(tmp_path / "out", last=2)
    assert list_shown(tmp_path) == ["other"]
    assert prepare_and_fail(tmp_path / "out", last=1) == unbroken.asked[2:3]  # and what that one had taken over stays
    again = BreakingMatcher()
    prepared = prepare_data(SMALL, out_dir=tmp_path / "out", matcher=again)
    assert again.asked == unbroken.asked[3:] != []
    assert prepared.rewrites == expected.rewrites
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "out"]


def test_what_was_scored_goes_into_other_data_that_is_prepared_there(tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    asked = prepare_and_fail(tmp_path / "out", last=1)
    other = BreakingMatcher()
    other.fingerprint = "of another version"
    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=other)
    assert len(other.asked[0]) == 20 and [file.name for file in tmp_path.iterdir()] == ["out"]
    again = BreakingMatcher()
    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=again)
    assert set(list_texts(again)).isdisjoint(asked[0])


def test_what_was_scored_stays_when_current_data_is_opened_or_another_attempt_fails(out, tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    asked = prepare_and_fail(out, last=2)
    prepare_data(SMALL, out_dir=out)  # by TF-IDF: still current
    other = BreakingMatcher(last=0, end=refuse)
    other.fingerprint = "of another version"
    with pytest.raises(UserError, match="no more"):
        prepare_data(SMALL, out_dir=tmp_path / "out", matcher=other)
    again = BreakingMatcher()
    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=again)
    assert len(asked) == 2 and not {tuple(texts) for texts in asked} & {tuple(texts) for texts in again.asked}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_taken_over_now_is_taken_over_later(tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    asked = prepare_and_fail(tmp_path / "out", last=2)

    def fill_the_disk(cache, path):
        raise UserError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(reward.RewardCache, "take_over", fill_the_disk)
        prepare_and_fail(tmp_path / "out", last=0)
    again = BreakingMatcher()
    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=again)
    assert len(asked) == 2 and not {tuple(texts) for texts in asked} & {tuple(texts) for texts in again.asked}


def test_engine_that_never_answers_leaves_nothing(tmp_path):
    prepare_and_fail(tmp_path / "out", last=0)
    assert list(tmp_path.iterdir()) == []


def test_damaged_rewards_of_a_failed_attempt_are_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    prepare_and_fail(tmp_path / "out", last=1)
    (scored,) = tmp_path.glob(".out.making-*/new/rewards.sqlite")
    scored.write_bytes(b"not a database at all" * 100)
    again = BreakingMatcher()
    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=again)
    assert len(again.asked[0]) == 20 and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_of_two_processes_that_replace_a_folder_at_once_the_last_wins(out, tmp_path, monkeypatch):
    other, landed = shutil.copytree(out, tmp_path / "other"), []

    def replace_between(source, target, move=os.replace):
        move(source, target)
        if Path(target).name == "old" and not landed:
            landed.append(move(other, out))

    monkeypatch.setattr(folders.os, "replace", replace_between)
    assert prepare_data(replace(SMALL, seed=1), out_dir=out).summary["config"]["seed"] == 1
    assert landed and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appears_in_between_and_is_not_ours_is_left_alone(tmp_path, monkeypatch):
    out = tmp_path / "out"

    def appear(*args, **kwargs):
        out.mkdir()
        (out / "thesis.txt").write_text("mine")

    monkeypatch.setattr(prepare, "_fill_folder", appear)
    with pytest.raises(UserError, match="holds files that prepare_data did not make"):
        prepare_data(SMALL, out_dir=out)
    assert (out / "thesis.txt").is_file() and [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(out, tmp_path, monkeypatch):
    before = read_folder(out)

    def fail(source, target, move=os.replace):
        if Path(source).name == "new":
            raise OSError(errno.EIO, "Input/output error")
        move(source, target)

    monkeypatch.setattr(folders.os, "replace", fail)
    with pytest.raises(UserError, match=r"out: cannot be replaced \(Input/output error\)"):
        prepare_data(replace(SMALL, seed=1), out_dir=out)
    assert read_folder(out) == before and list_shown(tmp_path) == ["out"]


@pytest.mark.slow
def test_killed_between_its_two_renames_a_process_loses_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = prepare_data(SMALL, out_dir=out)
    program = f"""
import os, signal
from dataclasses import replace
from pathlib import Path
from test_hiring_folders import SMALL, folders, prepare_data
def replace_and_die(source, target, move=os.replace):
    move(source, target)
    if Path(target).name == "old":
        os.kill(os.getpid(), signal.SIGKILL)
folders.os.replace = replace_and_die
prepare_data(replace(SMALL, seed=1), out_dir={str(out)!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "tests", capture_output=True, check=False)
    assert killed.returncode == -9 and not out.exists(), killed.stderr
    assert [file.name[:12] for file in tmp_path.iterdir()] == [".out.making-"]
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_fill_folder", None)  # would fail if it were called
        assert prepare_data(SMALL, out_dir=out) == first
    assert list_shown(tmp_path) == ["out"]
    prepare_data(replace(SMALL, seed=1), out_dir=out)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_living_processs_work_is_not_cleared(tmp_path):
    at_work = tmp_path / ".out.making-1"
    (at_work / "new").mkdir(parents=True)
    with lock_path(at_work):
        prepare_data(SMALL, out_dir=tmp_path / "out")
        assert (at_work / "new").is_dir()
    prepare_data(SMALL, out_dir=tmp_path / "out")
    assert not at_work.exists()


def test_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds files that prepare_data did not make"):
        prepare_data(SMALL, out_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_that_is_not_ours_is_named_where_the_summary_is_lost(out):
    (out / "summary.json").unlink()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"or lost its summary\.json and rewards\.sqlite: thesis\.txt\. Give a new or"):
        ask(out)
    assert (out / "rewards.sqlite").is_file() and (out / "thesis.txt").is_file()


def test_the_users_own_jobs_and_candidates_are_left_alone(tmp_path):
    save_jobs(tmp_path, n_postings=12)
    before = read_folder(tmp_path)
    with pytest.raises(UserError, match=r"prepare_data did not make.*: candidates\.jsonl, jobs\.jsonl\."):
        ask(tmp_path, replace(SMALL, path=str(tmp_path)))
    assert read_folder(tmp_path) == before


def test_another_text_in_the_packages_source_prepares_nothing_and_asks_nothing(asked_out, tmp_path):
    before = read_folder(asked_out)
    shutil.copytree(ROOT / "ilqljax", tmp_path / "ilqljax", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "ilqljax" / "hiring").rglob("*.py"):
        with file.open("a") as source:
            source.write("# A comment.\n")
    program = f"""
import ilqljax, test_hiring_folders
assert ilqljax.__path__ == [{str(tmp_path / "ilqljax")!r}], ilqljax.__path__
print(len(test_hiring_folders.ask({str(tmp_path / "out")!r})[1]), "asked")
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "0 asked\n", done.stderr
    assert read_folder(asked_out) == before


@pytest.mark.parametrize("name", ["PREPARE_VERSION", "REWARD_VERSION"])
def test_another_version_of_the_code_prepares_again_and_asks_nothing(first_asked, asked_out, monkeypatch, name):
    first, asked = first_asked
    monkeypatch.setattr(prepare, name, 1_000)
    second, asked_again = ask(asked_out)
    assert second.summary["fingerprint"] != first.summary["fingerprint"]
    assert asked and not asked_again and second.rewrites == first.rewrites


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"operators": ("original", "neutralize")}, {}),
        ({"max_postings": 12}, {"max_postings": 16}),
        ({"max_postings": 16}, {}),
        ({}, {"max_postings": 16}),
        ({}, {"fractions": (0.5, 0.2, 0.3)}),
        ({}, {"reward": RewardConfig(k=20)}),
    ],
)
def test_a_changed_option_asks_for_what_is_new_only(tmp_path, before, after):
    """What is new is what another folder, without rewards, is asked for and the first one was not."""
    first, asked = ask(tmp_path / "out", replace(SMALL, **before))
    fresh, needed = ask(tmp_path / "fresh", replace(SMALL, **after))
    second, asked_again = ask(tmp_path / "out", replace(SMALL, **after))
    kept = () if "reward" in after else asked
    assert sorted(asked_again) == sorted(set(needed) - set(kept))
    assert second.rewrites == fresh.rewrites
    back, asked_back = ask(tmp_path / "out", replace(SMALL, **before))
    assert back.rewrites == first.rewrites and not asked_back


def save_jobs(folder, *, n_postings):
    postings, candidates = make_market(n_postings=24, n_candidates=60)
    save_postings(folder / "jobs.jsonl", postings[:n_postings])
    save_candidates(folder / "candidates.jsonl", candidates)


def test_an_added_posting_asks_for_its_texts_only(tmp_path):
    config = replace(SMALL, path=str(tmp_path))
    save_jobs(tmp_path, n_postings=12)
    ask(tmp_path / "out", config)
    save_jobs(tmp_path, n_postings=13)
    prepared, asked = ask(tmp_path / "out", config)
    added = prepared.postings[-1].id
    assert sorted(asked) == sorted(row.text for row in prepared.rewrites if row.posting_id == added) != []


def test_another_engine_and_back_asks_nothing(asked_out):
    prepare_data(SMALL, out_dir=asked_out)  # by TF-IDF
    assert ask(asked_out)[1] == []


def lose(file):
    file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def garble(file):
    file.write_bytes(b"\xff" + file.read_bytes()[1:])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lose, cut, garble])
@pytest.mark.parametrize("name", ["offline.jsonl", "summary.json", "splits.json", "jobs.jsonl", "candidates.jsonl"])
def test_a_damaged_file_is_made_again_and_asks_nothing(tmp_path, name, damage, caplog):
    out = tmp_path / "out"
    first, _ = ask(out)
    before = read_folder(out)
    damage(out / name)
    second, asked = ask(out)
    assert not asked and second == first == load_prepared(out) and read_folder(out) == before
    assert damage is lose or name in caplog.text


def test_a_damaged_cache_costs_what_cannot_be_read_of_it(first_asked, asked_out, caplog):
    (first, asked), out = first_asked, asked_out
    cache = out / "rewards.sqlite"
    damaged = b"?" * 4096 + cache.read_bytes()[4096:-4096] + b"?" * 4096
    cache.write_bytes(damaged)
    cut(out / "offline.jsonl")
    second, asked_again = ask(out)
    assert len(asked_again) < len(asked) / 2 and second.rewrites == first.rewrites
    assert (out / "rewards.sqlite.damaged-1").read_bytes() == damaged and "It is kept as" in caplog.text
    assert ask(out, replace(SMALL, max_postings=16))[1] == []
    assert (out / "rewards.sqlite.damaged-1").read_bytes() == damaged


def test_a_lost_cache_of_whole_data_is_no_error(asked_out):
    first = load_prepared(asked_out)
    (asked_out / "rewards.sqlite").unlink()
    second, asked = ask(asked_out)
    assert second == first and not asked


def test_a_cache_that_cannot_be_read_now_is_not_paid_for_again(asked_out, tmp_path, monkeypatch):
    before = read_folder(asked_out)

    def refuse_to_read(cache, path):
        raise UserError("database is locked")

    matcher = BreakingMatcher()
    with monkeypatch.context() as patch:
        patch.setattr(RewardCache, "take_over", refuse_to_read)
        with pytest.raises(UserError, match="database is locked"):
            prepare_data(replace(SMALL, seed=1), out_dir=asked_out, matcher=matcher)
    assert matcher.asked == [] and read_folder(asked_out) == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("moment", ["while the new data is made", "between the renames"])
def test_what_a_running_training_scores_while_its_folder_is_replaced_is_kept(asked_out, tmp_path, monkeypatch, moment):
    out = asked_out
    make, move = prepare.save_manifest, os.replace

    def make_and_score(*args, **kwargs):
        RewardCache(out / "rewards.sqlite").save({b"late": -7.0})
        make(*args, **kwargs)

    def move_and_score(source, target):
        move(source, target)
        if Path(target).name == "old":
            RewardCache(Path(target) / "rewards.sqlite").save({b"late": -7.0})

    if moment == "between the renames":
        monkeypatch.setattr(folders.os, "replace", move_and_score)
    else:
        monkeypatch.setattr(prepare, "save_manifest", make_and_score)
    ask(out, replace(SMALL, seed=1))
    assert RewardCache(out / "rewards.sqlite").load([b"late"]) == {b"late": -7.0}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_an_attempt_scored_that_failed_while_another_was_at_work_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reward, "PAIRS_AT_A_TIME", 20)
    failed = []

    class Meanwhile(BreakingMatcher):
        name = fingerprint = "meanwhile"

        def top_k(self, texts, k):
            if not failed:
                failed.extend(prepare_and_fail(tmp_path / "out", last=2))
            return super().top_k(texts, k)

    prepare_data(SMALL, out_dir=tmp_path / "out", matcher=Meanwhile())
    _, asked = ask(tmp_path / "out")
    assert len(failed) == 2 and asked and set(asked).isdisjoint(failed[0] + failed[1])
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
