"""Wordle as a dialogue: the agent guesses, the environment colours.

A game is `<a>`, then up to six times five letters `</a>` five colours `</s>`, then `</eod>`: 74 tokens at most. Every
guess earns -1 and the solving one 0, so a game is worth from 0 (solved at once) down to -6 (not solved).

Any five letters can be guessed and are coloured, words of the list or not, as in the original. Any other text is a
wasted guess: it costs -1 like every guess, counts towards the six, and the environment answers nothing at all, which
tells nothing. The game goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ilqljax.envs.base import LanguageEnvironment, LanguageObservation
from ilqljax.errors import UserError
from ilqljax.wordle.game import CODES, COLOURS, N_GUESSES, N_LETTERS, SOLVED, WordList, is_word

MAX_TOKENS = 74


@dataclass(frozen=True)
class WordleObservation(LanguageObservation):
    """Hold the guesses so far, their colours ("" for a guess that is not a word) and a dataset's notes."""

    guesses: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    notes: dict = field(default_factory=dict, compare=False)

    @property
    def solved(self) -> bool:
        """Say whether the hidden word was found."""
        return self.colours[-1:] == (SOLVED,)

    @property
    def terminal(self) -> bool:
        """Say whether the game is over."""
        return self.solved or len(self.guesses) == N_GUESSES

    def rewards(self) -> list[float]:
        """Return what each guess earned."""
        return [0.0 if pattern == SOLVED else -1.0 for pattern in self.colours]

    def extend(self, guess: str, colours: str) -> "WordleObservation":
        """Return the position after one more guess."""
        return WordleObservation((*self.guesses, guess), (*self.colours, colours), self.notes)

    def first(self, n: int) -> "WordleObservation":
        """Return the position after the first n guesses."""
        return WordleObservation(self.guesses[:n], self.colours[:n], self.notes)

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return guesses with their rewards and colours in turn."""
        turns = zip(self.guesses, self.rewards(), self.colours, strict=True)
        sequence = [part for guess, reward, colours in turns for part in ((guess, reward), (colours, None))]
        return sequence, self.terminal

    def metadata(self) -> dict:
        return dict(self.notes)

    def __str__(self) -> str:
        return "\n".join(f"{guess} {colours}" for guess, colours in zip(self.guesses, self.colours, strict=True))


def check_position(observation: WordleObservation) -> None:
    """Raise a `UserError` for what no game can have come to."""
    guesses, colours = observation.guesses, observation.colours
    if len(guesses) != len(colours) or len(guesses) > N_GUESSES:
        raise UserError(
            f"{len(guesses)} guesses with {len(colours)} colours are not a position of a game: give as many "
            f'colours as guesses ("" for a guess that is not a word), {N_GUESSES} at most.'
        )
    for guess, pattern in zip(guesses, colours, strict=True):
        if pattern not in CODES and pattern:
            raise UserError(f'colours {pattern!r} of guess {guess!r}: give {N_LETTERS} of {", ".join(COLOURS)}, or ""')
        if bool(pattern) != is_word(guess):
            raise UserError(f"guess {guess!r} with colours {pattern!r}: five letters a to z have colours, others none")
    if SOLVED in colours[:-1]:
        raise UserError(f"the game {str(observation)!r} goes on after it was solved. Leave out what follows {SOLVED}.")


class WordleEnvironment(LanguageEnvironment):
    """Hide a word of a list and colour guesses at it."""

    def __init__(self, words: WordList, rng: np.random.Generator | int = 0):
        """Hold the list; `rng`, a generator or a seed, draws the hidden words uniformly. A first game is under way."""
        self.words, self.rng = words, np.random.default_rng(rng)
        self.reset()

    def reset(self) -> WordleObservation:
        self.hidden = int(self.rng.integers(len(self.words)))
        self.state = WordleObservation()
        return self.state

    def set_state(self, observation: WordleObservation) -> WordleObservation:
        """Continue from a position: the hidden word is drawn uniformly from those that explain its colours."""
        check_position(observation)
        self.hidden = int(self.rng.choice(self.words.list_consistent(observation.guesses, observation.colours)))
        self.state = observation
        return observation

    def step(self, action: str) -> tuple[WordleObservation, float, bool]:
        """Colour a guess; a `ValueError` if the game is over."""
        if self.state.terminal:
            raise ValueError("the game is over: reset the environment or set a position that is not terminal")
        colours = self.words.colour(action, self.hidden) if is_word(action) else ""
        self.state = self.state.extend(action, colours)
        return self.state, self.state.rewards()[-1], self.state.terminal

    def is_terminal(self) -> bool:
        return self.state.terminal


def make_environment(words: WordList, i: int, *, seed: int) -> WordleEnvironment:
    """Make environment number i; the words that it hides depend on the seed and i alone."""
    return WordleEnvironment(words, np.random.default_rng((seed, i)))


def make_environments(words: WordList, n: int, *, seed: int) -> list[WordleEnvironment]:
    """Make environments 0 to n - 1."""
    return [make_environment(words, i, seed=seed) for i in range(n)]


def compute_returns(observations: Sequence[WordleObservation]) -> np.ndarray:
    """Return the finished games' returns."""
    return np.array([sum(o.rewards()) for o in observations])
