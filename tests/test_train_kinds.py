"""Training runs of other kinds than the README's: joint, on a mesh, sorted, and of other algorithms."""

import json
import shutil

import jax
import numpy as np
import pytest
from raw_checkpoints import restore_raw
from small_runs import make_config

from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import load_evaluations
from ilqljax.train import train
from ilqljax.training.evaluation import evaluate_run
from ilqljax.training.run_config import load_run_config, read_run_config


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
