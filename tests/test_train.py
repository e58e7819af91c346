"""The train program from end to end, on a market small enough for seconds."""

import contextlib
import json
import logging
import math
import os
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from raw_checkpoints import restore_raw
from small_runs import STEPS, make_config

from ilqljax.cli import run_command
from ilqljax.data.transforms import AllRows
from ilqljax.decoding.policy import TextPolicy
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import load_evaluations
from ilqljax.rl.algorithms import Learner, read_options
from ilqljax.train import open_writers, train
from ilqljax.training import evaluation as evaluate
from ilqljax.training import loop as stage
from ilqljax.training import runs
from ilqljax.training.evaluation import Trained, evaluate_run, make_policy
from ilqljax.training.plan import plan_run
from ilqljax.training.run_config import read_run_config


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("train")
    return tmp_path, train(make_config(tmp_path, "unbroken"))


def test_run_folder_holds_what_the_readme_promises(unbroken):
    _, run_dir = unbroken
    names = ("config.json", "results.json", "results.txt", "evaluation.jsonl", "impact_ratios.csv", "report.html")
    for name in names:
        assert (run_dir / name).stat().st_size > 0, name
    for name in (
        "tokenizer/ilqljax_tokenizer.json",
        "export/policy/model.safetensors",
        "export/policy/config.json",
        "export/policy/README.md",
    ):
        assert (run_dir / name).is_file(), name
    assert "fluency: under the clone" in (run_dir / "results.txt").read_text()
    judgement = json.loads((run_dir / "judgement.json").read_text())
    assert judgement["run"] == str(run_dir) and judgement["policies"] == ["bc", "ilql"]
    assert judgement["decode"]["beta"] == json.loads((run_dir / "config.json").read_text())["decode"]["beta"]
    assert judgement["sections"]["evaluator"]["name"] == "hiring"
    assert list((run_dir / "metrics" / "bc").glob("events*"))
    page = (run_dir / "report.html").read_text()
    assert all(text in page for text in ("ilql: return; rollout/return", "Gains over echo; bc, gain", "Largest gain"))


def test_metrics_hold_every_logged_step_and_every_loss_term(unbroken):
    _, run_dir = unbroken
    lines = [json.loads(line) for line in (run_dir / "metrics/ilql/metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    assert {"train/v_loss", "train/q_loss", "train/cql_loss", "train/grad_norm"} <= set(logged[0])
    paces = ("tokens_per_second", "step_seconds", "data_wait_seconds", "flops_per_second")
    assert any({f"train/{name}" for name in paces} <= set(r) for r in logged)
    assert sum(r.get("train/compilations", 0) for r in logged) >= 1
    assert any("rollout/return" in line for line in lines)


def test_final_table_compares_the_four_policies_on_the_same_postings(unbroken):
    _, run_dir = unbroken
    policies = load_evaluations(run_dir / "evaluation.jsonl")
    assert list(policies) == ["echo", "bc", "bc best of 2", "ilql"]
    assert len({tuple(e.posting_id for e in evaluations) for evaluations in policies.values()}) == 1
    rows = {row["policy"]: row for row in json.loads((run_dir / "results.json").read_text())}
    assert rows["echo"]["difference"] == 0.0
    assert rows["echo"]["copy_rate"] == 1.0


def read_steps(run_dir, name):
    lines = (run_dir / "metrics" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [STEPS - 1, 2 * STEPS - 1])
def test_resumed_run_equals_the_unbroken_one(unbroken, monkeypatch, capsys, stop_after):
    tmp_path, run_dir = unbroken
    calls = []

    def shard_or_die(batch, mesh, shard=stage.shard_batch):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return shard(batch, mesh)

    config = make_config(tmp_path, f"killed-{stop_after}")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "shard_batch", shard_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert f"--config.resume={config.run_dir} continues" in capsys.readouterr().err
    resumed = make_config(tmp_path, "unused")
    resumed.resume = config.run_dir
    resumed.wandb.project = "another"  # changes no number
    again = train(resumed)
    assert runs.open_run_config(again)[1].wandb.project == "another"
    assert json.loads((again / "config-1.json").read_text())["wandb"]["project"] == config.wandb.project
    for name in ("bc", "ilql"):
        assert read_steps(again, name) == read_steps(run_dir, name)
    for name in ("bc", "ilql"):
        expected, found = (restore_raw(d / "checkpoints" / name, step="last") for d in (run_dir, again))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (again / "evaluation.jsonl").read_text() == (run_dir / "evaluation.jsonl").read_text()


def test_a_run_killed_before_its_first_checkpoint_records_no_step_twice(tmp_path):
    config = make_config(tmp_path, "run")
    for loss in (2.0, 3.0):
        for writer in open_writers(read_run_config(config), config, tmp_path, "bc", resume_step=0):
            with contextlib.closing(writer):
                writer.write(1, {"train/loss": loss})
    assert (tmp_path / "metrics/bc/metrics.jsonl").read_text() == '{"step": 1, "train/loss": 3.0}\n'


@pytest.mark.slow
def test_the_critic_of_a_run_is_shown_on_its_own_rows_and_on_the_users(unbroken, tmp_path, monkeypatch):
    _, run_dir = unbroken
    script = Path(__file__).parents[1] / "scripts" / "inspect_critic.py"
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"prompt": "a job", "text": "<b>apply</b>"}) + "\n")
    for options in (["--split", "test"], ["--texts", str(mine), "--min_count", "1"]):
        out = tmp_path / options[0].strip("-")
        monkeypatch.setattr("sys.argv", [str(script), "--run", str(run_dir), "--out", str(out), "--n", "8", *options])
        runpy.run_path(str(script), run_name="__main__")
        assert "most liked" in (out / "ngrams.txt").read_text()
        assert "target Q" in (out / "values.txt").read_text()
    assert "<b>apply" not in (tmp_path / "texts" / "heatmap.html").read_text()


