"""Both experiments' scripts, at the size of a smoke test."""

import argparse
import importlib.util
import json
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ilqljax.errors import UserError
from ilqljax.experiments.multistep import MultistepConfig, report_multistep, run_multistep
from ilqljax.experiments.results import Results
from ilqljax.models.networks_folder import flatten
from ilqljax.tasks.wordle.game import load_words

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run(monkeypatch, script, out, *arguments, quick=True):
    monkeypatch.setattr(sys, "argv", [script, *(["--quick"] if quick else []), "--out", str(out), *arguments])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


@pytest.mark.slow
def test_multistep_writes_table_plot_and_curves_and_runs_nothing_twice(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "wordle_multistep.py", tmp_path)
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert list(cells) == ["table 0.5 0", "train 0.5 0", "table 0.9 0", "train 0.9 0"]
    curve = cells["train 0.5 0"]
    assert curve["steps"][0] == 0
    assert curve["steps"][-1] == 10
    assert len(curve["shares"]) == len(curve["steps"])
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[2].startswith("| 0.5 |")
    assert "expectile 0.9" in (tmp_path / "plot.svg").read_text()
    run(monkeypatch, "wordle_multistep.py", tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["cells"] == cells  # with the same seconds
    assert table in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--expectiles", "0.5", "1"], "expectiles [0.5, 1.0]"),
        (["--expectiles", "0.5", "0.5"], "expectiles [0.5, 0.5]"),
        (["--seeds", "0", "0"], "--seeds [0, 0]"),
        (["--seeds", "-1"], "--seeds [-1]"),
        (["--steps", "0"], "--steps 0"),
        (["--polyak", "3"], "polyak=3.0"),
    ],
)
def test_multistep_refuses_what_would_fail_after_an_hour(monkeypatch, tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit):
        run(monkeypatch, "wordle_multistep.py", tmp_path / "out", *arguments, quick=False)
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_that_leave_nothing_to_compare_are_refused(monkeypatch, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("abbey\n")
    arguments = ("--words", str(tmp_path / "words.txt"))
    with pytest.raises(SystemExit):
        run(monkeypatch, "wordle_multistep.py", tmp_path / "out", *arguments)
    assert "20 expert games with 1 words (seed 0) have no sub-optimal first guess" in capsys.readouterr().err


def test_multistep_refuses_to_mix_two_word_lists_of_one_name(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("abbey\n")
    config = MultistepConfig(words=str(path))
    Results(tmp_path / "results.json", asdict(config) | {"words": load_words(path).fingerprint}).save()
    path.write_text("abbot\n")
    with pytest.raises(UserError, match=r"words '\w+' there"):
        run_multistep(config, seeds=[0], expectiles=[0.5], out=tmp_path)


def test_the_report_of_multistep_is_the_mean_over_seeds():
    cells = {"table 0.5 0": [0.0, 0.25], "table 0.5 1": [0.0, 0.75]}
    for seed, last in ((0, 0.1), (1, 0.3)):
        cells[f"train 0.5 {seed}"] = {"steps": [0, 10], "shares": [[0.0, 0.0], [0.9, last]], "seconds": 30.4}
    cells["train 0.7 0"] = {"steps": [0], "shares": [[1.0]], "seconds": 1e6}  # of another call
    text, plot = report_multistep(cells, MultistepConfig(steps=10, batch=8), seeds=[0, 1], expectiles=[0.5])
    assert text.splitlines()[2:] == [
        "| 0.5 | 0.200 | 0.100, 0.300 | 0.500 |",
        "",
        "Seeds [0, 1], 10 steps of 8 games, 61 s of training.",
    ]
    assert "expectile 0.5" in plot


@pytest.mark.slow
def test_play_goes_on_after_a_kill_with_the_networks_that_it_saved(monkeypatch, tmp_path):
    run(monkeypatch, "wordle_play.py", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    cells = ["reference 0", "solving guesses 0", "bc 0", "filtered bc 0", "mc 0", "ilql 0"]
    assert list(results["cells"]) == cells
    table = (tmp_path / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[-4:-2]] == ["| ilql beta=16", "| ilql best of 2"]
    saved = {"solving_guesses_0", "bc_0", "filtered_bc_0", "mc_0", "ilql_0"}
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == saved
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    killed = {name: cell for name, cell in results["cells"].items() if name != "ilql 0"}
    (tmp_path / "results.json").write_text(json.dumps(results | {"cells": killed}))
    run(monkeypatch, "wordle_play.py", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == written
    again = json.loads((tmp_path / "results.json").read_text())["cells"]["ilql 0"]
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in results["cells"]["ilql 0"].items() if k != "seconds"
    }


def load_play():
    spec = importlib.util.spec_from_file_location("wordle_play", SCRIPTS / "wordle_play.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_critics_read_the_solving_guesses_trunk_and_steer_the_named_policies(monkeypatch, tmp_path):
    play = load_play()
    settings = {"words": "", "p": 0.5, "games": 2, "data_games": 8, "betas": [1.0, 4.0], "layers": 1, "width": 8}
    settings |= {"heads": 1, "over": ["bc", "solving guesses"], "steps": 2, "critic_lr": 1e-3, "batch": 2}
    settings |= {
        "polyak": 0.01,
        "expectile": 0.8,
        "td_lambda": 0.9,
        "turn_lambda": 0.3,
        "cql": 0.25,
        "top_p": 0.7,
        "best_of": 3,
        "best_of_beta": 16.0,
    }
    experiment = play.Experiment(argparse.Namespace(**settings), 0, tmp_path)
    trunks = {name: experiment.model.init_trunk(jax.random.key(i)) for i, name in enumerate(settings["over"])}
    for name, trunk in trunks.items():
        save_file(flatten(jax.device_get(trunk)), tmp_path / f"{name.replace(' ', '_')}_0.safetensors")
    seen, steered = [], []

    def fit(name, model, rows, config, *, seed, networks):
        seen.append((config.loss, networks[0]["trunk"]))
        return {"params": networks[0], "target": networks[1]}

    monkeypatch.setattr(play, "fit", fit)
    monkeypatch.setattr(experiment, "play", lambda nets, **how: steered.append((nets["params"]["policy"], how)) or {})
    rows = experiment.judge_critic("mc")
    experiment.judge_critic("ilql")
    (loss, trunk), (ilql_loss, _) = seen
    assert loss["mc_returns"] and (loss["td_lambda"], loss["turn_lambda"]) == (1.0, 1.0)
    assert not ilql_loss.get("mc_returns") and (ilql_loss["td_lambda"], ilql_loss["turn_lambda"]) == (0.9, 0.3)
    jax.tree.map(np.testing.assert_array_equal, trunk, trunks["solving guesses"])
    best = {"beta": 16.0, "top_p": 0.7, "beam_width": 0, "n_generations": 3, "rank_by": "tilted"}
    decodings = [{"beta": 1.0, "top_p": 0.7}, {"beta": 4.0, "top_p": 0.7}, best]
    assert [how for _, how in steered[:6]] == decodings * 2
    for (policy, _), name in zip(steered[:6], ["bc"] * 3 + ["solving guesses"] * 3, strict=True):
        jax.tree.map(np.testing.assert_array_equal, policy, trunks[name])
    steered_rows = [
        f"mc{over} {how}" for over in ("", " over solving guesses") for how in ("beta=1", "beta=4", "best of 3")
    ]
    assert list(rows) == [*steered_rows, "seconds"]


def test_clones_start_from_each_other_and_no_two_share_a_seed(monkeypatch, tmp_path):
    play = load_play()
    settings = {
        "words": "",
        "p": 0.9,
        "games": 2,
        "data_games": 64,
        "betas": [1.0],
        "layers": 1,
        "width": 8,
        "heads": 1,
    }
    settings |= {"clone_steps": 1, "bc_steps": 1, "lr": 1e-3, "batch": 2}
    settings |= {"keep": 0.5, "filtered_steps": 1, "best_of": 1, "best_of_beta": 16.0}
    seen = []

    def fit(name, model, rows, config, *, seed, trunk):
        seen.append((seed, rows, trunk))
        return {"params": {"policy": model.init_trunk(jax.random.key(seed))}}

    monkeypatch.setattr(play, "fit", fit)
    experiments = [play.Experiment(argparse.Namespace(**settings), seed, tmp_path) for seed in (0, 1)]
    for experiment in experiments:
        experiment.clone("filtered bc")
    seeds = [seed for seed, _, _ in seen]
    assert len(set(seeds)) == len(seeds) == 6
    (_, solving, trunk), (_, games, after_solving), (_, best, after_bc) = seen[:3]
    assert trunk is None
    assert solving.size() == games.size() == 64 and set(solving.row_sizes[:, 1]) == {6}
    assert best.size() == 32 and games.returns[best.rows].min() >= np.median(games.returns)
    for start, seed in ((after_solving, seeds[0]), (after_bc, seeds[1])):
        jax.tree.map(np.testing.assert_array_equal, start, experiments[0].model.init_trunk(jax.random.key(seed)))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--games", "-1"], "--games -1"),
        (["--betas", "0", "1"], "--betas"),
        (["--top_p", "0"], "--top_p 0"),
        (["--critic_lr", "-1"], "--critic_lr -1"),
        (["--best_of", "0"], "--best_of 0"),
        (["--best_of_beta", "0"], "--best_of_beta 0"),
        (["--turn_lambda", "1.5"], "turn_lambda=1.5"),
        (["--polyak", "3"], "polyak=3.0"),
        (["--clone_steps", "0"], "--clone_steps 0"),
    ],
)
def test_play_refuses_what_would_fail_after_hours(monkeypatch, tmp_path, arguments, named):
    monkeypatch.setattr(sys, "argv", ["wordle_play.py", "--out", str(tmp_path / "out"), *arguments])
    with pytest.raises(UserError, match=named):
        load_play().main()
    assert not (tmp_path / "out").exists()
