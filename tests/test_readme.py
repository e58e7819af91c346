"""The README's lines of Python run as they stand, and it fits on few screens."""

import re
from pathlib import Path

import pytest
from dialogues import Talk, answer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
def test_its_python_trains_and_acts():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {"dialogues": [answer("a", text, float(i)) for i, text in enumerate("abcabcab")]}
    exec(compile(block.replace("1500", "2"), "README", "exec"), names)
    texts = names["policy"].act_batch([Talk((("a", None),), terminal=False)])
    assert len(texts) == 1 and isinstance(texts[0], str)


def test_every_module_of_the_map_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"[a-z_]+(?:/[a-z0-9_]+)+\.py", text)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).is_file() and not (ROOT / "ilqljax" / name).is_file()]


def test_every_file_that_it_links_to_is_there():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