@pytest.mark.slow
def test_the_rewriting_program_answers_for_any_posting_of_a_run(unbroken, tmp_path, capsys):
    _, run_dir = unbroken
    job = tmp_path / "job.txt"
    job.write_text("Blue Oak needs a strong nurse in Basel. You plan care.")
    command = ["rewrite", "--run", str(run_dir), "--job", str(job)]
    run_command([*command, "--n", "4"])
    assert "the original scores" in capsys.readouterr().out
    for options, message in ((["--policy", "dpo"], "no checkpoint of 'dpo'"), (["--n", "0"], "n=0")):
        with pytest.raises(UserError, match=message):
            run_command([*command, *options])
    job.write_text("word " * 2000)
    with pytest.raises(UserError, match="Shorten it"):
        run_command(command)


@pytest.mark.slow
def test_a_judgement_killed_at_the_second_policy_gives_the_same_rewrites_when_it_goes_on(
    unbroken, tmp_path, monkeypatch, caplog
):
    _, run_dir = unbroken
    killed = tmp_path / "killed"
    shutil.copytree(run_dir, killed)
    (killed / "results.json").unlink()
    (killed / "evaluation.jsonl").unlink()
    choose = TextPolicy.choose_batch

    def die_at_the_critic(policy, observations):
        if policy.target:
            raise KeyboardInterrupt
        return choose(policy, observations)

    config = make_config(tmp_path, "unused")
    config.data.folder = str(run_dir.parent / "data")
    config.run_dir, config.resume = "", str(killed)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TextPolicy, "choose_batch", die_at_the_critic)
        train(config)
    assert {file.name for file in (killed / "unfinished").glob("*.json")} == {
        "judgement.json", "bc.json", "bc best of 2.json"
    }  # fmt: skip
    caplog.set_level(logging.INFO, logger="ilqljax")
    assert evaluate_run(killed) == killed  # what training began, by what it saved
    assert "what bc, bc best of 2 wrote is kept" in caplog.text
    for name in ("evaluation.jsonl", "results.json"):
        assert (killed / name).read_text() == (run_dir / name).read_text()


@pytest.mark.slow
def test_evaluating_again_gives_the_same_rewrites(unbroken, tmp_path):
    _, run_dir = unbroken
    evaluate_run(run_dir, out_dir=tmp_path / "again")
    assert (tmp_path / "again" / "evaluation.jsonl").read_text() == (run_dir / "evaluation.jsonl").read_text()
    assert f"ilqljax evaluate --run {run_dir} --out {tmp_path}/again<" in (tmp_path / "again/report.html").read_text()


def test_resuming_with_another_model_is_refused(unbroken, tmp_path):
    _, run_dir = unbroken
    config = make_config(run_dir.parent, "unused")
    config.resume = str(run_dir)
    config.model.n_embd = 32
    with pytest.raises(UserError, match=r"model\.n_embd"):
        plan_run(config)


def test_a_run_whose_tokenizer_differs_is_not_resumed_and_keeps_it(unbroken, tmp_path):
    _, run_dir = unbroken
    folder = tmp_path / "run"
    shutil.copytree(run_dir, folder)
    file = folder / "tokenizer" / "ilqljax_tokenizer.json"
    content = json.loads(file.read_text())
    content["vocab"][-1], content["vocab"][-2] = content["vocab"][-2], content["vocab"][-1]
    file.write_text(json.dumps(content))
    config = make_config(run_dir.parent, "unused")
    config.resume = str(folder)
    with pytest.raises(UserError, match="is damaged or was changed since it was written"):
        plan_run(config)
    file.with_name(f"{file.name}.sha256").unlink()
    with pytest.raises(UserError, match="another tokenizer than today's data gives"):
        plan_run(config)
    assert json.loads(file.read_text()) == content


