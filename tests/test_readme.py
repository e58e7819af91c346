"""The README's lines of Python run as they stand, and it fits on few screens."""

import re
from pathlib import Path

import pytest
from dialogues import Talk, answer

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.slow
def test_its_python_trains_and_acts():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {"dialogues": [answer("a", text, float(i)) for i, text in enumerate("abcabcab")]}
    exec(compile(block.replace("1500", "2"), "README", "exec"), names)
    texts = names["policy"].act_batch([Talk((("a", None),), terminal=False)])
    assert len(texts) == 1 and isinstance(texts[0], str)


def test_every_file_that_it_links_to_is_there():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (Path(__file__).resolve().parents[1] / link).exists(), link
