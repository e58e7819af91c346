"""The documentation names what there is: the public API, every algorithm, every guardrail, and files that exist."""

import re
from pathlib import Path

import pytest

import ilqljax as il
from ilqljax.hiring.guardrails import CHECKS
from ilqljax.rl.algorithms import ALGORITHMS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# A hexadecimal word of seven letters with a digit in it; a plain number is none.
COMMIT = re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7}\b")
LAB = {"performance.md", "reproducibility.md", "wordle.md"}


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_api_page_has_exactly_the_public_names():
    shown = re.findall(r"^::: (ilqljax\.\S+)$", read("api.md"), re.M)
    assert sorted(name.rpartition(".")[2] for name in shown) == il.__all__


def test_every_algorithm_is_explained():
    page = read("rl/algorithms.md")
    assert not [name for name in ALGORITHMS if f"`{name}`" not in page]


def test_every_guardrail_is_explained():
    page = read("rewrite/guardrails.md")
    assert not [name for name in CHECKS if f"`{name}`" not in page]


def test_the_guardrails_page_prints_what_it_says():
    page = read("rewrite/guardrails.md")
    printed = []
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(code, "guardrails.md", "exec"), {"print": lambda *words: printed.append(" ".join(words))})
    assert "\n".join(printed) + "\n" in page


def test_commits_are_named_in_the_lab_only():
    pages = [page for page in PAGES if page.parent.name != "lab" and page.name not in LAB]
    pages.append(DOCS / "rl" / "wordle.md")
    assert len(pages) > 15
    assert not [(page.name, found) for page in pages if (found := COMMIT.findall(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_is_in_the_navigation_once(page):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    name = page.relative_to(DOCS).as_posix()
    assert len(re.findall(rf"(?:- |: ){re.escape(name)}$", navigation, re.M)) == 1
