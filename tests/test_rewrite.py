"""The rewriting program: what it reads, what it shows, and what it refuses."""

import io
import json
from types import SimpleNamespace

import pytest

from ilqljax.cli import run_command
from ilqljax.decoding.options import DecodeConfig
from ilqljax.errors import UserError
from ilqljax.hiring import rewrite
from ilqljax.hiring.data.prepare import DataConfig, prepare_data
from ilqljax.hiring.edits.operators import rewrite_posting
from ilqljax.hiring.proposals import judge_samples
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.rewrite import format_rewriting, read_job
from ilqljax.rl.algorithms import ALGORITHMS
from ilqljax.training import evaluation
from ilqljax.training.evaluation import OpenRun

NAMES = {"title": "", "company": "", "location": ""}


def test_a_job_is_an_object_a_text_or_standard_input(tmp_path, monkeypatch):
    row = {"id": "j", "title": "Nurse", "description": "We need you.", "company": "Blue Oak"}
    (tmp_path / "job.json").write_text(json.dumps(row))
    (tmp_path / "job.txt").write_text("We need you.")
    assert read_job(str(tmp_path / "job.json"), **NAMES).company == "Blue Oak"
    assert read_job(str(tmp_path / "job.txt"), **(NAMES | {"title": "Nurse"})).title == "Nurse"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"We need you.")))
    assert read_job("-", **NAMES).description == "We need you."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b" \n", "is empty"),
        ("a.txt", b"caf\xe9", "byte 3 is not UTF-8"),
        ("a.json", b'{"description": ', "a.json:1: not JSON"),
        ("a.json", b'{"description": ' + b"1" * 5000 + b"}", "not JSON that we can read .*digits"),
        ("a.json", b'{"a": ' * 100_000, "not JSON that we can read .*recursion depth"),
        ("a.json", b"[1]", "expected a JSON object, got list"),
        ("a.json", b'{"title": "x"}', "'description' is missing"),
    ],
)
def test_a_job_that_cannot_be_read_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_job(str(tmp_path / name), **NAMES)


def test_half_a_surrogate_pair_in_a_job_can_be_written_again(tmp_path):
    (tmp_path / "a.json").write_text(r'{"description": "We need \ud83d you \ud83d\ude00."}')
    assert read_job(str(tmp_path / "a.json"), **NAMES).description == "We need \ufffd you \U0001f600."


def test_a_job_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"nowhere\.json: no such file"):
        read_job("nowhere.json", **NAMES)


def test_a_run_without_what_is_asked_for_is_refused_by_name():
    run = OpenRun("runs/w", SimpleNamespace(task="wordle", objects={}), None, None, {"bc": None, "ilql": "critic"})
    assert run.select_policy() == run.select_policy("ilql") == "critic"
    with pytest.raises(UserError, match="runs/w has no checkpoint of 'dpo'"):
        run.select_policy("dpo")
    with pytest.raises(UserError, match="runs/w is a run of the task 'wordle', which has no 'data'"):
        run.build_section("data")


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    config = DataConfig(n_postings=12, n_candidates=200, reward=RewardConfig(k=20))
    prepared = prepare_data(config, out_dir=tmp_path_factory.mktemp("data") / "data")
    return SimpleNamespace(reward=prepared.make_reward()), prepared.postings


def test_the_best_rewrite_is_shown_with_its_difference_and_shortlists(market):
    data, postings = market
    for posting in postings:
        texts = [text for _, text in rewrite_posting(posting, operators=DataConfig().operators, seed=0)]
        rewriting = judge_samples(posting, [(text, 0.0, 0.0) for text in texts], data.reward)
        if rewriting.safe:
            break
    shown = format_rewriting(rewriting, data, colour=False)
    assert "{+" in shown
    assert "shortlist of 20" in shown
    assert "gender: female" in shown
    assert "\033" not in shown
    assert "\033[32m" in format_rewriting(rewriting, data, colour=True)


def test_finding_nothing_is_a_normal_answer(market):
    data, postings = market
    rewriting = judge_samples(postings[0], [("word salad of no use", 0.0, 0.0)], data.reward)
    shown = format_rewriting(rewriting, data, colour=False)
    assert "No safe improvement found among 1 different rewrites." in shown
    assert "1 length" in shown or "1 incoherent" in shown


def test_nothing_is_decided_where_nobody_can_be_asked(monkeypatch):
    assert rewrite.ask_for_decision(can_ask=False) == "skip"
    for answer, decision in (("y", "accept"), ("NO", "reject"), ("", "skip")):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        assert rewrite.ask_for_decision(can_ask=True) == decision


def test_ctrl_d_at_the_question_decides_nothing(monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert rewrite.ask_for_decision(can_ask=True) == "skip"


def test_an_unknown_ranking_is_refused_before_sampling():
    run = OpenRun("runs/w", None, None, None, {})  # nothing that could sample
    with pytest.raises(UserError, match="rank_by='rewards' is unknown"):
        rewrite.rewrite_with_run(run, None, None, rank_by="rewards")


@pytest.mark.parametrize(("algorithm", "beta"), [("bc", 8.0), ("ilql", 0.0)])
def test_ranking_by_a_critic_that_does_not_run_is_refused_before_sampling(monkeypatch, algorithm, beta):
    trained = SimpleNamespace(learner=SimpleNamespace(algorithm=ALGORITHMS[algorithm]))
    actor = SimpleNamespace(config=DecodeConfig(beta=beta))  # cannot sample
    monkeypatch.setattr(rewrite, "make_policy", lambda *args, **options: actor)
    run = OpenRun("runs/w", None, None, None, {algorithm: trained})
    with pytest.raises(UserError, match="rank_by='advantage', but no critic runs"):
        rewrite.rewrite_with_run(run, None, None, rank_by="advantage")


def test_a_log_that_cannot_be_written_is_refused_before_the_run_is_opened(tmp_path, monkeypatch):
    (tmp_path / "job.txt").write_text("We need you.")
    monkeypatch.setattr(evaluation, "open_run", None)
    log = str(tmp_path / "nowhere" / "decisions.jsonl")
    with pytest.raises(UserError, match=r"decisions\.jsonl: cannot be written"):
        run_command(["rewrite", "--run", "r", "--job", str(tmp_path / "job.txt"), "--log", log])
