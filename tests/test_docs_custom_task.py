"""The guide to a task of one's own: its snippets are the example, and run."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLE = (DOCS / "examples" / "maze.py").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", (DOCS / "custom-task.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def names():
    """What the snippets define when they run in order."""
    found = {"__name__": "guide"}
    for number, snippet in enumerate(SNIPPETS, 1):
        exec(compile(snippet, f"custom-task.md, snippet {number}", "exec"), found)
    return found


def test_the_snippets_in_order_are_the_example():
    lines = "\n".join(SNIPPETS).split()
    assert lines == EXAMPLE[EXAMPLE.index("# --- imports") :].split()


def test_the_example_is_one_file_of_at_most_150_lines():
    assert len(EXAMPLE.splitlines()) <= 150


def test_the_optimum_is_reached_by_always_going_nearer(names):
    _, returns = names["walk"](names["Walker"](1.0, 0), 3)
    assert returns.tolist() == [1.0 - names["DISTANCES"][names["START"]]] * 3


def test_walls_and_unknown_words_lead_nowhere(names):
    assert names["move"]((0, 1), "r") == (0, 1) == names["move"]((0, 1), "jump")


def test_a_walk_is_a_dialogue_with_a_reward_for_each_move(names):
    environment = names["MazeEnvironment"]()
    environment.reset()
    observation, reward, terminal = environment.step("r")
    assert observation.to_sequence() == ([("A0", None), ("r", -1.0), ("A1", None)], False)
    assert (reward, terminal) == (-1.0, False)


@pytest.mark.slow
def test_the_example_trains_and_judges(names):
    scores = names["learn"](n_walks=60, steps=3, n_judged=8)
    assert list(scores) == ["data", "BC", "filtered BC", "ILQL", "optimum"]
    assert all(-20 <= score <= scores["optimum"] for score in scores.values())
