"""Guess a number: a task in which the agent speaks first, written from docs/custom-task.md alone.

    python docs/examples/guess.py

The agent names a number from 00 to 31, is told whether the hidden one is higher or lower, and has ten guesses; each
costs 1. The data's player heeds what it was told in half of its guesses. A clone plays like it; ILQL learns from the
same games which guesses are worth what.
"""

from dataclasses import dataclass

import numpy as np

import ilqljax as il
from ilqljax import LanguageEnvironment, LanguageObservation, Policy
from ilqljax.training.compilation import enable_compilation_cache

N_NUMBERS, MAX_GUESSES = 32, 10
HIGHER, LOWER, RIGHT = ">", "<", "="


@dataclass(frozen=True)
class GuessObservation(LanguageObservation):
    """Hold guesses and what was said to each; nothing before the first guess."""

    guesses: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return guesses (by the agent, each earning -1) and answers (said by the environment) in turn."""
        said: list[tuple[str, float | None]] = []
        for guess, answer in zip(self.guesses, self.answers, strict=True):
            said += [(guess, -1.0), (answer, None)]
        return said, self.is_over()

    def is_over(self) -> bool:
        """Say whether the number is found, or the guesses are spent."""
        return RIGHT in self.answers or len(self.guesses) == MAX_GUESSES

    def find_range(self) -> tuple[int, int]:
        """Return the least and the greatest number that fit all answers."""
        low, high = 0, N_NUMBERS - 1
        for guess, answer in zip(self.guesses, self.answers, strict=True):
            if answer == HIGHER:
                low = max(low, int(guess) + 1)
            elif answer == LOWER:
                high = min(high, int(guess) - 1)
        return low, high

    def __str__(self) -> str:
        """Return guesses and answers as one line."""
        return " ".join(guess + answer for guess, answer in zip(self.guesses, self.answers, strict=True))


class GuessEnvironment(LanguageEnvironment):
    """Hide a number, and answer guesses."""

    def __init__(self, seed: int):
        """Draw the hidden numbers with a seed."""
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> GuessObservation:
        """Hide another number."""
        self.hidden, self.state = int(self.rng.integers(N_NUMBERS)), GuessObservation()
        return self.state

    def step(self, action: str) -> tuple[GuessObservation, float, bool]:
        """Answer; what is no number is answered with nothing, and costs a guess too."""
        answer = ""
        if len(action) == 2 and action.isdecimal():
            answer = RIGHT if int(action) == self.hidden else HIGHER if int(action) < self.hidden else LOWER
        self.state = GuessObservation((*self.state.guesses, action), (*self.state.answers, answer))
        return self.state, -1.0, self.state.is_over()

    def is_terminal(self) -> bool:
        """Say whether the game is over."""
        return self.state.is_over()


class Guesser(Policy):
    """Name a number that fits the answers in a share of the guesses, and otherwise any."""

    def __init__(self, seed: int, *, share: float = 0.5):
        """Draw with a seed."""
        self.rng, self.share = np.random.default_rng(seed), share

    def act(self, obs: GuessObservation) -> str:
        """Return a guess."""
        low, high = obs.find_range() if self.rng.random() < self.share else (0, N_NUMBERS - 1)
        return f"{self.rng.integers(low, high + 1):02d}"


class Halver(Policy):
    """Name the middle of what fits: no player needs fewer guesses on average."""

    def act(self, obs: GuessObservation) -> str:
        """Return a guess."""
        return f"{sum(obs.find_range()) // 2:02d}"


def play(policy: Policy, n: int, *, seed: int) -> list[GuessObservation]:
    """Let a policy play n games; the hidden numbers depend on the seed alone."""
    return [obs for obs, _ in il.interact_environments([GuessEnvironment(seed + i) for i in range(n)], policy)]


def run(*, n_games: int = 8000, steps: int = 1200, n_played: int = 512, seed: int = 0) -> dict[str, float]:
    """Return the mean return of the data, of a clone, of ILQL, and of halving."""
    games = play(Guesser(seed), n_games, seed=1_000_000)
    # What `fit` chooses for dialogues of many turns: by "adamw" networks of this size heed less of what was said after
    # as many steps, and ILQL stays below its data.
    settings = {"total_steps": steps}
    bc = il.fit(games, "bc", settings=settings, seed=seed)
    ilql = il.fit(games, "ilql", settings=settings, seed=seed, trunk=bc.networks["params"]["policy"])

    def evaluate(fitted: il.Fitted) -> float:
        return fitted.evaluate([GuessEnvironment(i) for i in range(n_played)])["return"]

    return {
        "data": -float(np.mean([len(game.guesses) for game in games])),
        "bc": evaluate(bc),
        "ilql": evaluate(ilql),
        "halving": -float(np.mean([len(game.guesses) for game in play(Halver(), n_played, seed=0)])),
    }


if __name__ == "__main__":
    enable_compilation_cache()
    for name, score in run().items():
        print(f"{name:<12} {score:6.2f}")
