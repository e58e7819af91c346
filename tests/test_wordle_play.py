"""Wordle in the terminal."""

import io
import os
import subprocess
import sys

import pytest

from ilqljax.wordle.environment import WordleEnvironment
from ilqljax.wordle.game import WordList
from ilqljax.wordle.play import play, show_guess, use_colour


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(text, **options):
    environment, out = WordleEnvironment(WordList(["abbey", "kebab"])), io.StringIO()
    environment.hidden = 0
    total = play(environment, source=io.StringIO(text), out=out, **{"coloured": False, "hints": False} | options)
    return total, out.getvalue()


def test_a_game_shows_colours_and_return():
    total, shown = run("kebab\nabbey\n")
    assert total == -1
    assert "kebab BYGYY" in shown and "Solved. Return: -1." in shown


def test_end_of_input_ends_the_game_and_tells_the_word():
    assert "The word was 'abbey'" in run("kebab\n")[1]


def test_a_text_outside_the_list_may_be_typed_again():
    total, shown = run("hello\nabbey\n")
    assert total == 0 and "'hello' is not a word of the list" in shown


def test_hints_name_a_word_that_may_be_hidden():
    assert "(1 left; try abbey)" in run("kebab\n", hints=True)[1]


@pytest.mark.parametrize("value, coloured", [("", True), ("1", False)])
def test_no_color_is_honoured(value, coloured):
    assert use_colour({"NO_COLOR": value}, Terminal()) is coloured


def test_output_that_is_no_terminal_is_not_coloured():
    assert not use_colour({}, io.StringIO())


def test_a_coloured_guess_has_a_background_a_letter():
    assert show_guess("kebab", "BYGYY", coloured=True).count("\x1b[30;43m") == 3


def test_the_program_ends_politely_without_input():
    done = subprocess.run(
        [sys.executable, "-m", "ilqljax.wordle.play", "--seed", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 0 and "The word was" in done.stdout and not done.stderr
