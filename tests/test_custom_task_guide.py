"""The guide's snippets are the example's text, and the example runs and does what the guide says."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "maze.py"
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "custom-task.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def maze():
    spec = importlib.util.spec_from_file_location("maze_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_short_and_the_guide_shows_all_of_its_classes():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    shown = "".join(SNIPPETS)
    assert all(name in shown for name in re.findall(r"^(?:class|def) \w+", text, re.M))


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_stands_in_the_example(number):
    assert SNIPPETS[number].strip() in EXAMPLE.read_text(encoding="utf-8")


def test_the_snippets_run_in_order():
    names: dict = {"__name__": "guide"}
    for snippet in SNIPPETS:
        exec(compile(snippet, "guide", "exec"), names)
    walks = names["play"](names["Wanderer"](0), 20, seed=0)
    assert all(walked.is_over() for walked in walks)


def test_walls_and_nonsense_lead_nowhere_and_distances_are_those_of_a_hand_count(maze):
    assert maze.walk("A", ">") == "B"
    assert maze.walk("A", "<") == maze.walk("A", "nonsense") == "A"
    assert maze.walk("B", "_") == "B"
    distances = maze.find_distances()
    assert (distances["*"], distances["N"], distances["L"], distances["H"], distances["A"]) == (0, 1, 2, 6, 8)
    assert all(abs(distances[p] - distances[maze.walk(p, m)]) <= 1 for p in maze.PLACES for m in maze.MOVES)


def test_a_walk_is_a_dialogue_that_ends_at_the_way_out(maze):
    walked = maze.MazeObservation(("L", "N", "*"), ("_", "_"))
    sequence = [("L", None), ("_", -1.0), ("N", None), ("_", -1.0), ("*", None)]
    assert walked.to_sequence() == (sequence, True)
    assert not maze.MazeObservation(("L",)).to_sequence()[1]


@pytest.mark.slow
def test_the_example_trains_and_plays(maze):
    scores = maze.run(n_walks=64, steps=2, n_games=16)
    assert list(scores) == ["data", "bc", "filtered bc", "ilql", "optimum"]
    assert all(-maze.MAX_MOVES <= score <= 0.0 for score in scores.values())
    assert scores["optimum"] > scores["data"]


def load_guess():
    spec = importlib.util.spec_from_file_location("guess_example", EXAMPLE.with_name("guess.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_game_of_guesses_is_opened_by_the_agent_and_ends_when_found_or_spent():
    guess = load_guess()
    env = guess.GuessEnvironment(0)
    assert env.reset().to_sequence() == ([], False)
    env.hidden = 7
    env.step("03")
    obs, reward, over = env.step("nonsense")
    assert (obs.to_sequence(), reward, over) == (
        ([("03", -1.0), (">", None), ("nonsense", -1.0), ("", None)], False),
        -1.0,
        False,
    )
    assert (obs.find_range(), env.step("09")[0].find_range()) == ((4, 31), (4, 8))
    assert env.step("07")[2] and env.is_terminal()
    env.reset()
    assert [env.step("?")[2] for _ in range(guess.MAX_GUESSES)] == [False] * 9 + [True]
    assert max(len(game.guesses) for game in guess.play(guess.Halver(), 64, seed=0)) <= 6


@pytest.mark.slow
def test_what_fit_chooses_for_the_game_of_guesses_beats_its_data():
    code = "import guess, json; print(json.dumps(guess.run(steps=800, n_played=128)))"
    # As at a terminal: on one device, and compiled as it should be.
    environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "PYTHONPATH": str(ROOT)}
    options = {"cwd": EXAMPLE.parent, "env": environment, "check": True, "text": True, "stdout": subprocess.PIPE}
    scores = json.loads(subprocess.run([sys.executable, "-c", code], **options).stdout)
    assert list(scores) == ["data", "bc", "ilql", "halving"]
    assert all(-10.0 <= score <= -1.0 for score in scores.values()) and scores["halving"] > scores["data"]
    assert scores["ilql"] > scores["data"] + 0.5  # by 1.2, 1.5 and 1.5 with seeds 0, 1 and 2
