"""The README's lines of Python run as they stand, and it fits on few screens."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
def test_its_python_prints_what_it_says(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "README", "exec"), names)
    assert capsys.readouterr().out == "take a rest\n{'sex': 0.5}\n"
    for mood, text in names["fitting"].items():
        assert names["il"].load_fitted("moods").act(f"I am {mood}") == text


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_module_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"[a-z_]+(?:/[a-z0-9_]+)+\.py", text)
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).is_file() and not (ROOT / "ilqljax" / name).is_file()]


def test_every_file_that_it_links_to_is_there():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
