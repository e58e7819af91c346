"""The train program from end to end, on a market small enough for seconds."""

import contextlib
import json
import math
import os
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from dialogues import answer
from ml_collections import ConfigDict
from raw_checkpoints import restore_raw

from ilqljax.cli import run_command
from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.transforms import AllRows
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import load_evaluations
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import Learner, make_learner, read_options
from ilqljax.train import open_writers, train
from ilqljax.training import evaluation as evaluate
from ilqljax.training import loop as stage
from ilqljax.training import runs
from ilqljax.training.evaluation import OpenRun, Trained, evaluate_run, make_policy
from ilqljax.training.loop import make_stage
from ilqljax.training.plan import check_trunks, plan_run
from ilqljax.training.run_config import TrainConfig, load_run_config, read_run_config

STEPS = 6


def make_config(tmp_path, name: str, arg: str = "") -> ConfigDict:
    config = load_run_config(f"configs/workable.py:{arg}")
    config.run_dir = str(tmp_path / name)
    config.data.update(
        {
            "folder": str(tmp_path / "data"),
            "n_postings": 40,
            "n_candidates": 200,
            "n_practice": 4,
            "fractions": (0.5, 0.2, 0.3),
        }
    )
    config.tokenizer.vocab_size = 600
    config.model.update({"n_embd": 16, "n_head": 2, "n_layer": 1, "unroll": 1, "n_positions": 384})
    for section in (config.pretrain, config.train):
        section.update({"eval_every": 3, "save_every": 2, "log_every": 1, "n_rollouts": 2, "warmup_steps": 2})
        section.update({"length_buckets": (320,), "action_buckets": (128,), "select": "last"})
        section.total_steps = STEPS if section.total_steps else 0
    config.decode.max_new_tokens = 24
    config.acting.length_buckets = (224,)
    config.evaluator.update({"best_of": 2, "max_postings": 4})
    config.mesh.data = 1
    return config


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("train")
    return tmp_path, train(make_config(tmp_path, "unbroken"))


def test_run_folder_holds_what_the_readme_promises(unbroken):
    _, run_dir = unbroken
    names = ("config.json", "results.json", "results.txt", "evaluation.jsonl", "impact_ratios.csv", "report.html")
    for name in names:
        assert (run_dir / name).stat().st_size > 0, name
    for name in ("tokenizer/ilqljax_tokenizer.json", "export/policy/model.safetensors", "export/policy/config.json"):
        assert (run_dir / name).is_file(), name
    assert "fluency: under the clone" in (run_dir / "results.txt").read_text()
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


@pytest.mark.slow
def test_a_clone_by_muon_on_all_axes_of_a_mesh_is_that_of_one_device_and_is_resumed(tmp_path):
    def run(name, mesh, resume=""):
        config = make_config(tmp_path, name, "bc")
        config.train.optimizer = "muon"
        config.train.n_rollouts = 0
        config.mesh.update(mesh)
        config.resume = resume
        return restore_raw(train(config) / "checkpoints" / "bc", step="last")

    one = run("one", {"data": 1})
    eight = run("eight", {"data": 2, "fsdp": 2, "tensor": 2})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), eight["params"], one["params"])
    last = sorted((tmp_path / "eight" / "checkpoints" / "bc").glob("[0-9]*"), key=lambda folder: int(folder.name))[-1]
    shutil.rmtree(last)
    again = run("unused", {"data": 2, "fsdp": 2, "tensor": 2}, resume=str(tmp_path / "eight"))
    jax.tree.map(np.testing.assert_array_equal, again, eight)
    with pytest.raises(UserError, match="of another model, optimizer or algorithm"):
        config = make_config(tmp_path, "unused", "bc")
        config.resume = str(tmp_path / "eight")
        train(config)


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


def test_joint_training_is_the_main_stage_with_the_steps_of_both():
    config = load_run_config("configs/workable.py")
    config.train.loss.awac_weight = 1.0
    config.train.lr = 1e-5
    pretrain, main = read_run_config(config).settle_stages()
    assert (pretrain.total_steps, main.total_steps, main.lr) == (0, 2000, 1e-5)
    config.train.total_steps = 0
    pretrain, main = read_run_config(config).settle_stages()
    assert (pretrain.total_steps, main.total_steps) == (1500, 0)


@pytest.mark.slow
def test_joint_training_skips_the_cloning_stage(tmp_path):
    config = make_config(tmp_path, "joint")
    config.train.loss.awac_weight = 1.0
    run_dir = train(config)
    assert not (run_dir / "checkpoints" / "bc").exists()
    lines = (run_dir / "metrics/ilql/metrics.jsonl").read_text().splitlines()
    assert "train/token_loss" in json.loads(lines[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chai", "decision_transformer", "dpo"])
def test_a_run_of_another_kind_of_algorithm_is_judged_again_alike(tmp_path, name):
    config = make_config(tmp_path, name, name)
    if name == "chai":
        config.decode.n_generations = 2
    run_dir = train(config)
    assert list(load_evaluations(run_dir / "evaluation.jsonl")) == ["echo", "bc", "bc best of 2", name]
    evaluate_run(run_dir, out_dir=tmp_path / "again")
    assert (tmp_path / "again" / "evaluation.jsonl").read_text() == (run_dir / "evaluation.jsonl").read_text()


def test_microbatches_that_tear_pairs_apart_are_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "pairs", "dpo")
    config.train.accumulate_steps = config.train.batch_size
    with pytest.raises(UserError, match="groups of 2"):
        plan_run(config)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_sorting_a_stream_is_refused_before_any_work(tmp_path):
    config = load_run_config("configs/wordle.py")
    config.run_dir = str(tmp_path / "sorted")
    config.train.sort_window = 2
    with pytest.raises(UserError, match=r"sort_window=2.*stream"):
        plan_run(config)
    assert not (tmp_path / "sorted").exists()


@pytest.mark.slow
def test_losses_of_sorted_batches_average_to_the_mean_over_all_tokens(tmp_path):
    def train_clone(window):
        config = make_config(tmp_path, f"window{window}", "bc")
        config.train.update({"total_steps": 12, "batch_size": 12, "lr": 0.0, "n_rollouts": 0, "eval_every": 12})
        config.train.sort_window = window
        lines = (train(config) / "metrics/bc/metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train/loss"] for line in lines if "train/loss" in line]

    whole, threes = train_clone(12), train_clone(3)  # an epoch of 144 rows each, nothing learned
    assert len(whole) == 12
    assert sorted(whole) != pytest.approx(sorted(threes), rel=1e-2)
    assert sum(whole) == pytest.approx(sum(threes), rel=1e-4)


