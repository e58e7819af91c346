"""Samples of a policy as offline data: written, read back, scored, and refused where they would leak."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from ilqljax.decoding.policy import Generation
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepare import DataConfig, load_samples, prepare_data, save_samples
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.training import evaluation as evaluate
from ilqljax.training.evaluation import OpenRun


def make_config(**changes) -> DataConfig:
    return DataConfig(n_postings=12, n_candidates=100, reward=RewardConfig(k=10), **changes)


def test_samples_come_back_once_each(tmp_path):
    path = tmp_path / "samples.jsonl"
    samples = [("a", "One  text."), ("a", "One text."), ("b", "Another."), ("a", " "), ("a", "Third.")]
    assert save_samples(path, samples, source="bc") == 3
    found = load_samples(path, train_ids=["a", "b", "c"])
    assert found == {"a": [("bc", "One text."), ("bc", "Third.")], "b": [("bc", "Another.")]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"posting_id": "a", "source": "bc"}, "'text' is None"),
        ({"posting_id": "a", "text": " ", "source": "bc"}, "'text' is ' '"),
        ({"posting_id": "a", "text": 3, "source": "bc"}, "'text' is 3"),
        ({"posting_id": "a", "text": "x", "source": "soften"}, "the name of an operator"),
        ({"posting_id": "z", "text": "x", "source": "bc"}, "is not in the training split"),
    ],
)
def test_a_line_that_would_mislead_is_refused_with_its_number(tmp_path, row, message):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"posting_id": "a", "text": "x", "source": "bc"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message) as error:
        load_samples(path, train_ids=["a"])
    assert ":2:" in str(error.value)


def test_prepared_data_holds_the_samples_scored_and_checked_beside_the_operators(tmp_path):
    plain = prepare_data(make_config(), out_dir=tmp_path / "plain")
    posting = plain.select_postings("train")[0]
    path = tmp_path / "samples.jsonl"
    text = f"{posting.company} needs a kind person in Atlantis."
    known = next(row.text for row in plain.rewrites if row.posting_id == posting.id)
    save_samples(path, [(posting.id, text), (posting.id, known)], source="bc")
    data = prepare_data(make_config(rewrites_path=str(path)), out_dir=tmp_path / "more")
    added = [row for row in data.rewrites if row.operator == "bc"]
    assert [row for row in data.rewrites if row.operator != "bc"] == list(plain.rewrites)
    assert [(row.posting_id, row.split, row.text) for row in added] == [(posting.id, "train", text)]
    reward = data.make_reward().score([added[0].prompt], [text])[0]
    assert added[0].reward == pytest.approx(reward)
    assert "company_kept" not in added[0].guardrail_failures
    assert added[0].guardrail_failures


def test_a_changed_file_makes_the_data_again(tmp_path):
    plain = prepare_data(make_config(), out_dir=tmp_path / "plain")
    posting, path = plain.select_postings("train")[0], tmp_path / "samples.jsonl"
    config = make_config(rewrites_path=str(path))
    for n in (1, 2):
        save_samples(path, [(posting.id, f"Text {i}.") for i in range(n)], source="bc")
        data = prepare_data(config, out_dir=tmp_path / "more")
        assert sum(row.operator == "bc" for row in data.rewrites) == n


def test_a_missing_file_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        prepare_data(make_config(rewrites_path=str(tmp_path / "none.jsonl")), out_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


# The program.


def run_script(monkeypatch, *options):
    script = Path(__file__).parents[1] / "scripts" / "sample_rewrites.py"
    monkeypatch.setattr("sys.argv", ["sample_rewrites", "--run", "r", *options])
    runpy.run_path(str(script), run_name="__main__")


def test_samples_without_a_policy_named_bear_the_name_of_the_runs_algorithm(tmp_path, monkeypatch):
    def write(observations):
        return [[Generation("A text.", -1.0, 0.0, 0.0, True)] for _ in observations]

    data = SimpleNamespace(prepared=SimpleNamespace(select_postings=lambda split: [Posting("a", "Nurse", "Care.")]))
    run = OpenRun("runs/w", None, None, None, {"bc": "clone", "ilql": "critic"})
    monkeypatch.setattr(OpenRun, "build_section", lambda self, name: data)
    monkeypatch.setattr(evaluate, "open_run", lambda folder, **_: run)
    monkeypatch.setattr(evaluate, "make_policy", lambda *args, **options: SimpleNamespace(generate_batch=write))
    path = tmp_path / "samples.jsonl"
    run_script(monkeypatch, "--out", str(path), "--policy", "")
    assert load_samples(path, train_ids=["a"]) == {"a": [("ilql", "A text.")]}


def test_a_file_that_cannot_be_written_is_refused_before_the_run_is_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "open_run", None)
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "--out", str(tmp_path / "nowhere" / "samples.jsonl"))
    assert "samples.jsonl: cannot be written" in capsys.readouterr().err
