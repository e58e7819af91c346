"""What counts as equal, and what the program says and returns."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parity import load_cases, rebuild_case
from benchmarks.parity.comparison import Comparison, compare_trees, relative_error

GOLDEN = Path(__file__).parent / "golden"
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "check_parity.py"


def test_errors_are_relative_to_the_largest_expected_value():
    assert relative_error([1.0, 9.9], [0.0, 10.0]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([np.nan], [1.0]),
        ([1.0], [np.nan]),
        ([-np.inf], [1.0]),
        ([1.0, 2.0], [1.0, -np.inf]),
        ([1.0], [1.0, 1.0]),
        ([np.inf], [-np.inf]),
    ],
)
def test_what_is_not_a_number_or_of_another_shape_is_infinitely_wrong(ours, theirs):
    assert relative_error(ours, theirs) == np.inf


def test_equal_infinities_are_equal_and_do_not_hide_the_rest():
    assert relative_error([-np.inf, 1.0], [-np.inf, 2.0]) == 0.5


def test_masked_entries_do_not_count():
    assert relative_error([1.0, 7.0], [1.0, np.nan], mask=np.array([True, False])) == 0.0


def test_a_row_without_an_error_was_not_compared_and_says_why():
    row = Comparison("case", "score/adv", None, note="no such array")
    assert row.ok and not row.compared


def test_key_biases_are_left_out_of_trees_and_the_row_says_so():
    ours = {"trunk": {"c_attn": {"bias": jnp.array([1.0, 5.0, 3.0])}}}
    theirs = {"trunk": {"c_attn": {"bias": np.array([1.0, 2.0, 3.0])}}}
    (row,) = compare_trees("case", "grad", ours, theirs, tolerance=1e-4)
    assert row.error == 0.0 and "key biases left out" in row.note


def run_script(*args: str, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["check_parity.py", *args])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture
def folder(tmp_path) -> Path:
    """Copy one case, to be spoiled."""
    cases = json.loads((GOLDEN / "cases.json").read_text())
    cases["cases"] = {"bc_single": cases["cases"]["bc_single"]}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    shutil.copy(GOLDEN / "bc_single.npz", tmp_path)
    (tmp_path / "bc_single.npz").chmod(0o644)
    return tmp_path


def change_arrays(folder: Path, **changes) -> None:
    with np.load(folder / "bc_single.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays.update({key.replace("__", "/"): value for key, value in changes.items()})
    np.savez(folder / "bc_single.npz", **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.slow
def test_one_wrong_number_makes_the_exit_status_1(folder, monkeypatch, capsys):
    change_arrays(folder, loss__total=np.float64(1.0), extra__thing=np.zeros(2))
    assert run_script(str(folder), monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("DIFFERENT: 1 beyond tolerance: bc_single loss/total;")
    assert any("extra/thing" in line and "not compared" in line for line in lines)


def test_a_folder_without_cases_is_one_line_and_exit_status_2(tmp_path, monkeypatch, capsys):
    assert run_script(str(tmp_path), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cases.json is missing" in error


def test_a_missing_array_is_one_line_and_exit_status_2(folder, monkeypatch, capsys):
    change_arrays(folder, out__logits=None)
    assert run_script(str(folder), monkeypatch=monkeypatch) == 2
    assert "bc_single.npz lacks out/logits" in capsys.readouterr().err


def test_a_missing_parameter_is_named(folder, monkeypatch, capsys):
    change_arrays(folder, **{"init__model.transformer.ln_f.bias": None})
    assert run_script(str(folder), monkeypatch=monkeypatch) == 2
    assert "Missing: ln_f.bias." in capsys.readouterr().err


def test_an_unknown_case_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"case 'x' is unknown.*bc_single"):
        rebuild_case(folder, "x", cases=load_cases(folder))