def test_a_damaged_older_checkpoint_stops_a_resumed_run_before_its_first_step(unbroken, tmp_path, monkeypatch):
    _, run_dir = unbroken
    folder = tmp_path / "run"
    shutil.copytree(run_dir, folder)
    steps = folder / "checkpoints" / "bc"
    shutil.copytree(steps / str(STEPS), steps / "1")
    (steps / "1" / "extra" / "metadata").write_text("{")
    config = make_config(run_dir.parent, "unused")
    config.resume = str(folder)
    config.pretrain.total_steps += 1
    monkeypatch.setattr(stage, "shard_batch", None)  # would fail if it were called
    with pytest.raises(UserError, match=r"bc/1 is damaged"):
        train(config)
    assert not (folder / "config-1.json").exists()


def test_latest_is_the_run_that_was_started_last_whatever_its_name(unbroken, tmp_path, monkeypatch):
    _, run_dir = unbroken
    for age, name in enumerate(["workable-20260101-000000", "workable-mine", "workable-20250101-000000"]):
        shutil.copytree(run_dir, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "config.json", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(runs, "resolve_path", lambda path: tmp_path / path)
    config = make_config(run_dir.parent, "unused")
    config.resume = "latest"
    assert runs.choose_run_dir(config).name == "workable-20260101-000000"
    os.utime(tmp_path / "runs" / "workable-mine" / "config.json", (1e9 + 1, 1e9 + 1))
    assert runs.choose_run_dir(config).name == "workable-mine"


def test_a_taken_run_folder_is_refused(unbroken):
    tmp_path, _ = unbroken
    with pytest.raises(UserError, match="already holds a run"):
        plan_run(make_config(tmp_path, "unbroken"))


@pytest.mark.slow
def test_converted_clone_is_the_policy_that_ilql_starts_from(unbroken, tmp_path, monkeypatch):
    data_dir, run_dir = unbroken
    converted = tmp_path / "clone"
    script = Path(__file__).parents[1] / "scripts" / "convert_bc.py"
    monkeypatch.setattr("sys.argv", [str(script), "--load", str(run_dir), "--save", str(converted)])
    runpy.run_path(str(script), run_name="__main__")
    config = make_config(data_dir, "unused")
    config.pretrain.total_steps = 0
    config.run_dir = str(tmp_path / "from_clone")
    config.model.path = str(converted)
    started = train(config)
    clone = restore_raw(run_dir / "checkpoints" / "bc", step="last")["params"]["policy"]
    policy = restore_raw(started / "checkpoints" / "ilql", step="last")["frozen"]["policy"]
    jax.tree.map(np.testing.assert_array_equal, policy, clone)


@pytest.mark.slow
def test_an_exported_critic_goes_on_with_its_heads_and_targets(unbroken, tmp_path, monkeypatch):
    data_dir, run_dir = unbroken
    exported = tmp_path / "exported"
    script = Path(__file__).parents[1] / "scripts" / "export_hf.py"
    monkeypatch.setattr("sys.argv", [str(script), "--run", str(run_dir), "--save", str(exported)])
    runpy.run_path(str(script), run_name="__main__")
    config = make_config(data_dir, "unused")
    config.pretrain.total_steps = 0
    config.train.update({"lr": 0.0, "weight_decay": 0.0, "total_steps": 1, "warmup_steps": 0})
    config.train.target.polyak = 0.0
    config.run_dir = str(tmp_path / "goes_on")
    config.model.path = str(exported)
    again = train(config)
    before, after = (restore_raw(d / "checkpoints" / "ilql", step="last") for d in (run_dir, again))
    for part in ("params", "frozen", "target"):
        jax.tree.map(np.testing.assert_array_equal, after[part], before[part])


def test_a_clone_of_another_vocabulary_is_refused(unbroken, tmp_path):
    data_dir, run_dir = unbroken
    config = make_config(data_dir, "unused")
    config.pretrain.total_steps = 0
    config.run_dir = str(tmp_path / "other")
    config.tokenizer.vocab_size = 500
    config.model.path = str(run_dir / "export" / "policy")
    with pytest.raises(UserError, match="another tokenizer"):
        plan_run(config)


@pytest.mark.parametrize(("name", "expected"), [("ilql", (-30.0, 0.0)), ("bc", (-math.inf, math.inf))])
def test_a_policy_clips_its_target_q_as_training_did(tmp_path, monkeypatch, name, expected):
    config = make_config(tmp_path, "clipped")
    config.train.loss.update({"value_min": -30.0, "value_max": 0.0})
    monkeypatch.setattr(evaluate, "TextPolicy", lambda *args, **options: options["value_range"])
    learner = Learner(*read_options(name, config.train.loss if name == "ilql" else config.pretrain.loss), None, None)
    trained = Trained(learner, AllRows(), {}, {})
    assert make_policy(read_run_config(config), SimpleNamespace(tokenizer=None), trained) == expected
