"""The documentation names what there is: the public API, every algorithm, every guardrail, and files that exist."""

import importlib
import pydoc
import re
import shlex
from pathlib import Path

import pytest

import ilqljax as il
from ilqljax import cli
from ilqljax.hiring.guardrails import CHECKS
from ilqljax.rl.algorithms import ALGORITHMS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# A hexadecimal word of seven letters with a digit in it; a plain number is none.
COMMIT = re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7}\b")
LAB = {"performance.md", "reproducibility.md", "wordle.md"}


def list_commands():
    """List the calls of `ilqljax` in blocks of code, each once, without what a shell does around them."""
    texts = [page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md")]
    blocks = [block for text in texts for block in re.findall(r"```\n(.*?)```", text, re.S)]
    calls = {}
    text = re.sub(r"\\\n\s*", "", "\n".join(blocks).replace("python -m ilqljax.train", "ilqljax train"))
    for line in text.splitlines():
        if found := re.search(r"(?:^|&& |[A-Z]=\S+ )ilqljax ([a-z].*)", line.strip()):
            calls[shlex.join(shlex.split(found[1].rstrip("&"), comments=True))] = None
    return [call for call in calls if "configs/mine.py" not in call]


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_api_page_has_exactly_the_public_names():
    shown = re.findall(r"^::: (ilqljax\.\S+)$", read("api.md"), re.M)
    homes = {f"{each.__module__}.{each.__qualname__}" for each in (getattr(il, name) for name in il.__all__)}
    found = {f"{each.__module__}.{each.__qualname__}" for each in map(pydoc.locate, shown)}
    assert found == homes and len(shown) == len(homes)


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


COMMANDS = list_commands()
TRAININGS = [text for text in COMMANDS if text.startswith("train ")]


def test_there_are_commands_of_every_kind():
    names = {text.split()[0] for text in COMMANDS}
    assert names >= {"audit", "data", "evaluate", "export", "inspect", "play", "report", "rewrite", "train"}


@pytest.mark.parametrize("text", [text for text in COMMANDS if text not in TRAININGS])
def test_a_command_has_the_options_that_it_is_given(text):
    words, commands = shlex.split(text), cli.list_commands()
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in commands)
    cli.make_parser(name, importlib.import_module(commands[name])).parse_args(words[len(name.split()) :])


@pytest.mark.parametrize("text", TRAININGS)
def test_a_training_has_the_options_that_it_is_given(text):
    words = shlex.split(text)
    name = words[words.index("--config") + 1]
    config = il.load_run_config(str(ROOT / name) if ".py" in name else name)
    for word in words:
        if word.startswith("--config."):
            section, (*path, name) = config, word.removeprefix("--config.").partition("=")[0].split(".")
            for key in path:
                section = section[key]
            assert name in section, word
