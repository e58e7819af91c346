"""Both experiments' scripts, at the size of a smoke test."""

import json
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from benchmarks.wordle import play
from benchmarks.wordle.multistep import MultistepConfig, report_multistep, run_multistep
from benchmarks.wordle.play import PlayConfig
from benchmarks.wordle.results import Results
from ilqljax.data.files import save_arrays
from ilqljax.errors import UserError
from ilqljax.wordle.environment import WordleObservation
from ilqljax.wordle.evaluation import summarize_games
from ilqljax.wordle.game import load_words

PROGRAMS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(monkeypatch, script, out, *arguments, quick=True):
    monkeypatch.setattr(sys, "argv", [script, *(["--quick"] if quick else []), "--out", str(out), *arguments])
    runpy.run_path(str(PROGRAMS / script), run_name="__main__")


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


def test_multistep_refuses_a_model_that_cannot_be_before_it_solves_a_table(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "wordle_multistep.py", tmp_path / "out", "--width", "30", quick=False)
    assert "n_embd=30 is not divisible by n_head=4" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


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


def test_games_are_summed_up_as_by_hand():
    solved = WordleObservation(("kebab", "abbey"), ("BYGYY", "GGGGG"))  # -1
    lost = WordleObservation(("kebab", *["x"] * 5), ("BYGYY", *[""] * 5))  # -6
    found = summarize_games([solved, lost, lost])
    assert found["return"] == pytest.approx(-13 / 3) and found["n_games"] == 3
    # Deviations 10/3, -5/3, -5/3: variance (100 + 25 + 25) / 9 / 2 = 25/3, over 3 games.
    assert found["standard_error"] == pytest.approx(5 / 3)
    assert found["solved"] == pytest.approx(1 / 3) and found["no_word"] == pytest.approx(10 / 14)


# Play.


