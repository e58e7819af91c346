"""Both experiments' scripts, at the size of a smoke test."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run(monkeypatch, script, out):
    monkeypatch.setattr(sys, "argv", [script, "--quick", "--out", str(out)])
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


@pytest.mark.slow
def test_play_goes_on_after_a_kill_with_the_clone_that_it_saved(monkeypatch, tmp_path):
    run(monkeypatch, "wordle_play.py", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    cells = ["reference 0", "solving guesses 0", "bc 0", "filtered bc 0", "mc 0", "ilql 0"]
    assert list(results["cells"]) == cells
    table = (tmp_path / "table.md").read_text()
    assert sum(line.startswith("| ilql beta=") for line in table.splitlines()) == 2
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"solving_guesses_0", "bc_0", "filtered_bc_0"}
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    killed = {name: cell for name, cell in results["cells"].items() if name != "ilql 0"}
    (tmp_path / "results.json").write_text(json.dumps(results | {"cells": killed}))
    run(monkeypatch, "wordle_play.py", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == written
    again = json.loads((tmp_path / "results.json").read_text())["cells"]["ilql 0"]
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in results["cells"]["ilql 0"].items() if k != "seconds"
    }