def test_cloning_twice_under_one_name_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "twice", "bc")
    config.pretrain.total_steps = STEPS
    with pytest.raises(UserError, match="both clone"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


def test_validation_row_too_long_is_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "short")
    config.pretrain.length_buckets = config.train.length_buckets = (64,)
    with pytest.raises(UserError, match="length_buckets"):
        plan_run(config)
    assert not (tmp_path / "short").exists()


def test_a_row_that_fits_no_bucket_of_a_later_stage_is_refused_when_it_is_planned():
    tokenizer = CharacterTokenizer("ab")
    short, long = (ObservationDataset([answer("a", "b" * n, 0.0)], tokenizer) for n in (1, 9))
    model = ValueLM(GPT2(GPT2Config(vocab_size=tokenizer.vocab_size)), ValueLMConfig())
    learner, settings = make_learner("ilql", model, {}), TrainConfig(batch_size=1, length_buckets=(8,))
    make_stage("ilql", learner, settings, short, short)
    for rows, validation in ((long, short), (short, long)):
        with pytest.raises(UserError, match=r"row 0 has 14 tokens and the largest of length_buckets=\(8,\)"):
            make_stage("ilql", learner, settings, rows, validation)


def test_rows_longer_than_the_model_are_refused_before_any_step(tmp_path):
    config = make_config(tmp_path, "small")
    config.model.n_positions = 64
    with pytest.raises(UserError, match="n_positions=64"):
        plan_run(config)
    assert not (tmp_path / "small").exists()


def test_unknown_option_of_the_loss_is_refused_with_the_known_ones(tmp_path):
    config = make_config(tmp_path, "typo")
    with config.train.loss.unlocked():
        config.train.loss.expectil = 0.7
    with pytest.raises(UserError, match="expectile"):
        plan_run(config)
    assert not (tmp_path / "typo").exists()


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


@pytest.mark.parametrize("algorithm", ["ilql", "chai"])
def test_a_critic_that_would_train_the_clones_only_trunk_is_refused(algorithm):
    def check(*, separate_policy=False, **loss):
        model = ValueLM(GPT2(GPT2Config(vocab_size=8)), ValueLMConfig(separate_policy=separate_policy))
        check_trunks(make_learner(algorithm, model, loss))

    for loss in ({}, {"detach_v": True}, {"detach_q": True}):
        with pytest.raises(UserError, match=r"separate_policy=False with awac_weight=0"):
            check(**loss)
    check(separate_policy=True)
    check(detach_v=True, detach_q=True)
    if algorithm == "ilql":
        check(awac_weight=1.0)


def test_a_critic_of_utterances_without_a_choice_of_them_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "utterance", "ilql_utterance")
    config.decode.n_generations = 1
    with pytest.raises(UserError, match=r"decode\.n_generations"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"n_generations": 1}, "n_generations=1"), ({"temperature": 0.0}, "samples equal")]
)
def test_a_critic_of_utterances_that_cannot_choose_is_not_judged_again(tmp_path, monkeypatch, options, message):
    config = make_config(tmp_path, "utterance", "chai")
    learner = Learner(*read_options("chai", config.train.loss), None, None)
    run = OpenRun(tmp_path, read_run_config(config), None, None, {"chai": Trained(learner, None, {}, {})})
    monkeypatch.setattr(evaluate, "open_run", lambda folder, imports: run)
    with pytest.raises(UserError, match=message):
        evaluate_run(tmp_path, overrides=options)


@pytest.mark.parametrize(("name", "expected"), [("ilql", (-30.0, 0.0)), ("bc", (-math.inf, math.inf))])
def test_a_policy_clips_its_target_q_as_training_did(tmp_path, monkeypatch, name, expected):
    config = make_config(tmp_path, "clipped")
    config.train.loss.update({"value_min": -30.0, "value_max": 0.0})
    monkeypatch.setattr(evaluate, "TextPolicy", lambda *args, **options: options["value_range"])
    learner = Learner(*read_options(name, config.train.loss if name == "ilql" else config.pretrain.loss), None, None)
    trained = Trained(learner, AllRows(), {}, {})
    assert make_policy(read_run_config(config), SimpleNamespace(tokenizer=None), trained) == expected


def test_acting_without_rows_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "rowless")
    config.acting.batch_size = 0
    with pytest.raises(UserError, match=r"acting\.batch_size=0 is not positive"):
        plan_run(config)
    assert not (tmp_path / "data").exists()


def test_choosing_by_a_critic_that_never_runs_is_refused_before_any_work(tmp_path):
    config = make_config(tmp_path, "chooses")
    config.decode.update({"n_generations": 4, "rank_by": "advantage", "beta": 0.0})
    with pytest.raises(UserError, match="rank_by='advantage' with beta=0"):
        plan_run(config)
    assert not (tmp_path / "data").exists()