@pytest.mark.slow
def test_play_goes_on_after_a_kill_with_the_networks_that_it_saved(monkeypatch, tmp_path):
    run(monkeypatch, "wordle_play.py", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    networks = ["fitting guesses", "bc", "filtered bc", "mc", "ilql"]
    assert [name for name in results["cells"] if name.startswith("train")] == [f"train {name} 0" for name in networks]
    table = (tmp_path / "table.md").read_text()
    rows = ["ilql beta=16", "ilql best of 2"]
    assert [line.split(" | ")[0] for line in table.splitlines()[-4:-2]] == [f"| {name}" for name in rows]
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert {path.stem for path in saved} == {f"{name.replace(' ', '_')}_0" for name in networks}
    killed = {name: cell for name, cell in results["cells"].items() if name != "ilql best of 2 0"}
    other = {"train ilql 7": {"sha256": "", "seconds": 7.0}}  # of a seed that is not asked for
    (tmp_path / "results.json").write_text(json.dumps(results | {"cells": killed | other}))
    run(monkeypatch, "wordle_play.py", tmp_path)
    assert "ilql 7" not in (tmp_path / "table.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == saved
    again = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert set(again) == set(results["cells"]) | set(other)
    assert again["ilql best of 2 0"]["return"] == results["cells"]["ilql best of 2 0"]["return"]


SMALL = PlayConfig(p=0.9, games=2, data_games=64, clone_steps=1, bc_steps=1, filtered_steps=1, steps=2, batch=2)
SMALL = replace(SMALL, lr=1e-3, critic_lr=1e-3, keep=0.5, td_lambda=0.9, turn_lambda=0.3, layers=1, width=8, heads=1)


def make_experiment(folder, *, seed=0, **options):
    results = Results(folder / "results.json", {})
    return play.Experiment(SMALL, load_words(), results, seed=seed, **options)


@pytest.mark.slow
def test_critics_read_the_fitting_guesses_trunk_and_steer_the_named_policies(monkeypatch, tmp_path):
    experiment = make_experiment(tmp_path, betas=[1.0, 4.0], best_of=3)
    trunks = {name: experiment.model.init_trunk(jax.random.key(i)) for i, name in enumerate(play.CLONES)}
    seen, steered = [], []

    def fit(rows, name, *, model, settings, seed, networks):
        seen.append((settings.loss, networks[0]["trunk"]))
        return SimpleNamespace(networks=dict(zip(("params", "target"), networks, strict=True)))

    def make_policy(networks, **how):
        steered.append((networks["params"]["policy"], how))

    monkeypatch.setattr(play, "fit", fit)
    monkeypatch.setattr(experiment, "clone", trunks.__getitem__)
    monkeypatch.setattr(experiment, "make_policy", make_policy)
    monkeypatch.setattr(experiment, "score", lambda name, make: make())
    rows = experiment.score_all(["mc", "ilql"], ["bc", "fitting guesses"])
    (loss, trunk), (ilql_loss, _) = seen
    assert loss["mc_returns"] and (loss["td_lambda"], loss["turn_lambda"]) == (1.0, 1.0)
    assert not ilql_loss.get("mc_returns") and (ilql_loss["td_lambda"], ilql_loss["turn_lambda"]) == (0.9, 0.3)
    jax.tree.map(np.testing.assert_array_equal, trunk, trunks["fitting guesses"])
    best = {"beta": 16.0, "top_p": 0.7, "beam_width": 0, "n_generations": 3, "rank_by": "policy+value"}
    decodings = [{"beta": 1.0, "top_p": 0.7}, {"beta": 4.0, "top_p": 0.7}, best]
    assert [how for _, how in steered[9:]] == decodings * 4
    acting = [*np.repeat(play.CLONES, 3), *(["bc"] * 3 + [play.FITTING] * 3) * 2]
    for (policy, _), name in zip(steered, acting, strict=True):
        jax.tree.map(np.testing.assert_array_equal, policy, trunks[name])
    clone_rows = [f"{name} {how}" for name in play.CLONES for how in ("greedy", "sampled", "nucleus")]
    steered_rows = [
        f"{critic}{over} {how}"
        for critic in ("mc", "ilql")
        for over in ("", " over fitting guesses")
        for how in ("beta=1", "beta=4", "best of 3")
    ]
    assert list(rows) == ["data", "information gain", *clone_rows, *steered_rows]


@pytest.mark.slow
def test_clones_start_from_each_other_and_no_two_share_a_seed(monkeypatch, tmp_path):
    seen = []

    def fit(rows, name, *, model, settings, seed, trunk):
        seen.append((seed, rows, trunk))
        return SimpleNamespace(networks={"params": {"policy": model.init_trunk(jax.random.key(seed))}})

    monkeypatch.setattr(play, "fit", fit)
    experiments = [make_experiment(tmp_path, seed=seed) for seed in (0, 1)]
    for experiment in experiments:
        experiment.clone("filtered bc")
    seeds = [seed for seed, _, _ in seen]
    assert len(set(seeds)) == len(seeds) == 6
    (_, fitting, trunk), (_, games, after_fitting), (_, best, after_bc) = seen[:3]
    assert trunk is None
    assert fitting.size() == games.size() == 64 and set(fitting.row_sizes[:, 1]) == {6}
    assert best.size() == 32 and games.returns[best.rows].min() >= np.median(games.returns)
    for start, seed in ((after_fitting, seeds[0]), (after_bc, seeds[1])):
        jax.tree.map(np.testing.assert_array_equal, start, experiments[0].model.init_trunk(jax.random.key(seed)))


def test_networks_are_trained_once_and_those_of_another_run_are_refused(tmp_path):
    calls = []

    def train():
        calls.append(1)
        return {"w": np.full(2, len(calls), np.float32)}

    for _ in range(2):
        assert make_experiment(tmp_path).train_once("bc", train)["w"].tolist() == [1.0, 1.0]
    save_arrays(tmp_path / "bc_0.safetensors", {"w": np.zeros(2, np.float32)})
    with pytest.raises(UserError, match=r"bc_0.safetensors is not the file that .*results.json was made with. Delete"):
        make_experiment(tmp_path).train_once("bc", train)
    (tmp_path / "bc_0.safetensors").unlink()
    assert make_experiment(tmp_path).train_once("bc", train)["w"].tolist() == [2.0, 2.0]
    assert make_experiment(tmp_path).train_once("bc", train)["w"].tolist() == [2.0, 2.0]
    # A file that the results do not know of is that of a run that was killed, or of other settings.
    (tmp_path / "results.json").unlink()
    assert make_experiment(tmp_path).train_once("bc", train)["w"].tolist() == [3.0, 3.0]


def test_many_samples_are_decoded_for_fewer_games_at_once(tmp_path):
    experiment = play.Experiment(replace(SMALL, games=4096), load_words(), Results(tmp_path / "r.json", {}), seed=0)
    networks = {"params": {"policy": experiment.model.init_trunk(jax.random.key(0))}, "target": {}}
    sizes = [experiment.make_policy(networks, n_generations=n).batch_size for n in (1, 64, 10_000)]
    assert sizes == [512, 128, 1]


def score(value, error=0.5, solved=1.0):
    return {"return": value, "standard_error": error, "solved": solved, "no_word": 0.0, "seconds": 1.0}


def test_the_table_of_one_seed_has_errors_over_games():
    text = play.format_play({0: {"data": score(-4.0), "information gain": score(-2.0), "bc": score(-2.5, 0.25, 0.5)}})
    assert text.splitlines() == [
        "| policy | mean return | standard error over games | gap closed | solved | no word |",
        "|---|---|---|---|---|---|",
        "| data | -4.000 | 0.500 | 0 % | 100.0 % | 0.00 % |",
        "| information gain | -2.000 | 0.500 | 100 % | 100.0 % | 0.00 % |",
        "| bc | -2.500 | 0.250 | 75 % | 50.0 % | 0.00 % |",
    ]


def test_the_table_of_two_seeds_has_errors_between_them_and_each():
    ends = {"data": score(-4.0), "information gain": score(-2.0)}
    rows = {3: ends | {"bc": score(-2.0)}, 5: ends | {"bc": score(-3.0)}}
    last = play.format_play(rows).splitlines()[-1]
    # The returns' sample standard deviation is 0.707; divided by the root of 2.
    assert last == "| bc | -2.500 | 0.500 | -2.000, -3.000 | 75 % | 100.0 % | 0.00 % |"
    assert play.average(rows, "bc") == pytest.approx((-2.5, 0.5))


def test_the_plot_has_every_way_to_steer_and_lines_from_half_to_half():
    level = {name: score(value) for name, value in (("data", -4.1), ("information gain", -2.0))}
    level |= {"bc sampled": score(-4.8), "fitting guesses greedy": score(-2.4)}
    rows = {0: level | {"ilql beta=16": score(-3.0, 0.0), "ilql best of 4": score(-2.5, 0.0)}}
    root = ElementTree.fromstring(play.draw_play(rows, steered=["ilql"], steering=["beta=16", "best of 4"]))
    ticks = ["-5", "-4.5", "-4", "-3.5", "-3", "-2.5", "-2", "beta=16", "best of 4"]
    assert [e.text for e in root.iter() if e.text in ticks] == ticks
    curve = next(e for e in root.iter() if e.tag.endswith("polyline")).get("points")
    assert curve == "52.0,124.0 420.0,88.0"  # two thirds and five sixths of the way up from 268 to 52


def test_a_plot_of_equal_returns_has_an_axis_too():
    rows = {0: dict.fromkeys(["information gain", "fitting guesses greedy", "data", "bc sampled", "mc a"], score(-2.0))}
    assert "-1.5</text>" in play.draw_play(rows, steered=["mc"], steering=["a"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--games", "-1"], "--games -1"),
        (["--betas", "0", "1"], "--betas"),
        (["--top_p", "0"], "--top_p 0"),
        (["--keep", "1.5"], "--keep 1.5"),
        (["--critic_lr", "-1"], "--critic_lr -1"),
        (["--best_of", "0"], "--best_of 0"),
        (["--best_of_beta", "0"], "--best_of_beta 0"),
        (["--turn_lambda", "1.5"], "turn_lambda=1.5"),
        (["--polyak", "3"], "polyak=3.0"),
        (["--clone_steps", "0"], "--clone_steps 0"),
        (["--seeds", "0", "0"], "--seeds [0, 0]"),
    ],
)
def test_play_refuses_what_would_fail_after_hours(monkeypatch, tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit):
        run(monkeypatch, "wordle_play.py", tmp_path / "out", *arguments, quick=False)
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_play_refuses_a_list_of_one_word(tmp_path):
    (tmp_path / "words.txt").write_text("abbey\n")
    options = {"seeds": [0], "critics": ["ilql"], "over": ["bc"], "betas": [1.0], "best_of": 1}
    with pytest.raises(UserError, match=r"words\.txt has one word"):
        play.run_play(replace(SMALL, words=str(tmp_path / "words.txt")), **options, out=tmp_path)
