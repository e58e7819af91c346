"""The notebooks of the documentation run from top to bottom; each asserts what its text claims."""

import json
import os
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_two_of_them():
    assert [path.stem for path in NOTEBOOKS] == ["audit_a_table", "train_look_act"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_short_printed_text_only(path):
    assert path.stat().st_size < 30_000
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert all(output["output_type"] == "stream" for output in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install -e '.[test]')")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (pip install -e '.[test]')")
    import nbformat

    root = str(path.parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's own, of sockets and event loops
        nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    printed = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") == "stdout"
    ]
    assert len(printed) >= 4
